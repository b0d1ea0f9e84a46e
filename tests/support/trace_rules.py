"""The rules of the Trace Event Format, and ours beside them, as one checker of a trace's text."""

import json
import math
from collections import defaultdict
from typing import Any

_KNOWN = {
    "X": {"name", "pid", "tid", "ts", "dur"},
    "C": {"name", "pid", "ts", "args"},
    "M": {"name", "pid", "args"},
}
_ABOUT = {"process_name", "process_sort_index", "thread_name", "thread_sort_index"}


def broken_rules(text: str, max_bytes: int) -> list[str]:
    """Return what is wrong with a trace, empty if nothing is.

    Every event is of a known kind and whole; numbers are finite, durations not negative, times whole nanoseconds;
    what lies on one thread does not overlap; a counter's times rise, and its values are from 0 to 100; every process
    and thread that is used has one name; the file is within its limit.
    """
    found: list[str] = []
    if len(text.encode()) > max_bytes:
        found.append(f"{len(text.encode())} bytes, more than {max_bytes}")
    trace = json.loads(text, parse_constant=lambda name: found.append(f"{name} is no number"))
    if trace["displayTimeUnit"] not in {"ms", "ns"}:
        found.append("displayTimeUnit is ms or ns")
    if not all(isinstance(value, str) for value in trace["otherData"].values()):
        found.append("otherData holds something but text")
    events = trace["traceEvents"]
    whole = [event for event in events if _KNOWN.get(event["ph"], {"unknown"}) <= set(event)]
    found += [
        f"not whole: {event}" for event in events if not _KNOWN.get(event["ph"], {"unknown"}) <= set(event)
    ]
    times = [(event, event[key]) for event in whole for key in ("ts", "dur") if key in event]
    for event, time in times:
        if (
            not isinstance(time, (int, float))
            or not 0 <= time < math.inf
            or abs(time * 1000 - _ns(time)) > 1e-3
        ):
            return [*found, f"no time in whole nanoseconds: {event}"]
    return [*found, *_names(whole), *_overlaps(whole), *_counters(whole)]


def _ns(time_us: float) -> int:
    return round(time_us * 1000)


def _names(events: list[dict[str, Any]]) -> list[str]:
    """Return the processes and threads that have not one name and one place each."""
    told: dict[tuple[Any, ...], int] = defaultdict(int)
    for event in events:
        if event["ph"] == "M":
            if event["name"] not in _ABOUT:
                return [f"unknown metadata {event}"]
            told[event["name"], event["pid"], event.get("tid")] += 1
    used = {(event["pid"], event.get("tid")) for event in events if event["ph"] != "M"}
    wanted = {(f"process_{what}", pid, None) for pid, _ in used for what in ("name", "sort_index")}
    wanted |= {
        (f"thread_{what}", pid, tid)
        for pid, tid in used
        if tid is not None
        for what in ("name", "sort_index")
    }
    unnamed = [f"used and not named: {key}" for key in sorted(wanted - set(told), key=str)]
    return unnamed + [f"named {count} times: {key}" for key, count in told.items() if count != 1]


def _overlaps(events: list[dict[str, Any]]) -> list[str]:
    """Return events that begin before the one above them on their thread has ended."""
    found = []
    end_ns: dict[tuple[int, int], int] = defaultdict(int)
    for event in events:
        if event["ph"] == "X":
            thread, begin = (event["pid"], event["tid"]), _ns(event["ts"])
            if begin < end_ns[thread]:
                found.append(f"overlaps what is before it on its thread: {event}")
            end_ns[thread] = begin + _ns(event["dur"])
    return found


def _counters(events: list[dict[str, Any]]) -> list[str]:
    """Return counter events that do not follow the one before, or hold no percentages."""
    found = []
    last: dict[tuple[int, str], dict[str, Any]] = {}
    for event in events:
        if event["ph"] == "C":
            key = event["pid"], event["name"]
            before = last.get(key)
            if before and not (event["ts"] > before["ts"] and event["args"].keys() == before["args"].keys()):
                found.append(f"does not follow its counter's last: {event}")
            if not event["args"] or not all(0 <= value <= 100 for value in event["args"].values()):
                found.append(f"no percentages: {event}")
            last[key] = event
    return found + [f"does not end at 0: {event}" for event in last.values() if any(event["args"].values())]
