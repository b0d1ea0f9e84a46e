"""Links that are left out of sharing while they cannot bind, and let in again before they would show."""

import numpy as np
import pytest

from simulator.flow_state import BINDING, DOMINATED, SLACK
from simulator.fluid import FluidNetwork
from support.networks import Traffic, add_flows, bills_of, random_traffic

SEEDS = range(12)


def standing(network: FluidNetwork) -> list[int]:
    """Return how each link stands."""
    return network._state.service["standing"].tolist()


def test_a_link_that_all_its_flows_cross_with_a_narrower_one_is_left_out():
    # Link 1 is twice as wide as link 0, which each flow on it crosses too: it is at most half full. Link 2 is not
    # wider, and may fill as soon: it binds, like link 0.
    network = FluidNetwork(np.array([10.0, 20.0, 10.0]))
    add_flows(network, bills_of([0, 1], [0, 1, 2]), [10.0, 30.0])
    assert standing(network) == [BINDING, DOMINATED, BINDING]
    network.advance(np.inf)
    # Both at 5 bytes/s until 2 s, then 20 bytes at 10. Link 1 has carried 40 bytes all the same, and was never full.
    assert network.finish_s == pytest.approx([2.0, 4.0], rel=1e-12)
    assert network.meter.bytes == pytest.approx([40.0, 40.0, 30.0], rel=1e-12)
    assert network.meter.saturated_s == pytest.approx([4.0, 0.0, 2.0], rel=1e-12)


def test_of_links_that_are_as_narrow_one_is_enough_where_nothing_is_metered():
    # Links 0 and 1 have the same flows: the first dominates the other, and not the other way round too. Link 2 has
    # one of them. Two flows share 10 bytes/s, 5 each, until 2 s; the other's last 20 bytes have all of it.
    network = FluidNetwork(np.array([10.0, 10.0, 10.0]), metered=False)
    add_flows(network, bills_of([1, 0], [2, 1, 0]), [10.0, 30.0])
    assert standing(network) == [BINDING, DOMINATED, DOMINATED]
    network.advance(1.0)
    # Flow 2 crosses link 1 alone, which link 0 no longer dominates: at 1 s flows 0 and 1 have 5 and 25 bytes left,
    # and all get 10 / 3, so that flow 0 ends at 2.5 s. Then 20 and 15 bytes share 10 bytes/s: flow 2 ends at 5.5 s,
    # and flow 1, with 5 bytes left, at 6 s.
    add_flows(network, bills_of([1]), 20.0)
    assert standing(network)[1] != DOMINATED
    network.advance(np.inf)
    assert network.finish_s == pytest.approx([2.5, 6.0, 5.5], rel=1e-12)


def test_coefficients_count_for_which_link_is_narrower():
    # Link 1 is twice as wide, but each byte counts three times there: it fills first, and link 0 cannot.
    # 20 / 3 bytes/s.
    network = FluidNetwork(np.array([10.0, 20.0]))
    add_flows(network, bills_of({0: 1.0, 1: 3.0}), 20.0)
    assert standing(network) == [DOMINATED, BINDING]
    network.advance(np.inf)
    assert network.finish_s == pytest.approx([3.0], rel=1e-12)


def test_a_dominated_link_binds_once_a_flow_crosses_it_alone():
    # Until 1 s as above, two flows at 5 bytes/s. Then a third, on link 1 alone, gets the other 10 of its 20: at 2 s,
    # when the first two end, it has 20 of 30 bytes left, and 20 bytes/s: 3 s. Link 1 is full from 1 to 3 s.
    network = FluidNetwork(np.array([10.0, 20.0]))
    add_flows(network, bills_of([0, 1], [0, 1]), 10.0)
    network.advance(1.0)
    assert standing(network) == [BINDING, DOMINATED]
    add_flows(network, bills_of([1]), 30.0)
    assert standing(network)[1] != DOMINATED
    network.advance(1.5)
    assert standing(network)[1] == BINDING
    network.advance(np.inf)
    assert network.finish_s == pytest.approx([2.0, 2.0, 3.0], rel=1e-12)
    assert network.meter.saturated_s == pytest.approx([2.0, 2.0], rel=1e-12)


def test_a_link_no_longer_dominated_stays_out_until_it_would_be_full():
    # Link 2 (10 bytes/s) is dominated by link 0 (4) while flow 0 alone crosses it. At 1 s flow 2 joins, over link 1
    # (10), which flow 1 has had to itself: 5 bytes/s each, so that link 2 carries 9 and is slack. Flow 1 has 10 of
    # 20 bytes left at 1 s and ends at 3 s. Flow 2 could then have 10 bytes/s, but link 2 has 6 left for it: it is let
    # in. Flow 2 has sent 10 of 40 bytes by 3 s: 30 bytes at 6 bytes/s end at 8 s. Flow 0 has 4 all the time: 10 s.
    network = FluidNetwork(np.array([4.0, 10.0, 10.0]))
    add_flows(network, bills_of([0, 2]), 40.0)
    add_flows(
        network, bills_of([1]), 20.0
    )  # apart, so that there is room for more and nothing begins anew at 1 s
    network.advance(1.0)
    assert standing(network) == [BINDING, BINDING, DOMINATED]
    add_flows(network, bills_of([1, 2]), 40.0)
    network.advance(2.0)
    assert standing(network) == [BINDING, BINDING, SLACK]
    network.advance(4.0)
    assert standing(network) == [BINDING, BINDING, BINDING]
    network.advance(np.inf)
    assert network.finish_s == pytest.approx([10.0, 3.0, 8.0], rel=1e-12)
    assert network.meter.saturated_s == pytest.approx([10.0, 3.0, 5.0], rel=1e-12)
    assert network.meter.bytes == pytest.approx([40.0, 60.0, 80.0], rel=1e-12)


