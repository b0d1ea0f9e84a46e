"""When phases run on a network without limits: phases wait for each other, and for nothing else.

For tests and documents. Latency there may be (`send_s`), but sends neither share links nor hold up their ranks.
"""

from collections.abc import Sequence
from typing import NamedTuple

from workloads.schedules.order import Output, execution_order, inputs, outputs
from workloads.schedules.phases import Kind, Phase, Schedule

PerStage = float | Sequence[float]


class Span(NamedTuple):
    """When a phase runs, in seconds."""

    start_s: float
    end_s: float


def ideal_times(
    schedule: Schedule,
    forward_s: PerStage,
    backward_input_s: PerStage,
    weight_s: PerStage,
    pair_s: PerStage,
    send_s: float = 0.0,
) -> tuple[tuple[Span, ...], ...]:
    """Return [num_ranks][...] the span of each phase, each as soon as it can.

    forward_s, backward_input_s, weight_s: a number, or [num_stages] one a stage; a backward that is not split takes
    the sum of both parts. pair_s: an overlapped pair, by the stage of its forward. send_s: what a send to another
    rank takes.
    """
    forward, backward_input, weight, pair = (
        list(times) if isinstance(times, Sequence) else [times] * schedule.num_stages
        for times in (forward_s, backward_input_s, weight_s, pair_s)
    )

    def duration(phase: Phase) -> float:
        if phase.forward is not None:
            return (forward if phase.kind is Kind.FORWARD else pair)[phase.forward.stage]
        assert phase.backward is not None
        stage = phase.backward.stage
        if phase.kind is Kind.BACKWARD:
            return backward_input[stage] + weight[stage]
        return (backward_input if phase.kind is Kind.BACKWARD_INPUT else weight)[stage]

    spans: list[list[Span]] = [[] for _ in range(schedule.num_ranks)]
    given_s: dict[Output, float] = {}
    for rank, place in execution_order(schedule):
        phase = schedule.phases[rank][place]
        start_s = spans[rank][-1].end_s if place else 0
        for need in inputs(schedule, phase):
            if schedule.rank_of_stage[need.cell.pipeline][need.cell.stage] != rank:
                start_s = max(start_s, given_s[need] + send_s)
        end_s = start_s + duration(phase)
        spans[rank].append(Span(start_s, end_s))
        given_s |= dict.fromkeys(outputs(phase), end_s)
    return tuple(map(tuple, spans))


def bubbles(times: Sequence[Sequence[Span]]) -> tuple[float, ...]:
    """Return [num_ranks] the seconds in which each rank is idle until the last one has ended."""
    end_s = step_time(times)
    return tuple(end_s - sum(span.end_s - span.start_s for span in spans) for spans in times)


def step_time(times: Sequence[Sequence[Span]]) -> float:
    """Return the seconds after which the last rank has ended."""
    return max(spans[-1].end_s for spans in times)
