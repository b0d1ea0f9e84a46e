"""A run as a Chrome trace: a process per node, a thread per rank and stream. Opens in Perfetto.

Format: "Trace Event Format" (Google, 2016), JSON object form, complete events (`X`) with microseconds.
"""

import json
from typing import Any

import pandas as pd

_SHOWN = (
    "name",
    "node",
    "rank",
    "stream",
    "start_s",
    "end_s",
    "kernel",
    "cost_how",
    "cost_basis",
)
_STREAMS = ("compute", "communication")


def chrome_trace(tasks: pd.DataFrame) -> str:
    """Return the trace of a tasks table as JSON text."""
    nodes = sorted(set(tasks["node"].tolist()))
    threads = sorted(
        set(zip(tasks["node"].tolist(), tasks["rank"].tolist(), tasks["stream"].tolist(), strict=True))
    )
    events = [_name("process_name", f"node {node}", pid=node) for node in nodes]
    events += [
        _name("thread_name", f"rank {rank} {stream}", pid=node, tid=_thread(rank, stream))
        for node, rank, stream in threads
    ]
    columns = [tasks[column].tolist() for column in _SHOWN]
    events += [
        {
            "ph": "X",
            "name": name,
            "pid": node,
            "tid": _thread(rank, stream),
            "ts": start_s * 1e6,
            "dur": (end_s - start_s) * 1e6,
            **({"args": {"kernel": kernel, "cost_how": how, "cost_basis": basis}} if kernel else {}),
        }
        for name, node, rank, stream, start_s, end_s, kernel, how, basis in zip(*columns, strict=True)
    ]
    return json.dumps({"displayTimeUnit": "ns", "traceEvents": events}, allow_nan=False)


def _name(what: str, name: str, **of: int) -> dict[str, Any]:
    """Return the metadata event that names a process or a thread."""
    return {"ph": "M", "name": what, "args": {"name": name}, **of}


def _thread(rank: int, stream: str) -> int:
    """Return the number of a rank's stream among all threads of the trace."""
    return rank * len(_STREAMS) + _STREAMS.index(stream)
