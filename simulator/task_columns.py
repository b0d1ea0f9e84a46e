"""What the tasks of a graph say, as arrays with an entry a task; tables are made from these."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from workloads.tasks import ComputeKernel, TaskGraph

IntArray = NDArray[np.int64]

NONE: Final = -1


def rank_of_task(graph: TaskGraph) -> IntArray:
    """Return the rank that runs each task, the leader of its fold where ranks are folded: [num_tasks]."""
    return np.array([task.rank for task in graph.tasks], np.int64)


def collective_of_task(graph: TaskGraph) -> IntArray:
    """Return the collective that each task takes part in, NONE for none: [num_tasks]."""
    return np.array([NONE if task.collective is None else task.collective for task in graph.tasks], np.int64)


def leader_of_rank(graph: TaskGraph) -> IntArray:
    """Return the rank whose tasks stand for those of each rank, itself where nothing is folded: [num_ranks]."""
    return np.arange(graph.num_ranks) if graph.leader_of_rank is None else graph.leader_of_rank


def fold_sizes(graph: TaskGraph) -> IntArray:
    """Return for how many ranks the tasks of each rank stand: [num_ranks], 0 for a rank that another one leads."""
    return np.bincount(leader_of_rank(graph), minlength=graph.num_ranks)


def distinct_kernels(graph: TaskGraph) -> tuple[list[ComputeKernel], IntArray]:
    """Return the kernels of a graph, each object once, in order of first appearance; and each task's, NONE for none.

    Kernels are told apart by identity: long sequences of calls take long to compare, and graphs share them. The
    second of the two is [num_tasks] places in the first.
    """
    kernels: list[ComputeKernel] = []
    place_of: dict[int, int] = {}
    place_of_task = np.full(len(graph.tasks), NONE)
    for number, task in enumerate(graph.tasks):
        if task.kernel is not None:
            place = place_of.setdefault(id(task.kernel), len(kernels))
            if place == len(kernels):
                kernels.append(task.kernel)
            place_of_task[number] = place
    return kernels, place_of_task
