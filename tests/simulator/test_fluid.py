from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.bills import Bills
from simulator.fluid import FluidNetwork
from simulator.replay import replay_flows
from simulator.rows import csr_offsets
from support.networks import Case, cases
from support.properties import tried_on


def network_with(capacity, *flows, watches=()):
    """Return a network with flows (links, size, start), and a watch per tuple of flow numbers."""
    network = FluidNetwork(np.array(capacity, float))
    ids = network.add_watches(np.array([len(watched) for watched in watches], np.int64)) if watches else []
    named = [
        [int(ids[i]) for i, watched in enumerate(watches) if flow in watched] for flow in range(len(flows))
    ]
    links = np.array([link for path, _, _ in flows for link in path], np.int64)
    network.add_flows(
        Bills(csr_offsets([len(path) for path, _, _ in flows]), links, np.ones(len(links))),
        np.array([size for _, size, _ in flows], float),
        np.array([start for _, _, start in flows], float),
        np.ones(len(flows)),
        csr_offsets([len(row) for row in named]),
        np.array([watch for row in named for watch in row], np.int64),
    )
    return network


def test_a_flow_alone_takes_size_over_capacity():
    assert replay_flows([5.0], [0, 1], [0], [20.0]).finish_s.tolist() == [4.0]


def test_what_is_freed_is_shared_again():
    # Capacity 10. Both at 5 until flow 0 (10 bytes) ends at 2 s; flow 1 has 20 left and then gets 10: 4 s.
    replay = replay_flows([10.0], [0, 1, 2], [0, 0], [10.0, 30.0])
    assert replay.finish_s.tolist() == [2.0, 4.0]
    assert replay.solves == 2


def test_a_late_start_slows_those_under_way():
    # Flow 0 alone until 1 s (10 of 30 bytes), then 5 bytes/s each: flow 1 (10 bytes) ends at 3 s, when flow 0
    # has 10 left: 4 s.
    replay = replay_flows([10.0], [0, 1, 2], [0, 0], [30.0, 10.0], start_s=[0.0, 1.0])
    assert replay.finish_s.tolist() == [4.0, 3.0]


def test_a_gap_with_no_flow_is_crossed():
    replay = replay_flows([10.0], [0, 1, 2], [0, 0], [10.0, 10.0], start_s=[0.0, 5.0])
    assert replay.finish_s.tolist() == [1.0, 6.0]


def test_starts_and_ends_at_one_instant_share_a_solve():
    # Flow 0 ends at 1 s, when flows 1 and 2 start; those end together at 3 s: one solve at 0 s and one at 1 s.
    replay = replay_flows([10.0], [0, 1, 2, 3], [0, 0, 0], [10.0, 10.0, 10.0], start_s=[0.0, 1.0, 1.0])
    assert replay.finish_s.tolist() == [1.0, 3.0, 3.0]
    assert replay.solves == 2


def test_the_clock_never_stands_still():
    # At 1e6 s neighbouring floats are 1.2e-10 s apart; a byte at 1e12 bytes/s takes 1e-12 s, less than that.
    replay = replay_flows([1e12], [0, 1, 2], [0, 0], [1.0, 2.0], start_s=[1e6, 1e6])
    assert replay.finish_s == pytest.approx([1e6, 1e6], abs=1e-9)


@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e-9])
@pytest.mark.parametrize("start_s", [0.0, 1e-9, 1e6])
def test_hardly_any_bytes_end_too(size, start_s):
    # 5e-324 bytes, the least that a float holds, take less time than a float can tell, even at 0 s.
    replay = replay_flows([50e9], [0, 1, 2], [0, 0], [size, 1e6], start_s=[start_s, start_s])
    assert replay.finish_s[0] == pytest.approx(start_s, abs=1e-15)
    assert replay.finish_s[1] == pytest.approx(start_s + 20e-6, rel=1e-9)


def test_a_late_clock_tells_flows_apart_as_well_as_floats_can():
    # At 1e5 s floats are 1.5e-11 s apart, and a flow of 0.4 us is 27,000 of those. Alone it takes 0.4 us; a second
    # that starts 0.3 us later shares the link for 0.1 us of its own work and has 0.35 us to go alone: together
    # they end 0.8 us after the first start.
    start = np.array([1e5, 1e5 + 3e-7])
    replay = replay_flows([50e9], [0, 1, 2], [0, 0], [20e3, 20e3], start_s=start)
    assert (replay.finish_s - 1e5) * 1e6 == pytest.approx([0.5, 0.8], rel=1e-3)
    assert (replay.finish_s >= start).all()


def test_the_timeline_holds_every_byte_at_a_late_clock():
    network = network_with([50e9], ([0], 20e3, 1e6), ([0], 20e3, 1e6 + 3e-7))
    network.advance(np.inf)
    assert network.meter.bytes == pytest.approx([40e3], rel=1e-12)
    assert network.meter.bins.sum() == pytest.approx(40e3, rel=1e-12)


