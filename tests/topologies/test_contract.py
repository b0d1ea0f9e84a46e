"""What every topology must keep, whatever its family and size; a new family only adds its cases."""

import gc
import math
import os
import subprocess
import sys
from collections import Counter
from typing import Any, get_args

import networkx as nx
import pytest

from simulator.units import FieldError
from support.topology_kinds import DF, FT2, FT3, MPFT, MRFT, SF, node_with, spec_of, vertices
from topologies import NetworkCounts, Topology, build_cluster

TWO_LAYERS = {FT2, MPFT, MRFT}
# Cables between the switches of the two farthest NICs, at most: up and down again in a tree, two in a Slim Fly;
# local, global, local in a Dragonfly.
DIAMETER = {"none": 0, FT2: 2, MPFT: 2, MRFT: 2, FT3: 4, SF: 2, DF: 3}
# kind, its fields, GPUs of a node, nodes; `nic_ports` is the node's
CASES: list[tuple[str, dict[str, Any], int, int]] = [
    ("none", {}, 1, 1),
    ("none", {}, 8, 1),
    ("none", {}, 72, 1),
    (MPFT, {}, 8, 1),
    (MPFT, {}, 8, 5),
    (MPFT, {"switch_ports": 2}, 2, 2),
    (MPFT, {"switch_ports": 4, "planes": 1}, 4, 2),  # full: 2 x 4 endpoints
    (MPFT, {"switch_ports": 5, "planes": 2}, 2, 10),  # full, odd: 2 x 5 endpoints
    (MPFT, {"switch_ports": 7, "planes": 3}, 8, 6),  # 3, 3 and 2 NICs of a node on the planes
    (MPFT, {"switch_ports": 8, "planes": 4}, 8, 7),  # partly filled, last leaf too
    (MPFT, {"switch_ports": 9, "planes": 5, "link_profile": "roce"}, 6, 9),
    (MPFT, {"switch_ports": 12, "planes": 6, "endpoints_per_leaf": 4}, 8, 11),
    (MPFT, {"switch_ports": 16, "planes": 7, "spines": 5}, 7, 18),
    (MPFT, {"switch_ports": 8, "planes": 8, "endpoints_per_leaf": 1, "spines": 4}, 8, 8),
    (MPFT, {"switch_ports": 8, "planes": 2, "endpoints_per_leaf": 6}, 4, 9),  # three times over-subscribed
    (MPFT, {"switch_ports": 8, "planes": 2, "uplinks_per_leaf": 2}, 4, 9),
    (MPFT, {"planes": 8}, 72, 9),
    (MPFT, {"nic_ports": 4}, 8, 5),  # every NIC joins all four planes
    (MPFT, {"nic_ports": 2, "planes": 3, "switch_ports": 8}, 2, 7),  # NICs join 0 and 1, 2 and 0
    (MPFT, {"nic_ports": 2, "planes": 16}, 8, 3),
    (MPFT, {"nic_ports": 2, "planes": 2, "switch_ports": 6}, 3, 6),  # full: 3 x 6 endpoints
    (FT2, {}, 8, 1),
    (FT2, {}, 8, 21),
    (FT2, {"switch_ports": 4}, 4, 2),  # full
    (FT2, {"switch_ports": 6, "endpoints_per_leaf": 4}, 8, 3),  # full: 4 x 6 endpoints on two uplinks
    (FT2, {"switch_ports": 9, "uplinks_per_leaf": 3, "spines": 3, "link_profile": "roce"}, 3, 11),
    (MRFT, {}, 8, 1),
    (MRFT, {}, 8, 40),
    (MRFT, {"switch_ports": 2}, 1, 2),
    (MRFT, {"switch_ports": 5}, 2, 4),  # full, odd: 2 groups of 2 nodes on 4 of 5 leaves
    (MRFT, {"switch_ports": 8}, 4, 8),  # full: 8 leaves of 4 endpoints
    (MRFT, {"switch_ports": 11, "endpoints_per_leaf": 2, "link_profile": "roce"}, 3, 5),
    (MRFT, {"switch_ports": 16, "spines": 7}, 8, 8),
    (MRFT, {"switch_ports": 128}, 72, 3),
    (MRFT, {"switch_ports": 16, "endpoints_per_leaf": 12}, 8, 14),
    (FT3, {}, 8, 1),
    (FT3, {"switch_ports": 2}, 1, 2),  # full: 2^3 / 4 endpoints
    (FT3, {"switch_ports": 4}, 8, 2),  # full: 4^3 / 4
    (FT3, {"switch_ports": 8}, 8, 16),  # full: 8^3 / 4
    (
        FT3,
        {"switch_ports": 8, "link_profile": "roce"},
        8,
        7,
    ),  # four of eight pods, the last with 2 of 4 leaves
    (FT3, {"switch_ports": 7}, 3, 10),
    (FT3, {"switch_ports": 6, "endpoints_per_leaf": 4}, 8, 5),
    (FT3, {"switch_ports": 6, "leaves_per_pod": 5, "uplinks_per_leaf": 2}, 5, 14),
    (FT3, {"switch_ports": 12, "uplinks_per_spine": 2, "leaves_per_pod": 3}, 8, 11),
    (SF, {"switch_ports": 8}, 1, 1),  # q = 3: 18 routers, 5 cables each
    (SF, {"q": 4, "switch_ports": 16}, 8, 12),  # full: 32 routers of 3
    (SF, {"q": 5}, 8, 25),  # full: 50 routers of 4
    (SF, {"q": 7, "endpoints_per_router": 1, "link_profile": "roce"}, 8, 4),
    (SF, {"q": 8, "endpoints_per_router": 9}, 4, 250),
    (SF, {"q": 9}, 8, 3),
    (SF, {"switch_ports": 20}, 8, 70),
    (DF, {"switch_ports": 3}, 1, 1),  # one group of two routers
    (DF, {"switch_ports": 3}, 2, 3),  # full: p = h = 1, a = 2, g = 3
    (DF, {"switch_ports": 7}, 8, 9),  # full: p = h = 2, a = 4, g = 9
    (DF, {"switch_ports": 7, "groups": 9}, 8, 2),
    (DF, {"switch_ports": 11, "link_profile": "roce"}, 8, 20),
    (DF, {"switch_ports": 15, "groups": 2}, 8, 5),  # 16 cables between two groups
    (DF, {"switch_ports": 7, "groups": 8}, 8, 3),  # 8 ports for 7 groups: the spare one joins opposite groups
    (DF, {"switch_ports": 7, "groups": 7}, 8, 3),  # 8 ports for 6 groups: the spare two close a ring
    (
        DF,
        {"switch_ports": 11, "groups": 5, "routers_per_group": 5},
        8,
        3,
    ),  # 15 ports, of which three stay empty
    (DF, {"switch_ports": 16, "endpoints_per_router": 3, "global_ports": 5, "groups": 20}, 8, 9),
]


