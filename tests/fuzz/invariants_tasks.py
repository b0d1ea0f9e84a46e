"""What every run keeps of tasks: when they start and end follows from the graph and from when transfers ran.

A task starts the moment that all before it have ended, no sooner and no later: those that it depends on, and the one
before it on its stream. Its kernel takes what it takes, or longer on a slow GPU; then it ends, or, with a part in a
collective, once the last transfer that its ranks send or get has ended. A transfer starts when its last sender's
kernel has ended, its delay and its latency later.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from fuzz.invariants_links import ends_of
from simulator.pricing import pricing_of
from simulator.waits import bills_of
from support.observed import Observed

if TYPE_CHECKING:
    from workloads.tasks import Stream

FloatArray = NDArray[np.float64]
ROUNDING = 1e-9
_MOST_EDGES = 3_000  # of the graph whose longest path is sought


class _Parts(NamedTuple):
    """Who takes part in a collective: of each transfer the tasks of those that send it, and of all at its ends."""

    senders: list[list[int]]
    ends: list[list[int]]


def check_tasks(run: Observed) -> None:
    """Check when tasks and transfers started and ended, and that the step is no shorter than what bounds it."""
    _check_starts(run)
    kernel_end_s = _check_kernels(run)
    parts = _parts(run)
    _check_transfers(run, parts, kernel_end_s)
    _check_ends(run, parts, kernel_end_s)
    _check_streams(run)
    if run.routes_known:
        _check_critical_path(run, parts)


def _befores(run: Observed) -> list[list[int]]:
    """Return of each task those that must have ended before: its dependencies, and the one before on its stream."""
    last: dict[tuple[int, Stream], int] = {}
    befores = []
    for number, task in enumerate(run.graph.tasks):
        before = list(task.after)
        if task.stream is not None:
            before += [last[key]] if (key := (task.rank, task.stream)) in last else []
            last[task.rank, task.stream] = number
        befores.append(before)
    return befores


def _check_starts(run: Observed) -> None:
    """Each task starts when the last of those before it has ended."""
    times = run.recording.times
    ready_s = np.array(
        [max((times.end_s[other] for other in before), default=0.0) for before in _befores(run)]
    )
    np.testing.assert_allclose(times.start_s, ready_s, rtol=0, atol=1e-12 * run.step_s)


def _check_kernels(run: Observed) -> FloatArray:
    """No kernel takes less than it takes alone; return when those of GPUs that are not slow end: [num_tasks].

    NaN for kernels of slow GPUs, whose end is known only where nothing follows in the task.
    """
    times, tasks = run.recording.times, run.graph.tasks
    slow_ranks = np.isin(run.endpoint_of_rank, [slow.endpoint for slow in run.faults.slowdowns])
    slow_leaders = set(run.leader_of_rank[np.flatnonzero(slow_ranks[: run.graph.num_ranks])].tolist())
    duration_s = np.array([task.duration_s for task in tasks])
    assert (times.end_s >= times.start_s + duration_s - 1e-12 * run.step_s).all()
    slowest = float(np.prod([slow.slower for slow in run.faults.slowdowns]))
    is_slow = np.array([task.rank in slow_leaders for task in tasks], np.bool_) & (duration_s > 0.0)
    alone = np.array([task.collective is None for task in tasks], np.bool_)
    took_s = times.end_s - times.start_s
    assert (took_s[alone] <= slowest * duration_s[alone] + 1e-12 * run.step_s).all()
    end_s: FloatArray = np.where(is_slow, np.nan, times.start_s + duration_s)
    return np.where(is_slow & alone, times.end_s, end_s)


def _parts(run: Observed) -> list[_Parts]:
    """Return who takes part in each collective."""
    leaders = run.leader_of_rank.tolist()
    task_of: list[dict[int, int]] = [{} for _ in run.graph.collectives]
    for number, task in enumerate(run.graph.tasks):
        if task.collective is not None:
            assert task.rank not in task_of[task.collective], "a rank takes part once"
            task_of[task.collective][task.rank] = number
    ranks_of: dict[int, list[tuple[set[int], set[int]]]] = {}
    parts = []
    for collective, tasks in zip(run.graph.collectives, task_of, strict=True):
        transfers = collective.transfers
        if id(transfers) not in ranks_of:
            found = [ends_of(transfers, row) for row in range(len(transfers))]
            ranks_of[id(transfers)] = [
                ({leaders[rank] for rank in senders}, {leaders[rank] for rank in (*senders, *receivers)})
                for senders, receivers in found
            ]
        parts.append(
            _Parts(
                [[tasks[rank] for rank in sorted(senders)] for senders, _ in ranks_of[id(transfers)]],
                [
                    [tasks[rank] for rank in sorted(ends) if rank in tasks]
                    for _, ends in ranks_of[id(transfers)]
                ],
            )
        )
    return parts


def _latencies(run: Observed) -> list[FloatArray]:
    """Return the delay and the latency of each collective's transfers, as on a network of their own, in seconds."""
    known: dict[tuple[int, object, bool], FloatArray] = {}
    for collective in run.graph.collectives:
        key = id(collective.transfers), collective.kernel, collective.from_host
        if key not in known:
            transfers = collective.transfers
            _, latency_s = run.network.bills(
                transfers,
                run.endpoint_of_rank,
                np.arange(len(transfers)),
                lambda: np.zeros(run.network.num_links),
                pricing_of(collective, run.price),
            )
            known[key] = transfers.delay_s + latency_s
    return [known[id(each.transfers), each.kernel, each.from_host] for each in run.graph.collectives]


