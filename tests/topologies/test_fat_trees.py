"""The published sizes of two-layer trees, and what the two families and the lone node refuse."""

import time
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from simulator.units import FieldError
from topologies import (
    NODES,
    MultiPlaneFatTree,
    MultiRailFatTree,
    NodeSpec,
    Topology,
    TwoLayerFatTree,
    build_cluster,
)
from topologies.multi_plane import plan_planes
from topologies.multi_rail import plan_rails

H800 = NODES["h800"]
HUGE = 10**15


def multi_plane(**fields: Any) -> MultiPlaneFatTree:
    return MultiPlaneFatTree(kind="multi-plane-fat-tree", **fields)


def multi_rail(**fields: Any) -> MultiRailFatTree:
    return MultiRailFatTree(kind="multi-rail-fat-tree", **fields)


def two_layers(**fields: Any) -> TwoLayerFatTree:
    return TwoLayerFatTree(kind="two-layer-fat-tree", **fields)


def node_with(gpus: int, nic_ports: int = 1) -> NodeSpec:
    return H800.model_copy(update={"gpus": gpus, "nic_ports": nic_ports})


def count(graph: Any, kind: str) -> int:
    # Every cable is two directed edges.
    return sum(data["kind"] == kind for _, _, data in graph.edges(data=True)) // 2


def test_ft2_of_table_3() -> None:
    # 64 leaves x 32 ports down = 2,048 endpoints; 64 x 32 uplinks = 2,048 cables on 2,048 / 64 = 32 spines.
    # Zhao et al., arXiv 2505.09343, Table 3, FT2: 2,048 endpoints, 96 switches, 2,048 links.
    graph = build_cluster(H800, 256, two_layers())
    layers = [data["layer"] for _, data in graph.nodes(data=True) if data["kind"] == "switch"]
    assert (layers.count("leaf"), layers.count("spine")) == (64, 32)
    assert (count(graph, "nic"), count(graph, "leaf_spine")) == (2048, 2048)
    counts = two_layers().counts(H800, 256)
    assert (counts.endpoints, counts.switches, counts.links) == (2048, 96, 2048)


@pytest.mark.slow  # the graph takes seconds
def test_mpft_of_table_3() -> None:
    # Eight planes of the above. Table 3, MPFT: 16,384 endpoints, 768 switches, 16,384 links.
    graph = build_cluster(H800, 2048, multi_plane(planes=8))
    assert sum(data["kind"] == "switch" for _, data in graph.nodes(data=True)) == 768
    assert (count(graph, "nic"), count(graph, "leaf_spine")) == (16384, 16384)
    counts = multi_plane(planes=8).counts(H800, 2048)
    assert (counts.endpoints, counts.switches, counts.links) == (16384, 768, 16384)


def test_a_full_multi_rail_tree() -> None:
    # 64 leaves are 8 groups of 8 rails; a group has 32 nodes: 256 nodes, with the switches of FT2.
    tree = plan_rails(H800, 256, multi_rail())
    assert (tree.leaves, tree.spines, tree.cables) == (64, 32, 2048)


def test_a_leaf_may_have_more_ports_down_than_up() -> None:
    # 48 NICs below leave 16 uplinks: 64 leaves hold 3,072 NICs, 384 nodes, under 64 x 16 / 64 = 16 spines.
    tree = plan_planes(H800, 384, multi_plane(planes=1, endpoints_per_leaf=48))[0]
    assert (tree.leaves, tree.spines, tree.uplinks) == (64, 16, 16)
    # 16 uplinks by themselves leave the NICs at half of the ports: 8 nodes are 2 leaves, 32 cables, one spine.
    tree = plan_planes(H800, 8, multi_plane(planes=1, uplinks_per_leaf=16))[0]
    assert (tree.leaves, tree.endpoints, tree.spines) == (2, 32, 1)


def test_nics_with_four_ports_join_four_planes() -> None:
    # A NIC has a cable to each plane, at a quarter of its rate: 50 / 4 = 12.5 GB/s. A plane has all 16 NICs.
    graph = build_cluster(node_with(8, nic_ports=4), 2, multi_plane())
    assert graph.graph["planes"] == 4
    cables = {other: data for other, data in graph["node1/nic5"].items() if other.startswith("plane")}
    assert list(cables) == [f"plane{plane}/leaf0" for plane in range(4)]
    assert {data[0]["capacity_bytes_per_s"] for data in cables.values()} == {12.5e9}
    assert graph.nodes["node1/nic5"]["plane"] == -1
    assert sum(data["kind"] == "nic" for *_, data in graph.out_edges("plane2/leaf0", data=True)) == 16


