from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.fairness import max_min_rates
from simulator.fluid import FluidNetwork
from support.exact_fairness import exact_rates
from support.exact_fluid import ExactFluid
from support.networks import Case, add_flows, bills_of, cases, tree_cases
from support.properties import tried_on


def rates(capacity, *bills, weights=None):
    """Solve flows given as {link: coefficient} dictionaries."""
    offsets = np.concatenate([[0], np.cumsum([len(bill) for bill in bills])]).astype(np.int64)
    links = np.array([link for bill in bills for link in bill], np.int64)
    coefficients = np.array([value for bill in bills for value in bill.values()], float)
    given_weights = np.ones(len(bills)) if weights is None else np.array(weights, float)
    return max_min_rates(np.array(capacity, float), offsets, links, coefficients, given_weights)


def test_one_link_is_shared_equally():
    # r0 + r1 + r2 <= 12, all alike: 4 each.
    assert rates([12], {0: 1}, {0: 1}, {0: 1}).tolist() == [4, 4, 4]


def test_parking_lot():
    # Flow 0 crosses links 0, 1, 2 (capacity 6 each); flows 1, 2, 3 one link each, but link 1 also has flow 4.
    #   link 0: r0 + r1 <= 6     link 1: r0 + r2 + r4 <= 6     link 2: r0 + r3 <= 6
    # Link 1 fills first, at 6/3 = 2: r0 = r2 = r4 = 2. Links 0 and 2 leave 6 - 2 = 4 to r1 and r3.
    found = rates([6, 6, 6], {0: 1, 1: 1, 2: 1}, {0: 1}, {1: 1}, {2: 1}, {1: 1})
    assert found.tolist() == [2, 4, 2, 4, 2]


def test_incast_leaves_senders_idle():
    # Nine senders of capacity 10 into one receiver of capacity 9: the receiver gives 1 to each.
    found = rates([10] * 9 + [9], *({sender: 1, 9: 1} for sender in range(9)))
    assert found.tolist() == [1] * 9


def test_weights_are_shares_of_a_full_link():
    # Levels r/w equal: (r0, r1) = (1, 3) x 2.5 on a link of 10.
    assert rates([10], {0: 1}, {0: 1}, weights=[1, 3]).tolist() == [2.5, 7.5]


def test_a_coefficient_charges_more_than_it_delivers():
    # A relayed multicast: flow 0 charges the wire (10) once and the relay's port (12) 3 times per byte, flow 1
    # the port once. Port: 3 r0 + r1 <= 12 fills at r0 = r1 = 12/4 = 3; the wire has room to spare.
    assert rates([10, 12], {0: 1, 1: 3}, {1: 1}).tolist() == [3, 3]


def test_what_little_a_wide_link_has_left_is_shared_by_the_light_flows_on_it():
    # Link 0 (2000) carries flow 0 (weight 1000) at coefficient 2 and flows 1 and 2 (weights 0.1 and 0.3) at 4: it
    # would fill at level 2000 / (2000 + 0.4 + 1.2) = 0.9992. Link 1 (999) gives flow 0 its 999 before, at level
    # 0.999. Link 0 has 2000 - 2 x 999 = 2 left, a thousandth: 4 r1 + 4 r2 = 2 and r2 = 3 r1 make r1 = 0.125.
    found = rates([2000, 999], {0: 2, 1: 1}, {0: 4}, {0: 4}, weights=[1000, 0.1, 0.3])
    # Subtracting leaves 1.6000000000001364 of the demand, which the rates would show: it is summed afresh.
    assert found == pytest.approx([999, 0.125, 0.375], rel=1e-15)


def test_a_dead_link_stops_its_flows_only():
    assert rates([0, 5], {0: 1, 1: 1}, {1: 1}).tolist() == [0, 5]


def test_a_flow_with_no_link_is_not_held_back():
    assert rates([5], {}, {0: 1}).tolist() == [np.inf, 5]


