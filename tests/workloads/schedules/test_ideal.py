"""Ideal times: every phase starts when the last that it needs has come, on a network without limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import tried_on
from workloads.schedules import SCHEDULES, Kind, Schedule, make_schedule
from workloads.schedules.checks import check
from workloads.schedules.ideal import Span, bubbles, ideal_times, step_time

Times = dict[str, list[int]]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Schedule, Times, int]:
    """Draw a schedule, the times of its stages in whole seconds, and of its sends."""
    name = draw(st.sampled_from(sorted(SCHEDULES)))
    num_ranks = draw(st.integers(1, 6))
    if name == "dualpipe":
        num_ranks += num_ranks % 2
    if name == "interleaved-1f1b":
        schedule = make_schedule(
            name, num_ranks, num_ranks * draw(st.integers(1, 4)), draw(st.integers(2, 3))
        )
    else:
        least = 2 * num_ranks if name.startswith("dualpipe") else 1
        extra = draw(st.integers(0, 8))
        schedule = make_schedule(name, num_ranks, least + extra + (extra % 2 if name == "dualpipe" else 0))
    names = ("forward_s", "backward_input_s", "weight_s", "pair_s")
    per_stage = st.lists(st.integers(1, 50), min_size=schedule.num_stages, max_size=schedule.num_stages)
    return schedule, {name: draw(per_stage) for name in names}, draw(st.integers(0, 20))


def work_of(schedule: Schedule, rank: int, times: Times) -> int:
    """Return the work of a rank from its cells: all three parts of each, corrected by what its pairs take."""
    work = 0
    for pipeline, stage in schedule.stages_of(rank):
        each = times["forward_s"][stage] + times["backward_input_s"][stage] + times["weight_s"][stage]
        work += each * len(schedule.micro_batches_of(pipeline))
    for phase in schedule.phases[rank]:
        if phase.kind is Kind.FORWARD_BACKWARD:
            one, other = phase.forward.stage, phase.backward.stage
            work += times["pair_s"][one] - times["forward_s"][one]
            work -= times["backward_input_s"][other] + times["weight_s"][other]
    return work


@tried_on(150)
@given(cases())
def test_laws_of_every_schedule(case):
    schedule, times, send_s = case
    check(schedule)
    spans = ideal_times(schedule, **times, send_s=send_s)
    works = [work_of(schedule, rank, times) for rank in range(schedule.num_ranks)]
    # work is conserved: what a rank is not idle, it works
    step_s = step_time(spans)
    assert list(bubbles(spans)) == [step_s - work for work in works]
    # no step ends before its busiest rank, nor before one micro-batch has gone all the way and back
    assert step_s >= max(works)
    if not any(phase.kind is Kind.FORWARD_BACKWARD for phases in schedule.phases for phase in phases):
        # (a pair may be drawn shorter than its parts)
        assert step_s >= sum(times["forward_s"]) + sum(times["backward_input_s"])


@tried_on(150)
@given(cases())
def test_phases_start_as_soon_as_they_can_and_no_sooner(case):
    # The slow twin: when each cell's parts end, from the spans themselves; then each start must be the latest of what
    # the phase needs, by the rules of a pipeline written down again.
    schedule, times, send_s = case
    spans = ideal_times(schedule, **times, send_s=send_s)
    forward_end, gradient_end = {}, {}
    for phases, own in zip(schedule.phases, spans, strict=True):
        for phase, span in zip(phases, own, strict=True):
            if phase.forward:
                forward_end[phase.forward] = span.end_s
            if phase.backward and phase.kind is not Kind.WEIGHT:
                gradient_end[phase.backward] = span.end_s
    for rank, (phases, own) in enumerate(zip(schedule.phases, spans, strict=True)):
        free_s = 0
        for phase, span in zip(phases, own, strict=True):
            needs = [free_s]
            if phase.forward and phase.forward.stage:
                before = phase.forward._replace(stage=phase.forward.stage - 1)
                away = schedule.rank_of_stage[before.pipeline][before.stage] != rank
                needs.append(forward_end[before] + away * send_s)
            if phase.backward and phase.kind is not Kind.WEIGHT:
                after = phase.backward._replace(stage=phase.backward.stage + 1)
                needs.append(forward_end[phase.backward])
                if after.stage < schedule.num_stages:
                    away = schedule.rank_of_stage[after.pipeline][after.stage] != rank
                    needs.append(gradient_end[after] + away * send_s)
            assert span.start_s == max(needs)
            free_s = span.end_s


@tried_on(50)
@given(cases(), st.integers(2, 9))
def test_times_scale(case, factor):
    schedule, times, send_s = case
    scaled = {name: [factor * time for time in values] for name, values in times.items()}
    assert ideal_times(schedule, **scaled, send_s=factor * send_s) == tuple(
        tuple(Span(factor * span.start_s, factor * span.end_s) for span in spans)
        for spans in ideal_times(schedule, **times, send_s=send_s)
    )


def test_a_micro_batch_alone_goes_down_and_back():
    # One micro-batch on three stages: all forwards, all backwards, two sends each way; stage 1 takes longer.
    schedule = make_schedule("1f1b", 3, 1)
    spans = ideal_times(schedule, [1, 5, 1], [2, 7, 2], [1, 3, 1], 0, send_s=10)
    assert spans[0] == (Span(0, 1), Span(1 + 10 + 5 + 10 + 1 + 3 + 10 + 10 + 10, 63))
    assert step_time(spans) == (1 + 5 + 1) + (3 + 10 + 3) + 4 * 10
    assert bubbles(spans) == (63 - 4, 63 - 15, 63 - 4)


@pytest.mark.parametrize(("name", "chunks"), [("dualpipe-v", 1), ("interleaved-1f1b", 3)])
def test_nothing_is_sent_within_a_rank(name, chunks):
    schedule = make_schedule(name, 1, 4, chunks)
    assert ideal_times(schedule, 1, 1, 1, 3, send_s=100) == ideal_times(schedule, 1, 1, 1, 3)


def test_a_backward_that_is_not_split_sends_its_gradients_at_its_end():
    # Two stages: rank 0's backward waits for the whole of rank 1's in 1F1B, for its first part in ZB1P.
    whole = ideal_times(make_schedule("1f1b", 2, 1), 1, 2, 4, 0)
    split = ideal_times(make_schedule("zb1p", 2, 1), 1, 2, 4, 0)
    assert whole[0][1] == Span(1 + 1 + 6, 1 + 1 + 6 + 6)
    assert split[0][1] == Span(1 + 1 + 2, 1 + 1 + 2 + 2)
