"""Small clusters, and runs on them without a scenario file."""

from typing import Any

import numpy as np
from pydantic import TypeAdapter

from simulator.engine import Recording, execute
from simulator.layout import RankLayout
from simulator.network import LinkCosts, Network
from topologies import NODES, NodeSpec, Topology, build_cluster
from workloads.tasks import Collective, Transfers, run_in_turn

IDEAL = {name: LinkCosts(1.0, 0.0, 0.0) for name in ("nvlink", "pcie", "infiniband")}
_TOPOLOGY: TypeAdapter[Any] = TypeAdapter(Topology)


def node(gpus: int = 8, **fields: Any) -> NodeSpec:
    """Return an H800 node with another number of GPUs or other rates."""
    data = NODES["h800"].model_dump() | {"gpus": gpus} | fields
    return NodeSpec.model_validate(data)


def network(
    num_nodes: int,
    *,
    kind: str = "multi-plane-fat-tree",
    gpus: int = 8,
    costs: dict[str, LinkCosts] | None = None,
    policy: str = "adaptive",
    seed: int = 0,
    bundle: bool = True,
    rates: dict[str, str] | None = None,
    nic_ports: int = 1,
    **topology: Any,
) -> tuple[Network, RankLayout]:
    """Return a compiled cluster with a rank on every GPU."""
    spec = _TOPOLOGY.validate_python({"kind": kind, **topology})
    graph = build_cluster(node(gpus, nic_ports=nic_ports, **(rates or {})), num_nodes, spec)
    compiled = Network(graph, costs or IDEAL, policy, seed, bundle=bundle)
    return compiled, RankLayout.in_order(num_nodes, gpus)


def run(compiled: Network, layout: RankLayout, *transfers: Transfers) -> Recording:
    """Run transfers as collectives, one after the other, all ranks taking part."""
    collectives = tuple(Collective(f"collective {index}", each) for index, each in enumerate(transfers))
    graph = run_in_turn(collectives, range(layout.num_ranks), layout.num_ranks)
    return execute(graph, compiled, layout.endpoint_of_rank)


def all_pairs(num_ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sources and destinations of an all-to-all."""
    source, destination = np.divmod(np.arange(num_ranks**2), num_ranks)
    return source[source != destination], destination[source != destination]