@pytest.mark.parametrize("capacity", [0.1, 0.3, 0.7, 1.1])
def test_symmetric_flows_get_the_very_same_rate(capacity):
    # None of these is a binary fraction: without a rule for links that fill together, rounding would tell alike flows
    # apart, and an all-to-all would end flow by flow instead of at once.
    bills = [{source: 1, 8 + target: 1} for source in range(8) for target in range(8) if source != target]
    assert len(set(rates([capacity] * 16, *bills).tolist())) == 1
    # Three flows on either link, one of them on both: once link 0 has given a third to its three, what is left of
    # link 1, halved, is a third too, though (0.1 - 0.1 / 3) / 2 > 0.1 / 3 in floats.
    assert len(set(rates([capacity] * 2, {0: 1}, {0: 1}, {0: 1, 1: 1}, {1: 1}, {1: 1}).tolist())) == 1


# After a change: only what can change is solved again, and the answer is that of solving all anew. Flows end when
# they do in exact fractions if every rate on the way was right.


def network_of(
    case: Case, size: list[Fraction], start: list[Fraction], *, patience: int | None
) -> FluidNetwork:
    """Return a network with flows; links that are not full are left out as soon as they may be.

    patience: without (-1) nothing is poured, and all that changes is filled.
    """
    network = FluidNetwork(case.arrays[0], metered=False)
    as_floats = [np.array([float(value) for value in values]) for values in (size, start, case.weights)]
    add_flows(network, bills_of(*case.bills), *as_floats)
    network._state.now["look_after"] = 0
    if patience is not None:
        network._state.sharing.solve["patience"] = patience
    return network


def exact_ends(case: Case, size: list[Fraction], start: list[Fraction]) -> list[float]:
    exact = ExactFluid(case.capacity)
    rows = zip(case.bills, size, start, case.weights, strict=True)
    flows = [exact.add(bill, size_bytes, start_s, weight) for bill, size_bytes, start_s, weight in rows]
    exact.advance()
    return [float(flow.finish_s) for flow in flows]


def solves_filled(network: FluidNetwork) -> int:
    return int(network._state.sharing.solve["filled"][0])


def steps(weights: int) -> Case:
    """Flows of weights 1, 2, ... on one link of capacity 1, each of them alone on another as well."""
    bills = [{0: Fraction(1), 1 + number: Fraction(1)} for number in range(weights)]
    return Case([Fraction(1)] * (1 + weights), bills, [Fraction(1 + number) for number in range(weights)])


def test_one_new_flow_is_poured_and_a_hundred_are_filled():
    # Weights differ, so that each flow is a group of its own. Flow 0 starts alone, the hundred others a second later;
    # both ways of solving are right, but to place so many one by one would take long.
    case = steps(101)
    network = network_of(case, [Fraction(1000)] * 101, [Fraction(0)] + [Fraction(1)] * 100, patience=None)
    network.advance(0.5)
    assert solves_filled(network) == 0
    network.advance(1.5)
    assert solves_filled(network) == 1


def test_a_link_that_has_been_idle_is_shared_as_a_new_one():
    # Link 0 (10 bytes/s) and 1 (4): flow 0 has link 0 for 1 s, then nothing is there until 2 s; flow 1 (weight 3)
    # then has both links, at 4 bytes/s, and flow 2 (weight 1) joins on link 0 at 3 s: levels 4/3 on link 1, and
    # 6 of 10 are left to flow 2. Flow 1: 8 bytes at 4 = 2 s. Flow 2: 6 bytes by 4 s, then 10 bytes/s for 10: 5 s.
    bills = [{0: Fraction(1)}, {0: Fraction(1), 1: Fraction(1)}, {0: Fraction(1)}]
    case = Case([Fraction(10), Fraction(4)], bills, [Fraction(1), Fraction(3), Fraction(1)])
    size, start = [Fraction(10), Fraction(8), Fraction(16)], [Fraction(0), Fraction(2), Fraction(3)]
    for patience in (-1, None):
        network = network_of(case, size, start, patience=patience)
        network.advance(np.inf)
        assert network.finish_s.tolist() == [1.0, 4.0, 5.0]


