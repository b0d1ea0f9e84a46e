from collections import Counter

import numpy as np
import pytest

from simulator.routing import ONE_GLOBAL_CABLE, POLICIES, Fabric, Request


def two_layer(num_leaves: int, cables: list[int]) -> Fabric:
    """Leaves 0 .. n-1, then spines; `cables[s]` parallel cables from every leaf to spine s, and back."""
    rows: list[list[tuple[int, int]]] = [[] for _ in range(num_leaves + len(cables))]
    number = 0
    for leaf in range(num_leaves):
        for spine, count in enumerate(cables):
            for _ in range(count):
                rows[leaf].append((number, num_leaves + spine))
                rows[num_leaves + spine].append((number + 1, leaf))
                number += 2
    for row in rows:
        row.sort(key=lambda pair: (pair[1], pair[0]))
    return Fabric(rows)


def cable_ends(fabric: Fabric) -> dict[int, tuple[int, int]]:
    return {cable: (switch, to) for switch, row in enumerate(fabric.cables_from) for cable, to in row}


def num_cables(fabric: Fabric) -> int:
    return sum(len(row) for row in fabric.cables_from)


def route(fabric, policy, source, target, destination=0, flow=0, seed=1, backlog=None):
    backlog_s = np.zeros(num_cables(fabric)) if backlog is None else backlog
    return POLICIES[policy](fabric, Request(source, target, destination, flow), seed, backlog_s)


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("cables", [[1, 1, 1, 1], [2, 2], [3, 3, 2]])
def test_every_policy_conserves_the_flow(policy, cables):
    # What leaves the source leaf is 1, what enters the target leaf is 1, and each switch passes on what it gets.
    fabric = two_layer(4, cables)
    ends = cable_ends(fabric)
    for source in range(4):
        for target in set(range(4)) - {source}:
            for flow in range(5):
                balance: Counter[int] = Counter()
                for cable, share in route(fabric, policy, source, target, destination=flow, flow=flow):
                    balance[ends[cable][0]] -= share
                    balance[ends[cable][1]] += share
                assert balance.pop(source) == pytest.approx(-1)
                assert balance.pop(target) == pytest.approx(1)
                assert list(balance.values()) == pytest.approx([0] * len(balance), abs=1e-12)


def test_adaptive_splits_by_paths_and_not_by_hops():
    # 3, 3 and 2 parallel cables to three spines make 3 x 3 + 3 x 3 + 2 x 2 = 22 paths between two leaves. Each of
    # the three cables to spine 0 lies on 3 of them, each of the two to spine 2 on 2.
    fabric = two_layer(2, [3, 3, 2])
    assert fabric.num_paths(0, 1) == 22
    ends = cable_ends(fabric)
    for cable, share in route(fabric, "adaptive", 0, 1):
        spine = max(ends[cable]) - 2
        assert share == pytest.approx((3, 3, 2)[spine] / 22)


def test_static_spreads_the_destinations_of_a_leaf_over_all_cables():
    # 32 destinations, 2 spines, 16 parallel cables to each: no cable twice, on the way up as on the way down.
    fabric = two_layer(3, [16, 16])
    used = Counter(
        cable for number in range(32) for cable, _ in route(fabric, "static", 0, 2, destination=number)
    )
    assert len(used) == 64
    assert set(used.values()) == {1}


def test_static_ignores_the_source_and_the_flow():
    fabric = two_layer(3, [4, 4])
    down = [
        {c for c, _ in route(fabric, "static", source, 2, destination=5, flow=source)} for source in (0, 1)
    ]
    ends = cable_ends(fabric)
    assert {c for c in down[0] if ends[c][1] == 2} == {c for c in down[1] if ends[c][1] == 2}


def test_ecmp_is_seeded_and_spreads_like_chance():
    # 8,000 flows over 8 cables: each count is binomial with mean 1,000 and deviation sqrt(8000 x 1/8 x 7/8) = 29.6;
    # five deviations happen by chance once in two million.
    fabric = two_layer(2, [1] * 8)
    first = [route(fabric, "ecmp", 0, 1, flow=flow)[0][0] for flow in range(8000)]
    assert all(abs(count - 1000) < 5 * 29.6 for count in Counter(first).values())
    assert len(Counter(first)) == 8
    again = [route(fabric, "ecmp", 0, 1, flow=flow)[0][0] for flow in range(100)]
    other = [route(fabric, "ecmp", 0, 1, flow=flow, seed=2)[0][0] for flow in range(100)]
    assert again == first[:100]
    assert other != again


