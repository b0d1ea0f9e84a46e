"""Diameter and bisection: closed forms against each other, against graphs, and against the theory that they quote."""

from typing import Any

import networkx as nx
import numpy as np
import pytest
from pydantic import TypeAdapter

from simulator.extent import extent, half_bytes_per_s
from simulator.graph_extent import diameter_of_pairs, graph_bisection, graph_diameter
from simulator.units import FieldError
from topologies import NODES, Topology, build_cluster
from topologies.graph_file import write_graph
from topologies.slim_fly import SlimFlyPlan, router_pairs

H800 = NODES["h800"]
RATE = 50e9  # 400 Gbit/s
TREE2, MPFT, MRFT, TREE3 = (
    "two-layer-fat-tree",
    "multi-plane-fat-tree",
    "multi-rail-fat-tree",
    "three-layer-fat-tree",
)


def spec_of(kind: str, **fields: Any) -> Any:
    return TypeAdapter(Topology).validate_python({"kind": kind, **fields})


def figures(nodes: int, kind: str, node: Any = H800, **fields: Any) -> tuple[float, float, str]:
    """Return the diameter, the bisection in cables of a NIC's rate, and what the bisection is."""
    diameter, bisection = extent(spec_of(kind, **fields), node, nodes)
    assert diameter.how == "exact"
    return diameter.value, bisection.value / RATE, bisection.how


def test_two_layers():
    # 8 nodes, 64 NICs; leaves of 8: half of the nodes send over 32 uplinks to the other.
    assert figures(8, TREE2, switch_ports=16) == (2, 32, "exact")
    # Leaves of 8 NICs with 4 uplinks: half of that.
    assert figures(8, TREE2, switch_ports=16, uplinks_per_leaf=4) == (2, 16, "exact")
    # Three nodes and 24 NICs under leaves of 12 with 4 uplinks: one node against another, at least 8 x 4 / 12.
    _, cables, how = figures(3, TREE2, switch_ports=16, endpoints_per_leaf=12, uplinks_per_leaf=4)
    assert (cables, how) == (pytest.approx(8 / 3), "lower bound")
    # One leaf: no switch is crossed twice, and uplinks do not matter.
    assert figures(2, TREE2, endpoints_per_leaf=63, uplinks_per_leaf=1) == (0, 8, "exact")
    # 9 leaves of 8 uplinks on 5 spines: some spines have two cables from a leaf, others one.
    assert figures(9, TREE2, switch_ports=16)[2] == "estimate"


def test_planes_and_rails():
    # Each plane does its share: 128 nodes x 8 NICs / 2.
    assert figures(128, MPFT, planes=8) == (2, 512, "exact")
    # Two nodes under one leaf a rail: NICs of different rails are two cables apart, but halves need not cross spines.
    assert figures(2, MRFT, endpoints_per_leaf=60, uplinks_per_leaf=4) == (2, 8, "exact")
    assert figures(64, MRFT, endpoints_per_leaf=32, uplinks_per_leaf=16) == (2, 128, "exact")


def test_nics_with_several_ports_are_halved_as_wholes():
    # A NIC's four ports have a quarter of its rate each: half of 8 nodes still sends 4 x 8 x 50 GB/s.
    node = H800.model_copy(update={"nic_ports": 4})
    assert figures(8, MPFT, node, planes=4, switch_ports=32)[1] == 32


def test_three_layers():
    assert figures(16, TREE3, switch_ports=8) == (4, 64, "exact")
    # One pod: 2 nodes, 16 NICs under four leaves. One leaf of 32: none.
    assert figures(2, TREE3, switch_ports=8) == (2, 8, "exact")
    assert figures(2, TREE3)[0] == 0
    # Six leaves and two uplinks a spine: 2 / 6 of what the NICs send. 192 NICs are two pods of 6 x 4, four times.
    assert figures(24, TREE3, switch_ports=8, leaves_per_pod=6, uplinks_per_spine=2) == (4, 32, "exact")


@pytest.mark.parametrize("q", [3, 4, 5, 7, 8, 9, 11, 13])
def test_the_eigenvalues_that_bound_a_slim_fly(q):
    # The largest is the degree k, and the next is k - q: see simulator.extent. (Of q = 3 another one is larger.)
    plan = SlimFlyPlan(q, 1)
    adjacency = np.zeros((plan.routers, plan.routers))
    for one, other in router_pairs(q):
        adjacency[one, other] = adjacency[other, one] = 1
    *_, second, first = np.linalg.eigvalsh(adjacency)
    assert first == pytest.approx(plan.radix)
    if q > 3:
        assert second == pytest.approx(plan.radix - q)