def _check_transfers(run: Observed, parts: list[_Parts], kernel_end_s: FloatArray) -> None:
    """Bytes begin to move a delay and a latency after the last sender has come, and so before they arrive."""
    if not parts:
        return
    after_s = (
        _latencies(run) if run.routes_known else [each.transfers.delay_s for each in run.graph.collectives]
    )
    joined_s = [kernel_end_s[senders].max() for part in parts for senders in part.senders]
    earliest_s = np.array(joined_s) + np.concatenate(after_s)
    start_s = np.concatenate([times.start_s for times in run.recording.transfers])
    end_s = np.concatenate([times.end_s for times in run.recording.transfers])
    known = ~np.isnan(earliest_s)
    assert (start_s[known] >= earliest_s[known] - 1e-11 * run.step_s).all()
    if run.routes_known:
        np.testing.assert_allclose(start_s[known], earliest_s[known], rtol=0, atol=1e-11 * run.step_s)
    assert (end_s >= start_s).all()


def _check_ends(run: Observed, parts: list[_Parts], kernel_end_s: FloatArray) -> None:
    """A task ends with its kernel, or with the last transfer of its ranks if that is later."""
    end_s = kernel_end_s.copy()
    for part, times in zip(parts, run.recording.transfers, strict=True):
        for tasks, ended_s in zip(part.ends, times.end_s.tolist(), strict=True):
            for task in tasks:
                end_s[task] = max(end_s[task], ended_s)
    known = ~np.isnan(kernel_end_s)
    np.testing.assert_allclose(
        run.recording.times.end_s[known], end_s[known], rtol=0, atol=1e-11 * run.step_s
    )


def _check_streams(run: Observed) -> None:
    """The step is no shorter than the work of any stream."""
    work_s: dict[tuple[int, Stream], float] = defaultdict(float)
    for task in run.graph.tasks:
        if task.stream is not None:
            work_s[task.rank, task.stream] += task.duration_s
    assert max(work_s.values(), default=0.0) <= run.step_s * (1 + ROUNDING)


# The critical path


def _check_critical_path(run: Observed, parts: list[_Parts]) -> None:
    """The step is no shorter than the longest path through tasks and transfers, each alone on the network."""
    befores = _befores(run)
    num_edges = 2 * len(befores) + sum(map(len, befores))
    num_edges += sum(len(tasks) for part in parts for ends in part for tasks in ends)
    if num_edges > _MOST_EDGES:
        return  # it would take seconds; and `_check_starts` and `_check_ends` leave no shorter way
    paths: nx.DiGraph[tuple[str, int] | tuple[str, int, int]] = nx.DiGraph()
    for number, (task, before) in enumerate(zip(run.graph.tasks, befores, strict=True)):
        paths.add_edge(("start", number), ("kernel", number), weight=task.duration_s)
        paths.add_edge(("kernel", number), ("end", number), weight=0.0)
        paths.add_edges_from(((("end", other), ("start", number)) for other in before), weight=0.0)
    for number, (part, alone_s) in enumerate(zip(parts, _seconds_alone(run), strict=True)):
        for row, seconds in enumerate(alone_s.tolist()):
            transfer = "transfer", number, row
            paths.add_edges_from(((("kernel", task), transfer) for task in part.senders[row]), weight=seconds)
            paths.add_edges_from(((transfer, ("end", task)) for task in part.ends[row]), weight=0.0)
    longest_s = nx.dag_longest_path_length(paths, weight="weight")
    assert longest_s <= run.step_s * (1 + ROUNDING), (longest_s, run.step_s)


def _seconds_alone(run: Observed) -> list[FloatArray]:
    """Return how long each transfer of each collective takes, from when its senders have come, without any other."""
    known: dict[tuple[int, object, bool], FloatArray] = {}
    found = []
    for collective, latency_s in zip(run.graph.collectives, _latencies(run), strict=True):
        key = id(collective.transfers), collective.kernel, collective.from_host
        if key not in known:
            bills = bills_of(collective, run.network, run.endpoint_of_rank, run.price)
            flow = np.repeat(np.arange(bills.num_flows), np.diff(bills.offsets))
            charged_s = bills.coefficients / run.network.capacity_bytes_per_s[bills.links]
            narrowest = np.zeros(bills.num_flows)
            np.maximum.at(narrowest, flow, charged_s * collective.transfers.size_bytes[flow])
            known[key] = latency_s + narrowest
        found.append(known[key])
    return found
