"""Bubbles and activations of pipeline schedules: the published formulas, exactly, under the conditions they hold for.

P ranks, n micro-batches; a rank's share of the model takes F forward and B = I + W backward, for inputs and for
weights; an overlapped pair takes F&B. Times are whole seconds, so that equal means equal.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import tried_on
from workloads.schedules import Schedule, make_schedule
from workloads.schedules.checks import peak_in_flight, peak_of_rank
from workloads.schedules.ideal import bubbles, ideal_times, step_time

RANKS = [2, 4, 8, 16]
SECONDS = st.integers(1, 40)


def idle(schedule: Schedule, f: int, i: int, w: int, pair: int = 0) -> list[float]:
    return list(bubbles(ideal_times(schedule, f, i, w, pair)))


def held(schedule: Schedule, *, until_weights: bool = True) -> list[int]:
    return [
        sum(peak_of_rank(schedule, rank, until_weights=until_weights).values())
        for rank in range(schedule.num_ranks)
    ]


# GPipe and 1F1B: (P-1)(F+B)


@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize("num_micro_batches", [1, 2, 7, 16, 33])
def test_the_bubble_of_gpipe_and_1f1b(name, num_ranks, num_micro_batches):
    # The last rank starts after P-1 forwards and never waits again: n (F+B); then its last gradients go back over P-1
    # ranks. So the step is (P-1) F + n (F+B) + (P-1) B, whatever n, F and B.
    f, i, w = 3, 5, 2
    schedule = make_schedule(name, num_ranks, num_micro_batches)
    assert idle(schedule, f, i, w) == [(num_ranks - 1) * (f + i + w)] * num_ranks
    assert step_time(ideal_times(schedule, f, i, w, 0)) == (num_ranks - 1 + num_micro_batches) * (f + i + w)


# Interleaved 1F1B: (P-1)(F+B)/chunks


@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize("groups", [1, 2, 5])
@pytest.mark.parametrize("chunks", [2, 4])
def test_the_bubble_of_interleaved_1f1b(num_ranks, groups, chunks):
    # arXiv 2104.04473, section 2.2: a stage takes (F+B)/chunks, and filling and draining pass P-1 of them. Here the
    # rank's share is F = 12, B = 32.
    schedule = make_schedule("interleaved-1f1b", num_ranks, groups * num_ranks, chunks)
    bubble = (num_ranks - 1) * (12 + 32) // chunks
    assert idle(schedule, 12 // chunks, 20 // chunks, 12 // chunks) == [bubble] * num_ranks


# ZB1P: (P-1)(F+B-2W)


@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize(("f", "i", "w"), [(10, 10, 10), (10, 12, 9), (20, 11, 10), (7, 7, 3)])
@pytest.mark.parametrize("more", [0, 1, 17])
def test_the_bubble_of_zb1p_where_weights_are_short(num_ranks, f, i, w, more):
    # arXiv 2401.10241, table 2, whose T_B is I: (P-1)(T_F + T_B - T_W); with B = I + W that is (P-1)(F+B-2W). It is
    # derived for F = I = W, and holds wherever W is no longer than F and than I, from n = P on: below that, there are
    # not enough weight parts to put off.
    schedule = make_schedule("zb1p", num_ranks, num_ranks + more)
    assert idle(schedule, f, i, w) == [(num_ranks - 1) * (f + (i + w) - 2 * w)] * num_ranks


@tried_on(60)
@given(st.integers(1, 8), st.integers(0, 8), SECONDS, SECONDS, SECONDS)
def test_the_bubble_of_zb1p(num_ranks, more, f, i, w):
    # Longer weight parts do not fit into the waits that they are put off into: of each only min(F, I) counts.
    schedule = make_schedule("zb1p", num_ranks, num_ranks + more)
    assert idle(schedule, f, i, w) == [(num_ranks - 1) * (f + i - min(f, i, w))] * num_ranks


@pytest.mark.parametrize("num_ranks", RANKS[1:])
def test_zb1p_needs_as_many_micro_batches_as_ranks(num_ranks):
    schedule = make_schedule("zb1p", num_ranks, num_ranks - 1)
    assert min(idle(schedule, 10, 10, 10)) > (num_ranks - 1) * (10 + 20 - 2 * 10)


# DualPipe and DualPipeV: (P/2-1)(F&B+B-3W), P being the stages of DualPipeV's only pipeline


def as_table(name: str, num_stages: int, num_micro_batches: int) -> Schedule:
    """Return a schedule as the published table counts it: P stages, on P ranks or, folded, on P/2."""
    folded = name == "dualpipe-v"
    return make_schedule(
        name,
        num_stages // 2 if folded else num_stages,
        num_micro_batches // 2 if folded else num_micro_batches,
    )


def mirrored(by_depth: list[int], name: str) -> list[int]:
    return by_depth if name == "dualpipe-v" else by_depth + by_depth[::-1]


@pytest.mark.parametrize("name", ["dualpipe", "dualpipe-v"])
@pytest.mark.parametrize("num_stages", RANKS)
@pytest.mark.parametrize(("f", "w"), [(10, 10), (10, 7), (10, 1)])
@pytest.mark.parametrize("more", [0, 2, 14])
def test_the_published_bubble_of_dualpipe(name, num_stages, f, w, more):
    # Exact where a forward takes as long as a backward for inputs, F = I >= W, and a pair as long as its parts.
    b = f + w
    schedule = as_table(name, num_stages, 2 * num_stages + more)
    published = (num_stages // 2 - 1) * ((f + b) + b - 3 * w)
    assert idle(schedule, f, f, w, f + b) == [published] * schedule.num_ranks


@pytest.mark.parametrize("name", ["dualpipe", "dualpipe-v"])
@pytest.mark.parametrize("num_stages", RANKS)
@pytest.mark.parametrize("pair", [20, 24, 27, 30, 36])
def test_overlap_changes_the_bubble_of_outer_ranks_only(name, num_stages, pair):
    # F = I = W = 10: a pair hides F+B-F&B. The two ranks in the middle, h = P/2-1 and P/2-2, run equally many
    # pairs and have the published bubble. A rank further out runs P/2-2-h fewer of its chunks in pairs, since it
    # runs more apart (steps 3 and 5), so that it works longer by what they would have hidden, and is idle for less.
    half = num_stages // 2
    schedule = as_table(name, num_stages, 3 * num_stages)
    published = (half - 1) * (pair + 20 - 30)
    by_depth = [published - max(0, half - 2 - depth) * (30 - pair) for depth in range(half)]
    assert idle(schedule, 10, 10, 10, pair) == mirrored(by_depth, name)


@tried_on(100)
@given(
    st.sampled_from(["dualpipe", "dualpipe-v"]),
    st.integers(1, 7),
    st.integers(0, 5),
    SECONDS,
    SECONDS,
    SECONDS,
    st.integers(0, 80),
)
def test_the_bubble_of_dualpipe_rank_by_rank(name, half, more, f, i, w, extra):
    # Where a middle rank waits, as docs/schedules.md has it, in four sums. `fill`: until P/2-1 stages have passed the
    # first micro-batch on. `turn`: until P/2-1 others have returned its gradients, less the P/2 forwards that it runs
    # meanwhile. `drain`: its forwards over, for neighbours that run a pair where it runs a backward. `tail`: for
    # neighbours that run an I where it runs a W.
    pair = max(f, i + w) + extra
    schedule = as_table(name, 2 * half, 4 * half + 2 * more)
    fill = (half - 1) * f
    turn = max(0, (half - 1) * i - half * f)
    drain = (half - 1) * (pair - (i + w))
    tail = (half - 1) * (i - min(i, w))
    middle = fill + turn + drain + tail
    by_depth = [middle - max(0, half - 2 - depth) * (f + i + w - pair) for depth in range(half)]
    assert idle(schedule, f, i, w, pair) == mirrored(by_depth, name)
    if f == i >= w:
        assert middle == (half - 1) * (pair + (i + w) - 3 * w)


# Activations


@pytest.mark.parametrize("num_ranks", RANKS)
def test_micro_batches_in_flight(num_ranks):
    # GPipe holds all; 1F1B's rank r those that the P-1-r ranks after it work on, and its own. ZB1P holds as many as
    # 1F1B's first rank on every rank, r of them for their weights only (arXiv 2401.10241, section 2.3).
    ranks, n = range(num_ranks), 3 * num_ranks
    assert held(make_schedule("gpipe", num_ranks, n)) == [n] * num_ranks
    assert held(make_schedule("1f1b", num_ranks, n)) == [num_ranks - rank for rank in ranks]
    zb1p = make_schedule("zb1p", num_ranks, n)
    assert held(zb1p) == [num_ranks] * num_ranks
    assert held(zb1p, until_weights=False) == [num_ranks - rank for rank in ranks]


@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize("chunks", [2, 3])
def test_micro_batches_in_flight_of_interleaved_1f1b(num_ranks, chunks):
    # As many as warm up, 2 (P-1-r) + (chunks-1) P, and one more before the first backward, of stages 1/chunks long.
    schedule = make_schedule("interleaved-1f1b", num_ranks, 3 * num_ranks, chunks)
    assert held(schedule) == [
        2 * (num_ranks - 1 - rank) + (chunks - 1) * num_ranks + 1 for rank in range(num_ranks)
    ]


@pytest.mark.parametrize("num_ranks", RANKS)
def test_micro_batches_in_flight_of_dualpipe(num_ranks):
    # The published P+1: at distance h from the nearer end P-h of what enters there and h+1 of what enters at the far
    # end. DualPipeV is the same with P stages.
    schedule = make_schedule("dualpipe", num_ranks, 3 * num_ranks)
    assert held(schedule) == [num_ranks + 1] * num_ranks
    assert peak_in_flight(schedule) == tuple(
        {(0, rank): num_ranks - rank, (1, num_ranks - 1 - rank): rank + 1} for rank in range(num_ranks)
    )
    folded = make_schedule("dualpipe-v", num_ranks, 3 * num_ranks)
    assert held(folded) == [2 * num_ranks + 1] * num_ranks
