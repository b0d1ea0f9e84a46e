"""Dragonfly: its groups, the cables between them, and the size of the paper's."""

from collections import Counter
from itertools import combinations
from typing import Any

import pytest

from simulator.units import FieldError
from topologies import NODES, Dragonfly, build_cluster
from topologies.dragonfly import DragonflyPlan, global_cables

H800 = NODES["h800"]


def dragonfly(**fields: Any) -> Dragonfly:
    return Dragonfly(kind="dragonfly", **fields)


def test_the_size_of_table_3() -> None:
    # p = 16, a = 32, h = 16 with 511 groups: 511 x 32 = 16,352 routers with 16 NICs each; in each group 32 x 31 / 2
    # = 496 cables, and 511 x 512 / 2 = 130,816 between groups: 253,456 + 130,816.
    # Zhao et al., arXiv 2505.09343, Table 3, DF: 261,632 endpoints, 16,352 switches, 384,272 links.
    spec = dragonfly(endpoints_per_router=16, routers_per_group=32, global_ports=16, groups=511)
    counts = spec.counts(H800, 32704)
    assert (counts.endpoints, counts.switches, counts.links) == (261632, 16352, 384272)
    # They are the defaults for 64 ports, and the fewest groups for so many nodes.
    assert dragonfly().counts(H800, 32704) == counts
    spec.check(H800, 32704)


def test_511_groups_close_a_ring_with_their_spare_ports() -> None:
    plan = DragonflyPlan(16, 32, 16, 511)
    joined: Counter[tuple[int, int]] = Counter()
    ports: Counter[tuple[int, int]] = Counter()
    for one, other in global_cables(plan):
        ports.update((one, other))
        low, high = sorted((one[0], other[0]))
        joined[low, high] += 1
    # Each of the 512 ports of each group is used once.
    assert set(ports) == {(group, port) for group in range(511) for port in range(512)}
    assert set(ports.values()) == {1}
    # Any two groups are joined, neighbours on the ring twice.
    twice = {(group, group + 1) for group in range(510)} | {(0, 510)}
    assert joined == {pair: 2 if pair in twice else 1 for pair in combinations(range(511), 2)}


@pytest.mark.parametrize("groups", range(2, 14))
def test_ports_are_used_once_and_as_far_as_they_go(groups: int) -> None:
    # Groups of 4 routers with 3 global ports: 12 ports, so at most 13 groups.
    plan = DragonflyPlan(2, 4, 3, groups)
    ends = [end for cable in global_cables(plan) for end in cable]
    assert len(ends) == len(set(ends)) == 2 * plan.global_cables
    # All 12, but one where it would leave one group of an odd number of groups out: 12 g must be even, and is.
    assert set(ends) == {(group, port) for group in range(groups) for port in range(12)}
    joined = Counter(frozenset((one[0], other[0])) for one, other in global_cables(plan))
    # 12 = r (g - 1) + s: r or, where a spare port is joined, r + 1 cables between any two groups.
    assert set(joined) == {frozenset(pair) for pair in combinations(range(groups), 2)}
    assert max(joined.values()) - min(joined.values()) <= 1


def test_an_odd_port_of_an_odd_number_of_groups_stays_empty() -> None:
    # 5 routers with 3 global ports: 15 ports and 5 groups; three rounds of 4 leave 3, of which two close a ring and
    # one of each of the five groups finds no partner: 5 x 14 / 2 = 35 cables.
    plan = DragonflyPlan(2, 5, 3, 5)
    assert (plan.rounds, plan.spare_ports, plan.global_cables) == (3, 2, 35)
    assert len(list(global_cables(plan))) == 35


def test_a_full_one_joins_any_two_groups_once() -> None:
    # p = h = 2, a = 4: 4 x 2 + 1 = 9 groups, 36 routers of 2 + 3 + 2 = 7 ports, 72 NICs, 9 nodes.
    graph = build_cluster(H800, 9, dragonfly(switch_ports=7))
    between = [
        (graph.nodes[one]["group"], graph.nodes[other]["group"])
        for one, other, data in graph.edges(data=True)
        if data["kind"] == "router_global"
    ]
    assert sorted(between) == [(a, b) for a in range(9) for b in range(9) if a != b]
    assert all(graph.out_degree(f"group{index // 4}/router{index}") == 7 for index in range(36))


@pytest.mark.parametrize(
    ("fields", "num_nodes", "field", "message"),
    [
        # 16 + 31 + 16 = 63 of 64 ports; with 34 routers 65.
        (
            {"routers_per_group": 34},
            1,
            "topology.switch_ports",
            r"16 NICs, 33 cables .* 16 global_ports .* needs 65$",
        ),
        (
            {"groups": 514},
            1,
            "topology.groups",
            r"32 routers with 16 .* reaches 512 others; .* at most 513, not 514$",
        ),
        # A group has 32 x 16 = 512 NICs, 64 nodes.
        (
            {"groups": 3},
            193,
            "nodes",
            r"groups: 3 of 512 NICs holds at most 192 of these nodes; 193 .* groups: 4$",
        ),
        (
            {},
            32833,
            "nodes",
            r"groups: 513 .* at most 32,832 .* need 514 groups, .* 513: choose more routers_per_group",
        ),
        (
            {"groups": 1, "switch_ports": 3},
            1,
            "nodes",
            r"groups: 1 of 2 NICs holds not even one of these nodes; ",
        ),
        ({"switch_ports": 2}, 1, "topology.switch_ports", r"it needs 3$"),
        ({}, 0, "nodes", r"at least 1 node, not 0$"),
        ({}, 10**15, "nodes", r"at most 32,832 of these nodes"),
    ],
)
def test_refusals_name_the_field_and_the_remedy(
    fields: dict[str, int], num_nodes: int, field: str, message: str
) -> None:
    with pytest.raises(FieldError, match=message) as caught:
        dragonfly(**fields).check(H800, num_nodes)
    assert caught.value.field == field


def test_nics_with_several_ports_are_refused() -> None:
    with pytest.raises(FieldError, match=r"a dragonfly has one plane, .* nic_ports: 1") as caught:
        dragonfly().check(H800.model_copy(update={"nic_ports": 2}), 1)
    assert caught.value.field == "node.nic_ports"
