"""Whether a schedule does all of the work in a possible order, and how many micro-batches its ranks hold."""

from collections import Counter
from collections.abc import Iterator

from workloads.schedules.order import execution_order
from workloads.schedules.phases import Cell, Kind, Phase, Schedule

StageCounts = dict[tuple[int, int], int]
_SPLIT = frozenset({Kind.BACKWARD_INPUT, Kind.WEIGHT})


def check(schedule: Schedule) -> None:
    """Raise ValueError if a schedule leaves work out, does some twice or on a wrong rank, or cannot end."""
    cells = {
        Cell(pipeline, stage, micro_batch)
        for pipeline in range(schedule.num_pipelines)
        for stage in range(schedule.num_stages)
        for micro_batch in schedule.micro_batches_of(pipeline)
    }
    done = {part: Counter[Cell]() for part in ("forward", "backward", "weights")}
    for rank, phases in enumerate(schedule.phases):
        for phase in phases:
            for part, cell in _work(phase):
                done[part][cell] += 1
                if cell in cells and schedule.rank_of_stage[cell.pipeline][cell.stage] != rank:
                    msg = f"rank {rank} runs the {part} of {cell}, whose stage it does not hold"
                    raise ValueError(msg)
    for part, counts in done.items():
        wrong = sorted(cell for cell in cells | set(counts) if counts[cell] != (cell in cells))
        if wrong:
            msg = f"the {part} of {wrong[0]} runs {counts[wrong[0]]} times, not {int(wrong[0] in cells)}"
            raise ValueError(msg)
    execution_order(schedule)


def _work(phase: Phase) -> Iterator[tuple[str, Cell]]:
    """Yield (part, cell) for each part of a cell's work that a phase does."""
    if phase.forward is not None:
        yield "forward", phase.forward
    if phase.backward is not None:
        if phase.kind is not Kind.WEIGHT:
            yield "backward", phase.backward
        if phase.kind is not Kind.BACKWARD_INPUT:
            yield "weights", phase.backward


def in_flight(schedule: Schedule, rank: int, *, until_weights: bool = True) -> Iterator[StageCounts]:
    """Yield, for each phase of a rank, how many micro-batches each of its stages holds activations of during it.

    A stage holds a micro-batch from the start of its forward to the end of its backward; with `until_weights` to
    the end of its weight part, where that is apart. Each yields {(pipeline, stage): micro-batches}, a new one.
    """
    held = dict.fromkeys(schedule.stages_of(rank), 0)
    last = Kind.WEIGHT if until_weights else Kind.BACKWARD_INPUT
    for phase in schedule.phases[rank]:
        if phase.forward is not None:
            held[phase.forward[:2]] += 1
        yield dict(held)
        if phase.backward is not None and (phase.kind not in _SPLIT or phase.kind is last):
            held[phase.backward[:2]] -= 1


def peak_in_flight(schedule: Schedule, *, until_weights: bool = True) -> tuple[StageCounts, ...]:
    """Return [num_ranks] the most micro-batches that each stage of a rank holds, {(pipeline, stage): micro-batches}.

    Stages of one rank need not have their peaks at the same time: `peak_of_rank` has them together.
    """
    return tuple(
        {
            stage: max(counts[stage] for counts in in_flight(schedule, rank, until_weights=until_weights))
            for stage in schedule.stages_of(rank)
        }
        for rank in range(schedule.num_ranks)
    )


def peak_of_rank(schedule: Schedule, rank: int, *, until_weights: bool = True) -> StageCounts:
    """Return what the stages of a rank hold when they hold most together, the first time that they do."""
    return max(
        in_flight(schedule, rank, until_weights=until_weights), key=lambda counts: sum(counts.values())
    )