def test_ports_go_to_more_planes_in_turn() -> None:
    # 4 ports and 8 planes: port j of NIC i joins plane (4 i + j) mod 8: even NICs 0 to 3, odd ones 4 to 7.
    graph = build_cluster(node_with(8, nic_ports=4), 1, multi_plane(planes=8))
    for nic, planes in ((0, range(4)), (1, range(4, 8)), (2, range(4))):
        assert [f"plane{plane}/leaf0" for plane in planes] == list(graph[f"node0/nic{nic}"])[1:]


def test_a_partly_filled_plane_bundles_its_uplinks() -> None:
    # 8 nodes, 4 to a leaf: 2 leaves x 32 uplinks = 64 ports, one spine, 32 parallel cables from each leaf.
    graph = build_cluster(H800, 8, multi_plane(endpoints_per_leaf=4))
    assert sorted(graph["plane3/leaf1"]["plane3/spine0"]) == list(range(32))
    # Four spines instead: 64 uplinks over 4 are 16 a spine, 8 from each leaf.
    graph = build_cluster(H800, 8, multi_plane(endpoints_per_leaf=4, spines=4))
    assert [len(graph["plane3/leaf1"][f"plane3/spine{index}"]) for index in range(4)] == [8, 8, 8, 8]


def test_uplinks_that_do_not_divide_are_dealt_in_turn() -> None:
    # 3 leaves x 4 uplinks on 3 spines: leaf 1 starts at uplink 4, so at spine 4 mod 3 = 1, which gets two.
    graph = build_cluster(node_with(1), 12, multi_plane(switch_ports=8, spines=3))
    dealt = [[len(graph[f"plane0/leaf{a}"][f"plane0/spine{b}"]) for b in range(3)] for a in range(3)]
    assert dealt == [[2, 1, 1], [1, 2, 1], [1, 1, 2]]


# spec, node, nodes, field of the refusal, what the message must say
REFUSALS: list[tuple[Any, NodeSpec, int, str, str]] = [
    # One plane of 64 ports holds 64 x 32 = 2,048 endpoints; with 65 ports, 65 x 32 = 2,080.
    (multi_plane(), H800, 2049, "nodes", r"at most 2,048 of these nodes; 2,049 would need switch_ports: 65$"),
    # 4 planes: two NICs of each node on a plane, so half as many; 1,025 nodes are 2,050 endpoints.
    (multi_plane(planes=4), H800, 1025, "nodes", r"at most 1,024 of these nodes; 1,025 .*switch_ports: 65$"),
    # 4 endpoints a leaf, 64 leaves; 257 / 4 needs 65 leaves.
    (multi_plane(endpoints_per_leaf=4), H800, 257, "nodes", r"at most 256 of .* switch_ports: 65$"),
    (multi_plane(), H800, 0, "nodes", r"at least 1 node, not 0"),
    (multi_plane(), H800, HUGE, "nodes", r"at most 2,048 of .* no switch of up to 1,024 ports would hold"),
    # A node has 8 endpoints on the plane: 2 ports hold 1 x 2, 3 ports 1 x 3, 4 ports 2 x 4.
    (
        multi_plane(planes=1, switch_ports=2),
        H800,
        1,
        "topology.switch_ports",
        r"not even one .* switch_ports: 4$",
    ),
    (multi_plane(planes=9), H800, 1, "topology.planes", r"9 planes need .* must be at most 8$"),
    (multi_plane(), NODES["gb200-nvl72"], 1, "topology.planes", r"72 NICs .* from 1 to 16$"),
    # One uplink at least: 64 + 1 ports.
    (
        multi_plane(endpoints_per_leaf=64),
        H800,
        1,
        "topology.endpoints_per_leaf",
        r"endpoints_per_leaf: 64 and uplinks_per_leaf: 1 need 65 ports, .* has 64; .* at most 63, .* at least 65$",
    ),
    (
        multi_plane(endpoints_per_leaf=33, uplinks_per_leaf=40),
        H800,
        1,
        "topology.endpoints_per_leaf",
        r"need 73 ports, .* endpoints_per_leaf must be at most 24, or switch_ports at least 73$",
    ),
    (
        multi_plane(uplinks_per_leaf=64),
        H800,
        1,
        "topology.uplinks_per_leaf",
        r"need 65 ports, .* uplinks_per_leaf must be at most 63, .* at least 65$",
    ),
    (multi_plane(spines=33), H800, 1, "topology.spines", r"32 uplinks, .* at most 32 spines, not 33$"),
    # 200 nodes are 7 leaves x 32 uplinks = 224 ports: 4 spines, and 3 have 192.
    (
        multi_plane(spines=3),
        H800,
        200,
        "topology.spines",
        r"224 ports .* have 192; spines must be at least 4$",
    ),
    (
        multi_plane(planes=2),
        node_with(8, 4),
        1,
        "topology.planes",
        r"at least 4, or the node's nic_ports at most 2$",
    ),
    (
        multi_plane(planes=5),
        node_with(1, 4),
        1,
        "topology.planes",
        r"5 planes need .* ports of NICs .* at most 4$",
    ),
    # Every NIC of a node joins each of the 4 planes: 2,048 / 8 = 256 nodes.
    (
        multi_plane(),
        node_with(8, 4),
        257,
        "nodes",
        r"at most 256 of these nodes; 257 would need switch_ports: 65$",
    ),
    (
        multi_rail(),
        node_with(8, 2),
        1,
        "node.nic_ports",
        r"multi-rail-fat-tree has one plane, .* multi-plane-fat-tree$",
    ),
    (
        two_layers(),
        node_with(8, 2),
        1,
        "node.nic_ports",
        r"two-layer-fat-tree has one plane, .* nic_ports: 1",
    ),
    (two_layers(), H800, 257, "nodes", r"a tree \(two layers\) .* at most 256 .* switch_ports: 65$"),
    (two_layers(spines=5), H800, 100, "topology.spines", r"spines must be at least 13$"),
    # 512 x 1,024 nodes fit, with 5 cables for each of 8 x 2^19 GPUs, and 512 x 1,024 uplinks in each of 8 planes.
    (multi_plane(switch_ports=1024), H800, 2**19, "nodes", r"25,165,824 cables, more than the 4,000,000"),
    # 8 groups of 32 nodes; a ninth group needs 72 leaves, and 72 ports.
    (multi_rail(), H800, 257, "nodes", r"8 rails\) .* at most 256 of .* 257 would need switch_ports: 66$"),
    (multi_rail(), NODES["gb200-nvl72"], 1, "topology.switch_ports", r"not even one .* switch_ports: 72$"),
    (multi_rail(), H800, HUGE, "nodes", r"no switch of up to 1,024 ports"),
    (multi_rail(), H800, -3, "nodes", r"at least 1 node, not -3"),
    (
        multi_rail(endpoints_per_leaf=80),
        H800,
        1,
        "topology.endpoints_per_leaf",
        r"at most 63, or switch_ports at least 81$",
    ),
    # 33 nodes are two groups: 16 leaves x 32 uplinks = 512 ports, 8 spines.
    (multi_rail(spines=7), H800, 33, "topology.spines", r"512 ports .* have 448; spines must be at least 8$"),
]


