"""What the kernels of a step cost, and how much of the step rests on which kind of figure."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from simulator.figures import HOWS
from simulator.kernel_times import BASES, KernelCost
from workloads.kernel_call import calls_of
from workloads.tasks import ComputeKernel, TaskGraph, TaskTimes

CostOf = Callable[[ComputeKernel], KernelCost]


def kernel_columns(graph: TaskGraph, cost_of: CostOf) -> dict[str, list[str]]:
    """Return columns [num_tasks]: kernel, cost_how and cost_basis, empty for tasks that are no priced kernel."""
    costs = [None if task.kernel is None else cost_of(task.kernel) for task in graph.tasks]
    return {
        "kernel": ["" if task.kernel is None else task.kernel.call.cost_names[0] for task in graph.tasks],
        "cost_how": ["" if cost is None else cost.how for cost in costs],
        "cost_basis": ["" if cost is None else cost.basis for cost in costs],
    }


def kernel_summary(graph: TaskGraph, times: TaskTimes, cost_of: CostOf) -> dict[str, Any]:
    """Return what priced kernels took, empty where there are none.

    step_share_by_how, step_share_by_basis: of the time of all ranks that have tasks, by how the figure that rules
    was obtained, and by what the cost rests on
    by_kernel: by kind: calls, seconds (of all ranks together), step_share, flops_per_s, bytes_per_s
    """
    took_s = (times.end_s - times.start_s).tolist()
    priced = [
        (task.kernel, seconds) for task, seconds in zip(graph.tasks, took_s, strict=True) if task.kernel
    ]
    if not priced:
        return {}
    rank_time_s = times.step_time_s * len({task.rank for task in graph.tasks})
    rows = []
    for kernel, seconds in priced:
        parts = [(call, cost_of(kernel._replace(call=call))) for call in calls_of(kernel.call)]
        stretch = seconds / sum(cost.seconds for _, cost in parts)  # more than 1 on a straggler
        rows += [
            (call.cost_names[0], cost.how, cost.basis, stretch * cost.seconds, call.flops, call.moved_bytes)
            for call, cost in parts
        ]
    table = pd.DataFrame(rows, columns=["kernel", "how", "basis", "seconds", "flops", "bytes"])
    return {
        "step_share_by_how": _shares(table, "how", HOWS, rank_time_s),
        "step_share_by_basis": _shares(table, "basis", BASES, rank_time_s),
        "by_kernel": {
            str(name): _of_kernel(rows, rank_time_s) for name, rows in table.groupby("kernel", sort=False)
        },
    }


def _shares(table: pd.DataFrame, by: str, order: tuple[str, ...], rank_time_s: float) -> dict[str, float]:
    """Return the share of the ranks' time by the values of a column, in the given order."""
    seconds = table.groupby(by)["seconds"].sum()
    return {
        name: float(seconds[name]) / rank_time_s if rank_time_s else 0.0 for name in order if name in seconds
    }


def _of_kernel(rows: pd.DataFrame, rank_time_s: float) -> dict[str, float]:
    """Return what the calls of one kind took."""
    seconds = float(rows["seconds"].sum())
    return {
        "calls": len(rows),
        "seconds": seconds,
        "step_share": seconds / rank_time_s if rank_time_s else 0.0,
        "flops_per_s": float(rows["flops"].sum()) / seconds if seconds else 0.0,
        "bytes_per_s": float(rows["bytes"].sum()) / seconds if seconds else 0.0,
    }
