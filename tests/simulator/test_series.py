import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.bills import Bills
from simulator.fairness import max_min_rates
from simulator.fluid import FluidNetwork
from simulator.series import Series


def bills_of(*flows: dict[int, float | tuple[float, float]]) -> Bills:
    """Return bills from a mapping a flow: what it charges each link, or that and what passes."""
    pairs = [pair if isinstance(pair, tuple) else (pair, pair) for flow in flows for pair in flow.values()]
    return Bills(
        np.cumsum([0, *map(len, flows)]),
        np.array([link for flow in flows for link in flow], np.int64),
        np.array([charge for charge, _ in pairs], np.float64),
        np.array([passing for _, passing in pairs], np.float64),
    )


def test_the_tightest_of_links_that_carry_the_same_stands_for_all():
    # Links 0, 1 and 3 carry flows 0 and 1, of which 3 takes twice as much: room for 10, 8 and 18 / 2 = 9 bytes a
    # second of what link 0 carries. Link 2 carries flow 1 alone.
    bills = bills_of({0: 1.0, 1: 1.0, 3: 2.0}, {3: 1.0, 2: 1.0, 0: 0.5, 1: 0.5})
    series = Series.of(bills, np.array([10.0, 8.0, 1.0, 18.0]))
    assert series.tightest.tolist() == [1, 2]
    assert series.place.tolist() == [0, 0, 1, 0]
    assert series.passing.tolist() == [1.0, 1.0, 1.0, 2.0]
    assert series.fills.tolist() == [False, True, True, False]
    kept = series.bills_of(bills)
    assert kept.offsets.tolist() == [0, 1, 3]
    assert kept.links.tolist() == [0, 1, 0]
    assert kept.coefficients.tolist() == [1.0, 1.0, 0.5]


def test_links_as_tight_as_each_other_are_full_together_and_the_first_stands_for_them():
    # 6 / 2 and 3 / 1: both are full at once. Link 2 has room for a billionth more, which counts as full.
    bills = bills_of({0: 2.0, 1: 1.0, 2: 1.0})
    series = Series.of(bills, np.array([6.0, 3.0, 3.0 * (1.0 + 5e-10)]))
    assert series.tightest.tolist() == [0]
    assert series.fills.all()


@pytest.mark.parametrize(
    "bills",
    [
        bills_of({0: 1.0, 1: 1.0}, {0: 1.0}),  # one carries a flow that the other does not
        bills_of({0: 1.0, 1: 1.0}, {0: 1.0, 1: 2.0}),  # not in the same proportion
        bills_of({0: 1.0}, {1: 1.0}),  # as many, but others
        bills_of({0: 1.0, 1: 1.0}, {0: (1.0, 1.0), 1: (1.0, 0.5)}),  # charged alike, but what passes differs
    ],
)
def test_links_that_differ_in_what_they_carry_are_apart(bills):
    assert Series.of(bills, np.array([1.0, 1.0])).tightest.tolist() == [0, 1]


def test_links_that_nobody_crosses_are_alone():
    series = Series.of(bills_of({2: 1.0}), np.array([1.0, 1.0, 1.0]))
    assert series.tightest.tolist() == [0, 1, 2]
    assert series.passing.tolist() == [1.0, 1.0, 1.0]


def test_sums_that_agree_by_chance_are_told_apart(monkeypatch):
    # A mixture that is the same for all: links 0 and 1 look alike, until their flows are compared.
    monkeypatch.setattr("simulator.series._mixed", lambda *columns: np.zeros(len(columns[0]), np.uint64))
    series = Series.of(bills_of({0: 1.0, 2: 1.0}, {1: 1.0}, {0: 1.0, 2: 1.0}), np.array([1.0, 1.0, 1.0]))
    assert series.place.tolist() == [0, 1, 0]


def test_what_passes_the_others_is_known_from_the_tightest():
    bills = bills_of({0: 2.0, 1: (2.0, 1.0), 2: 4.0})
    series = Series.of(bills, np.array([2.0, 8.0, 4.0]))
    assert series.passing.tolist() == [1.0, 0.5, 2.0]
    assert series.saturated_s(np.array([3.0])).tolist() == [3.0, 0.0, 3.0]


@st.composite
def networks(draw):
    """Return bills on a few links and their capacities; some links repeat others, scaled."""
    num_flows, num_own = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    charge = st.sampled_from([0.0, 0.5, 1.0, 3.0])
    own = [[draw(charge) for _ in range(num_own)] for _ in range(num_flows)]
    repeats = draw(
        st.lists(st.tuples(st.integers(0, num_own - 1), st.sampled_from([0.25, 1.0, 2.0])), max_size=5)
    )
    rows = [row + [row[link] * factor for link, factor in repeats] for row in own]
    flows = [{link: amount for link, amount in enumerate(row) if amount} for row in rows]
    flows = [flow for flow in flows if flow] or [{0: 1.0}]
    capacity = st.sampled_from([1.0, 2.0, 3.5, 8.0])
    return bills_of(*flows), np.array([draw(capacity) for _ in range(num_own + len(repeats))])


@settings(deadline=None)
@given(networks())
def test_rates_on_the_tightest_are_those_on_all(network):
    bills, capacity = network
    series = Series.of(bills, capacity)
    kept = series.bills_of(bills)
    assert np.all(np.diff(kept.offsets) > 0)  # no flow is left without a link
    alike = np.ones(bills.num_flows)
    whole = max_min_rates(capacity, bills.offsets, bills.links, bills.coefficients, alike)
    few = max_min_rates(capacity[series.tightest], kept.offsets, kept.links, kept.coefficients, alike)
    np.testing.assert_allclose(few, whole, rtol=1e-12)


@settings(deadline=None)
@given(networks(), st.data())
def test_a_network_of_the_tightest_carries_what_the_whole_does(network, data):
    bills, capacity = network
    num_flows = bills.num_flows
    sizes = st.lists(st.floats(0.5, 9.0), min_size=num_flows, max_size=num_flows)
    size_bytes = np.array(data.draw(sizes))

    def run(own: Bills, own_capacity):
        fluid = FluidNetwork(own_capacity)
        no_watches = np.zeros(num_flows + 1, np.int64), np.zeros(0, np.int64)
        fluid.add_flows(own, size_bytes, np.arange(num_flows) * 0.25, np.ones(num_flows), *no_watches)
        fluid.advance(np.inf)
        return fluid.finish_s, fluid.meter

    series = Series.of(bills, capacity)
    whole_s, whole = run(bills, capacity)
    few_s, few = run(series.bills_of(bills), capacity[series.tightest])
    np.testing.assert_allclose(few_s, whole_s, rtol=1e-11)
    np.testing.assert_allclose(few.bytes[series.place] * series.passing, whole.bytes, rtol=1e-11)
    np.testing.assert_allclose(series.saturated_s(few.saturated_s), whole.saturated_s, rtol=1e-9, atol=1e-9)