def cables(graph: Any, one: str, other: str) -> int:
    return int(graph.number_of_edges(one, other))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[2]}x{case[3]}-{case[1]}")
def case(request: pytest.FixtureRequest) -> Any:
    kind, fields, gpus, num_nodes = request.param
    spec = spec_of(kind, {name: value for name, value in fields.items() if name != "nic_ports"})
    node = node_with(gpus, fields.get("nic_ports", 1))
    return spec, node, num_nodes, build_cluster(node, num_nodes, spec)


def test_every_family_has_cases() -> None:
    families = {get_args(spec.model_fields["kind"].annotation)[0] for spec in get_args(get_args(Topology)[0])}
    # A custom network is a file, and has tests of its own.
    assert families - {"custom"} == {kind for kind, *_ in CASES} == set(DIAMETER)


def test_graph_states_what_it_is(case: Any) -> None:
    spec, node, num_nodes, graph = case
    assert graph.graph["family"] == spec.kind
    assert (graph.graph["num_nodes"], graph.graph["gpus_per_node"]) == (num_nodes, node.gpus)


def test_a_node_holds_its_devices(case: Any) -> None:
    spec, node, num_nodes, graph = case
    # A node: as many PCIe switches (and NICs, if there is a network) as GPUs, one NVSwitch, one host.
    per_gpu = 2 if spec.kind == "none" else 3
    for number in range(num_nodes):
        assert len(vertices(graph, node=number)) == per_gpu * node.gpus + 2
    # A GPU has two ports, NVLink and PCIe; its PCIe switch leads on to the host and to the NIC.
    for gpu in vertices(graph, kind="gpu"):
        assert sorted(data["kind"] for _, _, data in graph.out_edges(gpu, data=True)) == ["nvlink", "pcie"]
    below = ["pcie", "pcie_host"] if spec.kind == "none" else ["pcie", "pcie_host", "pcie_nic"]
    for switch in vertices(graph, kind="pcie_switch"):
        assert sorted(data["kind"] for _, _, data in graph.out_edges(switch, data=True)) == below


