"""The trace of a run: rows of ranks in their order, and counters of links, in a format that trace viewers read."""

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from simulator import simulate
from simulator.result import Result
from simulator.trace import MAX_BYTES, chrome_trace
from simulator.trace.counters import link_counters
from support.params import mostly_slow
from support.phase_tables import phase_table
from support.tiny_scenarios import CASES, tiny_scenario
from support.trace_rules import broken_rules

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


# Two links of one kind, one of which is used; bins of one second, of which the step ends within the fourth.
LINKS = pd.DataFrame(
    {
        "link": [0, 1, 2],
        "kind": ["nvlink", "nic", "nic"],
        "source": ["node0/gpu0", "node0/nic0", "node0/nic1"],
        "target": ["node0/nvswitch", "plane0/leaf0", "plane0/leaf0"],
        "key": [0, 2, 0],
        "plane": [-1, 0, 0],
        "utilisation": [0.1, 0.2, 0.0],
    }
)
TIMELINE = pd.DataFrame(
    {
        "link": [0] * 4 + [1] * 4,
        "start_s": [0.0, 1.0, 2.0, 3.0] * 2,
        "end_s": [1.0, 2.0, 3.0, 4.0] * 2,
        "utilisation": [0.0, 0.5, 0.5, 0.25, 0.8, 0.0, 0.123456, 0.0],
    }
)


def result_of(
    tasks: pd.DataFrame, phases: pd.DataFrame, timeline: pd.DataFrame = TIMELINE.iloc[:0], step_s: float = 3.5
) -> Result:
    """Return a result with all that a trace is made from."""
    summary = {"scenario": "s", "question": "q", "step_time_s": step_s, "provenance": {"version": "1"}}
    return Result(summary, tasks, phases, pd.DataFrame(), LINKS, timeline, "")


def events_of(tasks: pd.DataFrame, phases: pd.DataFrame, **how: Any) -> list[dict[str, Any]]:
    return trace_of(result_of(tasks, phases), **how)["traceEvents"]


def trace_of(result: Result, **how: Any) -> dict[str, Any]:
    """Return a trace that keeps the rules."""
    text = chrome_trace(result, **how)
    assert broken_rules(text, how.get("max_bytes", MAX_BYTES)) == []
    return json.loads(text)


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


def test_the_order_of_rows_in_the_tables_does_not_matter():
    shuffled = TASKS.iloc[[5, 2, 4, 0, 3, 1]]
    events = events_of(shuffled, PHASES.iloc[::-1])
    spans = [event for event in events if event["ph"] == "X"]
    assert sum(event["dur"] for event in spans) == pytest.approx(1e6 * (1 + 1 + 1 + 0.5 + 1 + 3 + 2 + 3 + 1))
    assert rows_of(events) == rows_of(events_of(TASKS, PHASES))


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


@pytest.mark.no_cover
@pytest.mark.parametrize("kind", mostly_slow(CASES.keys(), "collective", "flows", "training-step"))
def test_traces_of_all_workloads_keep_the_rules(kind: str, tmp_path: Path):
    result = simulate(tiny_scenario(kind, tmp_path))
    trace = trace_of(result)
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    counted = {event["name"] for event in trace["traceEvents"] if event["ph"] == "C"}
    assert len(spans) == len(result.tasks) + result.phases["end_s"].notna().sum()
    ends = [event["ts"] + event["dur"] for event in spans]
    assert max(ends) <= result.step_time_s * 1e6 + 1e-3
    used = set(result.links.loc[result.links["bytes"] > 0, "kind"])
    assert {name.removesuffix(" links") for name in counted if name.endswith(" links")} == used
    assert trace["otherData"]["scenario"] == "tiny"
    assert float(trace["otherData"]["step_time_s"]) == result.step_time_s
    assert chrome_trace(result) == chrome_trace(result)


def test_the_rules_can_be_broken():
    good = chrome_trace(result_of(TASKS, PHASES, TIMELINE))
    assert broken_rules(good, MAX_BYTES) == []
    for old, new, complaint in (
        ('"dur": 1000000.0', '"dur": -1.0', "no time in"),
        ('"dur": 500000.0', '"dur": 500000.001', "overlaps"),
        ('"dur": 1000000.0', '"length": 1', "not whole"),
        ('"dur": 1000000.0', '"dur": NaN', "NaN is no number"),
        ('"ts": 1000000.0', '"ts": 1000000.0004', "no time in"),
        ('"ph": "C"', '"ph": "D"', "not whole"),
        ('"name": "process_name"', '"name": "process_labels"', "unknown metadata"),
        ('"name": "process_name"', '"name": "process_sort_index"', "named 2 times"),
        ('"name": "thread_name"', '"name": "thread_sort_index"', "used and not named"),
        ('"ts": 2000000.0, "args": {"mean %"', '"ts": 0.0, "args": {"mean %"', "does not follow"),
        ('"busiest %": 50.0', '"busiest %": 150.0', "no percentages"),
        (
            '"busiest %": 0.0}},\n{"ph": "C", "name": "plane',
            '"busiest %": 1.0}},\n{"ph": "C", "name": "plane',
            "end at",
        ),
        ('"scenario": "s"', '"scenario": 1', "otherData"),
    ):
        assert old in good, old
        wrong = broken_rules(good.replace(old, new, 1), MAX_BYTES)
        assert any(complaint in line for line in wrong), (old, wrong)
    assert "more than 10" in broken_rules(good, 10)[0]


