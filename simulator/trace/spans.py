"""What ranks do over time, as stretches on rows: phases, streams, and sends beside the streams."""

from collections.abc import Iterable, Iterator
from itertools import accumulate, groupby
from typing import Any, Final, NamedTuple

import pandas as pd

from simulator.units import UNITS

ROWS: Final = {"phases": 0, "compute": 1, "communication": 2, "": 3}  # in this order from above
ROWS_OF_RANK: Final = 1 << 10  # thread numbers that a rank has for itself: sends may lie in many rows
_SENDS: Final = "sends"
_SHOWN: Final = ("name", "rank", "stream", "start_s", "end_s", "kernel", "cost_how", "cost_basis")
_NANOSECOND: Final = UNITS["time"]["ns"]


class Span(NamedTuple):
    """A stretch of time on a row of a rank, in whole nanoseconds: see `ROWS`; further rows of sends come behind.

    Times are rounded each by itself, so that what met before still meets, and nothing overlaps that did not.
    """

    rank: int
    row: int
    start_ns: int
    end_ns: int
    name: str
    args: dict[str, str]


def in_ns(time_s: float) -> int:
    """Return a time in whole nanoseconds."""
    return round(time_s / _NANOSECOND)


def phase_spans(phases: pd.DataFrame) -> list[Span]:
    """Return the phases, each named by its kind and cells."""
    rows = phases[phases["end_s"].notna()].itertuples()
    return _ordered(
        Span(row.rank, ROWS["phases"], in_ns(row.start_s), in_ns(row.end_s), phase_name(row), {})
        for row in rows
    )


def phase_name(row: Any) -> str:
    """Return a phase's name, such as `forward-backward F12 stage 3, B4 stage 12`; row: of the table of phases."""
    cells = (
        ("F", row.forward_micro_batch, row.forward_stage),
        ("B", row.backward_micro_batch, row.backward_stage),
    )
    named = ", ".join(f"{part}{batch} stage {stage}" for part, batch, stage in cells if stage >= 0)
    return f"{row.kind} {named}" if named else str(row.kind)


def task_spans(tasks: pd.DataFrame, phases: pd.DataFrame) -> list[Span]:
    """Return what the ranks of a table of tasks do on their streams, and what they send beside them."""
    return _ordered([*_on_streams(tasks), *_beside_streams(tasks, phases)])


def _ordered(spans: Iterable[Span]) -> list[Span]:
    """Return spans by their start; of those that start together, what takes no time comes first."""
    return sorted(spans, key=lambda span: (span.start_ns, span.end_ns, span.rank, span.row))


def _on_streams(tasks: pd.DataFrame) -> Iterator[Span]:
    columns = [tasks[column].tolist() for column in _SHOWN]
    for name, rank, stream, start_s, end_s, kernel, how, basis in zip(*columns, strict=True):
        if stream:
            args = {"kernel": kernel, "cost_how": how, "cost_basis": basis} if kernel else {}
            yield Span(rank, ROWS[stream], in_ns(start_s), in_ns(end_s), name, args)


def _beside_streams(tasks: pd.DataFrame, phases: pd.DataFrame) -> Iterator[Span]:
    """Yield what ranks take part in beside their streams, in as few rows as keep apart what is at one time.

    Each says after which phase it began: what a phase gives leaves when it ends.
    """
    sends = tasks[tasks["stream"] == ""].sort_values(["rank", "start_s", "task"])
    after = {(row.rank, row.end_s): phase_name(row) for row in phases.itertuples()} if len(sends) else {}
    columns = zip(*(sends[column].tolist() for column in ("rank", "name", "start_s", "end_s")), strict=True)
    for rank, those in groupby(columns, key=lambda send: send[0]):
        free_s: list[float] = []  # when each row has ended what it has
        for _, name, start_s, end_s in those:
            row = next((row for row, from_s in enumerate(free_s) if from_s <= start_s), len(free_s))
            free_s[row:] = [end_s, *free_s[row + 1 :]]
            of_phase = after.get((rank, start_s))
            args = {"after": of_phase} if of_phase else {}
            yield Span(rank, ROWS[""] + row, in_ns(start_s), in_ns(end_s), name, args)


def row_name(row: int) -> str:
    """Return what a row of a rank holds."""
    place = row - ROWS[""]
    if place >= 0:
        return f"{_SENDS} {place + 1}" if place else _SENDS
    return next(name for name, number in ROWS.items() if number == row)


def rank_names(tasks: pd.DataFrame, phases: pd.DataFrame) -> dict[int, str]:
    """Return what rows call each rank: `ranks 0-63` for a fold of consecutive ones, which its least leads.

    Folds are of consecutive ranks if each begins behind as many ranks as all before it have; else only their number
    is known.
    """
    size_of = dict(zip(phases["rank"].tolist(), phases["ranks"].tolist(), strict=True))
    size_of |= dict(zip(tasks["rank"].tolist(), tasks["ranks"].tolist(), strict=True))
    sizes = sorted(size_of.items())
    begins = [0, *accumulate(size for _, size in sizes)]
    consecutive = [rank for rank, _ in sizes] == begins[:-1]
    names: dict[int, str] = {}
    for rank, size in sizes:
        alike = f"ranks {rank}-{rank + size - 1}" if consecutive else f"rank {rank} and {size - 1} like it"
        names[rank] = f"rank {rank}" if size == 1 else alike
    return names