def test_capacities_and_profiles_are_those_of_node_and_spec(case: Any) -> None:
    spec, node, _, graph = case
    # The ports of a NIC share its rate.
    rate = node.nic / node.nic_ports
    network = ("roce" if getattr(spec, "link_profile", "") == "roce" else "infiniband", rate)
    pcie = ("pcie", node.pcie)
    expected = {"nvlink": ("nvlink", node.nvlink), "pcie": pcie, "pcie_host": pcie, "pcie_nic": pcie}
    expected |= dict.fromkeys(("nic", "leaf_spine", "spine_core", "router_local", "router_global"), network)
    for _, _, data in graph.edges(data=True):
        assert (data["profile"], data["capacity_bytes_per_s"]) == expected[data["kind"]]


def switch_of(graph: Any, nic: str) -> list[str]:
    """Return the switches that a NIC is plugged into."""
    return [target for target in graph[nic] if graph.nodes[target]["kind"] == "switch"]


def test_planes_are_connected_and_disjoint(case: Any) -> None:
    _, node, _, graph = case
    planes = graph.graph["planes"]
    one_plane = [nic for nic in vertices(graph, kind="nic") if graph.nodes[nic]["plane"] >= 0]
    network = graph.subgraph(one_plane + vertices(graph, kind="switch"))
    # One connected part a plane: fewer would join planes, more would cut one up.
    parts = list(nx.strongly_connected_components(network))
    assert len(parts) == planes
    for part in parts:
        assert len({graph.nodes[vertex]["plane"] for vertex in part}) == 1
    # Within a node every device reaches every other.
    assert nx.is_strongly_connected(graph.subgraph(vertices(graph, node=0)))
    if planes:
        assert nx.is_strongly_connected(graph)
    for nic in vertices(graph, kind="nic"):
        data = graph.nodes[nic]
        assert data["index"] < node.gpus
        # The ports of a node's NICs go to the planes in turn, 0 1 2 ... 0 1 2 ..., so that a NIC has no two in one.
        ports = range(data["index"] * node.nic_ports, (data["index"] + 1) * node.nic_ports)
        joined = [graph.nodes[switch]["plane"] for switch in switch_of(graph, nic)]
        assert sorted(joined) == sorted({port % planes for port in ports})
        assert graph.out_degree(nic) == 1 + node.nic_ports
        assert data["plane"] == (joined[0] if node.nic_ports == 1 else -1)


