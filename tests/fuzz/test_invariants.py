"""The invariants can fail: a run that is tampered with breaks them, each by another check."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fuzz.invariants import check_run
from fuzz.invariants_links import check_links
from fuzz.invariants_tables import check_tables
from fuzz.invariants_tasks import check_tasks
from fuzz.invariants_twins import check_folds, check_reuse, check_scale
from fuzz.scaled import scaled_quantities
from simulator.transfer_times import TransferTimes
from support.observed import Observed, observe
from support.tiny_scenarios import tiny_scenario


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """A prefill step: kernels, exchanges, folds and reuse."""
    return observe(tiny_scenario("prefill-step", tmp_path_factory.mktemp("tiny")))


def with_table(run: Observed, name: str, column: str, change: Callable[[Any], Any]) -> Observed:
    """Return a run with one cell of a table changed: the largest of its column."""
    table = getattr(run.result, name).copy()
    row = table[column].to_numpy().argmax()
    table[column] = table[column].astype(float)
    table.loc[row, column] = change(table.loc[row, column])
    return replace(run, result=replace(run.result, **{name: table}))


def with_summary(run: Observed, change: Callable[[dict[str, Any]], Any]) -> Observed:
    summary = json.loads(run.result.to_json())
    change(summary)
    return replace(run, result=replace(run.result, summary=summary))


def with_times(run: Observed, name: str, task: int, later_s: float) -> Observed:
    """Return a run of which one task starts, or ends, later."""
    seconds = getattr(run.recording.times, name).copy()
    seconds[task] += later_s
    times = replace(run.recording.times, **{name: seconds})
    return replace(run, recording=replace(run.recording, times=times))


def with_transfers(run: Observed, start: float = 1.0, end: float = 1.0) -> Observed:
    """Return a run with the transfers of the first collective at other times, in shares of their own."""
    first = run.recording.transfers[0]
    moved = TransferTimes(first.start_s * start, first.end_s * end)
    return replace(run, recording=replace(run.recording, transfers=(moved, *run.recording.transfers[1:])))


def with_meter(run: Observed, factor: float) -> Observed:
    meter = run.recording.meter
    return replace(run, recording=replace(run.recording, meter=replace(meter, bins=meter.bins * factor)))


def of_compute(run: Observed) -> int:
    """Return a task that computes."""
    return next(number for number, task in enumerate(run.graph.tasks) if task.duration_s > 0.0)


TAMPERED: dict[str, tuple[Callable[[Observed], None], Callable[[Observed], Observed]]] = {
    "a NaN in a table": (check_tables, lambda run: with_table(run, "flows", "size_bytes", lambda _: np.nan)),
    "a negative time": (check_tables, lambda run: with_table(run, "tasks", "start_s", lambda value: -value)),
    "more than all of a link": (
        check_tables,
        lambda run: with_table(run, "links", "utilisation", lambda _: 1.1),
    ),
    "bytes in no bin": (
        check_tables,
        lambda run: with_table(run, "links", "bytes", lambda value: value * 1.01),
    ),
    "a breakdown that does not add up": (
        check_tables,
        lambda run: with_summary(run, lambda summary: summary["breakdown_s"].update(attention=0.0)),
    ),
    "an infinite metric": (
        check_tables,
        lambda run: with_summary(run, lambda summary: summary["metrics"].update(odd=float("inf"))),
    ),
    "a byte in a million too many on a link": (
        check_links,
        lambda run: with_table(run, "links", "bytes", lambda value: value * (1 + 1e-6)),
    ),
    "a full bin": (
        check_links,
        lambda run: with_table(run, "link_timeline", "bytes", lambda value: value * 1e6),
    ),
    "bytes that no transfer has": (check_links, lambda run: with_meter(run, 1 + 1e-6)),
    "transfers too quick for their links": (
        check_links,
        lambda run: with_transfers(run, start=0.99999, end=0.99),
    ),
    "a kernel that begins late": (check_tasks, lambda run: with_times(run, "start_s", of_compute(run), 1e-6)),
    "a kernel that ends late": (check_tasks, lambda run: with_times(run, "end_s", of_compute(run), 1e-6)),
    "a kernel that ends early": (check_tasks, lambda run: with_times(run, "end_s", of_compute(run), -1e-7)),
    "transfers before their time": (check_tasks, lambda run: with_transfers(run, start=0.999)),
    "transfers that nobody waited for": (check_tasks, lambda run: with_transfers(run, end=2.0)),
    "other times with reuse": (check_reuse, lambda run: with_times(run, "end_s", of_compute(run), 1e-6)),
    "other bytes with folds": (check_folds, lambda run: with_meter(run, 1 + 1e-6)),
    "other times in a faster world": (
        lambda run: check_scale(run, 2.0),
        lambda run: with_times(run, "end_s", of_compute(run), 1e-6),
    ),
}


def test_a_run_keeps_them(run: Observed):
    check_run(run)
    # and what the cases below tamper with is in it
    assert run.recording.collectives_reused > 0
    assert (run.leader_of_rank != np.arange(run.graph.num_ranks)).any()


@pytest.mark.parametrize("case", TAMPERED)
def test_a_run_that_is_tampered_with_breaks_them(run: Observed, case: str):
    check, tamper = TAMPERED[case]
    with pytest.raises((AssertionError, ValueError)):
        check(tamper(run))


def test_quantities_scale_by_their_units():
    told = {
        "at": "3.0 us",
        "rates": ["400 Gbit/s", "1e12 FLOP/s"],
        "memory": "80 GiB",
        "name": "5 us ago",
        "seed": 2,
    }
    assert scaled_quantities(told, 4.0) == {
        "at": "0.75 us",
        "rates": ["1600.0 Gbit/s", "4000000000000.0 FLOP/s"],
        "memory": "80 GiB",
        "name": "5 us ago",
        "seed": 2,
    }
