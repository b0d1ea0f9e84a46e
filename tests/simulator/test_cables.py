"""Which cables share a link: rates with bundles are those without."""

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from simulator.cables import Cables, LinkCosts, bundle_cables
from simulator.fairness import max_min_rates
from simulator.network import Network
from topologies import NODES, Topology, build_cluster
from workloads.tasks import Transfers

COSTS = {profile: LinkCosts(1.0, 0.0, 0.0) for profile in ("nvlink", "pcie", "infiniband", "roce")}

# GPUs of a node, nodes, topology, and links that cables between switches come to, each way: a leaf's cables are one,
# and in three layers so are a pod's.
REGULAR: list[tuple[int, int, dict[str, Any], int]] = [
    (2, 8, {"kind": "two-layer-fat-tree", "switch_ports": 8}, 4),  # 16 NICs, 4 a leaf
    (2, 8, {"kind": "multi-rail-fat-tree", "switch_ports": 8}, 4),
    (2, 8, {"kind": "multi-plane-fat-tree", "switch_ports": 4}, 8),  # 2 planes of 8 NICs, 2 a leaf
    (2, 8, {"kind": "three-layer-fat-tree", "switch_ports": 4}, 12),  # 16 NICs: 8 leaves in 4 pods
    (4, 32, {"kind": "three-layer-fat-tree", "switch_ports": 8}, 40),  # 128 NICs: 32 leaves in 8 pods
]
OTHERS: list[tuple[int, int, dict[str, Any]]] = [
    (2, 9, {"kind": "two-layer-fat-tree", "switch_ports": 8, "spines": 3}),  # 4 uplinks do not divide by 3
    (2, 5, {"kind": "three-layer-fat-tree", "switch_ports": 4}),  # partly filled
    (4, 19, {"kind": "three-layer-fat-tree", "switch_ports": 8}),
    (2, 12, {"kind": "slim-fly", "q": 4}),
    (
        2,
        3,
        {
            "kind": "dragonfly",
            "endpoints_per_router": 1,
            "routers_per_group": 2,
            "global_ports": 1,
            "groups": 3,
        },
    ),
]


def compiled(gpus: int, num_nodes: int, topology: dict[str, Any], *, bundle: bool) -> Network:
    spec = TypeAdapter(Topology).validate_python(topology)
    node = NODES["h800"].model_copy(update={"gpus": gpus})
    return Network(build_cluster(node, num_nodes, spec), COSTS, "adaptive", bundle=bundle)


def rates(network: Network, gpus: int, seed: int) -> Any:
    """Return the rates of 60 random flows between GPUs, two thirds of them to a quarter of these."""
    generator = np.random.default_rng(seed)
    source = generator.integers(0, gpus, 60)
    target = np.where(
        np.arange(60) < 40, generator.integers(0, gpus // 4, 60), generator.integers(0, gpus, 60)
    )
    target = np.where(target == source, (target + 1) % gpus, target)
    transfers = Transfers.point_to_point(source, target, np.ones(60))
    bills, _ = network.bills(transfers, np.arange(gpus), np.arange(60), lambda: np.zeros(0))
    return max_min_rates(
        network.capacity_bytes_per_s, bills.offsets, bills.links, bills.coefficients, np.ones(60)
    )


@pytest.mark.parametrize(("gpus", "num_nodes", "topology"), [case[:3] for case in REGULAR] + OTHERS)
def test_rates_with_bundles_are_those_without(gpus: int, num_nodes: int, topology: dict[str, Any]):
    together = compiled(gpus, num_nodes, topology, bundle=True)
    apart = compiled(gpus, num_nodes, topology, bundle=False)
    assert apart.num_links == len(apart.cables)
    for seed in range(4):
        with_bundles = rates(together, gpus * num_nodes, seed)
        assert with_bundles == pytest.approx(rates(apart, gpus * num_nodes, seed), rel=1e-9)
        assert len(np.unique(with_bundles)) > 1  # else any bundles would do


@pytest.mark.parametrize(("gpus", "num_nodes", "topology", "links"), REGULAR)
def test_regular_trees_have_few_links(gpus: int, num_nodes: int, topology: dict[str, Any], links: int):
    network = compiled(gpus, num_nodes, topology, bundle=True)
    for upward in (True, False):
        between = network.cables.upward > 0 if upward else network.cables.upward < 0
        assert len(np.unique(network.link_of_cable[between])) == links


def test_unlike_cables_are_not_bundled():
    # One cable of a regular tree at half of the others' capacity: it fills first, so that parallel cables alone,
    # of which there are none here, may share a link.
    node = NODES["h800"].model_copy(update={"gpus": 2})
    spec = TypeAdapter(Topology).validate_python({"kind": "three-layer-fat-tree", "switch_ports": 4})
    graph = build_cluster(node, 8, spec)
    switches = [vertex for vertex, data in graph.nodes(data=True) if data["kind"] == "switch"]
    core = next(vertex for vertex in switches if graph.nodes[vertex]["layer"] == "core")
    spine = next(iter(graph[core]))
    for one, other in ((core, spine), (spine, core)):
        graph.edges[one, other, 0]["capacity_bytes_per_s"] *= 0.5
    cables = Cables.of_graph(graph, COSTS)
    assert len(np.unique(bundle_cables(cables))) == len(cables)