def test_slim_fly():
    # q = 4: 4^3 / 2 = 32 cables between 16 and 16 routers; with 4 NICs each they send more than that, with 1 less.
    assert figures(16, "slim-fly", q=4, endpoints_per_router=4) == (2, 32, "exact")
    assert figures(4, "slim-fly", q=4, endpoints_per_router=1) == (2, 16, "exact")
    # q = 5: 5 x 26 / 2 = 65 are cut by 3 + 2 groups against 2 + 3; no halving cuts fewer than 62.5.
    assert figures(25, "slim-fly", q=5, endpoints_per_router=4) == (2, 65, "upper bound")
    assert figures(20, "slim-fly", q=5, endpoints_per_router=4)[2] == "estimate"
    # 8 NICs under one router of 8, and under two: of one group, joined or not.
    assert figures(1, "slim-fly", q=5, endpoints_per_router=8)[0] == 0
    assert figures(2, "slim-fly", q=5, endpoints_per_router=8)[0] == 1


def test_a_slim_fly_that_does_not_exist_has_figures_by_formula():
    # q = 28: 28^3 / 2 = 10,976 cables, two thirds of 16,464 NICs.
    diameter, bisection = extent(spec_of("slim-fly", q=28, endpoints_per_router=21), H800, 4116)
    assert (diameter.value, diameter.how) == (2, "estimate")
    assert (bisection.value, bisection.how) == (10_976 * RATE, "estimate")
    assert bisection.value / half_bytes_per_s(H800, 4116) == pytest.approx(2 / 3)


def test_dragonfly():
    small = {"endpoints_per_router": 2, "routers_per_group": 4, "global_ports": 2}
    # 9 groups, all pairs joined once: 36 cables, of which 4 x 5 join whole groups of two sides, and 2 + 2 of the 8 of
    # the middle group each: 36 x 10 / 18 = 20, and 4 within the middle one.
    assert figures(9, "dragonfly", **small) == (3, 24, "upper bound")
    # 8 groups: 8 ports each, 7 for the others, the last to the opposite group: 28 + 4 cables, x 8 / 14 = 18.28.
    assert figures(8, "dragonfly", groups=8, **small) == (3, 18, "upper bound")
    # One group: 2 x 2 cables; one router: none.
    assert figures(1, "dragonfly", **small) == (1, 0, "upper bound")
    assert figures(2, "dragonfly", **small | {"endpoints_per_router": 4}) == (1, 4, "upper bound")
    assert figures(1, "dragonfly", **small | {"endpoints_per_router": 8}, groups=1)[0] == 0


@pytest.mark.parametrize(
    ("kind", "most"), [("slim-fly", 2), ("dragonfly", 3), ("three-layer-fat-tree", 4)], ids=str
)
def test_a_million_nodes_take_no_time(kind, most):
    # 8 M endpoints: formulas alone; of a partly filled network of so many routers the diameter is the family's.
    diameter, bisection = extent(spec_of(kind, switch_ports=1024), H800, 1_000_000)
    assert (diameter.value, diameter.how) == (most, "exact" if most == 4 else "upper bound")
    assert 0 < bisection.value <= half_bytes_per_s(H800, 1_000_000)


# Networks that a graph can be made of in no time, filled or not.
SMALL: list[tuple[int, dict[str, Any]]] = [
    (8, {"kind": TREE2, "switch_ports": 16}),
    (8, {"kind": TREE2, "switch_ports": 16, "uplinks_per_leaf": 4}),
    (6, {"kind": TREE2, "switch_ports": 16}),
    (16, {"kind": MPFT, "switch_ports": 8}),
    (8, {"kind": MRFT, "switch_ports": 16, "endpoints_per_leaf": 4}),
    (16, {"kind": TREE3, "switch_ports": 8}),
    (24, {"kind": TREE3, "switch_ports": 8, "leaves_per_pod": 6, "uplinks_per_spine": 2}),
    (16, {"kind": "slim-fly", "q": 4, "endpoints_per_router": 4}),
    (25, {"kind": "slim-fly", "q": 5, "endpoints_per_router": 4}),
    (9, {"kind": "dragonfly", "endpoints_per_router": 2, "routers_per_group": 4, "global_ports": 2}),
    (5, {"kind": "dragonfly", "endpoints_per_router": 2, "routers_per_group": 4, "global_ports": 2}),
    (
        27,
        {
            "kind": "dragonfly",
            "endpoints_per_router": 6,
            "routers_per_group": 4,
            "global_ports": 2,
            "groups": 9,
        },
    ),
]


