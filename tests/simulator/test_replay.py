import numpy as np
import pytest

from simulator.replay import replay_flows
from support.networks import random_traffic

# Two flows on a link of 10 bytes/s: both at 5. The first (10 bytes) ends at 2 s; the second (size) would end, at 5,
# at size / 5 s, and exactly, at 10 from 2 s on, at 2 + (size - 10) / 10 s.
TWO = {"capacity_bytes_per_s": [10.0], "path_offsets": [0, 1, 2], "path_links": [0, 0]}


def test_by_default_every_end_is_solved_for():
    # The second flow has 1 of 11 bytes left at 2 s, and then 10 bytes/s: 2.1 s. Solves at 0 and 2 s.
    replay = replay_flows(**TWO, size_bytes=[10.0, 11.0])
    assert replay.finish_s == pytest.approx([2.0, 2.1], rel=1e-12)
    assert (replay.solves, replay.merged, replay.stale_share) == (2, 0, 0.0)


def test_within_the_tolerance_a_flow_ends_at_the_rate_that_it_had():
    # The first took 2 s, so that with a tolerance of 0.2 others may end until 2.4 s as they are: the second, at 5
    # bytes/s, at 2.2 s. One solve, that of the start. Of 21 bytes the last one moved at a rate that a solve would
    # have changed.
    replay = replay_flows(**TWO, size_bytes=[10.0, 11.0], tolerance=0.2)
    assert replay.finish_s == pytest.approx([2.0, 2.2], rel=1e-12)
    assert (replay.solves, replay.merged) == (1, 1)
    assert replay.stale_share == pytest.approx(1 / 21, rel=1e-9)


def test_beyond_the_tolerance_a_flow_goes_on_at_its_old_rate_until_the_window_ends():
    # The window is 2.0 to 2.2 s (a tenth of 2 s). The second would end at 3 s, so it is not merged, but rates are
    # solved at 2.2 s only: 15 - 11 = 4 bytes left there, then 10 bytes/s: 2.6 s, and not 2.5 s. Of 25 bytes, 1 moved
    # in the window, at a rate that a solve would have changed.
    replay = replay_flows(**TWO, size_bytes=[10.0, 15.0], tolerance=0.1)
    assert replay.finish_s == pytest.approx([2.0, 2.6], rel=1e-12)
    assert (replay.solves, replay.merged) == (2, 0)
    assert replay.stale_share == pytest.approx(1 / 25, rel=1e-9)


def test_each_merged_flow_ends_at_its_own_time():
    # Four flows at 2.5 bytes/s, of 10, 10.5, 11 and 20 bytes: the first ends at 4 s. With a tolerance of 0.25 the
    # window lasts until 5 s: the next two end at 4.2 and 4.4 s. The last has 7.5 bytes left at 5 s, and 10
    # bytes/s: 5.75 s.
    replay = replay_flows([10.0], [0, 1, 2, 3, 4], [0] * 4, [10.0, 10.5, 11.0, 20.0], tolerance=0.25)
    assert replay.finish_s == pytest.approx([4.0, 4.2, 4.4, 5.75], rel=1e-12)
    assert (replay.solves, replay.merged) == (2, 2)
    # 0.5 and 1 byte of the two, and 2.5 of the last, in the window.
    assert replay.stale_share == pytest.approx(4 / 51.5, rel=1e-9)


def test_the_window_is_a_part_of_what_the_first_flow_took_and_not_of_the_clock():
    # The same two flows as above, begun at 1000 s: the window is still 0.4 s long.
    replay = replay_flows(**TWO, size_bytes=[10.0, 13.0], start_s=[1000.0, 1000.0], tolerance=0.2)
    # 13 - 12 = 1 byte left at 1002.4 s, then 10 bytes/s.
    assert replay.finish_s == pytest.approx([1002.0, 1002.5], rel=1e-12)
    assert replay.merged == 0


def test_the_window_closes_where_a_flow_starts():
    # The window would last until 3 s, but a flow starts at 2.1 s, when the second has 4.5 of 15 bytes left. Both at 5
    # bytes/s, the third (4 bytes) ends at 2.9 s; what it took, 0.8 s, makes a window until 3.3 s, in which the second
    # ends too, at 5 bytes/s: 3 s.
    replay = replay_flows(
        [10.0], [0, 1, 2, 3], [0, 0, 0], [10.0, 15.0, 4.0], start_s=[0.0, 0.0, 2.1], tolerance=0.5
    )
    assert replay.finish_s == pytest.approx([2.0, 3.0, 2.9], rel=1e-12)
    assert (replay.solves, replay.merged) == (2, 1)


@pytest.mark.parametrize("seed", range(4))
def test_a_tolerance_saves_solves_and_a_tiny_one_changes_next_to_nothing(seed):
    traffic = random_traffic(seed).arguments
    exact = replay_flows(**traffic)
    tiny, large = (replay_flows(**traffic, tolerance=tolerance) for tolerance in (1e-9, 0.1))
    assert tiny.finish_s == pytest.approx(exact.finish_s, rel=1e-6)
    assert large.solves <= tiny.solves <= exact.solves
    assert 0.0 <= tiny.stale_share <= large.stale_share < 1.0


@pytest.mark.parametrize("tolerance", [-1e-9, -1.0, np.nan, np.inf])
def test_a_bad_tolerance_is_named(tolerance):
    with pytest.raises(ValueError, match=f"the tolerance is {tolerance}; it must be finite and not negative"):
        replay_flows(**TWO, size_bytes=[10.0, 11.0], tolerance=tolerance)


def test_no_flows_need_no_solve():
    replay = replay_flows([1.0], [0], [], [])
    assert (len(replay.finish_s), replay.solves, replay.merged, replay.stale_share) == (0, 0, 0, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capacity_bytes_per_s": [1.0, 0.0]}, "capacity of link 1 is 0.0; it must be finite and positive"),
        ({"capacity_bytes_per_s": [np.inf, 1.0]}, "capacity of link 0 is inf"),
        ({"size_bytes": [1.0, np.nan]}, "size of flow 1 is nan"),
        ({"size_bytes": [1.0, -1.0]}, "size of flow 1 is -1.0"),
        ({"start_s": [-1.0, 0.0]}, "start of flow 0 is -1.0; it must be finite and not negative"),
        ({"weights": [1.0, 0.0]}, "weight of flow 1 is 0.0"),
        ({"coefficients": [1.0, 1.0, 0.0]}, "coefficient of entry 2 is 0.0"),
        ({"weights": [1.0]}, "the weight of flows must be one row of 2 values"),
        ({"path_offsets": [0, 2, 2]}, r"path offsets must be 3 numbers from 0 to the number of links, 3"),
        ({"path_offsets": [0, 3, 3]}, "flow 1 has no path"),
        ({"path_offsets": [1, 2, 3]}, "path offsets must be"),
        ({"path_offsets": [0.0, 2.0, 3.0]}, "must be integers"),
        ({"path_links": [0, 1, 2]}, "flow 1 names link 2; links are 0 to 1"),
        ({"path_links": [0, 1, -1]}, "flow 1 names link -1"),
        ({"path_links": [1, 1, 0]}, "flow 0 names link 1 more than once"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {
        "capacity_bytes_per_s": [1.0, 2.0],
        "path_offsets": [0, 2, 3],
        "path_links": [0, 1, 1],
        "size_bytes": [1.0, 1.0],
    }
    with pytest.raises(ValueError, match=message):
        replay_flows(**(good | change))
