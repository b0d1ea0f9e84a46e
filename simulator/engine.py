"""Runs a task graph: SimPy schedules what tasks wait for, the fluid network moves the bytes in between.

Every stream of every rank is a SimPy process that runs its tasks in order. Between two SimPy events nothing but
flows can change, so that the fluid network runs its own completions up to the next event in compiled code; it
stops early only when the last flow that some rank waits for has ended. A collective of thousands of flows thus
is an event or two for each rank that takes part. One that repeats takes the solution of the one before
(`simulator.reuse`).
"""

from collections import defaultdict
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import simpy
from numpy.typing import NDArray

from simulator.fault_clock import NO_FAULTS, Death, Faults, kernel_end_s
from simulator.meter import LinkMeter
from simulator.network import Network
from simulator.pricing import FREE, Pricing
from simulator.rerouting import FaultError, Rerouting
from simulator.reuse import ReusingNetwork
from simulator.rows import csr_offsets, csr_select
from simulator.transfer_times import TransferTimes
from workloads.tasks import CommunicationKernel, Stream, Task, TaskGraph, TaskTimes, Transfers

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Key = TypeVar("Key", np.int64, np.float64)


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


class _CollectiveRun:
    """A collective under way: which ranks have joined, which transfers have started, what each rank waits for."""

    def __init__(self, transfers: Transfers, fluid: ReusingNetwork, pricing: Pricing) -> None:
        self.transfers, self._pricing = transfers, pricing
        count = len(transfers)
        rows = np.arange(count)
        fan_rows = np.repeat(rows, np.diff(transfers.destination_offsets))
        gathered = transfers.reduce[fan_rows]
        # A rank that is named more than once still joins once.
        sent, senders = _unique_pairs(
            np.concatenate([rows[~transfers.reduce], fan_rows[gathered]]),
            np.concatenate([transfers.source_rank[~transfers.reduce], transfers.destination_ranks[gathered]]),
        )
        self._sent_by = _rows_by_key(senders, sent)
        self._missing_senders = np.bincount(sent, minlength=count)
        self._ready: list[IntArray] = []
        self.flow_of_transfer = np.full(count, -1)  # -1: its senders have not all joined
        self.begin_s = np.full(count, np.nan)  # when its senders had joined and its delay had passed
        self.start_s = np.full(count, np.nan)  # when its latency had passed too

        # A watch for each rank, counting the transfers that it sends or receives.
        end_rows, end_ranks = _unique_pairs(
            np.concatenate([rows, fan_rows]),
            np.concatenate([transfers.source_rank, transfers.destination_ranks]),
        )
        ranks, place, counts = np.unique(end_ranks, return_inverse=True, return_counts=True)
        watches = fluid.add_watches(counts)
        self.watch_of_rank: dict[int, int] = dict(zip(ranks.tolist(), watches.tolist(), strict=True))
        self._watch_offsets = csr_offsets(np.bincount(end_rows, minlength=count))
        self._watches = watches[place]

    def join(self, rank: int, now_s: float) -> IntArray:
        """Let a rank take part; return the transfers all of whose senders now do."""
        mine: IntArray = self._sent_by.get(rank, np.zeros(0, np.int64))
        self._missing_senders[mine] -= 1
        complete: IntArray = mine[self._missing_senders[mine] == 0]
        self.begin_s[complete] = now_s + self.transfers.delay_s[complete]
        return complete

    def end_s(self, finish_s: FloatArray) -> FloatArray:
        """Return when each transfer ended, NaN if it has not: [num_transfers]; finish_s: [num_flows]."""
        end_s, started = np.full(len(self.transfers), np.nan), self.flow_of_transfer >= 0
        end_s[started] = finish_s[self.flow_of_transfer[started]]
        return end_s

    def make_ready(self, transfers: IntArray) -> None:
        """Have transfers routed and started before bytes move on; they wait for `begin_s` in the network."""
        self._ready.append(transfers)

    def start_ready(self, fluid: ReusingNetwork, rerouting: Rerouting, endpoint_of_rank: IntArray) -> None:
        """Start all transfers that have become ready, as flows of the fluid network, in the collective's order.

        Hence repeats are equal flow by flow, in whatever order ranks have joined.
        """
        ready = np.sort(np.concatenate(self._ready))
        self._ready = []
        transfers = self.transfers.select(ready)
        bills, latency_s = rerouting.network.bills(
            transfers, endpoint_of_rank, ready, fluid.backlog_bytes, self._pricing
        )
        self.start_s[ready] = self.begin_s[ready] + latency_s
        watch_offsets, entries = csr_select(self._watch_offsets, ready)
        ids = fluid.add_flows(
            bills,
            transfers.size_bytes,
            self.start_s[ready],
            transfers.weight,
            watch_offsets,
            self._watches[entries],
        )
        self.flow_of_transfer[ready] = ids
        rerouting.note(transfers, ready, ids, bills, self._pricing)


