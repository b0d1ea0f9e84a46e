"""Runs a task graph: SimPy schedules what tasks wait for, the fluid network moves the bytes in between.

SimPy's environment is the clock, and holds the events to come: ends of kernels, ends of what tasks wait for in
collectives, faults. Between two events nothing but flows can change, so that the network runs up to the next one on
its own, and stops early only when something has ended that a task waits for. A collective of thousands of flows thus
is an event or two; one that repeats takes the solution of the one before (`simulator.reuse`).

**The order of what happens at one instant.** Faults come first. Kernels that end then do so in the order in which
they started; what ends in collectives, in the order of the tasks that wait for it. A task that ends lets the next of
its stream go on, if that one waits for nothing else, and then those that depend on it, in the order of the graph;
what ends thereby at once takes its turn after all that has ended before. Once nothing more happens without bytes, the
collectives that have become ready start, in the order of the graph, and bytes move on.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isnan

import numpy as np
import simpy
from numpy.typing import NDArray

from simulator.collectives import Collectives
from simulator.fault_clock import NO_FAULTS, Death, Faults, Slowdown, kernel_end_s
from simulator.meter import LinkMeter
from simulator.network import Network
from simulator.pricing import FREE, Pricing
from simulator.rerouting import FaultError, Rerouting
from simulator.reuse import ReusingNetwork
from simulator.transfer_times import TransferTimes
from workloads.tasks import CommunicationKernel, Stream, TaskGraph, TaskTimes

IntArray = NDArray[np.int64]


class StalledError(RuntimeError):
    """Nothing can move any more, yet tasks have not ended."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What happened: when tasks and transfers ran, and what passed each link.

    transfers: [num_collectives] when the transfers of each ran
    meter: by link of the network; solves: how often rates were solved
    collectives_solved, collectives_reused: of those that moved bytes, how many were solved, at least in part, and how
    many took the solution of one before in all of it
    reuse: whether repeats may take the solution of one before, and if not, why
    flows_rerouted: how often a flow under way, or to start, took another route because of a fault
    """

    times: TaskTimes
    transfers: tuple[TransferTimes, ...]
    meter: LinkMeter
    solves: int
    collectives_solved: int
    collectives_reused: int
    reuse: str
    flows_rerouted: int


def execute(
    graph: TaskGraph,
    network: Network,
    endpoint_of_rank: IntArray,
    progress: Callable[[float], None] | None = None,
    *,
    reuse: bool = True,
    faults: Faults = NO_FAULTS,
    price: Callable[[CommunicationKernel], Pricing] = lambda _: FREE,
) -> Recording:
    """Run a task graph on a network and return what happened.

    endpoint_of_rank: [num_ranks] the GPU of each rank; progress: called now and then with the share of transfers
    that have ended; reuse: whether a collective that repeats takes the solution of the one before, unless routes
    depend on load: ties between routes are decided by the last bit of what others have left, which only the same
    arithmetic gives, and unless cables have faults; faults: what goes wrong (`simulator.rerouting` says what flows do
    then); price: what a communication kernel costs beside its bytes. What is faulty from an instant on is so for all
    that starts at that instant. Raises StalledError, naming tasks, when tasks wait for each other in a circle or for
    flows that have no capacity; FaultError when faults leave flows no way, or a GPU dies that has work left.
    """
    why_not = "" if reuse else "not asked for"
    if faults.cable_faults:
        why_not = "cables have faults"
    elif network.routes_by_load:
        why_not = "routes depend on load"
    return _Execution(graph, network, endpoint_of_rank, progress, why_not, faults, price).run()


class _Execution:
    """One run of a task graph: the SimPy environment, the network, and the records."""

    def __init__(
        self,
        graph: TaskGraph,
        network: Network,
        endpoint_of_rank: IntArray,
        progress: Callable[[float], None] | None,
        no_reuse: str,
        faults: Faults,
        price: Callable[[CommunicationKernel], Pricing],
    ) -> None:
        self.graph, self.network, self.endpoint_of_rank = graph, network, endpoint_of_rank
        total = max(1, sum(len(collective.transfers) for collective in graph.collectives))
        report = None if progress is None else lambda ended: progress(ended / total)
        self.fluid = ReusingNetwork(network.capacity_bytes_per_s, report, reuse=not no_reuse)
        self._reuse = f"off: {no_reuse}" if no_reuse else "on"
        self.environment = simpy.Environment()
        changes = faults.changes()
        self.rerouting = Rerouting(network, self.fluid.shared, endpoint_of_rank, changes)
        self._has_faults = bool(changes or faults.deaths)
        # Scheduled before all else, they come first of what happens at one instant.
        for death in sorted(faults.deaths, key=lambda death: (death.at_s, death.endpoint)):
            self._at(death.at_s, partial(self._kill, death))
        for change in changes:
            self._at(change.at_s, self.rerouting.apply_next)
        self._at(0.0, self._begin)
        self.tasks = _TaskList(graph)
        self._slowdowns = _slowdowns_of_leaders(faults, self.tasks.leader_of_rank, endpoint_of_rank)
        self.collectives = Collectives(
            graph.collectives,
            network,
            self.fluid,
            self.rerouting,
            endpoint_of_rank,
            self.tasks.leader_of_rank,
            price,
            self.environment,
        )
        count = len(graph.tasks)
        self.start_s, self.end_s = [np.nan] * count, [np.nan] * count
        self._num_to_end = count
        self._ended: deque[int] = deque()  # tasks whose ends have yet to be handled

    def run(self) -> Recording:
        """Take turns: flows up to the next event, then the event."""
        environment = self.environment
        while True:
            if self._has_faults and self._num_to_end == 0:
                break  # faults that are still to come change nothing
            horizon_s = environment.peek()
            if horizon_s > environment.now and self._move_bytes(horizon_s):
                continue
            if horizon_s == np.inf:
                break
            environment.step()
        self._check_all_ended()
        return self._recording()

    def _move_bytes(self, horizon_s: float) -> bool:
        """Run the network up to the next event; return whether something that is waited for ended before."""
        self.collectives.start_ready()
        ended = self.fluid.advance(horizon_s)
        if not ended:
            return False
        tasks = self.collectives.end(ended)
        self._at(max(0.0, self.fluid.now_s - self.environment.now), partial(self._end, tasks))
        return True

    def _begin(self) -> None:
        """Start all tasks that wait for nothing."""
        tasks = self.tasks
        for index in range(len(self.end_s)):
            if tasks.is_head[index] and not tasks.num_unmet[index]:
                self._start(index)
        self._handle_ends()

    def _start(self, index: int) -> None:
        """Start a task: its kernel, if it has one, and then its part in a collective."""
        self.start_s[index] = self.environment.now
        if self.tasks.duration_s[index] > 0.0:
            self._at(self._duration_s(index), partial(self._end_kernel, index))
        else:
            self._take_part(index)

    def _end_kernel(self, index: int) -> None:
        self._take_part(index)
        self._handle_ends()

    def _take_part(self, index: int) -> None:
        """Let a task join its collective, if it has one; it ends now unless it has something to wait for there."""
        collective = self.tasks.collective[index]
        if collective is None or not self.collectives.join(collective, self.tasks.rank[index], index):
            self._ended.append(index)

    def _end(self, indices: list[int]) -> None:
        """Let tasks end that waited for bytes."""
        self._ended.extend(indices)
        self._handle_ends()

    def _handle_ends(self) -> None:
        """Let tasks go on that waited for those that have ended."""
        tasks, now_s = self.tasks, self.environment.now
        num_unmet, is_head = tasks.num_unmet, tasks.is_head
        while self._ended:
            index = self._ended.popleft()
            self.end_s[index] = now_s
            self._num_to_end -= 1
            following = tasks.following[index]
            if following >= 0:
                is_head[following] = True
                if not num_unmet[following]:
                    self._start(following)
            for dependent in tasks.dependents[index]:
                num_unmet[dependent] -= 1
                if not num_unmet[dependent] and is_head[dependent]:
                    self._start(dependent)

    def _duration_s(self, index: int) -> float:
        """Return how long a task's kernel takes if it starts now: longer on GPUs that are slow meanwhile."""
        duration_s, now_s = self.tasks.duration_s[index], self.environment.now
        slow = self._slowdowns.get(self.tasks.rank[index])
        if not slow:
            return duration_s
        return max(duration_s, *(kernel_end_s(now_s, duration_s, each) - now_s for each in slow))

    def _at(self, after_s: float, happen: Callable[[], None]) -> None:
        """Let something happen after a while."""
        event = self.environment.timeout(after_s)
        event.callbacks.append(lambda _: happen())

    def _kill(self, death: Death) -> None:
        """Raise FaultError, naming who waits, if a GPU that dies has tasks to end."""
        tasks, leader_of_rank = self.graph.tasks, self.tasks.leader_of_rank
        ranks = np.flatnonzero(self.endpoint_of_rank[: len(leader_of_rank)] == death.endpoint)
        dying = set(leader_of_rank[ranks].tolist())
        to_end = [index for index, end_s in enumerate(self.end_s) if isnan(end_s) and tasks[index].stream]
        own = {index for index in to_end if tasks[index].rank in dying}
        if not own:
            return
        collectives = {tasks[index].collective for index in own} - {None}
        waiting = {
            tasks[index].rank
            for index in to_end
            if index not in own
            and (tasks[index].collective in collectives or not own.isdisjoint(tasks[index].after))
        }
        others = np.isin(leader_of_rank, sorted(waiting | dying))
        others[ranks] = False
        waiting_ranks = np.flatnonzero(others).tolist()
        name = self.network.gpu_name(death.endpoint)
        named = ", ".join(map(str, waiting_ranks[:8])) + (", ..." if len(waiting_ranks) > 8 else "")
        msg = (
            f"{name} dies at {death.at_s:.6g} s with tasks to end ({len(own):,}, first {tasks[min(own)].name}); "
            + (
                f"other ranks wait for them ({len(waiting_ranks):,}): {named}"
                if waiting_ranks
                else "no other rank waits for them"
            )
        )
        raise FaultError(msg)

    def _check_all_ended(self) -> None:
        """Raise StalledError unless every task has ended."""
        stuck = [index for index, end_s in enumerate(self.end_s) if isnan(end_s)]
        if stuck:
            first = [self.graph.tasks[index] for index in stuck[:3]]
            names = ", ".join(f"{task.name} of rank {task.rank}" for task in first)
            flows = int(np.isnan(self.fluid.shared.finish_s).sum())
            msg = f"{len(stuck)} tasks cannot end, among them {names}; {flows} flows have bytes left but no capacity"
            raise StalledError(msg)

    def _recording(self) -> Recording:
        """Return the records of a run that has ended."""
        collectives = self.collectives
        transfers = collectives.close()
        return Recording(
            times=TaskTimes(np.array(self.start_s, np.float64), np.array(self.end_s, np.float64)),
            transfers=transfers,
            meter=self.fluid.meter,
            solves=self.fluid.solves,
            collectives_solved=collectives.num_solved,
            collectives_reused=collectives.num_reused,
            reuse=self._reuse,
            flows_rerouted=self.rerouting.num_rerouted,
        )