def test_least_loaded_avoids_the_fullest_cable_of_a_path():
    # Three spines. Path 0 is full on the way down, path 1 on the way up, path 2 has a little on both: path 2.
    fabric = two_layer(2, [1, 1, 1])
    up = {spine: cable for cable, (switch, spine) in cable_ends(fabric).items() if switch == 0}
    down = {spine: cable for cable, (spine, leaf) in cable_ends(fabric).items() if leaf == 1}
    backlog = np.zeros(num_cables(fabric))
    backlog[down[2]], backlog[up[3]], backlog[up[4]], backlog[down[4]] = 9, 8, 3, 3
    chosen = [cable for cable, _ in route(fabric, "least-loaded", 0, 1, backlog=backlog)]
    assert chosen == [up[4], down[4]]


def test_least_loaded_breaks_ties_by_sum_then_by_cable():
    fabric = two_layer(2, [1, 1, 1])
    up = {spine: cable for cable, (switch, spine) in cable_ends(fabric).items() if switch == 0}
    down = {spine: cable for cable, (spine, leaf) in cable_ends(fabric).items() if leaf == 1}
    backlog = np.zeros(num_cables(fabric))
    assert [cable for cable, _ in route(fabric, "least-loaded", 0, 1, backlog=backlog)] == [up[2], down[2]]
    backlog[[up[2], down[2], up[3], up[4], down[4]]] = [5, 5, 5, 5, 1]
    assert [cable for cable, _ in route(fabric, "least-loaded", 0, 1, backlog=backlog)] == [up[3], down[3]]


def test_no_path_is_known_as_such():
    fabric = Fabric([[(0, 1)], [], []])
    assert fabric.hops(0, 1) == 1
    assert fabric.hops(0, 2) is None
    assert fabric.num_paths(0, 2) == 0


