"""Small clusters: nodes of the catalogue and inline, every family of networks, and graph files of them."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from pydantic import TypeAdapter

from fuzz.strategies_text import one_in, quantities, some_of
from simulator.units import FieldError
from topologies import NODES, NodeSpec, Topology, build_cluster
from topologies.graph_file import write_graph
from topologies.schema import ClusterGraph

TREES = ("adaptive", "ecmp", "static", "least-loaded")
BY_ROUTERS = (*TREES, "minimal", "valiant")
_TOPOLOGY: TypeAdapter[Any] = TypeAdapter(Topology)


@dataclass(frozen=True)
class DrawnCluster:
    """A cluster as drawn, and what others need to know of it.

    graph: None where it cannot be built, so that the scenario will be refused; nics_meet: whether every NIC reaches
    every other; knows_sms: whether its GPUs say how many multiprocessors they have
    """

    data: dict[str, Any]
    num_nodes: int
    gpus: int
    graph: "ClusterGraph | None"
    nics_meet: bool
    is_hopper: bool
    knows_sms: bool
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def num_ranks(self) -> int:
        return self.num_nodes * self.gpus


@st.composite
def inline_nodes(draw: st.DrawFn) -> dict[str, Any]:
    """Draw whole nodes of 1 to 8 GPUs, their rates over two orders of magnitude."""
    gpu: dict[str, Any] = {
        "name": draw(st.sampled_from(["H800 SXM5", "a GPU", "Ünïcode 加速器"])),
        "architecture": draw(st.sampled_from(["hopper", "hopper", "blackwell"])),
        "memory": draw(quantities("bytes", 40e9, 200e9)),
        "memory_bandwidth": draw(quantities("bytes per second", 1e12, 8e12)),
        "peak_bf16": draw(quantities("flop per second", 1e14, 2.5e15)),
        "peak_fp8": draw(quantities("flop per second", 2e14, 5e15)),
    }
    gpu |= draw(some_of({"streaming_multiprocessors": st.sampled_from([132, 144, 100, None])}, 1))
    node: dict[str, Any] = {
        "gpu": gpu,
        "gpus": draw(st.sampled_from([4, 2, 4, 1, 8, 3, 6])),
        "nvlink": draw(quantities("bytes per second", 2e10, 9e11)),
        "pcie": draw(quantities("bytes per second", 1e10, 2e11)),
        "nic": draw(quantities("bytes per second", 2e9, 1e11)),
    }
    return node | draw(
        some_of({"nic_ports": st.sampled_from([1, 2, 4]), "assumptions": st.just(["It is drawn."])}, share=5)
    )


@st.composite
def _trees(draw: st.DrawFn, kind: str, num_nics: int) -> dict[str, Any]:
    """Draw the fields that two-layer trees share, for at most so many NICs in one tree."""
    switch_ports = draw(st.sampled_from([64, 16, 32, 24]))
    fields: dict[str, Any] = {"kind": kind, "switch_ports": switch_ports}
    if draw(one_in(2)):
        fields["endpoints_per_leaf"] = draw(st.integers(-(-num_nics // switch_ports), switch_ports // 2))
    if draw(one_in(3)):
        fields["uplinks_per_leaf"] = draw(st.integers(1, switch_ports // 2))
    if draw(one_in(4)):
        fields["spines"] = draw(st.integers(1, fields.get("uplinks_per_leaf", switch_ports // 2)))
    return fields | draw(some_of({"layers": st.just(2)}, share=6))


def _planes_of(gpus: int, ports: int) -> st.SearchStrategy[dict[str, Any]]:
    """Return numbers of planes that nodes of so many NICs with so many ports can join."""
    return st.integers(ports, min(16, gpus * ports)).map(lambda planes: {"planes": planes})


_THREE_LAYERS = st.builds(
    lambda base, more: {"kind": "three-layer-fat-tree", "switch_ports": base} | more,
    st.sampled_from([8, 16, 64]),
    some_of(
        {
            "endpoints_per_leaf": st.integers(2, 4),
            "uplinks_per_leaf": st.integers(1, 4),
            "leaves_per_pod": st.integers(2, 4),
            "uplinks_per_spine": st.integers(1, 4),
        }
    ),
)
_SLIM_FLIES = some_of(
    {
        "q": st.sampled_from([3, 4, 5]),
        "endpoints_per_router": st.integers(1, 4),
        "switch_ports": st.just(24),
    },
    2,
).map(lambda more: {"kind": "slim-fly", **more})
_DRAGONFLIES = st.builds(
    lambda wide, more: {"kind": "dragonfly"} | (more or wide),
    some_of({"switch_ports": st.sampled_from([11, 15, 23])}, 2),
    some_of(
        {
            "endpoints_per_router": st.integers(2, 4),
            "routers_per_group": st.integers(2, 4),
            "global_ports": st.integers(2, 3),
            "groups": st.integers(2, 5),
        },
        2,
    ),
)


@st.composite
def networks(draw: st.DrawFn, node: NodeSpec, num_nodes: int) -> dict[str, Any]:
    """Draw a network of one of the families for so many nodes."""
    num_nics = node.gpus * num_nodes
    kinds = ["multi-plane-fat-tree", *(["none"] if num_nodes == 1 else [])]
    if node.nic_ports == 1:
        kinds += [
            "multi-rail-fat-tree",
            "two-layer-fat-tree",
            "three-layer-fat-tree",
            "slim-fly",
            "dragonfly",
        ]
    kind = draw(st.sampled_from(kinds))
    if kind == "none":
        return {"kind": "none"}
    if kind == "three-layer-fat-tree":
        fields = draw(_THREE_LAYERS)
    elif kind == "slim-fly":
        fields = draw(_SLIM_FLIES)
    elif kind == "dragonfly":
        fields = draw(_DRAGONFLIES)
    else:
        fields = draw(_trees(kind, num_nics))
        if kind == "multi-plane-fat-tree" and (draw(one_in(2)) or node.gpus > 16):
            fields |= draw(_planes_of(node.gpus, node.nic_ports))
    return fields | draw(some_of({"link_profile": st.sampled_from(["infiniband", "roce"])}, 2))


@st.composite
def clusters(draw: st.DrawFn, max_ranks: int = 24, multi_node: bool = False) -> DrawnCluster:
    """Draw a cluster of at most so many GPUs, of several nodes if asked for."""
    named = draw(st.sampled_from([None, None, None, None, "h800", "h100", "h200"]))
    if not multi_node and draw(one_in(20)):
        named = "gb200-nvl72"
    data = named or draw(inline_nodes())
    node = NODES[data] if isinstance(data, str) else NodeSpec.model_validate(data)
    most = max(1, max_ranks // node.gpus)
    least = 2 if multi_node and most > 1 else 1
    num_nodes = draw(st.integers(least, max(least, min(6, most))))
    topology = draw(networks(node, num_nodes))
    spec = _TOPOLOGY.validate_python(topology)
    try:
        graph = build_cluster(node, num_nodes, spec)
    except FieldError:
        graph = None
    routers = topology["kind"] in {"slim-fly", "dragonfly"}
    routing = draw(st.sampled_from(BY_ROUTERS if routers or draw(one_in(60)) else TREES))
    fields: dict[str, Any] = {"node": data, "nodes": num_nodes, "topology": topology}
    if routing != "adaptive" or draw(one_in(3)):
        fields["routing"] = routing
    fields |= draw(some_of({"prices": _PRICES}, 8))
    files = {}
    if graph is not None and topology["kind"] != "none" and draw(one_in(6)):
        name, content = draw(_graph_files(graph))
        fields["topology"], files[name] = {"kind": "custom", "path": name}, content
        if draw(one_in(2)):
            fields["nodes"] = "auto"
    meet = getattr(spec, "nics_meet", lambda _: topology["kind"] != "none")(node)
    return DrawnCluster(
        data=fields,
        num_nodes=num_nodes,
        gpus=node.gpus,
        graph=graph,
        nics_meet=bool(meet),
        is_hopper=node.gpu.architecture == "hopper",
        knows_sms=node.gpu.streaming_multiprocessors is not None,
        files=files,
    )


_PRICES = some_of(
    {
        "switch": quantities("dollars", 1.0, 1e5),
        "link": quantities("dollars", 1.0, 1e5),
        "endpoint_link": quantities("dollars", 1.0, 1e5),
    },
    2,
)


@st.composite
def _graph_files(draw: st.DrawFn, graph: ClusterGraph) -> tuple[str, bytes]:
    """Draw a file of the graph of a cluster; return its path and content."""
    name = draw(st.sampled_from(["cluster.graphml", "cluster.json"]))
    with tempfile.TemporaryDirectory() as folder:
        write_graph(graph, Path(folder) / name)
        return name, (Path(folder) / name).read_bytes()
