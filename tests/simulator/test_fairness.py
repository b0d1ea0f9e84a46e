import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.fairness import max_min_rates
from support.exact_fairness import exact_rates
from support.networks import Case, cases


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


def test_a_dead_link_stops_its_flows_only():
    assert rates([0, 5], {0: 1, 1: 1}, {1: 1}).tolist() == [0, 5]


def test_a_flow_with_no_link_is_not_held_back():
    assert rates([5], {}, {0: 1}).tolist() == [np.inf, 5]


def test_symmetric_flows_get_the_very_same_rate():
    # 0.1 is no binary fraction: without a rule for links that fill together, rounding would tell alike flows
    # apart, and an all-to-all would end flow by flow instead of at once.
    bills = [{source: 1, 30 + target: 1} for source in range(30) for target in range(30) if source != target]
    found = rates([0.1] * 60, *bills)
    assert len(set(found.tolist())) == 1


@settings(max_examples=200, deadline=None)
@given(cases())
def test_agrees_with_the_exact_twin(case: Case):
    expected = [float(rate) for rate in exact_rates(case.capacity, case.bills, case.weights)]
    assert max_min_rates(*case.arrays) == pytest.approx(expected, rel=1e-11)


@settings(max_examples=200, deadline=None)
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


@settings(max_examples=100, deadline=None)
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


@settings(max_examples=100, deadline=None)
@given(cases(), st.floats(0.001, 1000))
def test_scaling_capacities_scales_rates(case: Case, factor: float):
    capacity, *rest = case.arrays
    expected = factor * max_min_rates(capacity, *rest)
    assert max_min_rates(factor * capacity, *rest) == pytest.approx(expected, rel=1e-11)


@settings(max_examples=100, deadline=None)
@given(cases(), st.data())
def test_splitting_a_flow_changes_nothing(case: Case, data):
    # Two flows of half the weight get half the rate each, and the others what they had.
    flow = data.draw(st.integers(0, len(case.bills) - 1))
    weights = [*case.weights, case.weights[flow] / 2]
    weights[flow] /= 2
    split = max_min_rates(*Case(case.capacity, [*case.bills, case.bills[flow]], weights).arrays)
    split[flow] += split[-1]
    assert split[:-1] == pytest.approx(max_min_rates(*case.arrays), rel=1e-11)


@settings(max_examples=100, deadline=None)
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
