"""What flows cross by formula, beside what they charge on the networks themselves."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from simulator.cables import LinkCosts
from simulator.crossings import LINKS_WITHIN_NODE, crossing, num_edges
from simulator.network import Network
from simulator.routing import POLICIES
from topologies import NODES, Topology, build_cluster
from workloads.tasks import Transfers

COSTS = {profile: LinkCosts(1.0, 0.0, 0.0) for profile in ("nvlink", "pcie", "infiniband", "roce")}
TREES = ("adaptive", "ecmp", "static")
GROUPS = {"endpoints_per_router": 4, "routers_per_group": 8, "global_ports": 4}

# GPUs of a node, ports of a NIC, nodes, topology
CASES = [
    (4, 1, 1, {"kind": "none"}, TREES),
    (4, 1, 8, {"kind": "two-layer-fat-tree", "switch_ports": 8}, TREES),
    (4, 1, 7, {"kind": "two-layer-fat-tree", "switch_ports": 9, "endpoints_per_leaf": 6}, TREES),
    (8, 1, 64, {"kind": "multi-plane-fat-tree"}, TREES),
    (4, 1, 9, {"kind": "multi-plane-fat-tree", "switch_ports": 6, "planes": 3}, TREES),
    (4, 4, 6, {"kind": "multi-plane-fat-tree", "switch_ports": 8, "planes": 4}, TREES),
    (8, 2, 16, {"kind": "multi-plane-fat-tree", "planes": 4}, TREES),
    (8, 1, 64, {"kind": "multi-rail-fat-tree"}, TREES),
    (4, 1, 32, {"kind": "three-layer-fat-tree", "switch_ports": 8}, TREES),
    (4, 1, 11, {"kind": "three-layer-fat-tree", "switch_ports": 8}, TREES),
    (8, 1, 32, {"kind": "slim-fly", "q": 7}, sorted(POLICIES)),
    (8, 1, 64, {"kind": "dragonfly"} | GROUPS, sorted(POLICIES)),
]


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("gpus", "ports", "num_nodes", "topology", "policies"), CASES, ids=lambda value: str(value)[:40]
)
def test_links_and_what_flows_charge(gpus, ports, num_nodes, topology, policies):
    spec = TypeAdapter(Topology).validate_python(topology)
    node = NODES["h800"].model_copy(update={"gpus": gpus, "nic_ports": ports})
    graph, counts = build_cluster(node, num_nodes, spec), spec.counts(node, num_nodes)
    assert num_edges(node, num_nodes, counts) == graph.number_of_edges()
    for policy in policies:
        for bundle in (True, False) if policy == "adaptive" else (True,):
            network = Network(graph, COSTS, policy, 3, bundle=bundle)
            found = crossing(spec, node, num_nodes, counts, policy, bundle=bundle)
            assert found.links / 1.5 <= network.num_links <= found.links
            charged = charged_by_flows(network, gpus * num_nodes)
            most = found.charged + LINKS_WITHIN_NODE
            if policy == "adaptive" and topology["kind"] in {"slim-fly", "dragonfly"}:
                assert charged.mean() <= most
            else:
                assert charged.max() <= most
            # no estimate at all would be right too if it were only large
            assert charged.max() >= most / 4 or counts.links == 0


def charged_by_flows(network, num_gpus):
    """[num_flows] the links that flows between random GPUs charge."""
    generator = np.random.default_rng(1)
    source = generator.integers(0, num_gpus, 200)
    target = (source + generator.integers(1, num_gpus, 200)) % num_gpus
    transfers = Transfers.point_to_point(source, target, np.ones(200))
    idle = np.zeros(network.num_links)
    bills, _ = network.bills(transfers, np.arange(num_gpus), np.arange(200), lambda: idle)
    return np.diff(bills.offsets)