@pytest.mark.parametrize("patience", [-1, None])
def test_a_new_flow_takes_from_those_that_other_links_hold(patience):
    # Link 1 (5 bytes/s) gives flows 0 and 1 2.5 each; flow 0 crosses link 0 (4 bytes/s) too. At 1 s flow 2 (weight 3)
    # joins on link 0, which is full at level 4 / (1 + 3) = 1: flow 0 falls to 1, flow 1 rises to 5 - 1 = 4, flow 2
    # has 3. Flow 2: 6 bytes end at 3 s. Flow 1: 2.5 + 2 x 4 = 10.5 by then, and flow 0 2.5 + 2 x 1 = 4.5; both have
    # 2.5 again, until flow 1 (13 bytes) ends at 4 s. Flow 0 (11 bytes) has 7 by then, and 4 more at 4 bytes/s: 5 s.
    bills = [{0: Fraction(1), 1: Fraction(1)}, {1: Fraction(1)}, {0: Fraction(1)}]
    case = Case([Fraction(4), Fraction(5)], bills, [Fraction(1), Fraction(1), Fraction(3)])
    size, start = [Fraction(11), Fraction(13), Fraction(6)], [Fraction(0), Fraction(0), Fraction(1)]
    network = network_of(case, size, start, patience=patience)
    network.advance(np.inf)
    assert network.finish_s == pytest.approx([5.0, 4.0, 3.0], rel=1e-12)


