"""The figures and the table of docs/schedules.md, written by the schedules themselves."""

from collections.abc import Sequence
from typing import Final

from workloads.schedules import SCHEDULES, Kind, Phase, Schedule, make_schedule
from workloads.schedules.checks import peak_of_rank
from workloads.schedules.ideal import Span, bubbles, ideal_times, step_time

# (ranks, micro-batches, chunks) of each figure: small, so that a line fits the page
_FIGURES: Final = {
    "gpipe": (4, 4, 1),
    "1f1b": (4, 6, 1),
    "interleaved-1f1b": (2, 4, 2),
    "zb1p": (4, 6, 1),
    "dualpipe": (4, 8, 1),
    "dualpipe-v": (2, 4, 1),
}
_UNIT_CHARACTERS: Final = 3  # width of a unit of time: a letter, a digit and a space
_LETTERS: Final = {Kind.BACKWARD: "B", Kind.BACKWARD_INPUT: "I", Kind.WEIGHT: "W"}

# The table's case: a rank's share of the model takes 10 forward, 10 backward for inputs and 10 for weights; a pair
# hides 4 of the 30 that its parts take one after the other.
_RANKS: Final = 8
_MICRO_BATCHES: Final = 16
_FORWARD: Final = 10.0
_PAIR: Final = 26.0


def schedules_reference() -> str:
    """Return a figure of each schedule, and a table of all on one case, as Markdown."""
    figures = []
    for name, (num_ranks, num_micro_batches, chunks) in _FIGURES.items():
        schedule = make_schedule(name, num_ranks, num_micro_batches, chunks)
        title = f"`{name}`, {num_ranks} ranks, {num_micro_batches} micro-batches"
        title += f", {chunks} chunks a rank" if chunks > 1 else ""
        figures.append(f"{title}:\n\n```\n{figure(schedule)}```\n")
    return "\n".join((*figures, _table()))


def figure(schedule: Schedule) -> str:
    """Return a schedule as text: a line a rank, three characters a unit of time.

    A forward, a backward for inputs (I) and a weight part (W) take one unit, a whole backward (B) two, a pair
    three. The stage that comes second on its rank has small letters.
    """
    times = ideal_times(schedule, 1, 1, 1, 3)
    lines = (
        _line(schedule, rank, phases, spans)
        for rank, (phases, spans) in enumerate(zip(schedule.phases, times, strict=True))
    )
    return "".join(f"rank {rank}  {line}\n" for rank, line in enumerate(lines))


def _line(schedule: Schedule, rank: int, phases: Sequence[Phase], spans: Sequence[Span]) -> str:
    second = schedule.stages_of(rank)[1:2]
    line = ""
    for phase, span in zip(phases, spans, strict=True):
        parts = []
        for cell, letter in ((phase.forward, "F"), (phase.backward, _LETTERS.get(phase.kind, "B"))):
            if cell is not None:
                parts.append((letter.lower() if cell[:2] in second else letter) + str(cell.micro_batch))
        line = line.ljust(round(span.start_s) * _UNIT_CHARACTERS) + "&".join(parts)
    return line


def _table() -> str:
    """Return the table of all schedules on one model, one number of ranks and of micro-batches."""
    lines = [
        "| schedule | stages a rank | copies of weights | step | idle, by rank | micro-batches held, by rank |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, recipe in SCHEDULES.items():
        schedule = make_schedule(name, _RANKS, _MICRO_BATCHES, chunks=2 if recipe.takes_chunks else 1)
        stage = _RANKS / schedule.num_stages  # share of a rank's part of the model that a stage is
        forward = _FORWARD * stage
        times = ideal_times(schedule, forward, forward, forward, _PAIR * stage)
        held = [sum(peak_of_rank(schedule, rank).values()) * stage for rank in range(_RANKS)]
        cells = (
            f"`{name}`",
            str(len(schedule.stages_of(0))),
            str(schedule.num_pipelines),
            f"{step_time(times):g}",
            _listed(bubbles(times)),
            _listed(held),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _listed(values: Sequence[float]) -> str:
    """Return numbers by rank, as one where all are equal."""
    return f"{values[0]:g}" if len(set(values)) == 1 else ", ".join(f"{value:g}" for value in values)
