"""The three-layer fat-tree: the paper's size, partly filled trees, over-subscription and refusals."""

from typing import Any

import pytest

from simulator.units import FieldError
from topologies import NODES, ThreeLayerFatTree, build_cluster
from topologies.three_layer import plan_three_layers

H800 = NODES["h800"]


def three_layers(**fields: Any) -> ThreeLayerFatTree:
    return ThreeLayerFatTree(kind="three-layer-fat-tree", **fields)


def layer(graph: Any, name: str) -> list[str]:
    return [vertex for vertex, data in graph.nodes(data=True) if data.get("layer") == name]


def test_ft3_of_table_3() -> None:
    # k = 64: k^3 / 4 = 65,536 NICs, 5 k^2 / 4 = 5,120 switches, and from leaves and from spines 65,536 cables each.
    # Zhao et al., arXiv 2505.09343, Table 3, FT3: 65,536 endpoints, 5,120 switches, 131,072 links.
    counts = three_layers().counts(H800, 8192)
    assert (counts.endpoints, counts.switches, counts.links) == (65536, 5120, 131072)
    three_layers().check(H800, 8192)


def test_a_full_tree_of_eight_ports() -> None:
    # 8 pods of 4 leaves and 4 spines, 4 groups of 4 cores: 8^3 / 4 = 128 NICs.
    graph = build_cluster(H800, 16, three_layers(switch_ports=8))
    assert [len(layer(graph, name)) for name in ("leaf", "spine", "core")] == [32, 32, 16]
    # Every switch uses its eight ports.
    assert {
        graph.out_degree(switch) for name in ("leaf", "spine", "core") for switch in layer(graph, name)
    } == {8}
    # Spine 1 of pod 2 is the tenth; group 1 of cores has the numbers 4 to 7, and joins the second spine of every pod.
    assert [core for core in graph["pod2/spine9"] if core.startswith("core")] == [
        "core4",
        "core5",
        "core6",
        "core7",
    ]
    assert sorted(graph["core5"]) == [f"pod{pod}/spine{4 * pod + 1}" for pod in range(8)]


def test_a_partly_filled_tree_has_the_fewest_cores() -> None:
    # 7 nodes are 56 NICs: 14 leaves of 4, in 4 pods, the last with two. A group of cores has 4 spines with 4 uplinks
    # below it, 16 cables on 16 / 8 = 2 cores: two cables from each spine to each.
    graph = build_cluster(H800, 7, three_layers(switch_ports=8))
    assert [len(layer(graph, name)) for name in ("leaf", "spine", "core")] == [14, 16, 8]
    assert [leaf for leaf in layer(graph, "leaf") if graph.nodes[leaf]["group"] == 3] == [
        "pod3/leaf12",
        "pod3/leaf13",
    ]
    assert [graph.number_of_edges("pod0/spine0", core) for core in ("core0", "core1", "core2")] == [2, 2, 0]
    assert graph.out_degree("pod3/spine12") == 2 + 4


def test_over_subscription() -> None:
    # A leaf with 6 of 8 ports down has 2 uplinks, so that a pod has 2 spines; a spine with 5 leaves has 3 uplinks.
    # 8 pods of 5 leaves of 6 NICs are 240, 30 nodes. 2 groups of 8 x 3 / 8 = 3 cores.
    tree = plan_three_layers(H800, 30, three_layers(switch_ports=8, endpoints_per_leaf=6, leaves_per_pod=5))
    assert (tree.pods, tree.leaves, tree.spines, tree.cores) == (8, 40, 16, 6)
    # 40 x 2 cables from leaves, 16 x 3 from spines.
    assert tree.cables == 80 + 48


@pytest.mark.parametrize(
    ("fields", "num_nodes", "field", "message"),
    [
        # 64 pods x 32 x 32 = 65,536 NICs; 66 ports hold 66 x 33 x 33 = 71,874, 65 ports 65 x 32 x 32 = 66,560.
        (
            {},
            8193,
            "nodes",
            r"three layers\) .* at most 8,192 of these nodes; 8,193 would need switch_ports: 65$",
        ),
        ({}, 10**15, "nodes", r"no switch of up to 1,024 ports would hold"),
        # 5 cables for each of 8 x 10^5 NICs, and more between switches.
        ({"switch_ports": 256}, 10**5, "nodes", r"cables, more than the 4,000,000"),
        # 2 x 1 x 1 NICs; 4 ports hold 16, 3 ports 3.
        ({"switch_ports": 2}, 1, "topology.switch_ports", r"not even one .* switch_ports: 4$"),
        (
            {"leaves_per_pod": 64},
            1,
            "topology.leaves_per_pod",
            r"leaves_per_pod: 64 and uplinks_per_spine: 1 need 65 ports, .* at most 63, or switch_ports at least 65$",
        ),
        ({"uplinks_per_spine": 70}, 1, "topology.uplinks_per_spine", r"need 71 ports, .* must be at most 63"),
        ({}, 0, "nodes", r"at least 1 node, not 0$"),
    ],
)
def test_refusals_name_the_field_and_the_remedy(
    fields: dict[str, int], num_nodes: int, field: str, message: str
) -> None:
    with pytest.raises(FieldError, match=message) as caught:
        three_layers(**fields).check(H800, num_nodes)
    assert caught.value.field == field


def test_nics_with_several_ports_are_refused() -> None:
    with pytest.raises(FieldError, match=r"a three-layer-fat-tree has one plane, .* nic_ports: 1") as caught:
        three_layers().check(H800.model_copy(update={"nic_ports": 2}), 1)
    assert caught.value.field == "node.nic_ports"
