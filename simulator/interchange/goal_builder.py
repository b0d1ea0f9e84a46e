"""A task graph as a GOAL schedule.

A task becomes a `calc` of its kernel's time on each rank that it stands for, and, if it takes part in a collective,
an end that waits for what its rank sends and receives there. A task that depends on another rank's waits for the
message which that one sent it there, if the other has no more to do in that collective, and else for one that brings
the news that it has ended.
"""

from collections import Counter

from simulator.interchange.goal_messages import Arrivals, Messages, Part, rows_of
from simulator.interchange.schedule import CPU_OF_STREAM, Schedule
from workloads.tasks import Stream, Task, TaskGraph, Transfer


def schedule_of(graph: TaskGraph) -> Schedule:
    """Return the schedule of a task graph whose kernels are priced."""
    return _Builder(graph).build()


class _Builder:
    """Builds the schedule of a task graph.

    parts: of each task, its part on each rank; arrivals: by collective
    """

    def __init__(self, graph: TaskGraph) -> None:
        self._graph = graph
        self._schedule = Schedule(graph.num_ranks)
        leaders = {task.rank for task in graph.tasks}
        self._folds = {leader: graph.fold_of(leader).tolist() for leader in sorted(leaders)}
        self._fold_set = {leader: frozenset(ranks) for leader, ranks in self._folds.items()}
        self._parts: list[dict[int, Part]] = []
        self._in_collective: list[dict[int, Part]] = [{} for _ in graph.collectives]
        self._arrivals: list[Arrivals] = []
        self._num_messages: dict[int, Counter[int]] = {}

    def build(self) -> Schedule:
        """Return the schedule: first what each task is, then messages, then what waits for what."""
        for task in self._graph.tasks:
            self._parts.append({rank: self._part(task, rank) for rank in self._folds[task.rank]})
        rows: dict[int, list[Transfer]] = {}
        for collective, parts in zip(self._graph.collectives, self._in_collective, strict=True):
            transfers = collective.transfers
            if id(transfers) not in rows:
                rows[id(transfers)] = rows_of(transfers)
            messages = Messages(self._schedule, parts)
            messages.add(rows[id(transfers)])
            self._arrivals.append(messages.arrivals)
        self._add_waits()
        return self._schedule

    def _part(self, task: Task, rank: int) -> Part:
        cpu = CPU_OF_STREAM[task.stream]
        begin = self._schedule.calc(rank, task.duration_s, cpu)
        if task.collective is None:
            return Part(begin, begin, cpu)
        part = Part(begin, self._schedule.calc(rank, 0.0, cpu), cpu)
        self._schedule.require(rank, part.end, begin)
        self._in_collective[task.collective][rank] = part
        return part

    def _add_waits(self) -> None:
        """Let each task wait for the one before it on its stream, and for what it depends on."""
        last: dict[tuple[int, Stream], int] = {}
        for task, parts in zip(self._graph.tasks, self._parts, strict=True):
            if task.stream is not None:
                for rank, part in parts.items():
                    before = last.get((rank, task.stream))
                    if before is not None:
                        self._schedule.require(rank, part.begin, before)
                    last[rank, task.stream] = part.end
            for earlier in task.after:
                self._wait_for(task, parts, earlier)

    def _wait_for(self, task: Task, parts: dict[int, Part], before: int) -> None:
        earlier = self._graph.tasks[before]
        if earlier.rank == task.rank:
            for rank, part in parts.items():
                self._schedule.require(rank, part.begin, self._parts[before][rank].end)
            return
        for place, (rank, part) in enumerate(parts.items()):
            labels = self._last_messages(earlier, rank)
            if not labels:
                labels = self._news_of_end(rank, place, len(parts), before)
            for label in labels:
                self._schedule.require(rank, part.begin, label)

    def _last_messages(self, earlier: Task, rank: int) -> list[int]:
        """Return the recvs by which a rank knows that a task of others has ended, if such there are.

        That is so where those who sent it something in the task's collective had nothing else to do there.
        """
        number = earlier.collective
        if number is None:
            return []
        senders = self._fold_set[earlier.rank]
        arrived = [
            (source, label) for source, label in self._arrivals[number].get(rank, ()) if source in senders
        ]
        to_rank = Counter(source for source, _ in arrived)
        of_all = self._messages_of(number)
        if any(of_all[source] > count for source, count in to_rank.items()):
            return []
        return [label for _, label in arrived]

    def _messages_of(self, number: int) -> Counter[int]:
        """Return how many messages of a collective each rank sends or receives."""
        if number not in self._num_messages:
            ends = [
                end
                for target, arrived in self._arrivals[number].items()
                for source, _ in arrived
                for end in (source, target)
            ]
            self._num_messages[number] = Counter(ends)
        return self._num_messages[number]

    def _news_of_end(self, rank: int, place: int, num_ranks: int, before: int) -> list[int]:
        """Return the recvs of messages that carry nothing but the news that another rank's task has ended.

        Ranks of folds learn it of those at their own place in the other fold, each of at least one.
        """
        others = self._folds[self._graph.tasks[before].rank]
        first, end = place * len(others) // num_ranks, (place + 1) * len(others) // num_ranks
        labels = []
        for other in others[first : max(first + 1, end)]:
            send, recv = self._schedule.message(other, rank, 0.0, CPU_OF_STREAM[None])
            self._schedule.require(other, send, self._parts[before][other].end)
            labels.append(recv)
        return labels