def test_the_counts_are_those_of_the_graph(case: Any) -> None:
    spec, node, num_nodes, graph = case
    kinds = [data["kind"] for _, _, data in graph.edges(data=True)]
    between = sum(kinds.count(kind) for kind in ("leaf_spine", "spine_core", "router_local", "router_global"))
    # Every cable is two directed edges.
    assert spec.counts(node, num_nodes) == NetworkCounts(
        endpoints=len(vertices(graph, kind="nic")),
        switches=len(vertices(graph, kind="switch")),
        links=between // 2,
        endpoint_links=kinds.count("nic") // 2,
    )


def test_no_switch_has_more_cables_than_ports(case: Any) -> None:
    spec, _, _, graph = case
    for switch in vertices(graph, kind="switch"):
        assert graph.nodes[switch]["ports"] == spec.switch_ports
        assert graph.out_degree(switch) <= spec.switch_ports


def test_switches_are_numbered_within_their_layer_plane_and_rail(case: Any) -> None:
    *_, graph = case
    numbers: dict[tuple[Any, ...], list[int]] = {}
    for switch in vertices(graph, kind="switch"):
        data = graph.nodes[switch]
        numbers.setdefault((data["layer"], data["plane"], data["rail"]), []).append(data["index"])
    for row in numbers.values():
        assert row == list(range(len(row)))


def test_any_two_endpoints_are_within_the_diameter(case: Any) -> None:
    spec, _, _, graph = case
    switches = graph.subgraph(vertices(graph, kind="switch"))
    for plane in range(graph.graph["planes"]):
        holders = set(vertices(graph, layer="leaf", plane=plane) + vertices(graph, layer="router"))
        farthest = 0
        for switch in sorted(holders)[:40]:
            hops = nx.single_source_shortest_path_length(switches, switch)
            farthest = max(farthest, *(hops[other] for other in holders))
        assert farthest <= DIAMETER[spec.kind]


def test_groups_are_of_routers_or_of_the_pods_of_three_layers(case: Any) -> None:
    spec, _, _, graph = case
    for switch in vertices(graph, kind="switch"):
        data = graph.nodes[switch]
        grouped = data["layer"] == "router" or (spec.kind == FT3 and data["layer"] != "core")
        assert (data["group"] >= 0) is grouped


def endpoints_of_a_full_switch(spec: Any) -> int:
    """Return how many NICs a full leaf or router has, by the definitions; 0 where it follows from others."""
    ports = getattr(spec, "switch_ports", 0)
    if spec.kind in {SF, DF}:
        return spec.endpoints_per_router or 0
    return getattr(spec, "endpoints_per_leaf", None) or min(
        ports // 2, ports - (getattr(spec, "uplinks_per_leaf", None) or 1)
    )