def test_times_are_whole_nanoseconds_and_what_met_still_meets():
    # each of 1,000 tasks of 1.4 ns ends where the next begins; rounded lengths would not add up to 1,400 ns
    times_s = [place * 1.4e-9 for place in range(1001)]
    rows = [("a", 0, "compute", begin, end) for begin, end in pairwise(times_s)]
    spans = [event for event in events_of(task_table(rows), PHASES.iloc[:0]) if event["ph"] == "X"]
    assert {round(event["dur"] * 1000) for event in spans} == {1, 2}
    assert sum(round(event["dur"] * 1000) for event in spans) == 1400


def test_counters_say_how_busy_links_are():
    # the fourth bin reaches past the step, which ends at 3.5 s; means are over both NICs; what stays is said once
    counters = {counter.name: counter for counter in link_counters(LINKS, TIMELINE, 3.5)}
    assert list(counters) == [
        "nvlink links", "nic links", "plane 0",
        "nic node0/nic0 to plane0/leaf0 #2", "nvlink node0/gpu0 to node0/nvswitch",
    ]  # fmt: skip
    second = 1_000_000_000
    assert counters["nvlink links"].at_ns == [0, second, 3 * second, 3_500_000_000]
    assert counters["nvlink links"].series == {"mean %": [0, 50, 25, 0], "busiest %": [0, 50, 25, 0]}
    assert counters["nic links"].series == {"mean %": [40, 0, 6.17, 0, 0], "busiest %": [80, 0, 12.35, 0, 0]}
    assert counters["plane 0"].series == {"mean %": [40, 0, 6.17, 0, 0]}
    assert counters["nic node0/nic0 to plane0/leaf0 #2"].series == {"%": [80, 0, 12.35, 0, 0]}


def test_links_are_the_last_process():
    events = trace_of(result_of(TASKS, PHASES, TIMELINE))["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {0: "pipeline rank 0", 1: "pipeline rank 1", 2: "links"}
    assert {event["pid"] for event in events if event["ph"] == "C"} == {2}


def test_no_counters_without_time():
    assert list(link_counters(LINKS, TIMELINE.iloc[:0], 3.5)) == []
    assert list(link_counters(LINKS, TIMELINE, 0.0)) == []


def smallest(result: Result) -> int:
    """Return the least limit under which nothing of a trace is left out."""
    low, high = 0, 10**6
    while high - low > 1:
        middle = (low + high) // 2
        try:
            fits = '"left out"' not in chrome_trace(result, max_bytes=middle)
        except ValueError:
            fits = False
        low, high = (low, middle) if fits else (middle, high)
    return high


def test_what_does_not_fit_is_left_out_by_the_rule():
    # ranks 128-191 hold what ranks 0-63 hold, so that they are of one pipeline rank and come last
    tasks = pd.concat([TASKS, TASKS[TASKS["rank"] == 0].assign(rank=128)])
    phases = pd.concat([PHASES, PHASES[PHASES["rank"] == 0].assign(rank=128)])
    result = result_of(tasks, phases, TIMELINE)
    enough = smallest(result)
    assert "pipeline rank 0: ranks 128-191 compute" in rows_of(
        trace_of(result, max_bytes=enough)["traceEvents"]
    )
    less = trace_of(result, max_bytes=enough - 1)
    assert less["otherData"]["left out"] == (
        "tasks of 1 of 3 ranks: kept are those of 2 (0, 64), the first of each pipeline rank before others; left out "
        "are those of all other ranks; phases are all there"
    )
    rows = rows_of(less["traceEvents"])
    assert [name for name in rows if "128" in name] == ["pipeline rank 0: ranks 128-191 phases"]
    assert set(rows_of(events_of(TASKS, PHASES))) < set(rows)


def test_less_and_less_is_kept_down_to_the_counters():
    result = result_of(TASKS, PHASES, TIMELINE)
    kept: list[int] = []
    said: list[str] = []
    for max_bytes in range(smallest(result), 0, -100):
        try:
            trace = trace_of(result, max_bytes=max_bytes)
        except ValueError:
            break
        kept.append(sum(event["ph"] == "X" for event in trace["traceEvents"]))
        said.append(trace["otherData"].get("left out", ""))
    with pytest.raises(ValueError, match="does not hold the counters"):
        chrome_trace(result, max_bytes=4096)
    assert kept[0] == len(TASKS) + 3
    assert kept[-1] == 0
    assert kept == sorted(kept, reverse=True)
    starts = ["", "tasks of 1 of 2 ranks", "tasks of rank 0 that begin at", "phases that begin at"]
    assert [
        text.startswith(start)
        for text, start in zip(dict.fromkeys(text[:16] for text in said), starts, strict=True)
    ]


def test_a_large_run_without_phases_is_cut_by_rank():
    rows = [
        (f"task {step}", rank, "compute", float(step), step + 1.0)
        for rank in range(20)
        for step in range(100)
    ]
    limit = 100_000
    trace = trace_of(result_of(task_table(rows), PHASES.iloc[:0]), max_bytes=limit)
    shown = {event["tid"] >> 10 for event in trace["traceEvents"] if event["ph"] == "X"}
    assert shown == set(range(len(shown)))
    assert 0 < len(shown) < 20
    assert trace["otherData"]["left out"].startswith(f"tasks of {20 - len(shown)} of 20 ranks")
    # what is kept is as much as fits: one more rank would not
    assert limit - len(json.dumps(trace)) < 1.2 * limit / len(shown)
