from collections import Counter

import numpy as np
import pytest

from simulator.routing import POLICIES, Fabric, Request


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
