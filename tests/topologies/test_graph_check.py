"""Every rule of the vocabulary: a good graph passes, and one broken in one place is refused by that rule."""

import math
from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest

import topologies.graph_check as vocabulary
from topologies import (
    NODES,
    Dragonfly,
    MultiPlaneFatTree,
    NoNetwork,
    ThreeLayerFatTree,
    build_cluster,
    check_graph,
)

NODE = NODES["h800"].model_copy(update={"gpus": 2})
GPU, NVSWITCH, PCIE, HOST, NIC = (f"node0/{name}" for name in ("gpu0", "nvswitch", "pcie0", "host", "nic0"))
LEAF, SPINE = "plane0/leaf0", "plane0/spine0"
WIRE = {"kind": "leaf_spine", "profile": "infiniband", "capacity_bytes_per_s": 50e9}

# Together they write all that the vocabulary holds.
FAMILIES: list[Any] = [
    MultiPlaneFatTree(kind="multi-plane-fat-tree"),
    ThreeLayerFatTree(kind="three-layer-fat-tree"),
    Dragonfly(kind="dragonfly", switch_ports=3, groups=3),
]


@pytest.fixture
def graph() -> Any:
    """Return 3 nodes of 2 GPUs on 2 planes of 4-port switches, two leaves (2 + 1 NICs) and one spine each."""
    return build_cluster(NODE, 3, MultiPlaneFatTree(kind="multi-plane-fat-tree", switch_ports=4))


