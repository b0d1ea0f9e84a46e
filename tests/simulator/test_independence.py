import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.bills import Bills
from simulator.fluid import FluidNetwork
from simulator.replay import replay_flows
from support.networks import Case, add_flows, bills_of, cases
from support.properties import tried_on


@tried_on(100)
@given(st.lists(cases(max_links=3, max_flows=4), min_size=2, max_size=3), st.data())
def test_networks_side_by_side_run_as_each_alone(parts: list[Case], data):
    # Several networks in one, sharing nothing, with a horizon now and then: every flow ends as in its own network,
    # and every link has carried as much.
    sizes = [
        data.draw(st.lists(st.integers(1, 50), min_size=len(p.bills), max_size=len(p.bills))) for p in parts
    ]
    starts = [
        data.draw(st.lists(st.integers(0, 3), min_size=len(p.bills), max_size=len(p.bills))) for p in parts
    ]
    alone = []
    for part, size, start in zip(parts, sizes, starts, strict=True):
        capacity, offsets, links, coefficients, weights = part.arrays
        alone.append(replay_flows(capacity, offsets, links, size, start, coefficients, weights).finish_s)

    shift, bills, capacity, weights = 0, [], [], []
    for part in parts:
        bills += [{link + shift: value for link, value in bill.items()} for bill in part.bills]
        capacity += part.capacity
        weights += part.weights
        shift += len(part.capacity)
    joined_capacity, offsets, links, coefficients, joined_weights = Case(capacity, bills, weights).arrays
    network = FluidNetwork(joined_capacity)
    size, start = np.concatenate(sizes).astype(float), np.concatenate(starts).astype(float)
    add_flows(network, Bills(offsets, links, coefficients), size, start, joined_weights)
    for horizon_s in data.draw(st.lists(st.floats(0, 10), max_size=4)):
        network.advance(horizon_s)
        assert network.now_s >= horizon_s
    network.advance(np.inf)
    assert network.finish_s == pytest.approx(np.concatenate(alone), rel=1e-9)
    charged = np.bincount(links, coefficients * np.repeat(size, np.diff(offsets)), minlength=len(capacity))
    assert network.meter.bytes == pytest.approx(charged, rel=1e-9)
    assert network.meter.bins.sum(axis=0) == pytest.approx(charged, rel=1e-9)


def work_of_a_burst(num_others: int) -> int:
    """Return the entries of paths walked while ten flows end on a link of two, and others last."""
    network = FluidNetwork(np.ones(2 + num_others))
    add_flows(network, bills_of(*[[0, 1]] * 10), np.arange(1.0, 11.0))
    add_flows(network, bills_of(*[[2 + other] for other in range(num_others)]), 1e6)
    network.advance(0.5)
    before = int(network._state.sharing.solve["work"][0])
    network.advance(100.0)
    assert network.num_ended == 10
    return int(network._state.sharing.solve["work"][0]) - before


def test_what_happens_elsewhere_is_not_solved_for():
    # Ten flows share a link and end one after the other; to solve that takes some work, and no more of it where a
    # thousand flows go on over links of their own.
    alone = work_of_a_burst(1)
    assert alone > 0
    assert work_of_a_burst(1000) == alone


def test_flows_on_links_of_their_own_end_at_their_own_times():
    # 1 byte/s for 1 .. 10 bytes; a solve at 0 s, and one at each end but the last, after which nothing is under way.
    replay = replay_flows(np.ones(10), np.arange(11), np.arange(10), np.arange(1.0, 11.0))
    assert replay.finish_s.tolist() == list(range(1, 11))
    assert replay.solves == 10


def test_what_is_waited_for_is_not_overtaken():
    # Flow 0 (link 0) ends at 1 s and is watched; flow 1 (link 1) has then 9 of 10 bytes left, and a flow that joins
    # it halves its rate: 1 + 9 / 0.5 = 19 s if the newcomer is large.
    network = FluidNetwork(np.ones(2))
    watch = network.add_watches(np.array([1]))
    network.add_flows(
        bills_of([0], [1]), np.array([1.0, 10.0]), np.zeros(2), np.ones(2), np.array([0, 1, 1]), watch
    )
    assert network.advance(np.inf) == watch.tolist()
    assert network.now_s == 1.0
    assert network.backlog_bytes().tolist() == [0.0, 9.0]
    add_flows(network, bills_of([1]), 100.0)
    network.advance(np.inf)
    assert network.finish_s.tolist() == [1.0, 19.0, 110.0]


def test_all_watches_of_an_instant_fire_together():
    network = FluidNetwork(np.ones(3))
    watches = network.add_watches(np.array([1, 1, 1]))
    paths = bills_of([0], [1], [2])
    network.add_flows(paths, np.array([2.0, 2.0, 3.0]), np.zeros(3), np.ones(3), np.arange(4), watches)
    assert network.advance(np.inf) == watches[:2].tolist()
    assert network.advance(np.inf) == watches[2:].tolist()


@pytest.mark.parametrize("num_components", [511, 512, 513, 2000])
def test_many_components_come_to_an_end(num_components):
    # Two flows a component, on a link of their own: the short one ends at 2 s (half of 1 byte/s for 1 byte), the
    # long one has a byte left then and ends at 3 s. More components than the loop solves at once must not hold it.
    count = 2 * num_components
    replay = replay_flows(
        np.ones(num_components),
        np.arange(count + 1),
        np.repeat(np.arange(num_components), 2),
        [1.0, 2.0] * num_components,
    )
    assert replay.finish_s.tolist() == [2.0, 3.0] * num_components
    assert replay.solves == 2  # at 0 s and 2 s, for all
