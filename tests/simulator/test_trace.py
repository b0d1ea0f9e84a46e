"""The trace of a run with phases: rows of ranks in their order, in a format that trace viewers read."""

import json
from collections import defaultdict
from typing import Any

import pandas as pd
import pytest

from simulator.trace import chrome_trace
from support.phase_tables import phase_table

NONE = (-1, -1, -1)
PHASES = phase_table(
    [
        (0, 64, "forward", 0, 0, 5, *NONE, 0.0, 2.0),
        (64, 64, "forward-backward", 1, 0, 9, 0, 1, 4, 0.0, 3.0),
        (0, 64, "optimizer", *NONE, *NONE, 4.0, 5.0),
        (64, 64, "weight", *NONE, 0, 1, 4, float("nan"), float("nan")),
    ]
)


def task_table(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    """Return a table of tasks; rows: name, rank, stream, start, end."""
    tasks = pd.DataFrame(rows, columns=["name", "rank", "stream", "start_s", "end_s"])
    kernels = ["gemm-fp8" if stream == "compute" else "" for stream in tasks["stream"]]
    return tasks.assign(
        task=range(len(tasks)),
        ranks=64,
        node=tasks["rank"] // 8,
        kernel=kernels,
        cost_how="fitted",
        cost_basis="b",
    )


TASKS = task_table(
    [
        ("attention F", 0, "compute", 0.0, 1.0),
        ("dispatch F", 0, "communication", 1.0, 2.0),
        ("send activations", 0, "", 2.0, 3.0),
        ("send gradients", 0, "", 2.0, 2.5),
        ("send gradients", 0, "", 2.5, 3.5),
        ("experts B", 64, "compute", 0.0, 3.0),
    ]
)


def events_of(*args: Any, **how: Any) -> list[dict[str, Any]]:
    return json.loads(chrome_trace(*args, **how))["traceEvents"]


def rows_of(events: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return what is on each row, by the names of process and thread, in the order in which viewers sort them."""
    process = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    thread = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["name"] == "thread_name"
    }
    index = {
        (event["pid"], event["tid"]): event["args"]["sort_index"]
        for event in events
        if event["name"] == "thread_sort_index"
    }
    found: dict[tuple[int, int], list[str]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            found[event["pid"], event["tid"]].append(event["name"])
    assert set(found) == set(thread) == set(index)
    return {
        f"{process[key[0]]}: {thread[key]}": found[key]
        for key in sorted(found, key=lambda key: (key[0], index[key]))
    }


def test_phases_are_above_their_rank_s_streams_and_sends_below():
    assert rows_of(events_of(TASKS, PHASES)) == {
        "pipeline rank 0: ranks 0-63 phases": ["forward F5 stage 0", "optimizer"],
        "pipeline rank 0: ranks 0-63 compute": ["attention F"],
        "pipeline rank 0: ranks 0-63 communication": ["dispatch F"],
        # the second of the gradients begins as the first ends, so that two rows are enough
        "pipeline rank 0: ranks 0-63 sends": ["send activations"],
        "pipeline rank 0: ranks 0-63 sends 2": ["send gradients", "send gradients"],
        "pipeline rank 1: ranks 64-127 phases": ["forward-backward F9 stage 0, B4 stage 1"],
        "pipeline rank 1: ranks 64-127 compute": ["experts B"],
    }


def test_sends_say_which_phase_they_leave():
    sends = [event for event in events_of(TASKS, PHASES) if event["name"].startswith("send")]
    assert [event.get("args") for event in sends] == [
        {"after": "forward F5 stage 0"},
        {"after": "forward F5 stage 0"},
        None,
    ]


def test_events_are_sorted_and_those_of_a_row_do_not_overlap():
    shuffled = TASKS.iloc[[5, 2, 4, 0, 3, 1]]
    spans = [event for event in events_of(shuffled, PHASES.iloc[::-1]) if event["ph"] == "X"]
    starts = [event["ts"] for event in spans]
    assert starts == sorted(starts)
    ends: dict[tuple[int, int], float] = defaultdict(float)
    for event in spans:
        row = event["pid"], event["tid"]
        assert event["ts"] >= ends[row]
        ends[row] = event["ts"] + event["dur"]
    assert sum(event["dur"] for event in spans) == pytest.approx(1e6 * (1 + 1 + 1 + 0.5 + 1 + 3 + 2 + 3 + 1))


def test_folds_of_ranks_that_are_not_consecutive_are_counted():
    # ranks 0 and 2 run in lockstep, and so do 1 and 3: their leaders say no more than how many there are
    phases = PHASES.assign(rank=PHASES["rank"] // 64, ranks=2)
    tasks = TASKS.assign(rank=TASKS["rank"] // 64, ranks=2)
    assert {name.partition(": ")[2] for name in rows_of(events_of(tasks, phases)) if "phases" in name} == {
        "rank 0 and 1 like it phases",
        "rank 1 and 1 like it phases",
    }


def test_without_phases_processes_are_nodes():
    tasks = TASKS.assign(ranks=1)
    assert list(rows_of(events_of(tasks, PHASES.iloc[:0])))[::4] == [
        "node 0: rank 0 compute",
        "node 8: rank 64 compute",
    ]


def test_of_too_many_tasks_those_of_one_rank_of_each_pipeline_rank_are_kept():
    # ranks 128-191 hold what ranks 0-63 hold
    tasks = pd.concat([TASKS, TASKS[TASKS["rank"] == 0].assign(rank=128)])
    phases = pd.concat([PHASES, PHASES[PHASES["rank"] == 0].assign(rank=128)])
    whole = json.loads(chrome_trace(tasks, phases, max_tasks=len(tasks)))
    assert "otherData" not in whole
    assert "pipeline rank 0: ranks 128-191 compute" in rows_of(whole["traceEvents"])
    less = json.loads(chrome_trace(tasks, phases, max_tasks=len(tasks) - 1))
    assert "tasks of all but the first rank of each pipeline rank" in less["otherData"]["left out"]
    rows = rows_of(less["traceEvents"])
    assert [name for name in rows if "128" in name] == ["pipeline rank 0: ranks 128-191 phases"]
    assert set(rows_of(events_of(TASKS, PHASES))) < set(rows)