def both(graph: Any, one: str, other: str, key: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    return graph.edges[one, other, key], graph.edges[other, one, key]


def set_both(graph: Any, one: str, other: str, **attributes: Any) -> None:
    for data in both(graph, one, other):
        data.update(attributes)


def add_both(graph: Any, one: str, other: str, key: Any, **attributes: Any) -> None:
    graph.add_edge(one, other, key, **attributes)
    graph.add_edge(other, one, key, **attributes)


def add_router(graph: Any, name: str, group: int) -> None:
    """Add a router of plane 0, with a port, in a group."""
    place = {"plane": 0, "rail": -1, "group": group, "index": 0}
    graph.add_node(name, kind="switch", layer="router", ports=1, **place)


def join_routers(graph: Any, one_group: int, other_group: int, kind: str) -> None:
    """Add two routers with a cable between them; they hold nothing."""
    for name, group in (("r0", one_group), ("r1", other_group)):
        add_router(graph, name, group)
    add_both(graph, "r0", "r1", 0, **WIRE | {"kind": kind})


def move_nic(graph: Any, *leaves: str) -> None:
    """Cable NIC 0 of node 0, now with plane -1, to these leaves of eight ports, and to no other."""
    graph.nodes[NIC]["plane"] = -1
    graph.remove_edges_from([(NIC, LEAF), (LEAF, NIC)])
    for leaf in leaves:
        graph.nodes[leaf]["ports"] = 8
        add_both(graph, NIC, leaf, graph.number_of_edges(NIC, leaf), **WIRE | {"kind": "nic"})


def pcie(kind: str) -> dict[str, Any]:
    return {"kind": kind, "profile": "pcie", "capacity_bytes_per_s": 64e9}


Break = Callable[[Any], object]

BROKEN: list[tuple[str, Break, str]] = [
    ("graph_attributes", lambda g: g.graph.pop("family"), r"the graph has no 'family'; add it"),
    (
        "graph_attributes",
        lambda g: g.graph.update(num_nodes="3"),
        r"num_nodes '3'; it must be a whole number",
    ),
    ("graph_attributes", lambda g: g.graph.update(planes=-1), r"planes -1; it must be at least 0"),
    ("vertex_kinds", lambda g: g.add_node("x"), r"'x' has kind None; known kinds are gpu, nvswitch"),
    ("vertex_kinds", lambda g: g.nodes[GPU].update(kind="tpu"), r"'node0/gpu0' has kind 'tpu'; known"),
    ("vertex_kinds", lambda g: g.nodes[GPU].update(kind=["gpu"]), r"'node0/gpu0' has kind \['gpu'\]; known"),
    ("vertex_attributes", lambda g: g.nodes[GPU].pop("index"), r"'node0/gpu0' has no 'index'; add it"),
    (
        "vertex_attributes",
        lambda g: g.nodes[GPU].update(index=True),
        r"index True; it must be a whole number",
    ),
    ("vertex_attributes", lambda g: g.nodes[GPU].update(node=0.0), r"node 0.0; it must be a whole number"),
    ("vertex_attributes", lambda g: g.nodes[NIC].update(plane=-2), r"plane -2; it must be at least -1"),
    (
        "vertex_attributes",
        lambda g: g.nodes[LEAF].update(layer="edge"),
        r"layer 'edge'; known are leaf, spine, core, router",
    ),
    ("vertex_attributes", lambda g: g.nodes[LEAF].update(rail=-2), r"rail -2; it must be at least -1"),
    ("vertex_names", lambda g: g.nodes[GPU].update(index=1), r"'node0/gpu0' must be called 'node0/gpu1'"),
    ("vertex_names", lambda g: g.add_node(7, **g.nodes[LEAF]), r"vertex 7 has an id that is no text; .*'7'"),
    ("edges", lambda g: both(g, GPU, PCIE)[0].pop("profile"), r"gpu0' -> .*pcie0'.* no 'profile'"),
    ("edges", lambda g: set_both(g, GPU, PCIE, kind="cxl"), r"kind 'cxl'; known are nvlink, pcie"),
    (
        "edges",
        lambda g: set_both(g, GPU, PCIE, profile="x"),
        r"profile 'x'; known are nvlink, pcie",
    ),
    (
        "edges",
        lambda g: set_both(g, GPU, PCIE, capacity_bytes_per_s="64 GB/s"),
        r"capacity_bytes_per_s '64 GB/s'; it must be a number: .*bytes per second",
    ),
    *[
        (
            "edges",
            lambda g, value=value: set_both(g, NIC, LEAF, capacity_bytes_per_s=value),
            r"node0/nic0' -> 'plane0/leaf0'.* must be finite and more than 0",
        )
        for value in (0.0, 0, -1.0, math.inf, math.nan)
    ],
    (
        "edges",
        lambda g: set_both(g, GPU, PCIE, kind="nvlink"),
        r"gpu to pcie_switch; .* gpu and nvswitch",
    ),
    (
        "edges",
        lambda g: add_both(g, NIC, "node1/nic0", 0, **WIRE | {"kind": "nic"}),
        r"nic to nic; it may join only nic and leaf, or nic and router",
    ),
    ("edges", lambda g: add_both(g, LEAF, "plane0/leaf1", 0, **WIRE), r"leaf to leaf; .* leaf and spine"),
    (
        "edges",
        lambda g: add_both(g, NIC, SPINE, 0, **WIRE | {"kind": "nic"}),
        r"nic to spine; .*nic and leaf",
    ),
    (
        "cables_within_nodes",
        lambda g: add_both(g, PCIE, "node1/host", 0, **pcie("pcie_host")),
        r"joins nodes 0 and 1; such a cable stays within its node",
    ),
    (
        "cables",
        lambda g: g.remove_edge(GPU, NVSWITCH, 0),
        r"no way back; add edge 'node0/gpu0' -> 'node0/nv",
    ),
    ("cables", lambda g: g.add_edge(LEAF, SPINE, 2, **WIRE), r"\(key 2\) has no way back"),
    (
        "cables",
        lambda g: both(g, LEAF, SPINE)[0].update(capacity_bytes_per_s=25e9),
        r"capacity_bytes_per_s \S+, the way back has \S+; make both directions of a cable alike",
    ),
    (
        "cables",
        lambda g: both(g, LEAF, SPINE)[1].update(profile="roce"),
        r"profile 'infiniband', the way back has 'roce'",
    ),
    (
        "cables",
        lambda g: add_both(g, LEAF, SPINE, 5, **WIRE),
        r"3 cables .* keys 0, 1, 5; number them from 0",
    ),
    ("cables", lambda g: add_both(g, LEAF, SPINE, "a", **WIRE), r"keys 0, 1, 'a'; number them from 0"),
    (
        "ports",
        lambda g: add_both(g, LEAF, SPINE, 2, **WIRE),
        r"plane0/leaf0' has 4 ports and 5 cables; remove",
    ),
    ("gpus", lambda g: g.remove_node("node1/gpu1"), r"'node1/gpu1' is missing; add it, or correct num_nodes"),
    ("gpus", lambda g: g.graph.update(num_nodes=4), r"'node3/gpu0' is missing"),
    ("gpus", lambda g: g.graph.update(num_nodes=2), r"'node2/.* beyond num_nodes = 2"),
    ("gpus", lambda g: g.graph.update(gpus_per_node=1), r"'node0/gpu1' is beyond gpus_per_node = 1"),
    ("planes", lambda g: g.graph.update(planes=1), r"is in plane 1, the graph has planes = 1"),
    ("groups", lambda g: add_router(g, "r0", -1), r"router 'r0' has group -1; number the groups"),
    (
        "groups",
        lambda g: join_routers(g, 0, 1, "router_local"),
        r"'router_local' joins the groups 0 and 1; router_local stays within",
    ),
    (
        "groups",
        lambda g: join_routers(g, 3, 3, "router_global"),
        r"'router_global' joins the groups 3 and 3; .* router_global leaves it",
    ),
    ("planes", move_nic, r"nic0' has plane -1 and ports in the planes \[\]; plane -1 is for"),
    ("planes", lambda g: move_nic(g, LEAF), r"nic0' has plane -1 and ports in the planes \[0\]; plane -1"),
    (
        "planes",
        lambda g: move_nic(g, LEAF, "plane1/leaf0", "plane0/leaf1"),
        r"ports in the planes \[0, 0, 1\]; plane -1 is for a NIC with several ports, each in another plane",
    ),
    (
        "planes",
        lambda g: g.nodes["node1/nic0"].update(plane=1),
        r"joins planes [01] and [01]; planes share no",
    ),
    (
        "planes",
        lambda g: g.nodes[SPINE].update(plane=1),
        r"joins planes [01] and [01]; planes share no switch",
    ),
    (
        "nics",
        lambda g: g.remove_edges_from([(NIC, PCIE), (PCIE, NIC)]),
        r"nic0' has 0 cables to PCIe switches",
    ),
    ("nics", lambda g: add_both(g, NIC, "node0/pcie1", 0, **pcie("pcie_nic")), r"nic0' has 2 cables to PCIe"),
    ("nics", lambda g: add_both(g, NIC, PCIE, 1, **pcie("pcie_nic")), r"nic0' has 2 cables to PCIe switches"),
    (
        "nics",
        lambda g: add_both(g, "node0/gpu1", PCIE, 0, **pcie("pcie")),
        r"node0/pcie0', which serves 2 GPUs",
    ),
    ("nics", lambda g: g.remove_edges_from([(GPU, PCIE), (PCIE, GPU)]), r"node0/pcie0', which serves 0 GPUs"),
]


@pytest.mark.parametrize(("rule", "break_it", "message"), BROKEN)
def test_a_broken_graph_is_refused(graph: Any, rule: str, break_it: Break, message: str) -> None:
    check_graph(graph)
    break_it(graph)
    with pytest.raises(ValueError, match=message):
        check_graph(graph)
    # The rule refuses it by itself too, so that it was this rule and no other that had to be written.
    with pytest.raises(ValueError, match=message):
        getattr(vocabulary, f"check_{rule}")(graph)


def test_every_rule_is_broken_above() -> None:
    rules = {name.removeprefix("check_") for name in vars(vocabulary) if name.startswith("check_")}
    assert rules - {"graph", "graph_type"} == {rule for rule, _, _ in BROKEN}


@pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph, nx.MultiGraph])
def test_other_graphs_are_refused(graph: Any, kind: type[Any]) -> None:
    with pytest.raises(
        ValueError, match=rf"is a networkx.{kind.__name__}; it must be a networkx.MultiDiGraph"
    ):
        check_graph(kind(graph))


