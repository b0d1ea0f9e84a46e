"""The collectives of a graph while it runs: which are under way, and how their transfers become flows."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import simpy
from numpy.typing import NDArray

from simulator.collective_run import CollectiveRun, Plan, Start, rows_by_key
from simulator.episode import Batch
from simulator.network import Network
from simulator.pricing import Pricing, pricing_of
from simulator.rerouting import Rerouting
from simulator.reuse import ReusingNetwork
from simulator.transfer_times import TransferTimes
from workloads.tasks import Collective, CommunicationKernel

IntArray = NDArray[np.int64]


class Collectives:
    """The collectives of a graph, on a network.

    network: whole; leader_of_rank: [num_ranks] with whom each rank joins; price: what a kernel costs beside its bytes
    num_solved, num_reused: of those that have ended and moved bytes, how many were solved, at least in part, and how
    many took the solution of one before in all of it
    """

    def __init__(
        self,
        collectives: Sequence[Collective],
        network: Network,
        fluid: ReusingNetwork,
        rerouting: Rerouting,
        endpoint_of_rank: IntArray,
        leader_of_rank: IntArray,
        price: Callable[[CommunicationKernel], Pricing],
        environment: simpy.Environment,
    ) -> None:
        self._collectives, self._network, self._fluid = collectives, network, fluid
        self._rerouting, self._environment, self._price = rerouting, environment, price
        self._endpoint_of_rank, self._leader_of_rank = endpoint_of_rank, leader_of_rank
        # A delay passes before the route is chosen, where that can depend on when it is.
        self._delays_first = network.routes_by_load or rerouting.must_know
        self.num_solved = self.num_reused = 0
        self._plans: dict[tuple[int, CommunicationKernel | None], Plan] = {}
        self._to_come = Counter((id(each.transfers), each.kernel) for each in collectives)
        self._under_way: dict[int, CollectiveRun] = {}
        self._ready: dict[int, CollectiveRun] = {}  # with transfers that are to start before bytes move on
        self._of_batch: dict[int, tuple[int, CollectiveRun, Start]] = {}
        nothing = TransferTimes(np.zeros(0), np.zeros(0))
        self._times = [nothing] * len(collectives)
        self._is_over = [not len(each.transfers) for each in collectives]

    def join(self, number: int, leader: int, task: int) -> bool:
        """Let a leader take part in a collective by a task; return whether that has something to wait for."""
        if self._is_over[number]:
            return False
        run = self._under_way.get(number)
        if run is None:
            run = self._under_way[number] = CollectiveRun(self._plan(number))
        rows = run.join(leader)
        if len(rows):
            self._make_ready(number, run, rows)
        if not run.waits(leader):
            return False
        run.waiting[leader] = task
        return True

    def start_ready(self) -> None:
        """Let all that is ready begin now, by the numbers of collectives."""
        if not self._ready:
            return
        for number in sorted(self._ready):
            run = self._ready[number]
            start = self._start(run.plan, run.take_ready())
            batch = self._fluid.add(start.pattern)
            run.started(start, batch)
            self._of_batch[batch.number] = number, run, start
            if self._rerouting.must_know:
                transfers, bills = run.plan.transfers.select(start.rows), start.pattern.bills
                ids = self._fluid.ids_of(batch)
                self._rerouting.note(transfers, start.rows, ids, bills, run.plan.pricing)
        self._ready.clear()

    def end(self, ended: list[tuple[Batch, int]]) -> list[int]:
        """Note which parts of batches have ended; return the tasks that need not wait any more, in order."""
        tasks: list[int] = []
        for batch, part in ended:
            _, run, start = self._of_batch[batch.number]
            task = run.end_part(start, part)
            if task is not None:
                tasks.append(task)
        for batch in {batch.number: batch for batch, _ in ended}.values():
            if batch.num_left:
                continue
            number, run, start = self._of_batch.pop(batch.number)
            run.end_start(start)
            if run.is_over:
                self._times[number] = run.times()
                self._is_over[number] = True
                self._count(self._under_way.pop(number))
        return sorted(tasks)

    def close(self) -> tuple[TransferTimes, ...]:
        """Return when the transfers of each ran, nothing being left to run."""
        for number, run in self._under_way.items():
            self._times[number] = run.times()
            self._count(run)
        return tuple(self._times)

    def _count(self, run: CollectiveRun) -> None:
        """Count a collective as solved or reused, if it has moved anything."""
        if run.has_started:
            self.num_reused += run.is_reused
            self.num_solved += not run.is_reused

    def _plan(self, number: int) -> Plan:
        """Return the plan of a collective that starts, to be kept as long as others to come share it."""
        described = self._collectives[number]
        key = id(described.transfers), described.kernel
        plan = self._plans.get(key)
        if plan is None:
            pricing = pricing_of(described, self._price)
            plan = self._plans[key] = Plan(described.transfers, pricing, self._leader_of_rank)
        self._to_come[key] -= 1
        if not self._to_come[key]:
            del self._plans[key]
        return plan

    def _make_ready(self, number: int, run: CollectiveRun, rows: IntArray) -> None:
        """Have transfers started before bytes move on.

        Where routes depend on the load or on faults, those with a delay are routed when it has passed; others wait as
        flows.
        """
        delay_s = run.plan.transfers.delay_s[rows] if self._delays_first else np.zeros(1)
        if not delay_s.any():
            self._have_ready(number, run, rows)
            return
        for after_s, group in rows_by_key(delay_s, rows).items():
            if after_s > 0.0:
                timeout = self._environment.timeout(after_s)
                timeout.callbacks.append(partial(self._have_ready, number, run, group))
            else:
                self._have_ready(number, run, group)

    def _have_ready(self, number: int, run: CollectiveRun, rows: IntArray, _event: object = None) -> None:
        run.make_ready(rows)
        self._ready[number] = run

    def _start(self, plan: Plan, rows: IntArray) -> Start:
        """Return transfers of a collective as flows; the same as before where routes cannot have changed."""
        by_load, network = self._network.routes_by_load, self._rerouting.network
        lasts = not by_load and network is self._network
        key = b"" if len(rows) == len(plan.transfers) else rows.tobytes()
        if lasts and key in plan.starts:
            return plan.starts[key]
        transfers = plan.transfers.select(rows) if key else plan.transfers
        bills, latency_s = network.bills(
            transfers, self._endpoint_of_rank, rows, self._fluid.shared.backlog_bytes, plan.pricing
        )
        start_after_s = latency_s if self._delays_first else transfers.delay_s + latency_s
        start = plan.start(rows, bills, start_after_s, self._fluid.shared.capacity_bytes_per_s)
        if lasts:
            plan.keep(key, start)
        return start