@pytest.mark.parametrize(("spec", "node", "num_nodes", "field", "message"), REFUSALS)
def test_refusals_name_the_field_and_the_remedy(
    spec: Any, node: NodeSpec, num_nodes: int, field: str, message: str
) -> None:
    begun = time.monotonic()
    with pytest.raises(FieldError, match=message) as caught:
        build_cluster(node, num_nodes, spec)
    assert caught.value.field == field
    # Nothing was built: refusing takes no longer for a huge cluster than for a small one.
    assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize(("spec", "most"), [(multi_plane(), 2048), (multi_rail(), 256), (two_layers(), 256)])
def test_the_number_of_nodes_that_is_said_to_fit_does(spec: Any, most: int) -> None:
    spec.check(H800, most)
    with pytest.raises(FieldError, match=f"at most {most:,} of these nodes"):
        spec.check(H800, most + 1)


@pytest.mark.parametrize("num_nodes", [0, 2, HUGE])
def test_no_network_is_for_one_node(num_nodes: int) -> None:
    spec: Any = TypeAdapter(Topology).validate_python({"kind": "none"})
    with pytest.raises(FieldError, match=r"nodes must be 1, not .*; choose another kind") as caught:
        spec.build(H800, num_nodes)
    assert caught.value.field == "nodes"


@pytest.mark.parametrize(
    "fields",
    [
        {"planes": 0},
        {"planes": 17},
        {"layers": 3},
        {"switch_ports": 1},
        {"switch_ports": 1025},
        {"switch_ports": "64"},
        {"spines": 0},
        {"endpoints_per_leaf": 0},
        {"link_profile": "ethernet"},
        {"plane": 8},
    ],
)
def test_a_field_out_of_range_is_refused_when_read(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Topology).validate_python({"kind": "multi-plane-fat-tree", **fields})
    assert next(iter(fields)) in caught.value.errors()[0]["loc"]


def test_an_unknown_kind_is_refused_with_those_known() -> None:
    with pytest.raises(ValidationError, match=r"multi-plane-fat-tree.*multi-rail-fat-tree.*none"):
        TypeAdapter(Topology).validate_python({"kind": "torus"})
