"""Topologies by their kind."""

from typing import Any

from pydantic import TypeAdapter

from topologies import NODES, NodeSpec, Topology

TOPOLOGY = TypeAdapter(Topology)
FT2, MPFT, MRFT = "two-layer-fat-tree", "multi-plane-fat-tree", "multi-rail-fat-tree"
FT3, SF, DF = "three-layer-fat-tree", "slim-fly", "dragonfly"


def node_with(gpus: int, nic_ports: int = 1) -> NodeSpec:
    return NODES["h800"].model_copy(update={"gpus": gpus, "nic_ports": nic_ports})


def spec_of(kind: str, fields: dict[str, Any]) -> Any:
    return TOPOLOGY.validate_python({"kind": kind, **fields})


def vertices(graph: Any, **wanted: Any) -> list[str]:
    return [
        vertex
        for vertex, data in graph.nodes.items()
        if all(data.get(name) == value for name, value in wanted.items())
    ]