def test_leaves_and_routers_fill_in_node_order(case: Any) -> None:
    spec, _, _, graph = case
    rows: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for nic in vertices(graph, kind="nic"):
        data = graph.nodes[nic]
        for switch in switch_of(graph, nic):
            at = graph.nodes[switch]
            assert at["rail"] == (data["index"] if spec.kind == MRFT else -1)
            rows.setdefault((at["plane"], at["rail"]), []).append((data["node"], data["index"], at["index"]))
    full = endpoints_of_a_full_switch(spec)
    for row in rows.values():
        # Sorted by node and NIC, the first `full` are under leaf 0, the next under leaf 1, ...
        switches = [switch for _, _, switch in sorted(row)]
        held = full or switches.count(0)
        assert switches == [place // held for place in range(len(row))]


def test_counts_of_two_layer_trees(case: Any) -> None:
    spec, node, num_nodes, graph = case
    if spec.kind not in TWO_LAYERS:
        return
    full = endpoints_of_a_full_switch(spec)
    up = spec.uplinks_per_leaf or min(spec.switch_ports // 2, spec.switch_ports - full)
    for plane in range(graph.graph["planes"]):
        if spec.kind == MRFT:
            leaves = math.ceil(num_nodes / full) * node.gpus
        else:
            ports = node.gpus * node.nic_ports
            nics = sum(1 for port in range(ports) if port % graph.graph["planes"] == plane)
            leaves = math.ceil(num_nodes * nics / full)
        assert len(vertices(graph, layer="leaf", plane=plane)) == leaves
        # The fewest spines whose ports hold all uplinks: one less would not.
        spines = len(vertices(graph, layer="spine", plane=plane))
        assert leaves * up <= spines * spec.switch_ports
        if spec.spines is None:
            assert leaves * up > (spines - 1) * spec.switch_ports
        else:
            assert spines == spec.spines


def test_uplinks_of_two_layer_trees_are_all_wired_and_even(case: Any) -> None:
    spec, _, _, graph = case
    if spec.kind not in TWO_LAYERS:
        return
    full = endpoints_of_a_full_switch(spec)
    for plane in range(graph.graph["planes"]):
        leaves = vertices(graph, layer="leaf", plane=plane)
        spines = vertices(graph, layer="spine", plane=plane)
        for leaf in leaves:
            up = [cables(graph, leaf, spine) for spine in spines]
            assert sum(up) == (spec.uplinks_per_leaf or min(spec.switch_ports // 2, spec.switch_ports - full))
            assert min(up) >= 1
            assert max(up) - min(up) <= 1
        loads = [graph.out_degree(spine) for spine in spines]
        assert max(loads) - min(loads) <= 1


def test_building_again_gives_the_same_edges_in_the_same_order(case: Any) -> None:
    spec, node, num_nodes, graph = case
    again = spec.build(node, num_nodes)
    assert list(again.nodes(data=True)) == list(graph.nodes(data=True))
    assert list(again.edges(keys=True, data=True)) == list(graph.edges(keys=True, data=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "fields", "num_nodes"),
    [
        (FT2, {}, 256),
        (MPFT, {}, 2048),
        (FT3, {}, 8192),
        (SF, {"q": 27}, 3827),
        (SF, {"q": 29}, 4415),
        (DF, {"groups": 511}, 32704),
    ],
)
def test_the_sizes_of_table_3_can_be_built(kind: str, fields: dict[str, Any], num_nodes: int) -> None:
    # Zhao et al., arXiv 2505.09343, Table 3; in place of its Slim Fly, which does not exist, the nearest that do.
    spec, node = spec_of(kind, fields), node_with(8)
    graph = build_cluster(node, num_nodes, spec)
    vertex_kinds = Counter(data["kind"] for _, data in graph.nodes(data=True))
    edge_kinds = Counter(data["kind"] for _, _, data in graph.edges(data=True))
    between = sum(edge_kinds[kind] for kind in ("leaf_spine", "spine_core", "router_local", "router_global"))
    assert spec.counts(node, num_nodes) == NetworkCounts(
        vertex_kinds["nic"], vertex_kinds["switch"], between // 2, edge_kinds["nic"] // 2
    )


@pytest.mark.parametrize("was_enabled", [True, False])
def test_building_leaves_garbage_collection_as_it_was(was_enabled: bool) -> None:
    (gc.enable if was_enabled else gc.disable)()
    try:
        build_cluster(node_with(1), 1, spec_of("none", {}))
        assert gc.isenabled() is was_enabled
        with pytest.raises(FieldError):
            build_cluster(node_with(1), 2, spec_of("none", {}))
        assert gc.isenabled() is was_enabled
    finally:
        gc.enable()


def test_the_hash_seed_changes_nothing() -> None:
    program = (
        "import hashlib\n"
        "from pydantic import TypeAdapter\n"
        "from topologies import NODES, Topology, build_cluster\n"
        f"for kind in {sorted(set(DIAMETER) - {'none'})!r}:\n"
        "    spec = TypeAdapter(Topology).validate_python({'kind': kind, 'switch_ports': 16})\n"
        "    graph = build_cluster(NODES['h800'], 9, spec)\n"
        "    text = repr((list(graph.nodes(data=True)), list(graph.edges(keys=True, data=True))))\n"
        "    print(kind, hashlib.sha256(text.encode()).hexdigest())\n"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1
