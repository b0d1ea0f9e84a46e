"""Slim Fly: degrees, diameter and size of its graphs, and what cannot be one."""

from typing import Any

import numpy as np
import pytest

from simulator.units import FieldError
from topologies import NODES, SlimFly, build_cluster
from topologies.slim_fly import router_pairs

H800 = NODES["h800"]


def slim_fly(**fields: Any) -> SlimFly:
    return SlimFly(kind="slim-fly", **fields)


def adjacency(q: int) -> Any:
    """Return [2 q^2, 2 q^2] whether two routers are joined."""
    pairs = np.array(router_pairs(q))
    matrix = np.zeros((2 * q * q, 2 * q * q), np.float32)
    matrix[pairs[:, 0], pairs[:, 1]] = matrix[pairs[:, 1], pairs[:, 0]] = 1
    return matrix


# q = 4w + d: 3 = 4 - 1, 4 = 4, 5 = 4 + 1, 7 = 8 - 1, 8, 9 = 8 + 1, ..., with (3q - d) / 2 cables a router.
@pytest.mark.parametrize(
    ("q", "radix"),
    [
        (3, 5),
        (4, 6),
        (5, 7),
        (7, 11),
        (8, 12),
        (9, 13),
        (11, 17),
        (13, 19),
        (16, 24),
        (17, 25),
        (19, 29),
        (25, 37),
        (27, 41),
        (29, 43),
    ],
)
def test_every_router_has_its_cables_and_reaches_all_in_two(q: int, radix: int) -> None:
    joined = adjacency(q)
    assert set(joined.sum(axis=0)) == {radix}
    assert not joined.diagonal().any()
    assert len(router_pairs(q)) == len(set(router_pairs(q))) == q * q * radix
    # Entry (a, b) of the square counts the ways from a to b over one router; none may be left without any.
    assert ((joined @ joined + joined + np.eye(len(joined))) > 0).all()


def test_the_smallest_is_the_hoffman_singleton_graph() -> None:
    # q = 5: 50 routers of degree 7 and diameter 2, which is the Moore bound 1 + 7 + 7 x 6, so that two routers that
    # are not joined have exactly one common neighbour, and two that are have none. There is one such graph.
    joined = adjacency(5)
    assert (joined @ joined + joined == 6 * np.eye(50) + np.ones((50, 50))).all()


def test_groups_are_columns() -> None:
    # Within a group of q = 5 a router is joined to (q - 1) / 2 = 2 others, which differ by a generator; the other
    # five cables lead to one router of each group of the other half.
    graph = build_cluster(H800, 25, slim_fly(q=5))
    kinds = [data["kind"] for _, _, data in graph.out_edges("group3/router17", data=True)]
    assert (kinds.count("router_local"), kinds.count("router_global"), kinds.count("nic")) == (2, 5, 4)
    others = [
        graph.nodes[other]["group"]
        for _, other, data in graph.out_edges("group3/router17", data=True)
        if data["kind"] == "router_global"
    ]
    assert sorted(others) == [5, 6, 7, 8, 9]


def test_the_size_of_table_3_is_counted_and_refused() -> None:
    # q = 28: 2 x 28^2 = 1,568 routers, (3 x 28 - 0) / 2 = 42 cables each, 21 NICs: 32,928 of both.
    # Zhao et al., arXiv 2505.09343, Table 3, SF: 32,928 endpoints, 1,568 switches, 32,928 links.
    counts = slim_fly(q=28).counts(H800, 4116)
    assert (counts.endpoints, counts.switches, counts.links) == (32928, 1568, 32928)
    with pytest.raises(
        FieldError,
        match=r"no Slim Fly of q = 28 .* q: 27 with .*: 21 \(30,618 NICs\) and q: 29 with .*: 21 \(35,322 NICs\)$",
    ) as caught:
        slim_fly(q=28).build(H800, 4116)
    assert caught.value.field == "topology.q"


