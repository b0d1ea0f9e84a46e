"""Reuse on and off give the same; `Twins` runs both side by side and compares all that can be seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import reuse, solution_library
from simulator.bills import Bills
from simulator.reuse import ReusingNetwork
from simulator.rows import csr_offsets
from support.networks import Case, cases
from support.properties import tried_on
from support.reusing_twins import Twins, batch, pattern

# 30 bytes over link 0 and 10 over links 0 and 1. On 10 bytes/s each: 5 each until 2 s, then 20 at 10: until 4 s.
A = batch(([0], 30, 0), ([0, 1], 10, 0))


def test_the_first_is_solved_and_all_others_played_back():
    # A takes 2 solves: at its start, and when its shorter flow ends, however often it comes.
    twins = Twins([10, 10])
    for times in range(1, 8):
        twins.run(A)
        assert twins.reusing.now_s == pytest.approx(4.0 * times)
        assert twins.counts == (1, times - 1)
        assert twins.reusing.solves == 2
    assert twins.plain.solves == 2 * 7
    assert twins.finish_s(-1) == pytest.approx([28.0, 26.0])
    # Repeats share what is known of their flows.
    assert twins.batches[0][1].finish_after_s is twins.batches[0][6].finish_after_s


def test_what_differs_is_solved():
    # Each differs from A in one thing: bytes, weights, coefficients, a link in place of another, starts, parts.
    bills, size, after_s, weights = A
    others = [
        (bills, size + np.array([0, 1]), after_s, weights),
        (bills, size, after_s, weights * [1, 2]),
        (Bills(bills.offsets, bills.links, np.array([1.0, 1.0, 2.0])), size, after_s, weights),
        (Bills(bills.offsets, np.array([0, 1, 2]), bills.coefficients), size, after_s, weights),
        (bills, size, after_s + np.array([0, 1e-3]), weights),
        (bills, size, after_s, weights, [[0, 1]]),
    ]
    twins = Twins([10, 10, 10])
    twins.run(A, A, *others)
    assert twins.counts == (7, 1)
    twins.run(*others)
    assert twins.counts == (7, 7)


def test_the_same_elsewhere_is_reused_if_links_have_the_same_capacities():
    # Links 2 and 3 are like 0 and 1; link 4 in place of 3 carries 20 bytes/s, and the numbers of links play no part.
    bills, *rest = A
    twins = Twins([10, 10, 10, 10, 20])
    for links, solved in (([2, 2, 3], 1), ([3, 3, 0], 1), ([0, 0, 4], 2)):
        twins.run(A, (Bills(bills.offsets, np.array(links), bills.coefficients), *rest))
        assert twins.counts[0] == solved


def test_without_reuse_all_is_solved():
    twins = Twins([10, 10])
    twins.run(A, A, A)
    assert not any(each.is_reused for each in twins.batches[1])


SEND = batch(([1], 10, 0.5))


@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.0, 1.9, 3.5])
def test_episodes_of_two_repeat(after_s):
    # SEND meets A on link 1, at any time after A's begin. The second time neither is solved; the third is elsewhere.
    bills, *rest = A
    elsewhere = (Bills(bills.offsets, bills.links + 2, bills.coefficients), *rest)
    send_there = (Bills(np.array([0, 1]), np.array([3]), np.ones(1)), *SEND[1:])
    twins = Twins([10, 10, 10, 10])
    for first, then in ((A, SEND), (A, SEND), (elsewhere, send_there)):
        twins.add(*first)
        twins.advance(twins.plain.now_s + after_s)
        twins.add(*then)
        twins.finish()
    assert twins.counts == (2, 4)


def test_an_episode_at_another_offset_is_solved():
    # Both times A is known at first; SEND comes 1 s after it, and then 1.1 s.
    twins = Twins([10, 10])
    for after_s in (1.0, 1.1, 1.1):
        twins.add(*A)
        twins.advance(twins.plain.now_s + after_s)
        twins.add(*SEND)
        twins.finish()
    assert twins.counts == (4, 2)


def test_a_link_whose_batches_have_ended_is_free():
    # The 10 bytes over links 0 and 2 end after 2 s, when the 40 over links 0 and 1 that came with them go on; what
    # then comes on link 2 is an episode of its own, known as such.
    twins = Twins([10, 10, 10])
    twins.run(batch(([2], 20, 0)))
    twins.add(*batch(([0, 1], 40, 0)))
    twins.add(*batch(([0, 2], 10, 0)))
    twins.advance(twins.plain.now_s + 2.5)
    twins.add(*batch(([2], 20, 0)))
    twins.finish()
    assert twins.counts == (3, 1)


def test_a_link_that_an_episode_comes_back_to_counts_once_more():
    # The second batch leaves link 2 after 2 s; the third crosses it again, together with link 0, where the first
    # still is. Bytes and saturated time of both add up on link 2, and all of it repeats.
    twins = Twins([10, 10, 10])
    for _ in range(2):
        twins.add(*batch(([0, 1], 40, 0)))
        twins.add(*batch(([0, 2], 10, 0)))
        twins.advance(twins.plain.now_s + 2.5)
        twins.add(*batch(([0, 2], 20, 0)))
        twins.finish()
    assert twins.counts == (3, 3)


@pytest.mark.parametrize("number", [2, 3])
def test_a_batch_makes_one_of_episodes(number):
    # Batches on links 0, 1, ... begin 0.4 s one after the other; one over all links comes while all are under way.
    twins = Twins([10] * number)
    for _ in range(3):
        for link in range(number):
            twins.add(*batch(([link], 30 + link, 0)))
            twins.advance(twins.plain.now_s + 0.4)
        twins.add(*batch((list(range(number)), 10, 0)))
        twins.advance(twins.plain.now_s + 0.2)
        twins.add(*batch(([0], 10, 0)))
        twins.finish()
    assert twins.counts == (number + 2, 2 * (number + 2))


def test_chains_that_part_are_known_as_far_as_they_go():
    # Three batches; then the same two and another third; then both chains again.
    twins = Twins([10])
    thirds = batch(([0], 5, 0)), batch(([0], 7, 0))
    for number, solved in ((0, 3), (1, 6), (0, 6), (1, 6)):
        for each in (batch(([0], 30, 0)), batch(([0], 20, 0)), thirds[number]):
            twins.add(*each)
            twins.advance(twins.plain.now_s + 0.5)
        twins.finish()
        assert twins.counts[0] == solved


def test_batches_that_come_together_are_solved_together():
    # Two of A at one instant share link 0: one solution, of both, of 2 solves.
    twins = Twins([10, 10])
    for _ in range(3):
        twins.add(*A)
        twins.add(*A)
        twins.finish()
    assert twins.counts == (2, 4)
    assert twins.reusing.solves == 2


@pytest.mark.parametrize("after_s", [0.0, 0.7, 1.9])
def test_episodes_that_are_given_up_go_on_in_the_shared_network(monkeypatch, after_s):
    # Three batches are more than an episode may have; when it is over, the next is an episode again.
    monkeypatch.setattr(reuse, "_MOST_BATCHES", 2)
    twins = Twins([10, 10])
    for _ in range(2):
        twins.add(*A, [[0, 1], [1]])
        twins.advance(twins.plain.now_s + after_s)
        twins.add(*SEND)
        twins.advance(twins.plain.now_s + after_s)
        twins.add(*A)
        twins.advance(twins.plain.now_s + 0.1)
        assert twins.reusing.shared.num_flows > 0
        twins.add(*SEND)  # finds others of the shared network on its link
        twins.finish()
    before = twins.counts[1]
    twins.run(A, A)
    assert twins.counts[1] - before >= 1


def test_an_episode_that_takes_too_much_work_gets_as_far_again_when_it_comes_again(monkeypatch):
    # Ten alike batches, one after the other, on a link that none leaves. The first six take 1 + 2 + ... + 6 = 21
    # batches of work, which is three times the seven that are there when the next comes: it is not solved for. The
    # second time six are known, and 7 + 8 + 9 = 24 is less than three times ten, so that all become known.
    monkeypatch.setattr(reuse, "_MOST_WORK", 3)
    twins = Twins([10])
    known = []
    for _ in range(3):
        for _ in range(10):
            twins.add(*batch(([0], 100, 0)))
            twins.advance(twins.plain.now_s + 0.5)
        known.append(len(twins.reusing._library))
        twins.finish()
    assert known == [6, 10, 10]


def test_playbacks_side_by_side_end_together():
    # A and its like on links 2 and 3 begin at once and have equal ends: each instant brings the parts of both.
    twins = Twins([10, 10, 10, 10])
    bills, *rest = A
    like = (Bills(bills.offsets, bills.links + 2, bills.coefficients), *rest)
    twins.run(A, A)
    twins.add(*A)
    twins.add(*like)
    ends = [sorted((each.number, part) for each, part in twins.reusing.advance(np.inf)) for _ in range(2)]
    assert ends == [[(2, 1), (3, 1)], [(2, 0), (3, 0)]]


@pytest.mark.parametrize("trial", range(1, 11))
@pytest.mark.parametrize("more", [-1e-13, 0.0, 1e-13])
def test_what_ends_with_a_playback_but_for_rounding_ends_at_its_instant(monkeypatch, trial, more):
    # A begins at a time that no float is, 1/3 s after a flow on link 2 that takes 4 1/3 s, or 4e-13 s more or less,
    # in the shared network. Both end 4 s later, which each computes in its own way: one instant all the same, as
    # 4e-13 s is less than 1e-12 of what either takes.
    capacity = trial + 0.1
    twins = Twins([10, 10, capacity])
    twins.run(A)
    twins.advance(8.0 + trial / 7)
    monkeypatch.setattr(reuse, "_MOST_BATCHES", 0)
    twins.add(*batch(([2], capacity * 13 / 3 * (1 + more), 0)))
    twins.advance(8.0 + trial / 7 + 1 / 3)
    monkeypatch.undo()
    twins.add(*A)
    ends = [sorted((each.number, part) for each, part in twins.reusing.advance(np.inf)) for _ in range(2)]
    assert ends == [[(2, 1)], [(1, 0), (2, 0)]]
    assert twins.reusing.shared.num_ended == 1


def test_a_batch_that_joins_just_before_an_end_loses_nothing():
    # A's shorter flow ends 2 s after its begin, and the flow that comes one float before that is alone on link 1. All
    # parts end, once, whichever way the time that has passed is rounded: 2 s, 4 s, and 2 + 3 s after the begin.
    for trial in range(1, 41):
        twins = Twins([10, 10])
        twins.run(A, A)
        begin_s = 8.0 + trial / 7
        twins.advance(begin_s)
        twins.add(*A)
        ended = twins.reusing.advance(np.nextafter(begin_s + 2.0, 0.0))
        other = twins.reusing.add(pattern(np.array([10.0, 10.0]), *batch(([1], 30, 0))))
        while more := twins.reusing.advance(np.inf):
            ended += more
        assert [(each.number, part) for each, part in ended] == [(2, 1), (2, 0), (3, 0)]
        assert twins.batches[0][2].finish_after_s == pytest.approx([4.0, 2.0])
        assert other.finish_after_s + other.begin_s - begin_s == pytest.approx([5.0])


def test_the_timeline_of_a_playback_is_that_of_a_run():
    # Rates change at 2 s and 4 s after each begin. An instant of a solution is 2^-7 of its 4 s or less, a bin of the
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
    assert constant.counts == (1, 4)
    assert constant.reusing.meter.bins == pytest.approx(constant.plain.meter.bins, rel=1e-9, abs=1e-9)


def test_the_timeline_of_what_is_solved_is_as_fine_as_that_of_a_run():
    # Alone and solved for it, A has the bins of a network of its own.
    twins = Twins([10, 10])
    twins.run(A)
    assert twins.reusing.meter.bins == pytest.approx(twins.plain.meter.bins, rel=1e-9, abs=1e-9)


def test_a_late_clock_rounds_begins_and_they_are_equal_all_the_same():
    # The clock goes from 1 s to 190 s, where floats are 2.2e-16 s to 2.8e-14 s apart; the second batch of each
    # episode comes 1.1 us after the first, which is rounded in several ways. 10 bytes take 1 us, alone. The second
    # flow starts at 1.2 us, when the first has 8 bytes left: both have sent 8 by 2.8 us, and the other 2 take 0.2 us.
    first, second = batch(([0], 20, 0)), batch(([0], 10, 0.1e-6))
    reusing = ReusingNetwork(np.array([1e7]))
    capacity = reusing.shared.capacity_bytes_per_s
    patterns = [pattern(capacity, *each) for each in (first, second)]
    found, offsets = [], set()
    for begin_s in 1.3 ** np.arange(1, 21):
        reusing.advance(begin_s)
        found.append(reusing.add(patterns[0]))
        reusing.advance(begin_s + 1.1e-6)
        found.append(reusing.add(patterns[1]))
        offsets.add(found[-1].begin_s - found[-2].begin_s)
        while reusing.advance(np.inf):
            pass
    assert len(offsets) > 1
    assert sum(each.is_reused for each in found) == 38
    for each in found[
        1::2
    ]:  # until 2.9 us after the begin both share the link: 1.7 us for 8 bytes of each and 1
        assert each.finish_after_s == pytest.approx([1.9e-6], abs=1e-12)


def test_begins_that_differ_by_more_than_rounding_are_not_equal():
    # The busiest link of SEND needs 1 s, and begins enter the key on a grid of 1 s / 2^20 = 1 us. 1e-7 s is less, but
    # more than rounding: the solution does not serve, and the flow starts when it does.
    twins = Twins([10, 10])
    for after_s in (1.0, 1.0, 1.0 + 1e-7, 1.0 + 1e-7):
        twins.add(*A)
        twins.advance(twins.plain.now_s + after_s)
        twins.add(*SEND)
        twins.finish()
    assert len(twins.reusing._library) == 2
    assert twins.counts == (4, 4)


def test_flows_that_wait_for_a_dead_link_are_not_played():
    twins = Twins([10, 0])
    for _ in range(2):
        twins.add(*A)
        twins.advance()
    assert [each.num_left for each in twins.batches[0]] == [1, 1]
    assert twins.counts == (2, 0)


def test_flows_without_links_or_bytes():
    # Nothing: ends as it starts. Ten bytes on one link: 1 s. Two flows that are one part.
    twins = Twins([10])
    for _ in range(4):
        twins.run(batch(([], 5, 0.5)), batch(([0], 0, 0), ([0], 10, 0)))
        twins.run((*batch(([0], 10, 0), ([], 10, 0)), [[0, 1]]))
    assert twins.reusing.now_s == pytest.approx(4 * 2.5)
    assert twins.counts == (3, 9)


def test_solutions_that_have_not_served_for_longest_go_first(monkeypatch):
    # Room for two solutions, three keys in turn: each has gone when it comes again, and is solved anew. Two in turn
    # stay. After 1,000 s the timeline is so coarse that all solutions are equally large.
    twins = Twins([10, 10])
    twins.run(batch(([0], 10_000, 0)))
    kinds = [batch(([0], 40 - size, 0), ([0, 1], size, 0)) for size in (5, 10, 15)]  # each takes 4 s
    twins.run(kinds[0])
    *_, kept = twins.reusing._library._solutions.values()
    monkeypatch.setattr(solution_library, "_MOST_BYTES", 2.5 * kept.memory_bytes)
    twins.run(*kinds[1:], *kinds, *kinds)
    assert twins.counts == (10, 0)
    twins.run(kinds[2], kinds[1], kinds[2], kinds[1])
    assert twins.counts == (10, 4)
    solutions = twins.reusing._library._solutions.values()
    assert twins.reusing._library.memory_bytes == sum(one.memory_bytes for one in solutions)


@pytest.mark.parametrize("most_batches", [64, 2])
def test_progress_counts_all_and_never_falls(monkeypatch, most_batches):
    # Two episodes of three batches of two flows, played or given up.
    monkeypatch.setattr(reuse, "_MOST_BATCHES", most_batches)
    seen: list[int] = []
    reusing = ReusingNetwork(np.array([10.0, 10.0]), seen.append)
    for _ in range(2):
        for _ in range(3):
            reusing.add(pattern(reusing.shared.capacity_bytes_per_s, *A))
            reusing.advance(reusing.now_s + 0.1)
        while reusing.advance(np.inf):
            pass
    assert seen == sorted(set(seen))
    assert seen[-1] == 12


@pytest.mark.parametrize("most", [(256, 8), (3, 8), (256, 1)])
@tried_on(100)
@given(cases(max_links=5, max_flows=6), st.data())
def test_repeats_that_overlap_as_they_please_give_the_same(most, case: Case, data):
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
        parts = data.draw(st.sampled_from([None, [list(range(len(of)))]]))
        kinds.append((bills, size[of], after_s[of], weights[of], parts))
    alone_s = []
    for each in kinds:
        twins = Twins(capacity.tolist())
        twins.run(each)
        alone_s.append(twins.plain.now_s)
    # No part lets a batch come just as another ends: what rounding leaves of that one would last as many times longer
    # as the new one outweighs it, and weights differ by thousands.
    part = st.sampled_from([np.inf, np.inf, np.inf, 0.0, 0.37193, 0.92831, 1.07177, 1e3 / 7])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reuse, "_MOST_BATCHES", most[0])
        patch.setattr(reuse, "_MOST_WORK", most[1])
        twins = Twins(capacity.tolist())
        for which, gap in data.draw(st.lists(st.tuples(st.integers(0, len(kinds) - 1), part), max_size=12)):
            twins.add(*kinds[which])
            # One without bytes takes no time: after that, the clocks' last bits would say whether it has ended.
            wait_s = np.inf if gap == np.inf else gap * alone_s[which]
            if wait_s > 0.0:
                twins.advance(twins.plain.now_s + wait_s)
        twins.finish()
