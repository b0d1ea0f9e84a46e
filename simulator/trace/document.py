"""The trace as JSON text, and the rule by which one that would be too large is cut."""

import json
from collections.abc import Iterable
from typing import Any, Final

import pandas as pd

from simulator.pipeline_ranks import first_of_each, pipeline_rank_of
from simulator.result import Result
from simulator.trace.counters import BUSIEST, Counter, link_counters
from simulator.trace.spans import ROWS_OF_RANK, Span, phase_spans, rank_names, row_name, task_spans

MAX_BYTES: Final = 50_000_000  # Perfetto opens that in seconds
_AS_JSON: Final = json.JSONEncoder(allow_nan=False).encode
_COUNTERS_SAY: Final = (
    "utilisation in percent of datasheet capacity: of each kind of link the mean over all its links and the busiest, "
    f"of each plane the mean over its network cables, and of the {BUSIEST} links that are busiest over the step"
)


def chrome_trace(result: Result, *, max_bytes: int = MAX_BYTES) -> str:
    """Return the trace of a result as JSON text of at most `max_bytes`, a line an event.

    Counters and the phases of all ranks come first, then what ranks do, rank by rank: the first rank of each pipeline
    rank, then the others, rising. What no longer fits is left out, from the first rank on whose part does not; if
    that is the very first, the part that begins earliest is kept. `otherData` says what was left out. Raises
    ValueError if not even the counters fit.
    """
    tasks, phases = result.tasks, result.phases
    pipeline_ranks = pipeline_rank_of(phases)
    process_of = _processes(tasks, phases, pipeline_ranks)
    writer = _Writer(process_of, rank_names(tasks, phases), max_bytes)
    named = "pipeline rank" if pipeline_ranks else "node"
    for process in sorted(set(process_of.values())):
        writer.name_process(process, f"{named} {process}")
    links = max(process_of.values(), default=-1) + 1
    counters = list(link_counters(result.links, result.link_timeline, result.step_time_s))
    if counters:
        writer.name_process(links, "links")
    for counter in counters:
        writer.add_counter(links, counter)
    if writer.num_left < 0:
        msg = f"a trace of {max_bytes:,} bytes does not hold the counters of this run's links"
        raise ValueError(msg)
    left_out = _add_spans(writer, tasks, phases, pipeline_ranks)
    summary = result.summary
    about = {
        "scenario": summary["scenario"],
        "question": summary["question"],
        "step_time_s": repr(result.step_time_s),
        "railplane": summary["provenance"]["version"],
        **({"counters": _COUNTERS_SAY} if counters else {}),
        **({"left out": left_out} if left_out else {}),
    }
    return writer.text(about)


def _add_spans(
    writer: "_Writer", tasks: pd.DataFrame, phases: pd.DataFrame, pipeline_ranks: dict[int, int]
) -> str:
    """Add phases, then tasks by rank, as long as they fit; return what was left out, empty if nothing."""
    from_ns = writer.add_spans(phase_spans(phases), whole=False)
    if from_ns is not None:
        return f"phases that begin at {from_ns} ns or later, and all tasks"
    of_rank = dict(tuple(tasks.groupby("rank", sort=True)))
    first = [rank for rank in first_of_each(pipeline_ranks) if rank in of_rank]
    order = [*first, *(rank for rank in of_rank if rank not in set(first))]
    phases_of = dict(tuple(phases.groupby("rank", sort=True)))
    for place, rank in enumerate(order):
        spans = task_spans(of_rank[rank], phases_of.get(rank, phases.iloc[:0]))
        from_ns = writer.add_spans(spans, whole=place > 0)
        if from_ns is None:
            continue
        if place == 0:
            later = f"tasks of rank {rank} that begin at {from_ns} ns or later"
            return later + (", and all of other ranks" if len(order) > 1 else "")
        what = (
            "those of all other ranks" if place >= len(first) else "those of further pipeline ranks as well"
        )
        kept = ", ".join(map(str, sorted(order[:place])[:8])) + (", ..." if place > 8 else "")
        return (
            f"tasks of {len(order) - place} of {len(order)} ranks: kept are those of {place} ({kept}), the first of "
            f"each pipeline rank before others; left out are {what}; phases are all there"
        )
    return ""