class _TaskList:
    """A graph's tasks as lists [num_tasks], and what each still waits for.

    following: the next on the same stream, -1 for none; dependents: those that depend on it
    num_unmet: dependencies that have yet to end; is_head: whether all before it on its stream have ended
    leader_of_rank: [num_ranks], each rank its own where nothing is folded
    """

    def __init__(self, graph: TaskGraph) -> None:
        tasks = graph.tasks
        count = len(tasks)
        self.rank = [task.rank for task in tasks]
        self.duration_s = [task.duration_s for task in tasks]
        self.collective = [task.collective for task in tasks]
        self.num_unmet = [len(task.after) for task in tasks]
        self.is_head = [True] * count
        self.following = [-1] * count
        self.dependents: list[tuple[int, ...] | list[int]] = [()] * count
        last_of_stream: dict[tuple[int, Stream], int] = {}
        for index, task in enumerate(tasks):
            for before in task.after:
                dependents = self.dependents[before]
                if isinstance(dependents, list):
                    dependents.append(index)
                else:
                    self.dependents[before] = [index]
            if task.stream is not None:
                before = last_of_stream.get((task.rank, task.stream), -1)
                if before >= 0:
                    self.following[before], self.is_head[index] = index, False
                last_of_stream[task.rank, task.stream] = index
        leaders = graph.leader_of_rank
        self.leader_of_rank = np.arange(graph.num_ranks) if leaders is None else leaders


def _slowdowns_of_leaders(
    faults: Faults, leader_of_rank: IntArray, endpoint_of_rank: IntArray
) -> dict[int, list[list[Slowdown]]]:
    """Return the slowdowns of each slow GPU among those that a leader's tasks run on, by leader."""
    found: dict[int, list[list[Slowdown]]] = {}
    for endpoint in sorted({fault.endpoint for fault in faults.slowdowns}):
        of_endpoint = [fault for fault in faults.slowdowns if fault.endpoint == endpoint]
        for rank in np.flatnonzero(endpoint_of_rank[: len(leader_of_rank)] == endpoint).tolist():
            found.setdefault(int(leader_of_rank[rank]), []).append(of_endpoint)
    return found
