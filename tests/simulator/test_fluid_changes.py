"""Changes under way: capacities, flows that are taken out, and flows that go on over other links."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.fluid import FluidNetwork
from support.exact_fluid import ExactFlow, ExactFluid
from support.networks import NUMBERS, Case, add_flows, alike_cases, bills_of, cases, tree_cases
from support.properties import tried_on


def network_of(capacity, *paths, size, start=0.0, weight=1.0) -> FluidNetwork:
    """Return a network with flows."""
    network = FluidNetwork(np.array(capacity, float))
    add_flows(network, bills_of(*paths), size, start, weight)
    return network


def set_capacity(network: FluidNetwork, link: int, capacity: float) -> None:
    """Change one link's capacity."""
    network.set_capacity(np.array([link]), np.array([capacity]))


def test_a_capacity_counts_from_when_it_is_set():
    # 10 of 30 bytes by 1 s; 20 more at 5 bytes/s: 5 s. The link is full all the time.
    network = network_of([10], [0], size=30)
    network.advance(1.0)
    set_capacity(network, 0, 5.0)
    network.advance(np.inf)
    assert network.finish_s.tolist() == [5.0]
    assert network.meter.bytes == pytest.approx([30.0], rel=1e-12)
    assert network.meter.saturated_s == pytest.approx([5.0], rel=1e-12)


def test_a_dead_link_holds_its_flows_until_it_is_back():
    # Both at 5 bytes/s over link 0 until 1 s. Link 1 is dead from 1 to 4 s: flow 1 waits, and flow 0 (15 bytes) has
    # all 10 of link 0: 2 s. Flow 1 has 15 of 20 bytes left at 4 s, and 10 bytes/s: 5.5 s.
    network = network_of([10, 20], [0], [0, 1], size=[15, 20])
    network.advance(1.0)
    set_capacity(network, 1, 0.0)
    network.advance(3.0)
    assert network.finish_s[0] == 2.0
    assert network.backlog_bytes().tolist() == [15.0, 15.0]
    assert network.advance(np.inf) == []
    assert (network.num_ended, network.now_s) == (1, 3.0)
    network.advance(4.0)
    set_capacity(network, 1, 20.0)
    network.advance(np.inf)
    assert network.finish_s == pytest.approx([2.0, 5.5], rel=1e-12)
    # Link 0 was full from 0 to 2 s and from 4 to 5.5 s; link 1, of 20 bytes/s, carried 5 or 10 and never was.
    assert network.meter.saturated_s == pytest.approx([3.5, 0.0], rel=1e-12)
    assert network.meter.bytes == pytest.approx([35.0, 20.0], rel=1e-12)


def test_a_flow_may_start_on_a_dead_link():
    network = network_of([0], [0], size=4, start=1.0)
    network.advance(2.0)
    set_capacity(network, 0, 2.0)
    network.advance(np.inf)
    assert network.finish_s.tolist() == [4.0]


def test_cancelled_flows_leave_what_they_had_to_others():
    # Four flows at 2.5 bytes/s until 2 s: 5 bytes each. Without 0 and 3, flows 1 and 2 have 5 bytes/s for 15: 5 s.
    network = network_of([10], *[[0]] * 4, size=[20, 20, 20, 30])
    network.advance(2.0)
    assert network.cancel(np.array([3, 0])).tolist() == [25.0, 15.0]
    network.advance(np.inf)
    assert np.isnan(network.finish_s[[0, 3]]).all()
    assert network.finish_s[1:3].tolist() == [5.0, 5.0]
    assert network.num_ended == 4  # nobody waits for cancelled flows to end
    assert network.meter.bytes == pytest.approx([50.0], rel=1e-12)


def test_a_flow_that_has_not_started_can_be_cancelled():
    network = network_of([10], [0], [0], size=[50, 7], start=[0.0, 2.0])
    network.advance(1.0)
    assert network.cancel(np.array([1])).tolist() == [7.0]
    network.advance(np.inf)
    assert network.finish_s[0] == 5.0


def test_a_watch_goes_on_waiting_for_a_cancelled_flow():
    network = FluidNetwork(np.ones(1))
    both, one = network.add_watches([2, 1])
    offsets, watches = np.array([0, 2, 3]), np.array([both, one, both])
    network.add_flows(bills_of([0], [0]), np.ones(2), np.zeros(2), np.ones(2), offsets, watches)
    network.cancel(np.array([1]))
    assert network.advance(np.inf) == [one]
    assert network.advance(np.inf) == []


def test_a_rerouted_flow_goes_on_with_what_it_has_left():
    # Flows 0 and 1 at 5 bytes/s on link 0 until 1 s. Flow 1 then has link 1 to itself, but each byte counts twice
    # there: 15 bytes at 4 / 2 = 2 bytes/s end at 8.5 s; flow 0 has 15 bytes at 10 bytes/s: 2.5 s.
    network = network_of([10, 4], [0], [0], size=[20, 20])
    network.advance(1.0)
    network.reroute(np.array([1]), bills_of({1: 2.0}))
    network.advance(np.inf)
    assert network.finish_s == pytest.approx([2.5, 8.5], rel=1e-12)
    # Link 0 carried all of flow 0 and 5 bytes of flow 1; link 1 the other 15, twice.
    assert network.meter.bytes == pytest.approx([25.0, 30.0], rel=1e-12)