class _Writer:
    """Events as lines of JSON, within a number of bytes; threads are named as they come up.

    num_left: bytes that further events may take; below 0 if those that had to be there do not fit
    """

    def __init__(self, process_of: dict[int, int], names: dict[int, str], max_bytes: int) -> None:
        self._process_of, self._names = process_of, names
        self._lines: list[str] = []
        self._threads: set[tuple[int, int]] = set()
        self.num_left = max_bytes - 4096  # for what stands around events

    def name_process(self, process: int, name: str) -> None:
        """Name and order a process."""
        of = {"pid": process}
        self._keep(
            [
                _metadata("process_name", {"name": name}, **of),
                _metadata("process_sort_index", {"sort_index": process}, **of),
            ]
        )

    def add_counter(self, process: int, counter: Counter) -> None:
        """Add a counter."""
        columns = zip(*counter.series.values(), strict=True)
        for at_ns, values in zip(counter.at_ns, columns, strict=True):
            args = dict(zip(counter.series, values, strict=True))
            self._keep([{"ph": "C", "name": counter.name, "pid": process, "ts": at_ns / 1000, "args": args}])

    def add_spans(self, spans: list[Span], *, whole: bool) -> int | None:
        """Add spans, all or none if `whole`, else as many as fit; return the start of the first left out, in ns."""
        kept: list[str] = []
        named: set[tuple[int, int]] = set()
        num_left, left_out_ns = self.num_left, None
        for span in spans:
            thread = span.rank, span.row
            is_new = thread not in self._threads and thread not in named
            lines = _lines([*(self._thread_names(span) if is_new else ()), self._event(span)])
            num_left -= _size(lines)
            if num_left < 0:
                left_out_ns = spans[0].start_ns if whole else span.start_ns
                break
            kept += lines
            named.add(thread)
        if left_out_ns is None or not whole:
            self._lines += kept
            self._threads |= named
            self.num_left -= _size(kept)
        return left_out_ns

    def _event(self, span: Span) -> dict[str, Any]:
        return {
            "ph": "X",
            "name": span.name,
            "pid": self._process_of[span.rank],
            "tid": span.rank * ROWS_OF_RANK + span.row,
            "ts": span.start_ns / 1000,
            "dur": (span.end_ns - span.start_ns) / 1000,
            **({"args": span.args} if span.args else {}),
        }

    def _thread_names(self, span: Span) -> list[dict[str, Any]]:
        """Return the events that name and order the thread of a span."""
        thread = span.rank * ROWS_OF_RANK + span.row
        of = {"pid": self._process_of[span.rank], "tid": thread}
        name = f"{self._names[span.rank]} {row_name(span.row)}"
        return [
            _metadata("thread_name", {"name": name}, **of),
            _metadata("thread_sort_index", {"sort_index": thread}, **of),
        ]

    def _keep(self, events: Iterable[dict[str, Any]]) -> None:
        lines = _lines(events)
        self._lines += lines
        self.num_left -= _size(lines)

    def text(self, about: dict[str, str]) -> str:
        """Return the whole file."""
        events = ",\n".join(self._lines)
        other = _AS_JSON(about)
        return f'{{"displayTimeUnit": "ns", "otherData": {other}, "traceEvents": [\n{events}\n]}}\n'


def _lines(events: Iterable[dict[str, Any]]) -> list[str]:
    return [_AS_JSON(event) for event in events]


def _size(lines: list[str]) -> int:
    """Return the bytes that lines take: JSON text is ASCII; a comma and the end of a line come to each."""
    return sum(len(line) + 2 for line in lines)


def _processes(tasks: pd.DataFrame, phases: pd.DataFrame, pipeline_ranks: dict[int, int]) -> dict[int, int]:
    """Return the process of each rank: its node, or its pipeline rank where the run has phases."""
    if not pipeline_ranks:
        return dict(zip(tasks["rank"].tolist(), tasks["node"].tolist(), strict=True))
    beside = max(pipeline_ranks.values()) + 1  # ranks that have no stage
    ranks = {*tasks["rank"].tolist(), *phases["rank"].tolist()}
    return {rank: pipeline_ranks.get(rank, beside) for rank in sorted(ranks)}


def _metadata(what: str, args: dict[str, Any], **of: int) -> dict[str, Any]:
    """Return the metadata event that names or orders a process or a thread."""
    return {"ph": "M", "name": what, "args": args, **of}