def test_a_whole_number_is_a_capacity(graph: Any) -> None:
    # A file may say 50000000000 where another says 5e10.
    set_both(graph, NIC, LEAF, capacity_bytes_per_s=50_000_000_000)
    check_graph(graph)


def test_attributes_of_others_are_left_alone(graph: Any) -> None:
    graph.nodes[GPU]["colour"] = "green"
    both(graph, LEAF, SPINE)[0]["length_m"] = 30
    check_graph(graph)


def test_a_nic_may_have_a_port_in_each_of_several_planes(graph: Any) -> None:
    move_nic(graph, LEAF, "plane1/leaf0")
    check_graph(graph)


def test_routers_may_be_joined_within_and_between_groups(graph: Any) -> None:
    join_routers(graph, 0, 1, "router_global")
    check_graph(graph)
    graph.remove_nodes_from(["r0", "r1"])
    join_routers(graph, 1, 1, "router_local")
    check_graph(graph)


def test_the_vocabulary_holds_what_builders_write_and_nothing_else() -> None:
    # Attributes in prose rot; here the tables and the graphs must name the same ones.
    on_vertices: dict[str, set[str]] = {}
    edge_kinds: set[str] = set()
    for spec in FAMILIES:
        graph = build_cluster(NODE, 3, spec)
        for _, data in graph.nodes(data=True):
            on_vertices.setdefault(data["kind"], set()).update(data)
        edge_kinds |= {data["kind"] for _, _, data in graph.edges(data=True)}
        on_edges = {name for _, _, data in graph.edges(data=True) for name in data}
        assert on_edges == {attribute.name for attribute in vocabulary.EDGE_ATTRIBUTES}
        assert set(graph.graph) == {attribute.name for attribute in vocabulary.GRAPH_ATTRIBUTES}
    tables = {
        kind: {"kind", *(attribute.name for attribute in row.attributes)}
        for kind, row in vocabulary.VERTEX_KINDS.items()
    }
    assert on_vertices == tables
    assert edge_kinds == set(vocabulary.EDGE_KINDS)


def test_a_lone_node_has_no_nics() -> None:
    graph = build_cluster(NODE, 1, NoNetwork(kind="none"))
    assert graph.graph["planes"] == 0
    assert not [vertex for vertex, data in graph.nodes(data=True) if data["kind"] in {"nic", "switch"}]
