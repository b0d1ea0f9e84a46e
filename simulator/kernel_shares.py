"""What the kernels of a step cost, and how much of the step rests on which kind of figure."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd

from simulator.figures import HOWS
from simulator.kernel_times import BASES, KernelCost
from simulator.task_columns import NONE, distinct_kernels, fold_sizes, rank_of_task
from topologies.node import GpuSpec
from workloads.kernel_call import calls_of
from workloads.tasks import ComputeKernel, TaskGraph, TaskTimes

CostOf = Callable[[ComputeKernel], KernelCost]
_COLUMNS: Final = ("kernel", "how", "basis", "calls", "seconds", "flops", "bytes", "arithmetic")


def kernel_columns(graph: TaskGraph, cost_of: CostOf) -> dict[str, pd.api.extensions.ExtensionArray]:
    """Return columns [num_tasks]: kernel, cost_how and cost_basis, empty for tasks that are no priced kernel."""
    kernels, kernel_of_task = distinct_kernels(graph)
    costs = [cost_of(kernel) for kernel in kernels]
    texts: dict[str, list[str]] = {
        "kernel": [kernel.call.cost_names[0] for kernel in kernels],
        "cost_how": [cost.how for cost in costs],
        "cost_basis": [cost.basis for cost in costs],
    }
    # NONE takes the last: the empty text
    return {
        name: pd.Series([*rows, ""], dtype="str").array.take(kernel_of_task) for name, rows in texts.items()
    }


def peaks(gpu: GpuSpec) -> dict[str, float]:
    """Return what a GPU could do at most, for the summary: its datasheet's dense peaks and its memory's bandwidth."""
    return {
        "fp8_flops_per_s": gpu.peak_fp8,
        "bf16_flops_per_s": gpu.peak_bf16,
        "memory_bytes_per_s": gpu.memory_bandwidth,
    }


def kernel_summary(graph: TaskGraph, times: TaskTimes, cost_of: CostOf) -> dict[str, Any]:
    """Return what priced kernels took, empty where there are none; a task counts for every rank of its fold.

    step_share_by_how, step_share_by_basis: of the time of all ranks that have tasks, by how the figure that rules
    was obtained, and by what the cost rests on
    by_kernel: by kind: calls, seconds (of all ranks together), step_share, flops_per_s, bytes_per_s, and arithmetic:
    the format of its products, None for a kernel that only moves bytes
    """
    kernels, kernel_of_task = distinct_kernels(graph)
    if not kernels:
        return {}
    rank, sizes = rank_of_task(graph), fold_sizes(graph)
    rank_time_s = times.step_time_s * int(sizes[np.unique(rank)].sum())
    priced = np.flatnonzero(kernel_of_task != NONE)
    ranks = sizes[rank[priced]]
    seconds = np.bincount(kernel_of_task[priced], ranks * (times.end_s - times.start_s)[priced])
    calls = np.bincount(kernel_of_task[priced], ranks).astype(np.int64)
    rows = []
    for kernel, took_s, count in zip(kernels, seconds.tolist(), calls.tolist(), strict=True):
        parts = [(call, cost_of(kernel._replace(call=call))) for call in calls_of(kernel.call)]
        stretch = took_s / sum(cost.seconds for _, cost in parts)  # calls, and more than that on stragglers
        rows += [
            (
                call.cost_names[0],
                cost.how,
                cost.basis,
                count,
                stretch * cost.seconds,
                count * call.flops,
                count * call.moved_bytes,
                call.arithmetic or "",
            )
            for call, cost in parts
        ]
    table = pd.DataFrame(rows, columns=_COLUMNS)
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


def _of_kernel(rows: pd.DataFrame, rank_time_s: float) -> dict[str, Any]:
    """Return what the calls of one kind took."""
    seconds = float(rows["seconds"].sum())
    return {
        "calls": int(rows["calls"].sum()),
        "seconds": seconds,
        "step_share": seconds / rank_time_s if rank_time_s else 0.0,
        "flops_per_s": float(rows["flops"].sum()) / seconds if seconds else 0.0,
        "bytes_per_s": float(rows["bytes"].sum()) / seconds if seconds else 0.0,
        "arithmetic": rows["arithmetic"].iloc[0] or None,
    }
