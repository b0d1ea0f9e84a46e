"""What a solve leaves behind for those after it: loads without drift, and counts of what has been done."""

import numpy as np
import pytest

from simulator.fluid import FluidNetwork
from simulator.holding import _SOLVES_UNTIL_STALE
from support.networks import add_flows, bills_of


def filled_network(num_links: int, paths, size_bytes, start_s, weights) -> FluidNetwork:
    """Return a network of links of 6 bytes/s that all bind, whose rates are filled and never poured."""
    network = FluidNetwork(np.full(num_links, 6.0), metered=False)
    add_flows(network, bills_of(*paths), np.array(size_bytes), np.array(start_s), np.array(weights))
    network._state.sharing.solve["patience"] = -1
    return network


def solved(network: FluidNetwork) -> int:
    """Return how many solves there have been."""
    return int(network._state.sharing.solve["number"][0]) - 1


@pytest.mark.parametrize("weight", [1.0, 1e-6])
def test_drift_is_gone_from_a_load_after_as_many_solves_as_are_said(weight):
    # One flow stays on a link; each second another comes, and is gone half a second later: two solves. All have one
    # weight, so that they are one group, which has the link's 6 bytes/s. Rounding takes long to spoil a load: here it
    # is spoilt by a millionth, twice. The first 64 solves of the link, and the next 64, end with a sum that is right.
    network = filled_network(1, [[0]] * 100, [1e6, *[1.5] * 99], np.arange(100.0), [weight] * 100)
    sharing = network._state.sharing
    network.advance(0.25)
    for healed_by in (_SOLVES_UNTIL_STALE, 2 * _SOLVES_UNTIL_STALE):
        sharing.load[0] += 6e-6
        while solved(network) < healed_by:
            if solved(network) > healed_by - _SOLVES_UNTIL_STALE + 1:
                assert sharing.groups["weight"][0] * sharing.level[0] == pytest.approx(6 - 6e-6, rel=1e-9)
            network.advance(network.now_s + 0.25)
        assert solved(network) == healed_by
        assert sharing.groups["weight"][0] * sharing.level[0] == pytest.approx(6, rel=1e-12)


def test_what_rates_grow_by_is_counted_and_what_they_fall_by_is_not():
    # Flow 0 (weight 1) starts alone, at 6 bytes/s: up by 6. Flow 1 (weight 2) comes at 1 s and takes 4 of them: up by
    # 4; flow 0's fall does not count. Flow 0 has sent 6 bytes by then, and 2 more end it at 2 s: flow 1 is up by 2.
    network = filled_network(1, [[0], [0]], [8.0, 100.0], [0.0, 1.0], [1.0, 2.0])
    solve = network._state.sharing.solve
    risen = []
    for until_s in (0.5, 1.5, 2.5):
        network.advance(until_s)
        risen.append(float(solve["risen"][0]))
    assert risen == [6.0, 10.0, 12.0]


def test_the_work_of_a_solve_is_the_paths_that_are_walked():
    # The same: the first solve walks flow 0's path of one link; the second both flows', after flow 1 has been put to
    # flow 0's link as a first guess, which counts as 2; the third flow 1's. Flow 2 has a link of its own.
    network = filled_network(2, [[0], [0], [1]], [8.0, 100.0, 1.0], [0.0, 1.0, 3.0], [1.0, 2.0, 1.0])
    solve = network._state.sharing.solve
    work = []
    for until_s in (0.5, 1.5, 2.5, 3.125):
        network.advance(until_s)
        work.append(int(solve["work"][0]))
    assert work == [1, 5, 6, 7]