def test_a_link_left_out_in_bulk_is_let_in_as_soon_as_it_would_be_full():
    # Link 2 (11 bytes/s) carries flow 0 at 2, its share of link 0, and flow 1 at 5, that is half of link 1, which it
    # shares with flow 2: 7 of 11, so that it may be left out. It is when the flows on link 3, which touch nothing
    # else, have ended one after the other, at 0.25 to 1 s, and so some work has been done. Flow 2 (10 bytes) ends at
    # 2 s. Flow 1 could have 10 then, but link 2 has 9 for it: 18 of its 28 bytes, to 4 s. Flow 0 has 2 all the time:
    # 10 s. Link 1 is full until 2 s, link 2 from then to 4 s.
    network = FluidNetwork(np.array([2.0, 10.0, 11.0, 1.0]))
    small = np.full(4, 0.25)
    paths = bills_of([0, 2], [1, 2], [1], *[[3]] * len(small))
    add_flows(
        network, paths, np.append([20.0, 28.0, 10.0], small), np.append(np.zeros(3), np.cumsum(small) - small)
    )
    network._state.now["look_after"] = 0
    network.advance(1.5)
    assert standing(network)[2] == SLACK
    network.advance(3.0)
    assert standing(network)[2] == BINDING
    network.advance(np.inf)
    assert network.finish_s[:3] == pytest.approx([10.0, 4.0, 2.0], rel=1e-12)
    assert network.finish_s[3:] == pytest.approx(np.cumsum(small), rel=1e-12)
    assert network.meter.saturated_s == pytest.approx([10.0, 2.0, 2.0, 1.0], rel=1e-12)


def network_with(traffic: Traffic) -> FluidNetwork:
    """Return a network with this traffic, yet to run."""
    network = FluidNetwork(traffic.capacity, metered=False)
    add_flows(network, traffic.bills, traffic.size, traffic.start, traffic.weight)
    return network


@pytest.mark.parametrize("seed", range(40))
def test_how_often_links_are_left_out_never_shows(seed: int):
    traffic = random_traffic(seed)
    eager, never = network_with(traffic), network_with(traffic)
    eager._state.now["look_after"] = 0
    never._state.now["look_after"] = 1 << 40
    for network in (eager, never):
        network.advance(np.inf)
    assert eager.finish_s == pytest.approx(never.finish_s, rel=1e-9)


def test_some_random_traffic_has_links_left_out():
    # Else the test above would compare like with like.
    left_out = 0
    for seed in SEEDS:
        network = network_with(random_traffic(seed))
        network._state.now["look_after"] = 0
        network.advance(np.inf)
        left_out += standing(network).count(SLACK)
    assert left_out > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_filling_gives_what_pouring_does(seed: int):
    # Without patience pouring gives up at once, and all that it has touched is filled progressively.
    traffic = random_traffic(seed)
    pouring, filling = network_with(traffic), network_with(traffic)
    filling._state.sharing.solve["patience"] = -1
    for network in (pouring, filling):
        network.advance(np.inf)
    assert filling.finish_s == pytest.approx(pouring.finish_s, rel=1e-12)
    assert pouring._state.sharing.solve["filled"] < filling._state.sharing.solve["filled"]


@pytest.mark.parametrize("seed", range(60))
def test_ties_never_show(seed: int):
    # Few capacities and coefficients, so that many links are as narrow as one that all their flows cross. Where
    # something is metered those bind, where nothing is they are left out.
    generator = np.random.default_rng(seed)
    num_links, num_flows = int(generator.integers(3, 9)), int(generator.integers(4, 40))
    capacity = generator.choice([1.0, 2.0], num_links)
    paths = [
        {int(link): float(generator.choice([1.0, 1.0, 2.0])) for link in links}
        for links in (
            generator.choice(num_links, int(generator.integers(1, min(5, num_links) + 1)), replace=False)
            for _ in range(num_flows)
        )
    ]
    size, weight = generator.choice([1.0, 2.0, 7.3], num_flows), generator.choice([1.0, 2.0], num_flows)
    start = np.where(generator.random(num_flows) < 0.5, 0.0, generator.uniform(0.0, 20.0, num_flows))
    half = num_flows // 2
    finish_s, left_out = [], []
    for metered in (False, True):
        network = FluidNetwork(capacity, metered=metered)
        add_flows(network, bills_of(*paths[:half]), size[:half], start[:half], weight[:half])
        left_out.append(standing(network).count(DOMINATED))
        network.advance(2.0)
        add_flows(network, bills_of(*paths[half:]), size[half:], start[half:], weight[half:])
        network.advance(np.inf)
        finish_s.append(network.finish_s)
    assert finish_s[0] == pytest.approx(finish_s[1], rel=1e-9)
    assert left_out[0] >= left_out[1]