@pytest.mark.parametrize("patience", [-1, None])
@pytest.mark.parametrize("num_others", [0, 7, 8])
def test_what_has_its_level_already_keeps_it_when_others_are_taken_out(num_others, patience):
    # As above, flow 3 being what flow 2 is there. Beside it flow 2 joins at 1 s too: links 2 and 3 give it 1 byte/s,
    # at level 0.5, before flow 0 is taken from link 1, so that 7 bytes end at 8 s. It crosses link 4 (4 bytes/s) as
    # well, where flow 4 joins at 2 s and gets the 3 bytes/s that are left: 6 bytes end at 4 s. Others join at 1 s,
    # before flow 2, each alone on a link of 10 bytes/s: 30 bytes end at 4 s. Flows 5 and 6, at 9 s, keep links 2
    # and 3 from being left out for each other.
    bills = [dict.fromkeys(path, Fraction(1)) for path in ([0, 1], [1], [2, 3, 4], [0], [4], [2], [3])]
    bills[2:2] = [{5 + number: Fraction(1)} for number in range(num_others)]

    def with_others(values: list[int], others: int) -> list[Fraction]:
        return [Fraction(value) for value in (*values[:2], *[others] * num_others, *values[2:])]

    capacity = [Fraction(value) for value in (4, 5, 1, 1, 4, *[10] * num_others)]
    case = Case(capacity, bills, with_others([1, 1, 2, 3, 2, 1, 1], 1))
    size, start = with_others([11, 13, 7, 6, 6, 1, 1], 30), with_others([0, 0, 1, 1, 2, 9, 9], 1)
    network = network_of(case, size, start, patience=patience)
    network.advance(np.inf)
    expected = [float(value) for value in with_others([5, 4, 8, 3, 4, 10, 10], 4)]
    assert network.finish_s == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("patience", "looks"),
    [((-1,), 0), ((6,), 0), ((-1, 6), 0), ((-1,), 1 << 40)],
    ids=["filled", "poured", "in turn", "filled, links let in again"],
)
@pytest.mark.parametrize("most", [9, 200])
@pytest.mark.parametrize("seed", range(6))
def test_flows_that_come_one_by_one_end_when_exact_fractions_say(seed, most, patience, looks):
    # Levels change a lot with each flow, so that links that are left out are full again soon: what rates have grown
    # by must tell so. Filling and pouring in turn, either finds what the other has left. If to look at links that are
    # left out has cost too much, all are let in again, and flows that start at that instant change their groups.
    random = np.random.default_rng(seed)
    bills = [
        {int(link): Fraction(1) for link in random.choice(5, random.integers(1, 4), replace=False)}
        for _ in range(10)
    ]
    capacity = [Fraction(int(value)) for value in random.integers(1, most, 5)]
    weights = [Fraction(int(value)) for value in random.integers(1, min(most, 20), 10)]
    size = [Fraction(int(value)) * (most // 9) for value in random.integers(5, 60, 10)]
    start = [Fraction(number) for number in range(10)]
    case = Case(capacity, bills, weights)
    network = network_of(case, size, start, patience=None)
    for number in range(10):
        network._state.sharing.solve["patience"] = patience[number % len(patience)]
        network._state.now["looks"] += looks * (number % 2)
        network.advance(number + 0.5)
    network.advance(np.inf)
    assert network.finish_s == pytest.approx(exact_ends(case, size, start), rel=1e-9)


@pytest.mark.parametrize("patience", [-1, None])
@tried_on(300)
@given(case=st.one_of(cases(), tree_cases()), data=st.data())
def test_what_is_solved_again_is_as_if_all_were(case: Case, data, patience: int | None):
    count = len(case.bills)
    size = data.draw(st.lists(st.integers(1, 60).map(Fraction), min_size=count, max_size=count), "size")
    start = data.draw(st.lists(st.integers(0, 3).map(Fraction), min_size=count, max_size=count), "start")
    network = network_of(case, size, start, patience=patience)
    network.advance(np.inf)
    assert network.finish_s == pytest.approx(exact_ends(case, size, start), rel=1e-9)


# Laws of rates


@tried_on(200)
@given(cases())
def test_agrees_with_the_exact_twin(case: Case):
    expected = [float(rate) for rate in exact_rates(case.capacity, case.bills, case.weights)]
    assert max_min_rates(*case.arrays) == pytest.approx(expected, rel=1e-11)


@tried_on(200)
@given(cases(max_links=8, max_flows=14))
def test_the_theorem_holds(case: Case):
    # Max-min fair if and only if no link is over capacity, and every flow crosses a full link on which no flow
    # has a higher level (rate over weight).
    capacity, offsets, links, coefficients, weights = case.arrays
    found = max_min_rates(capacity, offsets, links, coefficients, weights)
    flow_of_entry = np.repeat(np.arange(len(weights)), np.diff(offsets))
    load = np.bincount(links, coefficients * found[flow_of_entry], minlength=len(capacity))
    assert (load <= capacity * (1 + 1e-11)).all()
    full = load >= capacity * (1 - 1e-11)
    level = found / weights
    highest = np.zeros(len(capacity))
    np.maximum.at(highest, links, level[flow_of_entry])
    for flow in range(len(weights)):
        crossed = links[offsets[flow] : offsets[flow + 1]]
        assert any(full[link] and level[flow] >= highest[link] * (1 - 1e-11) for link in crossed)


@tried_on(100)
@given(cases(), st.randoms(use_true_random=False))
def test_relabelling_links_and_flows_changes_nothing(case: Case, random):
    flows, links = list(range(len(case.bills))), list(range(len(case.capacity)))
    random.shuffle(flows)
    random.shuffle(links)  # links[i] is the new name of link i
    renamed = [0] * len(links)
    for old, new in enumerate(links):
        renamed[new] = case.capacity[old]
    bills = [{links[link]: value for link, value in case.bills[flow].items()} for flow in flows]
    other = Case(renamed, bills, [case.weights[flow] for flow in flows])
    assert max_min_rates(*other.arrays) == pytest.approx(max_min_rates(*case.arrays)[flows], rel=1e-11)


@tried_on(100)
@given(cases(), st.floats(0.001, 1000))
def test_scaling_capacities_scales_rates(case: Case, factor: float):
    capacity, *rest = case.arrays
    expected = factor * max_min_rates(capacity, *rest)
    assert max_min_rates(factor * capacity, *rest) == pytest.approx(expected, rel=1e-11)


@tried_on(100)
@given(cases(), st.data())
def test_splitting_a_flow_changes_nothing(case: Case, data):
    # Two flows of half the weight get half the rate each, and the others what they had.
    flow = data.draw(st.integers(0, len(case.bills) - 1))
    weights = [*case.weights, case.weights[flow] / 2]
    weights[flow] /= 2
    split = max_min_rates(*Case(case.capacity, [*case.bills, case.bills[flow]], weights).arrays)
    split[flow] += split[-1]
    assert split[:-1] == pytest.approx(max_min_rates(*case.arrays), rel=1e-11)


@tried_on(100)
@given(cases(), st.data())
def test_a_slack_link_changes_nothing(case: Case, data):
    # A new link wide enough for everything at once, crossed by any of the flows.
    rates_before = max_min_rates(*case.arrays)
    crossing = data.draw(st.lists(st.booleans(), min_size=len(case.bills), max_size=len(case.bills)))
    wide = len(case.capacity)
    bills = [
        bill | {wide: 1} if crosses else bill for bill, crosses in zip(case.bills, crossing, strict=True)
    ]
    other = Case([*case.capacity, 1 + 2 * sum(case.capacity) * 8 * len(bills)], bills, case.weights)
    assert max_min_rates(*other.arrays) == pytest.approx(rates_before, rel=1e-11)