def test_each_rerouted_flow_gets_the_bill_at_its_place():
    # Three links of 1, 2 and 4 bytes/s; flow 2 to link 1 and flow 0 to link 2, named in that order, before they
    # start.
    network = network_of([1, 2, 4], [0], [0], [0], size=8, start=[1.0, 0.0, 1.0])
    network.reroute(np.array([2, 0]), bills_of([1], [2]))
    network.advance(np.inf)
    assert network.finish_s.tolist() == [3.0, 8.0, 5.0]


def test_a_flow_rerouted_over_no_link_ends_at_once():
    network = network_of([1], [0], size=8)
    network.advance(3.0)
    network.reroute(np.array([0]), bills_of([]))
    network.advance(np.inf)
    assert network.finish_s.tolist() == [3.0]


@pytest.mark.parametrize("ids", [[0], [1, 0], [2], [-1]])
def test_flows_that_are_not_under_way_cannot_be_changed(ids):
    # Flow 0 has ended at 2 s; there is no flow 2.
    network = network_of([10], [0], [0], size=[10, 30])
    network.advance(3.0)
    message = rf"^flow {ids[-1]} is not under way$"
    with pytest.raises(ValueError, match=message):
        network.cancel(np.array(ids))
    with pytest.raises(ValueError, match=message):
        network.reroute(np.array(ids), bills_of(*[[0]] * len(ids)))
    # Nothing has changed: 10 bytes were left at 3 s, at 10 bytes/s.
    network.advance(np.inf)
    assert network.finish_s == pytest.approx([2.0, 4.0], rel=1e-12)


def test_a_cancelled_flow_cannot_be_cancelled_again():
    network = network_of([10], [0], [0], size=[10, 30])
    network.cancel(np.array([0]))
    with pytest.raises(ValueError, match="flow 0 is not under way"):
        network.cancel(np.array([0]))


def test_what_has_been_saturated_stays_on_record_through_changes():
    # Full at 10 bytes/s until 1 s; at 20 bytes/s link 1 (5 bytes/s) holds the flow, and link 1 is full: 10 + 4 * 5.
    network = network_of([10, 20], [0, 1], size=30)
    network.advance(1.0)
    network.set_capacity(np.array([0, 1]), np.array([20.0, 5.0]))
    network.advance(np.inf)
    assert network.finish_s == pytest.approx([5.0], rel=1e-12)
    assert network.meter.saturated_s == pytest.approx([1.0, 4.0], rel=1e-12)


# A change falls at no instant at which a flow ends, which floats might put on its other side: times of changes have
# denominators that no other number here has.
PRIMES = (97, 101, 103, 107, 109, 113)
SIZES = st.integers(1, 60).map(Fraction)


class Twins:
    """The network and its slow twin, changed alike."""

    def __init__(self, case: Case) -> None:
        self.network = FluidNetwork(case.arrays[0])
        self.exact = ExactFluid(case.capacity)
        self.flows: list[ExactFlow] = []

    def add(self, bill: dict[int, Fraction], size: Fraction, start: Fraction, weight: Fraction) -> None:
        add_flows(self.network, bills_of(bill), float(size), float(start), float(weight))
        self.flows.append(self.exact.add(bill, size, start, weight))

    def advance(self, until: Fraction) -> None:
        self.network.advance(float(until))
        self.exact.advance(until)

    def set_capacity(self, link: int, capacity: Fraction) -> None:
        set_capacity(self.network, link, float(capacity))
        self.exact.capacity_bytes_per_s[link] = capacity

    def cancel(self, number: int) -> None:
        flow = self.flows[number]
        left = self.network.cancel(np.array([number]))
        assert left == pytest.approx([float(flow.left_bytes)], rel=1e-9, abs=1e-9)
        flow.cancelled = True

    def reroute(self, number: int, bill: dict[int, Fraction]) -> None:
        self.network.reroute(np.array([number]), bills_of(bill))
        self.flows[number].bill = bill

    def finish(self) -> None:
        self.network.advance(np.inf)
        self.exact.advance()
        expected = [np.nan if flow.finish_s is None else float(flow.finish_s) for flow in self.flows]
        assert self.network.finish_s == pytest.approx(expected, rel=1e-9, nan_ok=True)


@tried_on(150)
@given(st.one_of(cases(4, 6), alike_cases(4, 6), tree_cases(6)), st.data())
def test_changes_have_the_effect_that_exact_fractions_say(case: Case, data: st.DataObject):
    twins = Twins(case)
    links = st.integers(0, len(case.capacity) - 1)
    bills = st.sampled_from(case.bills) | st.dictionaries(links, NUMBERS, min_size=1, max_size=3)
    for bill, weight in zip(case.bills, case.weights, strict=True):
        twins.add(bill, data.draw(SIZES), data.draw(st.integers(0, 3).map(Fraction)), weight)
    now = Fraction(0)
    for prime in data.draw(st.lists(st.sampled_from(PRIMES), max_size=5, unique=True), "changes"):
        now += Fraction(data.draw(st.integers(1, 2 * prime)), prime)
        twins.advance(now)
        going = [number for number, flow in enumerate(twins.flows) if flow in twins.exact.unfinished()]
        change = data.draw(st.sampled_from(["capacity", "add", "cancel", "reroute"] if going else ["add"]))
        if change == "capacity":
            twins.set_capacity(data.draw(links), data.draw(st.just(Fraction(0)) | NUMBERS))
        elif change == "add":
            delay = data.draw(st.sampled_from([Fraction(0), Fraction(1, 2)]))
            twins.add(data.draw(bills), data.draw(SIZES), now + delay, data.draw(NUMBERS))
        elif change == "cancel":
            twins.cancel(data.draw(st.sampled_from(going)))
        else:
            twins.reroute(data.draw(st.sampled_from(going)), data.draw(bills))
    twins.finish()
