"""Every schedule by name: complete, in the order of its figure, and refused where it cannot be."""

from collections import Counter
from dataclasses import FrozenInstanceError

import pytest

from simulator.units import FieldError
from workloads.schedules import (
    SCHEDULES,
    Kind,
    Phase,
    Recipe,
    Schedule,
    check_schedule,
    make_schedule,
    stages_per_rank,
)
from workloads.schedules.checks import check
from workloads.schedules.gpipe import gpipe

LETTERS = {
    Kind.FORWARD: "F",
    Kind.BACKWARD: "B",
    Kind.BACKWARD_INPUT: "I",
    Kind.WEIGHT: "W",
    Kind.FORWARD_BACKWARD: "P",
}


def chunks_of(name: str) -> int:
    return 2 if SCHEDULES[name].takes_chunks else 1


def written(schedule: Schedule, rank: int) -> str:
    """Return a rank's phases as kind, stage and micro-batch: F0.1 is the forward of micro-batch 1 on stage 0."""

    def text(phase: Phase) -> str:
        cells = [cell for cell in (phase.forward, phase.backward) if cell is not None]
        return LETTERS[phase.kind] + "/".join(f"{cell.stage}.{cell.micro_batch}" for cell in cells)

    return " ".join(map(text, schedule.phases[rank]))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_ranks", [2, 4, 8, 16])
@pytest.mark.parametrize("rounds", [2, 3, 5])
def test_schedules_do_all_of_the_work_and_end(name, num_ranks, rounds):
    schedule = make_schedule(name, num_ranks, rounds * num_ranks, chunks_of(name))
    check(schedule)
    assert (schedule.num_ranks, schedule.num_micro_batches) == (num_ranks, rounds * num_ranks)
    for rank in range(num_ranks):
        # By hand, apart from `check`: a rank runs forward, backward and weights of each of its stages once for each
        # of the pipeline's micro-batches. A pair counts for both, a whole backward for its weights too.
        phases = schedule.phases[rank]
        for pipeline, stage in schedule.stages_of(rank):
            each = rounds * num_ranks // schedule.num_pipelines
            forwards = [phase for phase in phases if phase.forward and phase.forward[:2] == (pipeline, stage)]
            backwards = [
                phase for phase in phases if phase.backward and phase.backward[:2] == (pipeline, stage)
            ]
            weights = [phase for phase in backwards if phase.kind is Kind.WEIGHT]
            split = [phase for phase in backwards if phase.kind is Kind.BACKWARD_INPUT]
            assert len(forwards) == each
            assert len(backwards) - len(weights) == each
            assert len(weights) == len(split)
    assert sum(len(schedule.stages_of(rank)) for rank in range(num_ranks)) == (
        schedule.num_pipelines * schedule.num_stages
    )


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "zb1p"])
@pytest.mark.parametrize("num_ranks", [1, 3, 5])
@pytest.mark.parametrize("num_micro_batches", [1, 2, 4, 7])
def test_schedules_of_one_stage_a_rank_take_any_number(name, num_ranks, num_micro_batches):
    check(make_schedule(name, num_ranks, num_micro_batches))


def test_gpipe_returns_in_reverse():
    # arXiv 1811.06965, figure 2(c): device 1 of 4
    assert written(make_schedule("gpipe", 4, 4), 1) == "F1.0 F1.1 F1.2 F1.3 B1.3 B1.2 B1.1 B1.0"


def test_1f1b_warms_up_with_the_ranks_below():
    # arXiv 2104.04473, figure 4 (top), device 2 of 4: two forwards ahead, then one backward after each forward
    schedule = make_schedule("1f1b", 4, 8)
    assert written(schedule, 1) == (
        "F1.0 F1.1 F1.2 B1.0 F1.3 B1.1 F1.4 B1.2 F1.5 B1.3 F1.6 B1.4 F1.7 B1.5 B1.6 B1.7"
    )
    assert written(schedule, 3) == " ".join(f"F3.{number} B3.{number}" for number in range(8))


def test_interleaved_1f1b_takes_groups_of_as_many_as_there_are_ranks():
    # arXiv 2104.04473, figure 4 (bottom): 4 devices, 8 micro-batches, 2 chunks; stage 0 and 4 on device 1. Forwards
    # go 0-3 on stage 0, 0-3 on stage 4, 4-7 on stage 0, 4-7 on stage 4; backwards likewise with stage 4 first. The
    # device warms up with 2 x 3 + 4 = 10 forwards.
    schedule = make_schedule("interleaved-1f1b", 4, 8, chunks=2)
    assert written(schedule, 0) == (
        "F0.0 F0.1 F0.2 F0.3 F4.0 F4.1 F4.2 F4.3 F0.4 F0.5 "
        "F0.6 B4.0 F0.7 B4.1 F4.4 B4.2 F4.5 B4.3 F4.6 B0.0 F4.7 B0.1 "
        "B0.2 B0.3 B4.4 B4.5 B4.6 B4.7 B0.4 B0.5 B0.6 B0.7"
    )
    # the last device warms up with 4 forwards
    assert written(schedule, 3).startswith("F3.0 F3.1 F3.2 F3.3 F7.0 B7.0 F7.1 B7.1 ")