def test_the_meter_integrates_exactly():
    # Link 1 holds flow 1 to 4 bytes/s, so that flow 0 gets 6 of link 0's 10: it ends at 12/6 = 2 s, flow 1 at
    # 18/4 = 4.5 s. Link 0 is full until 2 s and carries 12 + 18 bytes; link 1 is full all the time.
    network = network_with([10, 4], ([0], 12, 0), ([0, 1], 18, 0))
    network.advance(np.inf)
    assert network.finish_s.tolist() == [2.0, 4.5]
    assert network.meter.bytes == pytest.approx([30.0, 18.0], rel=1e-12)
    assert network.meter.saturated_s.tolist() == [2.0, 4.5]
    bins, width_s = network.meter.bins, network.meter.width_s
    before = int(1.0 / width_s)
    assert bins[before, 0] == pytest.approx(10 * width_s, rel=1e-12)
    assert bins[: int(4.5 / width_s) + 1].sum(axis=0) == pytest.approx([30, 18], rel=1e-12)


def test_watches_fire_when_their_last_flow_ends():
    # Each on a link of its own: ends at 1, 2, 3 s. The watch of flows 0 and 1 fires at 2 s, that of flow 2 at 3 s.
    network = network_with([1, 1, 1], ([0], 1, 0), ([1], 2, 0), ([2], 3, 0), watches=((0, 1), (2,)))
    assert network.advance(np.inf) == [0]
    assert network.now_s == 2.0
    assert network.advance(np.inf) == [1]
    assert network.now_s == 3.0


def test_the_horizon_is_kept_and_flows_can_join_there():
    # 10 bytes at 10 bytes/s until 0.5 s; then a second flow halves the rate: 0.5 + 5/5 = 1.5 s for both.
    network = network_with([10], ([0], 10, 0))
    assert network.advance(0.5) == []
    assert network.now_s == 0.5
    assert network.backlog_bytes().tolist() == [5.0]
    one = np.array([0, 1])
    none = np.zeros(2, np.int64), np.zeros(0, np.int64)
    network.add_flows(Bills(one, np.array([0]), np.ones(1)), np.array([5.0]), np.zeros(1), np.ones(1), *none)
    network.advance(np.inf)
    assert network.finish_s.tolist() == [1.5, 1.5]


def test_a_flow_without_capacity_is_left_unfinished():
    network = network_with([0, 5], ([0], 1, 0), ([1], 5, 0))
    assert network.advance(np.inf) == []
    assert network.finish_s[1] == 1.0
    assert np.isnan(network.finish_s[0])


def test_a_flow_of_no_bytes_or_no_links_ends_as_it_starts():
    network = network_with([5], ([0], 0, 2.0), ([], 7, 3.0))
    network.advance(np.inf)
    assert network.finish_s.tolist() == [2.0, 3.0]
    assert network.meter.bytes.tolist() == [0.0]


def replay(case: Case, size, start, factor=1.0):
    capacity, offsets, links, coefficients, weights = case.arrays
    return replay_flows(capacity * factor, offsets, links, size, start, coefficients, weights).finish_s


def flows_of(case: Case, data) -> tuple[np.ndarray, np.ndarray]:
    count = len(case.bills)
    size = data.draw(st.lists(st.integers(1, 100), min_size=count, max_size=count))
    start = data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    return np.array(size, float), np.array(start, float)


@tried_on(100)
@given(cases(), st.data())
def test_bytes_are_conserved_and_no_link_is_over_capacity(case: Case, data):
    capacity, offsets, links, coefficients, weights = case.arrays
    size, start = flows_of(case, data)
    network = FluidNetwork(capacity)
    none = np.zeros(len(size) + 1, np.int64), np.zeros(0, np.int64)
    network.add_flows(Bills(offsets, links, coefficients), size, start, weights, *none)
    network.advance(np.inf)
    # 1. Every link carried what the bills say, no more, no less; and its timeline adds up to the same.
    charged = np.bincount(links, coefficients * np.repeat(size, np.diff(offsets)), minlength=len(capacity))
    assert network.meter.bytes == pytest.approx(charged, rel=1e-9)
    assert network.meter.bins.sum(axis=0) == pytest.approx(charged, rel=1e-9)
    # 2. In no bin did a link carry more than its capacity allows in that time.
    assert (network.meter.bins <= capacity * network.meter.width_s * (1 + 1e-9)).all()
    # 3. Nobody ends before the busiest of its links alone could have carried it.
    fastest = np.array([(coefficients[a:b] / capacity[links[a:b]]).max() for a, b in pairwise(offsets)])
    assert (network.finish_s >= (start + size * fastest) * (1 - 1e-9)).all()


@tried_on(100)
@given(cases(), st.data(), st.floats(0.01, 100))
def test_scaling_capacities_and_times_scales_the_answer(case: Case, data, factor: float):
    size, start = flows_of(case, data)
    scaled = replay(case, size, start / factor, factor)
    assert scaled == pytest.approx(replay(case, size, start) / factor, rel=1e-9)


@tried_on(50)
@given(cases(), st.data())
def test_running_in_small_advances_changes_nothing(case: Case, data):
    capacity, offsets, links, coefficients, weights = case.arrays
    size, start = flows_of(case, data)
    network = FluidNetwork(capacity)
    none = np.zeros(len(size) + 1, np.int64), np.zeros(0, np.int64)
    network.add_flows(Bills(offsets, links, coefficients), size, start, weights, *none)
    for horizon_s in data.draw(st.lists(st.floats(0, 20), max_size=8)):
        network.advance(horizon_s)
    network.advance(np.inf)
    assert network.finish_s == pytest.approx(replay(case, size, start), rel=1e-9)