@pytest.mark.parametrize(("nodes", "fields"), SMALL, ids=str)
def test_closed_forms_agree_with_the_graph(nodes, fields):
    spec = spec_of(**fields)
    graph = build_cluster(H800, nodes, spec)
    diameter, bisection = extent(spec, H800, nodes)
    assert graph_diameter(graph) == (diameter.value, True)
    # The slow twin: distances between all switches that hold NICs, by networkx.
    between = nx.Graph(graph.subgraph(v for v, data in graph.nodes.items() if data["kind"] == "switch"))
    holding = {
        other for _, other, data in graph.edges(data=True) if data["kind"] == "nic" and other in between
    }
    farthest = max(
        steps
        for one in holding
        for other, steps in nx.single_source_shortest_path_length(between, one).items()
        if other in holding
    )
    assert diameter.value == farthest
    # Any halving of the graph is an upper bound, so that it is not below what is exact or a lower bound.
    found = graph_bisection(graph)
    assert found <= half_bytes_per_s(H800, nodes) * (1 + 1e-12)
    if bisection.how in {"exact", "lower bound"}:
        assert found >= bisection.value * (1 - 1e-12)
    if bisection.how == "exact":  # and of these it finds the worst
        assert found == pytest.approx(bisection.value)


def test_the_bisection_is_a_least_cut():
    # Of a small over-subscribed tree by hand and by networkx: the largest flow from the first half of the nodes to
    # the second, over 2 x 4 uplinks.
    spec = spec_of(TREE2, switch_ports=16, uplinks_per_leaf=4)
    graph = build_cluster(H800, 4, spec)
    whole: Any = nx.DiGraph()
    for one, other, data in graph.edges(data=True):
        if data["kind"] in {"nic", "leaf_spine"}:
            before = whole.get_edge_data(one, other, {"capacity": 0.0})["capacity"]
            whole.add_edge(one, other, capacity=before + data["capacity_bytes_per_s"])
    for node in range(4):
        for nic in range(8):
            ends = ("source", f"node{node}/nic{nic}") if node < 2 else (f"node{node}/nic{nic}", "sink")
            whole.add_edge(*ends)
    assert nx.maximum_flow_value(whole, "source", "sink") == pytest.approx(8 * RATE)
    assert graph_bisection(graph) == pytest.approx(8 * RATE)
    assert extent(spec, H800, 4)[1].value == 8 * RATE


def test_of_an_odd_number_of_nodes_one_is_left_out():
    # Three nodes under one leaf: one sends to one, 8 NICs.
    graph = build_cluster(H800, 3, spec_of(TREE2))
    assert graph_bisection(graph) == 8 * RATE == half_bytes_per_s(H800, 3)


def test_a_custom_graph_is_measured(tmp_path):
    write_graph(build_cluster(H800, 8, spec_of(TREE2, switch_ports=16)), tmp_path / "g.json")
    diameter, bisection = extent(spec_of("custom", path=str(tmp_path / "g.json")), H800, 8)
    assert (diameter.value, diameter.how) == (2, "exact")
    assert (bisection.value, bisection.how) == (32 * RATE, "upper bound")


def test_switches_that_do_not_reach_each_other():
    # 0 - 1 - 2 and 3 - 4, all in one plane; and in two planes, each whole.
    pairs = [(0, 1), (1, 2), (3, 4)]
    assert diameter_of_pairs(5, pairs, [[0, 2, 3, 4]]) == (2, False)
    assert diameter_of_pairs(5, pairs, [[0, 2], [3, 4]]) == (2, True)
    assert diameter_of_pairs(5, pairs, [[0], [3, 4]]) == (1, True)
    assert diameter_of_pairs(5, pairs, []) == (0, True)


def test_nothing_to_measure():
    assert [figure.value for figure in extent(spec_of("none"), H800, 1)] == [0, 0]
    assert graph_bisection(build_cluster(H800, 1, spec_of(TREE2))) == 0
    assert graph_bisection(build_cluster(H800, 1, spec_of("none"))) == 0


def test_nodes_that_do_not_fit():
    with pytest.raises(FieldError, match="would need switch_ports"):
        extent(spec_of(TREE2), H800, 257)