class _Execution:
    """One run of a task graph: the SimPy environment, the fluid network, and the records."""

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
        self._price = price
        self._reuse = f"off: {no_reuse}" if no_reuse else "on"
        self.environment = simpy.Environment()
        changes = faults.changes()
        self.rerouting = Rerouting(network, self.fluid, endpoint_of_rank, changes)
        self._has_faults = bool(changes or faults.deaths)
        # Scheduled before all else, they come first of what happens at one instant.
        for death in sorted(faults.deaths, key=lambda death: (death.at_s, death.endpoint)):
            self._at(death.at_s, partial(self._kill, death))
        for change in changes:
            self._at(change.at_s, self.rerouting.apply_next)
        slowdowns = faults.slowdowns
        self.slowdowns_of = {
            endpoint: [fault for fault in slowdowns if fault.endpoint == endpoint]
            for endpoint in {fault.endpoint for fault in slowdowns}
        }
        self.collectives: dict[int, _CollectiveRun] = {}
        self._ready: set[int] = set()  # collectives with transfers that are to start before bytes move on
        self.done = [self.environment.event() for _ in graph.tasks]
        self.start_s = np.full(len(graph.tasks), np.nan)
        self.end_s = np.full(len(graph.tasks), np.nan)
        self._num_to_end = len(graph.tasks)
        self._waiting_for: dict[int, simpy.Event] = {}  # watch -> the event of the task that waits for it
        self._fired: set[int] = set()

    def run(self) -> Recording:
        """Start a process per stream, then take turns: flows up to the next event, then the event."""
        streams: dict[tuple[int, Stream], list[int]] = defaultdict(list)
        for index, task in enumerate(self.graph.tasks):
            if task.stream is None:
                self.environment.process(self._run_in_order([index]))
            else:
                streams[task.rank, task.stream].append(index)
        for indices in streams.values():
            self.environment.process(self._run_in_order(indices))
        while True:
            if self._has_faults and self._num_to_end == 0:
                break  # faults that are still to come change nothing
            horizon_s = self.environment.peek()
            if horizon_s > self.environment.now and self._move_bytes(horizon_s):
                continue
            if horizon_s == np.inf:
                break
            self.environment.step()
        self._check_all_ended()
        return self._recording()

    def _move_bytes(self, horizon_s: float) -> bool:
        """Run the fluid network up to the next event; return whether something that is waited for ended before."""
        for collective in sorted(self._ready):
            self.collectives[collective].start_ready(self.fluid, self.rerouting, self.endpoint_of_rank)
        self._ready.clear()
        fired = self.fluid.advance(horizon_s)
        if not fired:
            return False
        instant = self.environment.timeout(max(0.0, self.fluid.now_s - self.environment.now))
        instant.callbacks.append(lambda _: self._release(fired))
        return True

    def _release(self, fired: list[int]) -> None:
        """Let the tasks go on that wait for these watches; a rank that has yet to join finds its own fired."""
        self._fired.update(fired)
        for watch in fired:
            if watch in self._waiting_for:
                self._waiting_for.pop(watch).succeed()

    def _run_in_order(self, indices: list[int]) -> Generator[simpy.Event, None, None]:
        """Run the tasks of one stream, each after those that it depends on."""
        for index in indices:
            task = self.graph.tasks[index]
            unmet = [self.done[before] for before in task.after if not self.done[before].processed]
            if unmet:
                yield self.environment.all_of(unmet)
            self.start_s[index] = self.environment.now
            if task.duration_s > 0.0:
                yield self.environment.timeout(self._duration_s(task))
            if task.collective is not None:
                yield from self._take_part(task, task.collective)
            self.end_s[index] = self.environment.now
            self._num_to_end -= 1
            self.done[index].succeed()

    def _duration_s(self, task: Task) -> float:
        """Return how long a task's kernel takes if it starts now: longer on a GPU that is slow meanwhile."""
        slowdowns = self.slowdowns_of.get(int(self.endpoint_of_rank[task.rank]))
        if not slowdowns:
            return task.duration_s
        now_s = self.environment.now
        return kernel_end_s(now_s, task.duration_s, slowdowns) - now_s

    def _at(self, at_s: float, happen: Callable[[], None]) -> None:
        """Let something happen at an instant to come."""
        timeout = self.environment.timeout(at_s)
        timeout.callbacks.append(lambda _: happen())

    def _kill(self, death: Death) -> None:
        """Raise FaultError, naming who waits, if a GPU that dies has tasks to end."""
        tasks = self.graph.tasks
        to_end = [index for index in np.flatnonzero(np.isnan(self.end_s)).tolist() if tasks[index].stream]
        own = {index for index in to_end if self.endpoint_of_rank[tasks[index].rank] == death.endpoint}
        if not own:
            return
        collectives = {tasks[index].collective for index in own} - {None}
        waiting = sorted(
            {
                tasks[index].rank
                for index in to_end
                if index not in own
                and (tasks[index].collective in collectives or not own.isdisjoint(tasks[index].after))
            }
        )
        name = self.network.gpu_name(death.endpoint)
        ranks = ", ".join(map(str, waiting[:8])) + (", ..." if len(waiting) > 8 else "")
        msg = (
            f"{name} dies at {death.at_s:.6g} s with {len(own)} tasks to end, first {tasks[min(own)].name}; "
            + (f"{len(waiting)} ranks wait for them: {ranks}" if waiting else "no other rank waits for them")
        )
        raise FaultError(msg)

    def _take_part(self, task: Task, collective: int) -> Generator[simpy.Event, None, None]:
        """Join a collective, and wait for all transfers that the task's rank sends or receives in it."""
        if collective not in self.collectives:
            described = self.graph.collectives[collective]
            pricing = FREE if described.kernel is None else self._price(described.kernel)
            self.collectives[collective] = _CollectiveRun(described.transfers, self.fluid, pricing)
        run = self.collectives[collective]
        self._start(collective, run.join(task.rank, self.environment.now))
        watch = run.watch_of_rank.get(task.rank)
        if watch is not None and watch not in self._fired:
            self._waiting_for[watch] = self.environment.event()
            yield self._waiting_for[watch]

    def _start(self, collective: int, transfers: IntArray) -> None:
        """Start transfers; where routes depend on the load, those with a delay are routed when it has passed."""
        run = self.collectives[collective]
        delayed = run.transfers.delay_s[transfers] > 0.0
        if not (self.network.routes_by_load and delayed.any()):
            self._make_ready(collective, transfers)
            return
        self._make_ready(collective, transfers[~delayed])
        for begin_s, group in _rows_by_key(run.begin_s[transfers[delayed]], transfers[delayed]).items():
            timeout = self.environment.timeout(max(0.0, begin_s - self.environment.now))
            timeout.callbacks.append(partial(self._start_group, collective, group))

    def _start_group(self, collective: int, group: IntArray, _event: simpy.Event) -> None:
        self._make_ready(collective, group)

    def _make_ready(self, collective: int, transfers: IntArray) -> None:
        """Have transfers of a collective, if any, started before bytes move on."""
        if len(transfers):
            self.collectives[collective].make_ready(transfers)
            self._ready.add(collective)

    def _check_all_ended(self) -> None:
        """Raise StalledError unless every task has ended."""
        stuck = np.flatnonzero(np.isnan(self.end_s))
        if len(stuck):
            first = [self.graph.tasks[index] for index in stuck[:3]]
            names = ", ".join(f"{task.name} of rank {task.rank}" for task in first)
            flows = int(np.isnan(self.fluid.finish_s).sum())
            msg = f"{len(stuck)} tasks cannot end, among them {names}; {flows} flows have bytes left but no capacity"
            raise StalledError(msg)

    def _recording(self) -> Recording:
        """Return the records of a run that has ended."""
        runs = [self.collectives.get(index) for index in range(len(self.graph.collectives))]
        finish_s, reused_flows = self.fluid.finish_s, self.fluid.reused_flows
        reused = [
            bool(reused_flows[flows].all())
            for flows in (
                run.flow_of_transfer[run.flow_of_transfer >= 0] for run in self.collectives.values()
            )
            if len(flows)
        ]
        return Recording(
            times=TaskTimes(self.start_s, self.end_s),
            transfers=tuple(
                TransferTimes(np.zeros(0), np.zeros(0))
                if run is None
                else TransferTimes(run.start_s, run.end_s(finish_s))
                for run in runs
            ),
            meter=self.fluid.meter,
            solves=self.fluid.solves,
            collectives_solved=len(reused) - sum(reused),
            collectives_reused=sum(reused),
            reuse=self._reuse,
            flows_rerouted=self.rerouting.num_rerouted,
        )


def _unique_pairs(rows: IntArray, ranks: IntArray) -> tuple[IntArray, IntArray]:
    """Return the distinct pairs of a row and a rank, in rising order."""
    num_ranks = int(ranks.max(initial=0)) + 1
    unique_rows, unique_ranks = np.divmod(np.unique(rows * num_ranks + ranks), num_ranks)
    return unique_rows, unique_ranks


def _rows_by_key(keys: NDArray[Key], values: IntArray) -> dict[Any, IntArray]:
    """Return the values of each key, in rising order of position."""
    order = np.argsort(keys, kind="stable")
    unique, starts, counts = np.unique(keys[order], return_index=True, return_counts=True)
    rows = zip(unique.tolist(), starts.tolist(), counts.tolist(), strict=True)
    return {key: values[order[start : start + count]] for key, start, count in rows}
