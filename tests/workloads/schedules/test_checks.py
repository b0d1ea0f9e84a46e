"""Wrong schedules are found, and activations are counted as a rank holds them."""

from dataclasses import replace

import pytest

from workloads.schedules import Cell, Kind, Phase, Schedule, make_schedule
from workloads.schedules.checks import check, in_flight, peak_in_flight, peak_of_rank
from workloads.schedules.order import execution_order


def changed(schedule: Schedule, rank: int, phases: list[Phase]) -> Schedule:
    return replace(schedule, phases=(*schedule.phases[:rank], tuple(phases), *schedule.phases[rank + 1 :]))


@pytest.mark.parametrize("place", range(6))
def test_work_that_is_left_out_is_found(place):
    # rank 1 of ZB1P with two micro-batches: F0 I0 F1 I1 W0 W1
    schedule = make_schedule("zb1p", 2, 2)
    phases = list(schedule.phases[1])
    part = ("forward", "backward", "forward", "backward", "weights", "weights")[place]
    micro_batch = (0, 0, 1, 1, 0, 1)[place]
    left_out = changed(schedule, 1, phases[:place] + phases[place + 1 :])
    message = rf"the {part} of Cell\(pipeline=0, stage=1, micro_batch={micro_batch}\) runs 0 times, not 1"
    with pytest.raises(ValueError, match=message):
        check(left_out)
    with pytest.raises(ValueError, match=f"the {part} of .*micro_batch={micro_batch}.* runs 2 times, not 1"):
        check(changed(schedule, 1, [*phases, phases[place]]))


def test_work_that_does_not_exist_is_found():
    schedule = make_schedule("1f1b", 2, 2)
    extra = Phase(Kind.FORWARD, Cell(0, 1, 2), None)
    with pytest.raises(ValueError, match=r"the forward of .*micro_batch=2\) runs 1 times, not 0"):
        check(changed(schedule, 1, [*schedule.phases[1], extra]))


def test_of_much_that_is_wrong_the_first_is_named():
    # F0 twice, and F2, which there is not: of the two the message tells the first's number.
    schedule = make_schedule("1f1b", 2, 2)
    extra = [Phase(Kind.FORWARD, Cell(0, 1, micro_batch), None) for micro_batch in (2, 0)]
    with pytest.raises(ValueError, match=r"the forward of .*micro_batch=0\) runs 2 times, not 1"):
        check(changed(schedule, 1, [*schedule.phases[1], *extra]))


def test_work_on_a_wrong_rank_is_found():
    schedule = make_schedule("1f1b", 2, 1)
    swapped = replace(schedule, phases=schedule.phases[::-1])
    with pytest.raises(
        ValueError, match=r"rank 0 runs the forward of .*stage=1.*whose stage it does not hold"
    ):
        check(swapped)


@pytest.mark.parametrize("rank", [0, 2])
def test_work_on_the_rank_before_or_after_is_found(rank):
    # Of three ranks the first or the last runs what is the middle one's.
    schedule = make_schedule("1f1b", 3, 2)
    extra = Phase(Kind.FORWARD, Cell(0, 1, 0), None)
    with pytest.raises(
        ValueError, match=rf"rank {rank} runs the forward of .*stage=1.*whose stage it does not hold"
    ):
        check(changed(schedule, rank, [*schedule.phases[rank], extra]))


def test_ranks_that_wait_for_each_other_are_found():
    # Rank 0 wants B0 before it sends F1, and rank 1 wants F1 before it returns B0.
    first, last = make_schedule("1f1b", 2, 2), make_schedule("gpipe", 2, 2)
    f0, f1, b0, b1 = first.phases[0]
    stuck = Schedule(first.rank_of_stage, ((f0, b0, f1, b1), last.phases[1]), 2)
    message = (
        "deadlock: rank 0 waits for the backward of micro-batch 0 on stage 1; "
        "rank 1 waits for the forward of micro-batch 1 on stage 0"
    )
    with pytest.raises(ValueError, match=message):
        check(stuck)


@pytest.mark.parametrize("places", [(0, 1), (1, 4)])
def test_a_rank_that_runs_a_cell_backwards_is_found(places):
    # rank 1 of ZB1P: F0 I0 F1 I1 W0 W1, with I0 before F0, or W0 before I0
    schedule = make_schedule("zb1p", 2, 2)
    phases = list(schedule.phases[1])
    one, other = places
    phases[one], phases[other] = phases[other], phases[one]
    with pytest.raises(ValueError, match=r"deadlock: .*rank 1 waits for the .* of micro-batch 0 on stage 1"):
        check(changed(schedule, 1, phases))


def test_a_pair_cannot_be_of_one_cell():
    cell = Cell(0, 0, 0)
    schedule = Schedule(((0,),), ((Phase(Kind.FORWARD_BACKWARD, cell, cell),),), 1)
    with pytest.raises(
        ValueError, match="deadlock: rank 0 waits for the forward of micro-batch 0 on stage 0"
    ):
        check(schedule)


def test_the_execution_order_has_every_phase_once():
    schedule = make_schedule("dualpipe", 4, 10)
    order = execution_order(schedule)
    assert sorted(order) == [
        (rank, place) for rank in range(4) for place in range(len(schedule.phases[rank]))
    ]


def test_activations_are_held_during_forward_and_until_backward_or_weights_end():
    # rank 1 of ZB1P, two ranks and two micro-batches: F0 I0 F1 I1 W0 W1. During I1 both are held, the first for its
    # weights; without weights one at a time, and none once the backwards are over.
    schedule = make_schedule("zb1p", 2, 2)
    stage = (0, 1)
    assert [counts[stage] for counts in in_flight(schedule, 1)] == [1, 1, 2, 2, 2, 1]
    assert [counts[stage] for counts in in_flight(schedule, 1, until_weights=False)] == [1, 1, 1, 1, 0, 0]
    assert peak_in_flight(schedule)[1] == peak_of_rank(schedule, 1) == {stage: 2}
    assert peak_in_flight(schedule, until_weights=False)[1] == {stage: 1}
    assert peak_of_rank(schedule, 1, until_weights=False) == {stage: 1}


def test_a_pair_holds_both_of_its_micro_batches():
    # A rank alone: F0, then F1 overlapped with B0, then B1. During the pair the first is still there, and the second
    # is already.
    zero, one = Cell(0, 0, 0), Cell(0, 0, 1)
    phases = (
        Phase(Kind.FORWARD, zero, None),
        Phase(Kind.FORWARD_BACKWARD, one, zero),
        Phase(Kind.BACKWARD, None, one),
    )
    schedule = Schedule(((0,),), (phases,), 2)
    check(schedule)
    assert [counts[0, 0] for counts in in_flight(schedule, 0)] == [1, 2, 1]


def test_peaks_of_stages_need_not_come_together():
    # Interleaved 1F1B, two ranks, two chunks, rank 0: F0 F1 f0 f1 F2 b0 F3 b1 f2 B0 ... Five forwards come before the
    # first backward: 3 and 2 together. The first chunk has its most, 4, at F3, when the second has lost one.
    schedule = make_schedule("interleaved-1f1b", 2, 4, chunks=2)
    assert peak_in_flight(schedule)[0] == {(0, 0): 4, (0, 2): 2}
    assert peak_of_rank(schedule, 0) == {(0, 0): 3, (0, 2): 2}
