"""What routes must keep on every family of networks, by every policy: links exist, chain, and conserve the flow."""

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from simulator.cables import LinkCosts
from simulator.network import Network
from simulator.routing import POLICIES
from topologies import NODES, Topology, build_cluster
from workloads.tasks import Transfers

COSTS = {profile: LinkCosts(1.0, 0.0, 0.0) for profile in ("nvlink", "pcie", "infiniband", "roce")}
TREES = ("adaptive", "ecmp", "least-loaded", "static")
BY_ROUTERS = tuple(sorted(POLICIES))

# GPUs of a node, ports of a NIC, nodes, topology, policies, and the most cables between switches that a path has
CASES: list[tuple[int, int, int, dict[str, Any], tuple[str, ...], int]] = [
    (4, 1, 8, {"kind": "two-layer-fat-tree", "switch_ports": 8}, TREES, 2),
    (4, 1, 7, {"kind": "two-layer-fat-tree", "switch_ports": 9, "endpoints_per_leaf": 6}, TREES, 2),
    (4, 1, 9, {"kind": "multi-plane-fat-tree", "switch_ports": 6, "planes": 3}, TREES, 2),
    (
        4,
        4,
        6,
        {"kind": "multi-plane-fat-tree", "switch_ports": 8, "planes": 4},
        TREES,
        8,
    ),  # 2 in each of 4 planes
    (4, 1, 8, {"kind": "multi-rail-fat-tree", "switch_ports": 8}, TREES, 2),
    (4, 1, 32, {"kind": "three-layer-fat-tree", "switch_ports": 8}, TREES, 4),
    (4, 1, 11, {"kind": "three-layer-fat-tree", "switch_ports": 8}, TREES, 4),
    (4, 1, 24, {"kind": "slim-fly", "q": 4}, BY_ROUTERS, 4),
    (8, 1, 25, {"kind": "slim-fly", "q": 5}, BY_ROUTERS, 4),
    (
        4,
        1,
        18,
        {"kind": "dragonfly", "endpoints_per_router": 2, "routers_per_group": 4, "global_ports": 2},
        BY_ROUTERS,
        5,
    ),
    (
        4,
        1,
        10,
        {
            "kind": "dragonfly",
            "endpoints_per_router": 2,
            "routers_per_group": 4,
            "global_ports": 2,
            "groups": 6,
        },
        BY_ROUTERS,
        5,
    ),
]


# Nodes, topology, policies and most cables of the sizes of Table 3 (of Slim Fly the nearest below).
LARGE: list[tuple[int, dict[str, Any], tuple[str, ...], int]] = [
    (2048, {"kind": "multi-plane-fat-tree", "planes": 8}, TREES, 2),
    (8192, {"kind": "three-layer-fat-tree"}, TREES, 4),
    (3827, {"kind": "slim-fly", "q": 27, "endpoints_per_router": 21}, BY_ROUTERS, 4),
    (
        32704,
        {
            "kind": "dragonfly",
            "endpoints_per_router": 16,
            "routers_per_group": 32,
            "global_ports": 16,
            "groups": 511,
        },
        BY_ROUTERS,
        5,
    ),
]


@pytest.mark.parametrize(
    ("case", "policy"),
    [(case, policy) for case in CASES for policy in case[4]],
    ids=lambda value: value if isinstance(value, str) else f"{value[3]['kind']}-{value[0]}x{value[2]}",
)
def test_routes_chain_and_conserve_the_flow(case: Any, policy: str):
    gpus, ports, num_nodes, topology, _, most_cables = case
    spec = TypeAdapter(Topology).validate_python(topology)
    node = NODES["h800"].model_copy(update={"gpus": gpus, "nic_ports": ports})
    network = Network(build_cluster(node, num_nodes, spec), COSTS, policy, 3, bundle=False)
    check_routes(network, gpus * num_nodes, gpus, policy, most_cables, single=ports == 1, flows=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_nodes", "topology", "policies", "most_cables"), LARGE, ids=lambda value: str(value)[:40]
)
def test_routes_of_the_largest_networks(
    num_nodes: int, topology: dict[str, Any], policies: Any, most_cables: int
):
    graph = build_cluster(NODES["h800"], num_nodes, TypeAdapter(Topology).validate_python(topology))
    for policy in policies:
        network = Network(graph, COSTS, policy, 3, bundle=False)
        check_routes(network, 8 * num_nodes, 8, policy, most_cables, single=True, flows=12)


def check_routes(
    network: Network, num_gpus: int, gpus: int, policy: str, most_cables: int, *, single: bool, flows: int
) -> None:
    """Route flows between random GPUs. single: whether a flow leaves and arrives by one port."""
    generator = np.random.default_rng(1)
    source = generator.integers(0, num_gpus, flows)
    target = (source + generator.integers(1, num_gpus, flows)) % num_gpus
    transfers = Transfers.point_to_point(source, target, np.ones(flows))
    bills, _ = network.bills(
        transfers, np.arange(num_gpus), np.arange(flows), lambda: np.zeros(network.num_links)
    )
    cables = network.cables
    for flow in range(flows):
        entries = slice(bills.offsets[flow], bills.offsets[flow + 1])
        balance: dict[str, float] = {}
        for cable, share in zip(bills.links[entries], bills.coefficients[entries], strict=True):
            balance[cables.source[cable]] = balance.get(cables.source[cable], 0.0) + share
            balance[cables.target[cable]] = balance.get(cables.target[cable], 0.0) - share
        # What leaves a device comes in, but for the GPU that sends 1 and the one that gets 1.
        first, last = (f"node{gpu // gpus}/gpu{gpu % gpus}" for gpu in (source[flow], target[flow]))
        assert balance.pop(first) == pytest.approx(1.0)
        assert balance.pop(last) == pytest.approx(-1.0)
        assert list(balance.values()) == pytest.approx([0.0] * len(balance), abs=1e-12)
        between = np.isin(
            cables.kind[bills.links[entries]], ("leaf_spine", "spine_core", "router_local", "router_global")
        )
        crossed = bills.coefficients[entries][between].sum()
        assert crossed <= most_cables + 1e-9
        if policy in {"ecmp", "static", "least-loaded", "minimal"} and single:
            assert (bills.coefficients[entries] == 1.0).all()
