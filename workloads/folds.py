"""Folds undone: a graph in which every rank has tasks of its own, and runs in lockstep with its fold all the same."""

from dataclasses import replace

from workloads.tasks import Stream, Task, TaskGraph


def unfolded(graph: TaskGraph) -> TaskGraph:
    """Return the graph with a copy of each task for every rank of its fold, and a barrier after all copies of each.

    What a task depends on, and the one before it on its stream, become the barriers of those: copies start together,
    once all that the fold waits for has ended. Phases are left out.
    """
    tasks: list[Task] = []
    barrier_of: dict[int, int] = {}  # by index in the folded graph
    last_of_stream: dict[tuple[int, Stream], int] = {}
    # Dependencies may lead forward, so that all barriers get their places first.
    for index, task in enumerate(graph.tasks):
        barrier_of[index] = len(graph.fold_of(task.rank)) + (barrier_of[index - 1] + 1 if index else 0)
    for index, task in enumerate(graph.tasks):
        before = {barrier_of[other] for other in task.after}
        if task.stream is not None:
            key = task.rank, task.stream
            if key in last_of_stream:
                before.add(barrier_of[last_of_stream[key]])
            last_of_stream[key] = index
        after = tuple(sorted(before))
        first = len(tasks)
        tasks += [replace(task, rank=rank, after=after) for rank in graph.fold_of(task.rank).tolist()]
        tasks.append(Task("barrier", task.rank, None, after=tuple(range(first, len(tasks)))))
    return TaskGraph(graph.num_ranks, tuple(tasks), graph.collectives)