@pytest.mark.parametrize(
    ("fields", "num_nodes", "routers", "cables"),
    [
        # 2 x 27^2 routers of 41 cables and 21 NICs: 30,618 NICs, 3,827 nodes.
        ({"q": 27}, 3827, 1458, 1458 * 41 // 2),
        # 2 x 29^2 routers of 43 cables, which leave 21 of 64 ports: 35,322 NICs.
        ({"q": 29, "endpoints_per_router": 21}, 4116, 1682, 1682 * 43 // 2),
        ({"q": 29}, 4415, 1682, 1682 * 43 // 2),
        # The nodes of Table 3's row need the next size.
        ({}, 4116, 1682, 1682 * 43 // 2),
    ],
)
def test_the_nearest_sizes_of_table_3(
    fields: dict[str, int], num_nodes: int, routers: int, cables: int
) -> None:
    spec = slim_fly(**fields)
    counts = spec.counts(H800, num_nodes)
    assert (counts.switches, counts.links) == (routers, cables)


@pytest.mark.parametrize(
    ("q", "num_nodes", "routers", "cables_of_each"),
    [
        (5, 25, 50, 7),
        (7, 73, 98, 11),
        (8, 96, 128, 12),
        pytest.param(27, 3827, 1458, 41, marks=pytest.mark.slow),
        pytest.param(29, 4116, 1682, 43, marks=pytest.mark.slow),
    ],
)
def test_what_is_counted_is_built(q: int, num_nodes: int, routers: int, cables_of_each: int) -> None:
    # 2 q^2 routers of (3 q - d) / 2 cables, q being 4 k + d.
    graph = slim_fly(q=q).build(H800, num_nodes)
    assert sum(data["kind"] == "switch" for _, data in graph.nodes(data=True)) == routers
    kinds = [data["kind"] for _, _, data in graph.edges(data=True)]
    assert kinds.count("router_local") + kinds.count("router_global") == routers * cables_of_each
    counts = slim_fly(q=q).counts(H800, num_nodes)
    assert (counts.switches, counts.links) == (routers, routers * cables_of_each // 2)


@pytest.mark.parametrize(
    ("fields", "num_nodes", "field", "message"),
    [
        # 50 routers of 4 NICs are 25 nodes; 98 routers of q = 7 with 11 / 2 -> 6 NICs are 73.
        ({"q": 5}, 26, "nodes", r"q = 5 holds at most 25 of these nodes; 26 would need q: 7$"),
        # 36 ports: 24 cables of q = 16 leave 12 for NICs, 512 x 12 = 6,144; 25 of q = 17 leave 11, 578 x 11 = 6,358;
        # 29 of q = 19 leave 7, 722 x 7 = 5,054. So q = 17 holds the most, 6,358 / 8 = 794 nodes.
        (
            {"switch_ports": 36},
            10**9,
            "nodes",
            r"q = 17 holds at most 794 .* none that holds 1,000,000,000 can be .* 36 ports$",
        ),
        ({"q": 28}, 4117, "nodes", r"q = 28 holds at most 4,116 .* 4,117 would need q: 29$"),
        (
            {"q": 6},
            1,
            "topology.q",
            r"no Slim Fly of q = 6 .* q: 5 with .*: 4 \(200 NICs\) and q: 7 with .*: 6 \(588 NICs\)$",
        ),
        (
            {"q": 12},
            1,
            "topology.q",
            r"no Slim Fly of q = 12 .* q: 11 with .*: 9 \(.* and q: 13 with .*: 10 \(3,380 NICs\)$",
        ),
        (
            {"q": 43},
            1,
            "topology.switch_ports",
            r"q = 43 has 65 cables to others and 1 to .* 64; it needs 66$",
        ),
        (
            {"q": 29, "endpoints_per_router": 22},
            1,
            "topology.switch_ports",
            r"43 cables .* 22 to NICs, .* needs 65$",
        ),
        (
            {"switch_ports": 5},
            1,
            "topology.switch_ports",
            r"q = 3 has 5 cables to others and 1 to NICs, .* needs 6$",
        ),
        ({"q": 5}, 0, "nodes", r"at least 1 node, not 0$"),
    ],
)
def test_refusals_name_the_field_and_the_remedy(
    fields: dict[str, int], num_nodes: int, field: str, message: str
) -> None:
    with pytest.raises(FieldError, match=message) as caught:
        slim_fly(**fields).check(H800, num_nodes)
    assert caught.value.field == field


def test_nics_with_several_ports_are_refused() -> None:
    with pytest.raises(FieldError, match=r"a slim-fly has one plane, .* nic_ports: 1") as caught:
        slim_fly(q=5).check(H800.model_copy(update={"nic_ports": 4}), 1)
    assert caught.value.field == "node.nic_ports"
