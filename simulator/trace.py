"""A run as a Chrome trace. Opens in Perfetto.

A process is a node, or a pipeline rank where the run has phases; a thread is a row of one rank, or of a fold of ranks
in lockstep: its phases, its streams, and what it sends beside them.

Format: "Trace Event Format" (Google, 2016), JSON object form, complete events (`X`) with microseconds.
"""

import json
from collections.abc import Iterator
from itertools import accumulate, groupby
from typing import Any, Final, NamedTuple

import pandas as pd

from simulator.pipeline_ranks import first_of_each, pipeline_rank_of

# Beyond so many rows of tasks, only those of one rank of each pipeline rank are shown: files stay below 50 MB.
MAX_TASKS: Final = 200_000
_SHOWN: Final = ("name", "rank", "stream", "start_s", "end_s", "kernel", "cost_how", "cost_basis")
_PHASE: Final = "phases"
_ROWS: Final = {_PHASE: 0, "compute": 1, "communication": 2, "": 3}  # in this order from above
_SENDS: Final = "sends"
_ROWS_OF_RANK: Final = 1 << 10  # thread numbers that a rank has for itself: sends may lie in many rows


class _Event(NamedTuple):
    """A stretch of time on a row of a rank: see `_ROWS`; further rows of sends come behind."""

    rank: int
    row: int
    name: str
    start_s: float
    end_s: float
    args: dict[str, Any]


def chrome_trace(tasks: pd.DataFrame, phases: pd.DataFrame, *, max_tasks: int = MAX_TASKS) -> str:
    """Return the trace of a result's tables of tasks and of phases as JSON text, events by their start."""
    pipeline_ranks = pipeline_rank_of(phases)
    otherwise: dict[str, str] = {}
    if len(tasks) > max_tasks and pipeline_ranks:
        tasks = tasks[tasks["rank"].isin(first_of_each(pipeline_ranks))]
        otherwise = {
            "left out": "tasks of all but the first rank of each pipeline rank; phases are all there"
        }
    spans = [*_phase_events(phases), *_task_events(tasks), *_send_events(tasks, phases)]
    spans.sort(key=lambda event: event.start_s)
    process_of = _processes(tasks, phases, pipeline_ranks)
    events = [
        *_process_names(process_of, by_phase=bool(pipeline_ranks)),
        *_thread_names(spans, process_of, _rank_names(tasks, phases)),
    ]
    events += [
        {
            "ph": "X",
            "name": name,
            "pid": process_of[rank],
            "tid": rank * _ROWS_OF_RANK + row,
            "ts": start_s * 1e6,
            "dur": (end_s - start_s) * 1e6,
            **({"args": args} if args else {}),
        }
        for rank, row, name, start_s, end_s, args in spans
    ]
    whole: dict[str, Any] = {"displayTimeUnit": "ns", "traceEvents": events}
    return json.dumps(whole | ({"otherData": otherwise} if otherwise else {}), allow_nan=False)


def _phase_events(phases: pd.DataFrame) -> Iterator[_Event]:
    """Yield the phases, each named by its kind and cells."""
    for row in phases[phases["end_s"].notna()].itertuples():
        yield _Event(row.rank, _ROWS[_PHASE], phase_name(row), row.start_s, row.end_s, {})


def phase_name(row: Any) -> str:
    """Return a phase's name, such as `forward-backward F12 stage 3, B4 stage 12`; row: of the table of phases."""
    cells = (
        ("F", row.forward_micro_batch, row.forward_stage),
        ("B", row.backward_micro_batch, row.backward_stage),
    )
    named = ", ".join(f"{part}{batch} stage {stage}" for part, batch, stage in cells if stage >= 0)
    return f"{row.kind} {named}" if named else str(row.kind)


def _task_events(tasks: pd.DataFrame) -> Iterator[_Event]:
    """Yield the tasks on streams."""
    columns = [tasks[column].tolist() for column in _SHOWN]
    for name, rank, stream, start_s, end_s, kernel, how, basis in zip(*columns, strict=True):
        if stream:
            args = {"kernel": kernel, "cost_how": how, "cost_basis": basis} if kernel else {}
            yield _Event(rank, _ROWS[stream], name, start_s, end_s, args)


def _send_events(tasks: pd.DataFrame, phases: pd.DataFrame) -> Iterator[_Event]:
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
            yield _Event(rank, _ROWS[""] + row, name, start_s, end_s, {"after": of_phase} if of_phase else {})


def _processes(tasks: pd.DataFrame, phases: pd.DataFrame, pipeline_ranks: dict[int, int]) -> dict[int, int]:
    """Return the process of each rank: its node, or its pipeline rank where the run has phases."""
    if not pipeline_ranks:
        return dict(zip(tasks["rank"].tolist(), tasks["node"].tolist(), strict=True))
    beside = max(pipeline_ranks.values()) + 1  # ranks that have no stage
    ranks = {*tasks["rank"].tolist(), *phases["rank"].tolist()}
    return {rank: pipeline_ranks.get(rank, beside) for rank in sorted(ranks)}


def _process_names(process_of: dict[int, int], *, by_phase: bool) -> Iterator[dict[str, Any]]:
    named = "pipeline rank" if by_phase else "node"
    for process in sorted(set(process_of.values())):
        yield _metadata("process_name", {"name": f"{named} {process}"}, pid=process)
        yield _metadata("process_sort_index", {"sort_index": process}, pid=process)


def _thread_names(
    spans: list[_Event], process_of: dict[int, int], rank_names: dict[int, str]
) -> Iterator[dict[str, Any]]:
    row_names = {row: name for name, row in _ROWS.items() if name}
    for rank, row in sorted({(event.rank, event.row) for event in spans}):
        thread = rank * _ROWS_OF_RANK + row
        place = row - _ROWS[""]
        name = row_names.get(row) or (f"{_SENDS} {place + 1}" if place else _SENDS)
        of = {"pid": process_of[rank], "tid": thread}
        yield _metadata("thread_name", {"name": f"{rank_names[rank]} {name}"}, **of)
        yield _metadata("thread_sort_index", {"sort_index": thread}, **of)


def _rank_names(tasks: pd.DataFrame, phases: pd.DataFrame) -> dict[int, str]:
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


def _metadata(what: str, args: dict[str, Any], **of: int) -> dict[str, Any]:
    """Return the metadata event that names or orders a process or a thread."""
    return {"ph": "M", "name": what, "args": args, **of}