def test_zb1p_puts_weights_off_by_the_rank():
    # arXiv 2401.10241, figure 3 (top): the first device never waits with its weights, the last does so with three
    # (its number) at a time, all of which are left at the end.
    schedule = make_schedule("zb1p", 4, 6)
    assert written(schedule, 0) == (
        "F0.0 F0.1 F0.2 F0.3 I0.0 W0.0 F0.4 I0.1 W0.1 F0.5 I0.2 W0.2 I0.3 W0.3 I0.4 W0.4 I0.5 W0.5"
    )
    assert written(schedule, 3) == (
        "F3.0 I3.0 F3.1 I3.1 F3.2 I3.2 F3.3 I3.3 W3.0 F3.4 I3.4 W3.1 F3.5 I3.5 W3.2 W3.3 W3.4 W3.5"
    )


def test_dualpipe_is_its_eight_steps():
    # `DualPipe.step` with P = 4 ranks and n = 8. Rank 0 is half_rank 0, with counts by step of 2, 1, 1, 8/2-4+1 = 1,
    # 1, 1, 1, 1. Phase 0 is stage 0 of pipeline 0 (micro-batches 0-3), phase 1 stage 3 of pipeline 1 (4-7). In step
    # 6 half_rank is even: from the first B0 on, backward is for inputs only.
    schedule = make_schedule("dualpipe", 4, 8)
    steps_of_0 = [
        "F0.0 F0.1",
        "F0.2 F3.4",
        "I3.4 W3.4 F3.5",
        "P0.3/3.5 P3.6/0.0",
        "B3.6 P3.7/0.1",
        "B3.7 I0.2",
        "W0.2 I0.3",
        "W0.3",
    ]
    assert written(schedule, 0) == " ".join(steps_of_0)
    # Rank 1 is a middle rank, half_rank 1: counts 0, 2, 0, 2, 0, 2, 0, 2. The first F0 and B1 of step 4 are apart. In
    # step 6 half_rank is odd: from the second B1 on, backward is for inputs only.
    steps_of_1 = [
        "F1.0 F2.4 F1.1 F2.5",
        "F1.2 B2.4 P2.6/1.0 P1.3/2.5 P2.7/1.1",
        "B2.6 B1.2 I2.7 I1.3",
        "W2.7 W1.3",
    ]
    assert written(schedule, 1) == " ".join(steps_of_1)