def dragonfly(routers_per_group: int, num_groups: int) -> Fabric:
    """Groups of fully meshed routers; one cable between any two groups, dealt out to the routers of each in turn."""
    rows: list[list[tuple[int, int]]] = [[] for _ in range(routers_per_group * num_groups)]
    number = 0

    def join(one: int, other: int) -> None:
        nonlocal number
        rows[one].append((number, other))
        rows[other].append((number + 1, one))
        number += 2

    for group in range(num_groups):
        first = group * routers_per_group
        for one in range(routers_per_group):
            for other in range(one):
                join(first + one, first + other)
    used = [0] * num_groups
    for one in range(num_groups):
        for other in range(one):
            ends = []
            for group in (one, other):
                ends.append(group * routers_per_group + used[group] % routers_per_group)
                used[group] += 1
            join(*ends)
    for row in rows:
        row.sort(key=lambda pair: (pair[1], pair[0]))
    groups = [router // routers_per_group for router in range(len(rows))]
    return Fabric(rows, groups, ONE_GLOBAL_CABLE)


def between_groups(fabric: Fabric, found: list[tuple[int, float]]) -> int:
    """Return how many cables of a path join two groups."""
    ends = cable_ends(fabric)
    return sum(fabric.group_of[ends[cable][0]] != fabric.group_of[ends[cable][1]] for cable, _ in found)


def places(fabric: Fabric, source: int, found: list[tuple[int, float]]) -> list[int]:
    """Return the switches that a path leads over; each cable must begin where the one before ended."""
    ends, visited = cable_ends(fabric), [source]
    for cable, share in found:
        assert share == 1.0
        assert ends[cable][0] == visited[-1]
        visited.append(ends[cable][1])
    return visited


@pytest.mark.parametrize(("routers", "groups"), [(2, 3), (4, 9), (3, 4)])
def test_minimal_crosses_one_global_cable_and_valiant_two(routers: int, groups: int):
    fabric = dragonfly(routers, groups)
    for source in range(0, routers * groups, 2):
        for target in range(routers * groups):
            if source == target:
                continue
            for flow in range(4):
                apart = fabric.group_of[source] != fabric.group_of[target]
                direct = route(fabric, "minimal", source, target, flow=flow)
                # local, global, local; within a group a single cable
                assert places(fabric, source, direct)[-1] == target
                assert between_groups(fabric, direct) == apart
                assert len(direct) <= (3 if apart else 1)
                around = route(fabric, "valiant", source, target, flow=flow)
                visited = places(fabric, source, around)
                assert visited[-1] == target
                assert between_groups(fabric, around) == 2 * apart
                third = {fabric.group_of[switch] for switch in visited}
                assert len(third) == (3 if apart else 1)


def test_valiant_draws_every_third_group_about_equally_often():
    # Of 9 groups 7 are left for a flow between two: 700 flows give each 100, to within 5 standard deviations of
    # sqrt(700 x 1/7 x 6/7) = 9.3.
    fabric = dragonfly(4, 9)
    drawn = Counter()
    for flow in range(700):
        visited = places(fabric, 0, route(fabric, "valiant", 0, 35, flow=flow))
        drawn.update({fabric.group_of[switch] for switch in visited} - {0, 8})
    assert set(drawn) == set(range(1, 8))
    assert all(abs(count - 100) < 47 for count in drawn.values())


def test_valiant_without_groups_leads_over_every_other_switch():
    # A full mesh of 5 routers: each of the 3 others serves as the place between 0 and 4.
    rows = [[(5 * one + other, other) for other in range(5) if other != one] for one in range(5)]
    fabric = Fabric(rows)
    over = {places(fabric, 0, route(fabric, "valiant", 0, 4, flow=flow))[1] for flow in range(40)}
    assert over == {1, 2, 3}
    assert [len(route(fabric, "minimal", 0, 4, flow=flow)) for flow in range(5)] == [1] * 5


def test_valiant_passes_over_switches_that_are_cut_off():
    # As above, but no cable leads to router 1 any more.
    rows = [[(5 * one + other, other) for other in range(5) if other != one] for one in range(5)]
    fabric = Fabric(rows).without(frozenset(5 * one + 1 for one in range(5)))
    over = {places(fabric, 0, route(fabric, "valiant", 0, 4, flow=flow))[1] for flow in range(40)}
    assert over == {2, 3}


def test_where_nothing_lies_between_valiant_is_minimal():
    rows = [[(0, 1)], [(1, 0)]]
    assert route(Fabric(rows), "valiant", 0, 1) == [(0, 1.0)]
    assert route(Fabric(rows, [0, 1], ONE_GLOBAL_CABLE), "valiant", 0, 1) == [(0, 1.0)]


@pytest.mark.parametrize("policy", ["adaptive", "ecmp", "least-loaded", "static"])
def test_no_policy_uses_a_dead_cable(policy: str):
    # Leaves 0 and 1, spines 2 to 5. Without the cable from leaf 0 to spine 3, three of four paths are left.
    fabric = two_layer(2, [1, 1, 1, 1])
    ends = cable_ends(fabric)
    dead = next(cable for cable, pair in ends.items() if pair == (0, 3))
    left = fabric.without(frozenset({dead}))
    assert (fabric.num_paths(0, 1), left.num_paths(0, 1), left.num_paths(1, 0)) == (4, 3, 4)
    for flow in range(12):
        found = route(left, policy, 0, 1, destination=flow, flow=flow, backlog=np.zeros(num_cables(fabric)))
        assert dead not in {cable for cable, _ in found}
        shares = [share for cable, share in found if ends[cable][0] == 0]
        assert shares == pytest.approx([1 / 3] * 3 if policy == "adaptive" else [1.0])
    cut_off = left.without(frozenset(cable for cable, pair in ends.items() if pair[0] == 0))
    assert cut_off.hops(0, 1) is None
    assert cut_off.num_paths(0, 1) == 0


def test_equal_cost_paths_are_counted_as_by_hand_where_cables_differ_in_length():
    # From 0 to 3 in another group, whose cables have length 3: 0 - 1 - 3 and 0 - 2 - 3 are 1 + 3, and there is no
    # cable 0 - 3; two parallel cables 1 - 3 make it three paths.
    rows = [[(0, 1), (1, 2)], [(2, 3), (3, 3)], [(4, 3)], []]
    fabric = Fabric(rows, [0, 0, 0, 1], ONE_GLOBAL_CABLE)
    assert (fabric.hops(0, 3), fabric.num_paths(0, 3)) == (4, 3)
    assert fabric.next_cables(0, 3) == [(0, 1), (1, 2)]
