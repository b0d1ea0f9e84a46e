"""Reuse on and off give the same; `Twins` runs both side by side and compares all that can be seen."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import reuse
from simulator.bills import Bills
from simulator.fluid import FluidNetwork
from simulator.reuse import ReusingNetwork
from simulator.rows import csr_offsets
from support.networks import Case, cases


def batch(*flows, watched: bool = True):
    """Return the columns of flows (links, size, seconds after the call), each with a watch, or none with any."""
    links = np.array([link for path, *_ in flows for link in path], np.int64)
    bills = Bills(csr_offsets([len(path) for path, *_ in flows]), links, np.ones(len(links)))
    size, after_s = (np.array([flow[column] for flow in flows], float) for column in (1, 2))
    return bills, size, after_s, np.ones(len(flows)), watched


@dataclass
class Twins:
    """A network that reuses and one that does not, which are told the same."""

    capacity: list[float]
    fired: tuple[dict[int, float], dict[int, float]] = field(default_factory=lambda: ({}, {}))

    def __post_init__(self):
        self.reusing = ReusingNetwork(np.array(self.capacity, float))
        self.plain = FluidNetwork(np.array(self.capacity, float))
        self.both = (self.reusing, self.plain)

    def add(self, bills, size, after_s, weights, watched, at_s=None):
        """Add a batch at an instant, or now."""
        for twin in self.both:
            now_s = twin.now_s if at_s is None else at_s
            count = len(size) if watched else 0
            watches = twin.add_watches(np.ones(count, np.int64))
            offsets = np.minimum(np.arange(len(size) + 1), count)
            twin.add_flows(bills, size, now_s + after_s, weights, offsets, watches)

    def advance(self, until_s=np.inf):
        """Move both clocks, through all watches that fire, and compare."""
        for twin, fired in zip(self.both, self.fired, strict=True):
            while ended := twin.advance(until_s):
                assert ended == sorted(ended)
                fired.update(dict.fromkeys(ended, twin.now_s))
        self.compare()

    def run(self, *batches):
        """Run batches one after the other, each alone."""
        for each in batches:
            self.add(*each)
            self.advance()

    def compare(self):
        reusing, plain = self.both
        assert reusing.now_s == pytest.approx(plain.now_s, rel=1e-9)
        assert self.fired[0] == pytest.approx(self.fired[1], rel=1e-9)
        assert reusing.finish_s == pytest.approx(plain.finish_s, rel=1e-9, nan_ok=True)
        assert (reusing.num_ended, reusing.num_flows) == (plain.num_ended, plain.num_flows)
        ours, theirs = reusing.meter, plain.meter
        assert ours.bytes == pytest.approx(theirs.bytes, rel=1e-9, abs=1e-12)
        assert ours.saturated_s == pytest.approx(theirs.saturated_s, rel=1e-9, abs=1e-12)
        assert reusing.backlog_bytes() == pytest.approx(plain.backlog_bytes(), rel=1e-9, abs=1e-7)


# 30 bytes over link 0 and 10 over links 0 and 1. On 10 bytes/s each: 5 each until 2 s, then 20 at 10: until 4 s.
A = batch(([0], 30, 0), ([0, 1], 10, 0))


def test_the_first_two_are_solved_and_all_others_played_back():
    # A takes 2 solves: at its start, and when its shorter flow ends. Twice that, however often it comes.
    twins = Twins([10, 10])
    for times in range(1, 8):
        twins.run(A)
        assert twins.reusing.now_s == pytest.approx(4.0 * times)
        assert (twins.reusing.solved, twins.reusing.reused) == (min(times, 2), max(0, times - 2))
        assert twins.reusing.solves == 2 * min(times, 2)
    assert twins.plain.solves == 2 * 7
    assert twins.reusing.reused_flows.tolist() == [False] * 4 + [True] * 10
    assert twins.reusing.finish_s[-2:] == pytest.approx([28.0, 26.0])


def test_what_differs_is_solved():
    # Each differs from A in one thing: bytes, weights, coefficients, links, starts.
    bills, size, after_s, weights, watched = A
    others = [
        (bills, size + np.array([0, 1]), after_s, weights, watched),
        (bills, size, after_s, weights * [1, 2], watched),
        (Bills(bills.offsets, bills.links, np.array([1.0, 1.0, 2.0])), size, after_s, weights, watched),
        (Bills(bills.offsets, np.array([0, 0, 2]), bills.coefficients), size, after_s, weights, watched),
        (bills, size, after_s + np.array([0, 1e-3]), weights, watched),
    ]
    twins = Twins([10, 10, 10])
    twins.run(A, A, *others)
    assert (twins.reusing.solved, twins.reusing.reused) == (7, 0)
    twins.run(*others, *others)
    assert (twins.reusing.solved, twins.reusing.reused) == (12, 5)


def test_without_reuse_all_is_solved():
    network_ = ReusingNetwork(np.array([10.0, 10.0]), reuse=False)
    bills, size, after_s, weights, _ = A
    for _ in range(4):
        none = np.zeros(3, np.int64), np.zeros(0, np.int64)
        network_.add_flows(bills, size, network_.now_s + after_s, weights, *none)
        network_.advance(np.inf)
    assert (network_.solved, network_.reused, network_.solves) == (4, 0, 8)


def test_a_playback_that_meets_others_on_its_links_is_taken_back():
    # A's third time is at 8 s. At 9 s it has 25 and 5 bytes left, when a flow of 10 bytes comes to link 0, which
    # three now share: 10/3 bytes/s. The 5 bytes end at 10.5 s, when 20 and 5 are left: 5 each until 11.5 s; 15 left:
    # 13 s.
    twins = Twins([10, 10])
    twins.run(A, A)
    twins.add(*A)
    twins.advance(9.0)
    assert (twins.reusing.solved, twins.reusing.reused) == (2, 1)
    twins.add(*batch(([0], 10, 0)))
    twins.advance()
    assert twins.reusing.finish_s[4:] == pytest.approx([13.0, 10.5, 11.5])
    # Both were solved in the end; and A is not played any more.
    assert (twins.reusing.solved, twins.reusing.reused) == (4, 0)
    twins.run(A, A)
    assert (twins.reusing.solved, twins.reusing.reused) == (6, 0)


def test_a_playback_goes_on_beside_flows_on_other_links():
    # The flow on link 2 neither slows A nor A it: 8 + 4 s, and 9 + 2 s.
    twins = Twins([10, 10, 10])
    twins.run(A, A)
    twins.add(*A)
    twins.advance(9.0)
    twins.add(*batch(([2], 20, 0)))
    twins.advance()
    assert twins.reusing.finish_s[4:] == pytest.approx([12.0, 10.0, 11.0])
    assert (twins.reusing.solved, twins.reusing.reused) == (3, 1)
    # Beside flows that are under way on other links it can begin, too, but not beside one on its own.
    for link, solved in ((2, 0), (1, 1)):
        before = twins.reusing.solved
        twins.add(*batch(([link], 500, 0)))
        twins.advance(twins.reusing.now_s + 1.0)
        twins.add(*A)
        twins.advance()
        assert twins.reusing.solved - before == 1 + solved


def test_batches_that_come_together_disturb_nothing():
    # Two of A at one instant share link 0: both run in the network. Alone again, it is played.
    twins = Twins([10, 10])
    twins.run(A, A)
    twins.add(*A)
    twins.run(A)
    assert (twins.reusing.solved, twins.reusing.reused) == (4, 0)
    assert twins.reusing.now_s == pytest.approx(8.0 + 8.0)
    twins.run(A)
    assert (twins.reusing.solved, twins.reusing.reused) == (4, 1)


def test_playbacks_side_by_side_end_together():
    # A and its like on links 2 and 3 begin at once and have equal ends: each instant brings the watches of both.
    twins = Twins([10, 10, 10, 10])
    bills, *rest = A
    like = (Bills(bills.offsets, bills.links + 2, bills.coefficients), *rest)
    twins.run(A, like, A, like)
    twins.add(*A)
    twins.add(*like)
    assert twins.reusing.advance(np.inf) == [9, 11]
    assert twins.reusing.advance(np.inf) == [8, 10]
    assert twins.reusing.reused == 2


@pytest.mark.parametrize("trial", range(1, 11))
@pytest.mark.parametrize("more", [-1e-13, 0.0, 1e-13])
def test_what_ends_with_a_playback_but_for_rounding_ends_at_its_instant(trial, more):
    # A's third time begins at a time that no float is, 1/3 s after a flow on link 2 that takes 4 1/3 s, or 4e-13 s
    # more or less. Both end 4 s later, which the playback and the network compute each in its own way: one instant
    # all the same, as 4e-13 s is less than 1e-12 of what either takes.
    capacity = trial + 0.1
    twins = Twins([10, 10, capacity])
    twins.run(A, A)
    twins.advance(8.0 + trial / 7)
    twins.add(*batch(([2], capacity * 13 / 3 * (1 + more), 0)))
    twins.advance(8.0 + trial / 7 + 1 / 3)
    twins.add(*A)
    assert twins.reusing.advance(np.inf) == [6]
    assert twins.reusing.advance(np.inf) == [4, 5]
    assert twins.reusing.reused == 1


def test_a_playback_is_taken_back_whole_just_before_one_of_its_instants():
    # A's shorter flow ends 2 s after its begin, and the flow that comes one float before that is alone on link 1. All
    # watches fire, once, whichever way the time that has passed is rounded: 2 s, 4 s, and 2 + 3 s after the begin.
    for trial in range(1, 41):
        twins = Twins([10, 10])
        twins.run(A, A)
        begin_s = 8.0 + trial / 7
        twins.advance(begin_s)
        twins.add(*A)
        just_before_s = np.nextafter(begin_s + 2.0, 0.0)
        fired = twins.reusing.advance(just_before_s)
        watch = twins.reusing.add_watches([1])
        other = batch(([1], 30, 0))
        twins.reusing.add_flows(other[0], other[1], other[2], other[3], np.arange(2), watch)
        while ended := twins.reusing.advance(np.inf):
            fired += ended
        assert fired == [5, 4, 6]
        assert twins.reusing.finish_s[-3:] - begin_s == pytest.approx([4.0, 2.0, 5.0])


def test_a_playback_that_waits_for_another_is_taken_back_with_it():
    # Alone, C carries 40 bytes over links 0 and 1 in 4 s, and B 20 over link 1 from 4.5 s to 6.5 s: both are played.
    # 1 s after C's begin, when it has 30 bytes left, 40 come to link 0 alone: 5 each, so that C lasts until 7 s. From
    # 4.5 s on B gets the 5 bytes/s that C leaves of link 1: 12.5 bytes by 7 s, and the other 7.5 at 10 bytes/s by
    # 7.75 s.
    twins = Twins([10, 10])
    c, waiting = batch(([0, 1], 40, 0)), batch(([1], 20, 4))
    twins.run(c, c, waiting, waiting)
    begin_s = twins.reusing.now_s
    twins.add(*c)
    twins.advance(begin_s + 0.5)
    twins.add(*waiting)
    twins.advance(begin_s + 1.0)
    assert twins.reusing.reused == 2
    twins.add(*batch(([0], 40, 0)))
    twins.advance()
    assert twins.reusing.finish_s[-3:-1] - begin_s == pytest.approx([7.0, 7.75])
    assert twins.reusing.reused == 0


@pytest.mark.parametrize("passed_s", [0.0, 0.5, 1.0, 2.0, 3.9, 4.0])
@pytest.mark.parametrize("repeated", [A, batch(([0], 0, 1), ([0], 30, 1), watched=False)])
def test_all_that_can_be_seen_is_there_at_any_time(repeated, passed_s):
    # `Twins` compares finishes, bytes, saturated time and backlog while the playback is under way. Both take 4 s; the
    # second waits for 1 s before its first flow, of no bytes, ends.
    twins = Twins([10, 10])
    twins.run(repeated, repeated)
    twins.add(*repeated)
    twins.advance(8.0 + passed_s)
    assert twins.reusing.reused == (passed_s > 0.0)
    twins.advance()


def test_the_timeline_of_a_playback_is_that_of_a_run():
    # Rates change at 2 s and 4 s after each start. An instant of a solution is 2^-7 of its 4 s or less, a bin of the
    # whole 40 s or less / 500: what is linear between instants that holds a change of rate may be off by 10 bytes/s x
    # the longer of the two, everything else is exact.
    twins = Twins([10, 10])
    twins.run(*[A] * 10)
    ours, theirs = twins.reusing.meter, twins.plain.meter
    assert ours.width_s == theirs.width_s
    assert ours.bins == pytest.approx(theirs.bins, abs=10 * max(4 / 2**7, 40 / 500))
    wide = ours.covering(1000.0), theirs.covering(1000.0)
    assert wide[0].bins == pytest.approx(wide[1].bins, rel=1e-9)
    constant = Twins([10])
    constant.run(*[batch(([0], 100, 0))] * 5)
    assert constant.reusing.reused == 3
    assert constant.reusing.meter.bins == pytest.approx(constant.plain.meter.bins, rel=1e-9, abs=1e-9)


def test_a_late_clock_rounds_starts_and_they_are_equal_all_the_same():
    # The clock goes from 1 s to 190 s, where floats are 2.2e-16 s to 2.8e-14 s apart: starts 1.1 us and 2.3 us after
    # the earliest are rounded in several ways. 10 bytes take 1 us each, alone; the last ends 3.3 us after the first
    # start.
    bills, size, after_s, weights, _ = batch(([0], 10, 0), ([0], 10, 1.1e-6), ([0], 10, 2.3e-6))
    reusing = ReusingNetwork(np.array([1e7]))
    begin_s = 1.3 ** np.arange(1, 21)
    for now_s in begin_s:
        reusing.advance(now_s)
        none = np.zeros(4, np.int64), np.zeros(0, np.int64)
        reusing.add_flows(bills, size, reusing.now_s + after_s, weights, *none)
    reusing.advance(np.inf)
    assert len({tuple((now_s + after_s) - now_s) for now_s in begin_s}) > 1
    assert (reusing.solved, reusing.reused) == (2, 18)
    assert reusing.finish_s[2::3] - begin_s == pytest.approx(np.full(20, 3.3e-6), abs=1e-12)


def test_starts_that_differ_by_more_than_rounding_are_not_equal():
    # The busiest link needs 4 s, and starts enter the key on a grid of 4 s / 2^20 = 3.8 us. 1 us is less, but more
    # than rounding: the solution does not serve, and the flow starts when it is said to.
    def shifted(shift_s):
        return batch(([0], 30, 0), ([0, 1], 10, 1.0 + shift_s))

    twins = Twins([10, 10])
    twins.run(shifted(0), shifted(0), shifted(1e-6), shifted(1e-6), shifted(1e-6))
    assert (twins.reusing.solved, twins.reusing.reused) == (4, 1)


def test_a_change_of_capacity_forgets_all():
    # From the fourth time on link 0 carries 5 bytes/s: A takes 8 s, and nothing is known of it. It changes 1 s after
    # the third has begun: 30 bytes left at half the pace, 6 s.
    twins = Twins([10, 10])
    twins.run(A, A)
    twins.add(*A)
    twins.advance(9.0)
    for twin in twins.both:
        twin.set_capacity(np.array([0]), np.array([5.0]))
    twins.advance()
    assert twins.reusing.now_s == pytest.approx(15.0)
    assert (twins.reusing.solved, twins.reusing.reused) == (3, 0)
    twins.run(A, A, A)
    assert twins.reusing.now_s == pytest.approx(15.0 + 3 * 8)
    assert (twins.reusing.solved, twins.reusing.reused) == (5, 1)


def test_rerouting_ends_all_playing():
    # The third A is played back; 1 s after it has begun, both flows take link 1 in place of 0: its 30 bytes that are
    # left end when they would have. Link 1 carried 10 of each A before, and 5 of this. What comes after is solved.
    twins = Twins([10, 10])
    twins.run(A, A)
    twins.add(*A)
    twins.advance(9.0)
    left = np.flatnonzero(np.isnan(twins.plain.finish_s))
    links = np.ones(len(left), np.int64)
    for twin in twins.both:
        twin.reroute(left, Bills(np.arange(len(left) + 1), links, np.ones(len(left))))
    twins.advance()
    assert twins.reusing.now_s == pytest.approx(12.0)
    assert twins.reusing.meter.bytes.tolist() == pytest.approx([90.0, 20.0 + 5.0 + 30.0])
    twins.run(A, A)
    assert twins.reusing.reused == 0


def test_a_batch_that_has_just_come_can_be_rerouted():
    twins = Twins([10, 10])
    twins.add(*A)
    for twin in twins.both:
        count = twin.num_flows
        twin.reroute(np.arange(count), Bills(np.arange(count + 1), np.ones(count, np.int64), np.ones(count)))
    twins.advance()
    assert twins.reusing.meter.bytes.tolist() == pytest.approx([0.0, 40.0])


def test_flows_that_wait_for_a_dead_link_are_not_played():
    twins = Twins([10, 0])
    twins.add(*A)
    twins.advance()
    twins.add(*A)
    twins.advance()
    assert np.isnan(twins.reusing.finish_s[[1, 3]]).all()
    assert twins.reusing.reused == 0


def test_flows_without_links_bytes_or_watches():
    # Nothing: ends as it starts. Ten bytes on one link: 1 s. Nobody waits for the flows of the last.
    twins = Twins([10])
    for _ in range(4):
        twins.run(batch(([], 5, 0.5)), batch(([0], 0, 0), ([0], 10, 0)), batch(([0], 10, 0), watched=False))
    assert twins.reusing.now_s == pytest.approx(4 * 2.5)
    assert (twins.reusing.solved, twins.reusing.reused) == (4 + 2 * 2, 2 * 2)


def test_a_watch_may_wait_for_flows_of_several_batches():
    # The watch waits for three flows: two of a batch that is played, 4 s and 2 s, and one on link 2, 3 s or 7 s.
    for size, fires_s in ((30, 4.0), (70, 7.0)):
        reusing = ReusingNetwork(np.array([10.0, 10.0, 10.0]))
        bills, *rest = A
        for _ in range(3):
            begin_s = reusing.now_s
            watch = reusing.add_watches([3])
            every = np.arange(3), np.repeat(watch, 2)
            reusing.add_flows(bills, rest[0], begin_s + rest[1], rest[2], *every)
            other = batch(([2], size, 0))
            reusing.add_flows(other[0], other[1], begin_s + other[2], other[3], np.arange(2), watch)
            assert reusing.advance(np.inf) == [int(watch[0])]
            assert reusing.now_s - begin_s == pytest.approx(fires_s)
        assert (reusing.solved, reusing.reused) == (4, 2)


def test_solutions_that_have_not_served_for_longest_go_first(monkeypatch):
    # Room for two solutions, three keys in turn: each has gone when it comes again, and is solved ahead anew. Two in
    # turn stay.
    twins = Twins([10, 10])
    kinds = [batch(([0], 40 - size, 0), ([0, 1], size, 0)) for size in (5, 10, 15)]  # each takes 4 s
    twins.run(*kinds, kinds[0])
    library = twins.reusing._library
    (kept,) = library._solutions.values()
    monkeypatch.setattr(reuse, "_MOST_SOLUTION_BYTES", 2.5 * kept.memory_bytes)
    before = twins.reusing.solved
    twins.run(*kinds[1:], *kinds, *kinds)
    assert (twins.reusing.solved - before, twins.reusing.reused) == (8, 0)
    twins.run(kinds[2], kinds[1], kinds[2], kinds[1])
    assert twins.reusing.reused == 4
    assert library._memory_bytes == sum(one.memory_bytes for one in library._solutions.values())


def test_progress_counts_playbacks_too():
    seen: list[int] = []
    reusing = ReusingNetwork(np.array([10.0, 10.0]), seen.append)
    bills, size, after_s, weights, _ = A
    for _ in range(5):
        none = np.zeros(3, np.int64), np.zeros(0, np.int64)
        reusing.add_flows(bills, size, reusing.now_s + after_s, weights, *none)
        reusing.advance(np.inf)
    assert seen == sorted(seen)
    assert seen[-1] == 10


@settings(max_examples=150, deadline=None)
@given(cases(max_links=5, max_flows=6), st.data())
def test_repeats_that_overlap_as_they_please_give_the_same(case: Case, data):
    # The flows of a case are dealt out to batches, which come time and again: when all has ended, or a part of what
    # the last one takes alone after it.
    capacity, offsets, links, coefficients, weights = case.arrays
    count = len(weights)
    kind = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    size = np.array(data.draw(st.lists(st.integers(0, 50), min_size=count, max_size=count)), float)
    after_s = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.25, 2.0]), min_size=count, max_size=count)))
    lengths = np.diff(offsets)
    kinds = []
    for number in np.unique(kind):
        of = np.flatnonzero(kind == number)
        entries = np.concatenate([np.arange(offsets[flow], offsets[flow + 1]) for flow in of])
        bills = Bills(csr_offsets(lengths[of]), links[entries], coefficients[entries])
        kinds.append((bills, size[of], after_s[of], weights[of], True))
    alone_s = []
    for each in kinds:
        twins = Twins(capacity.tolist())
        twins.run(each)
        alone_s.append(twins.plain.now_s)
    twins = Twins(capacity.tolist())
    # No part lets a batch come just as another ends: what rounding leaves of that one would last as many times longer
    # as the new one outweighs it, and weights differ by thousands.
    part = st.sampled_from([np.inf, np.inf, np.inf, 0.0, 0.37193, 0.92831, 1.07177, 1e3 / 7])
    for which, gap in data.draw(st.lists(st.tuples(st.integers(0, len(kinds) - 1), part), max_size=12)):
        twins.add(*kinds[which], at_s=twins.plain.now_s)
        if gap > 0.0:
            twins.advance(twins.plain.now_s + gap * alone_s[which])
    twins.advance()