@pytest.mark.parametrize(("num_ranks", "num_micro_batches"), [(2, 4), (4, 8), (8, 20), (16, 38)])
def test_the_second_half_of_dualpipe_mirrors_the_first(num_ranks, num_micro_batches):
    # Rank P-1-r does for the other direction what rank r does: pipelines change places, and with them micro-batches.
    schedule = make_schedule("dualpipe", num_ranks, num_micro_batches)
    half = num_micro_batches // 2

    def mirrored(cell):
        return cell and cell._replace(
            pipeline=1 - cell.pipeline, micro_batch=(cell.micro_batch + half) % num_micro_batches
        )

    for rank in range(num_ranks // 2):
        assert schedule.phases[num_ranks - 1 - rank] == tuple(
            Phase(kind, mirrored(forward), mirrored(backward))
            for kind, forward, backward in schedule.phases[rank]
        )


@pytest.mark.parametrize(("num_ranks", "num_micro_batches"), [(1, 2), (2, 4), (4, 10), (8, 16)])
def test_dualpipe_v_is_the_first_half_of_dualpipe(num_ranks, num_micro_batches):
    # "Cut in half": rank r of P holds stages r and 2P-1-r, as rank r of 2P does in DualPipe, where they belong to two
    # pipelines. With n micro-batches in each direction there is the same list, once pipeline 1's micro-batches n...
    # are called 0... of the only one.
    half = make_schedule("dualpipe-v", num_ranks, num_micro_batches)
    whole = make_schedule("dualpipe", 2 * num_ranks, 2 * num_micro_batches)

    def in_one(cell):
        return cell and cell._replace(pipeline=0, micro_batch=cell.micro_batch % num_micro_batches)

    assert half.phases == tuple(
        tuple(Phase(kind, in_one(forward), in_one(backward)) for kind, forward, backward in phases)
        for phases in whole.phases[:num_ranks]
    )
    check(half)


@pytest.mark.parametrize("num_ranks", [2, 8, 16])
def test_the_pairs_of_dualpipe(num_ranks):
    # Step 4 has 2 (n/2 - P + h + 1) and step 5 P/2 - h - 1, together n - 3P/2 + h + 1; the middle ranks' first is
    # apart.
    num_micro_batches, half = 3 * num_ranks, num_ranks // 2
    schedule = make_schedule("dualpipe", num_ranks, num_micro_batches)
    for rank, phases in enumerate(schedule.phases):
        depth = min(rank, num_ranks - 1 - rank)
        pairs = sum(phase.kind is Kind.FORWARD_BACKWARD for phase in phases)
        assert pairs == num_micro_batches - 3 * half + depth + 1 - (depth == half - 1)


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        (("2f2b", 4, 8), "name", "there is no schedule '2f2b'; there are gpipe, 1f1b, interleaved-1f1b, zb1p, "),
        (("dualpipe", 5, 12), "num_ranks", "dualpipe needs an even number of pipeline ranks, not 5; 4 or 6 would do"),
        (("dualpipe", 0, 12), "num_ranks", "needs an even number of pipeline ranks, not 0; 2 would do"),
        (("1f1b", 0, 12), "num_ranks", "needs a pipeline rank or more, not 0; 1 would do"),
        (
            ("dualpipe", 8, 15),
            "num_micro_batches",
            "with 8 pipeline ranks dualpipe needs at least 16 and a multiple of 2 micro-batches, not 15; 16 would do",
        ),
        (("dualpipe", 8, 19), "num_micro_batches", "not 19; 18 or 20 would do"),
        (("dualpipe", 8, 17), "num_micro_batches", "not 17; 16 or 18 would do"),
        (
            ("dualpipe-v", 8, 15),
            "num_micro_batches",
            "with 8 pipeline ranks dualpipe-v needs at least 16 micro-batches, not 15; 16 would do",
        ),
        (("gpipe", 4, 0), "num_micro_batches", "needs at least 1 micro-batches, not 0; 1 would do"),
        (
            ("interleaved-1f1b", 4, 10, 2),
            "num_micro_batches",
            "with 4 pipeline ranks interleaved-1f1b needs a multiple of 4 micro-batches, not 10; 8 or 12 would do",
        ),
        (("interleaved-1f1b", 4, 3, 2), "num_micro_batches", "not 3; 4 would do"),
        (("interleaved-1f1b", 4, 8), "chunks", "needs 2 or more chunks a rank, not 1; with one it is 1f1b"),
        (("1f1b", 4, 8, 2), "chunks", "does not split a rank into 2 chunks: leave it at 1, or take interleaved"),
        (("dualpipe", 4, 8, 0), "chunks", "dualpipe does not split a rank into 0 chunks: leave it at 1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("asked", [check_schedule, make_schedule])
def test_what_a_schedule_does_not_admit_is_named(asked, given, field, message):
    with pytest.raises(FieldError) as caught:
        asked(*given)
    assert caught.value.field == field
    assert message in str(caught.value)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_rank_has_one_chunk_unless_more_are_asked_for(name):
    if SCHEDULES[name].takes_chunks:
        with pytest.raises(FieldError, match="needs 2 or more chunks a rank, not 1"):
            check_schedule(name, 4, 8)
    else:
        check_schedule(name, 4, 8)
        assert make_schedule(name, 4, 8) == make_schedule(name, 4, 8, 1)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_what_is_known_of_a_schedule_before_it_is_made_holds(name, num_ranks):
    for chunks in (2, 3) if SCHEDULES[name].takes_chunks else (1,):
        schedule = make_schedule(name, num_ranks, 2 * num_ranks, chunks)
        assert schedule.num_pipelines == SCHEDULES[name].pipelines
        assert schedule.num_stages == num_ranks * stages_per_rank(name, chunks)
        for rank in range(num_ranks):
            held = Counter(pipeline for pipeline, _ in schedule.stages_of(rank))
            assert held == dict.fromkeys(range(schedule.num_pipelines), stages_per_rank(name, chunks))


def test_both_rules_are_told_of_a_schedule_that_needs_two_or_more_and_an_even_number(monkeypatch):
    # No shipped one has these two: the least of those with a multiple are more.
    recipe = Recipe(gpipe, micro_batches_multiple=lambda _: 2, least_micro_batches=lambda _: 2)
    monkeypatch.setitem(SCHEDULES, "in-twos", recipe)
    with pytest.raises(
        FieldError, match="needs at least 2 and a multiple of 2 micro-batches, not 1; 2 would"
    ):
        check_schedule("in-twos", 3, 1)


def test_a_schedule_and_its_recipe_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        make_schedule("1f1b", 2, 2).num_micro_batches = 3
    with pytest.raises(FrozenInstanceError):
        SCHEDULES["1f1b"].ranks_multiple = 3


def test_what_was_said_to_do_does():
    check(make_schedule("dualpipe", 6, 12))
    check(make_schedule("dualpipe", 8, 18))
    check(make_schedule("dualpipe-v", 8, 17))
    check(make_schedule("interleaved-1f1b", 1, 1, 2))
    check(make_schedule("interleaved-1f1b", 4, 12, 3))
