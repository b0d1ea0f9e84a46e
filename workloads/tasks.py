"""What a workload asks of the cluster: tasks on the ranks' streams, and the transfers of its collectives.

Everything here speaks of ranks. Where a rank sits, which links its bytes cross and how long that takes is the
business of `simulator.layout`, `simulator.network` and `simulator.engine`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from simulator.rows import csr_offsets, csr_select
from workloads.kernel_call import KernelCall
from workloads.models import Model

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class Layout(Protocol):
    """Where the ranks are, as a workload may know it: `simulator.layout.RankLayout` is one."""

    @property
    def num_ranks(self) -> int:
        """Number of ranks."""

    @property
    def gpus_per_node(self) -> int:
        """Number of GPUs of each node."""

    @property
    def node_of_rank(self) -> IntArray:
        """[num_ranks] the node of each rank."""

    @property
    def gpu_of_rank(self) -> IntArray:
        """[num_ranks] each rank's GPU index within its node."""

    @property
    def rank_at(self) -> IntArray:
        """[num_nodes, gpus_per_node] the rank on each GPU, -1 where there is none."""


class Transfer(NamedTuple):
    """Bytes from one rank to one or more others, handed on by relays.

    The bytes go from `source_rank` through `relay_ranks`, one after the other; from the last of them each
    destination gets its fraction of `size_bytes` (fractions may add up to more than 1: copies). A destination
    that is the last relay itself keeps its copy, which crosses no further link. With `reduce` the same tree runs
    backwards: each destination sends its fraction to the last relay, which sums what belongs together, and
    `size_bytes` of sums go to `source_rank`.
    """

    source_rank: int
    relay_ranks: tuple[int, ...]
    destinations: tuple[tuple[int, float], ...]
    size_bytes: float
    weight: float = 1.0  # share of a full link, relative to other flows on it
    delay_s: float = 0.0  # between the start of its task and its own
    rounds: int = 1  # how often in sequence it pays its latency: n - 1 for a ring of n
    reduce: bool = False


@dataclass(frozen=True, slots=True)
class Transfers:
    """Many transfers as columns; lists of varying length are offsets into a flat array (CSR).

    source_rank: [num_transfers]
    relay_offsets: [num_transfers + 1], relay_ranks: [num_relays]
    destination_offsets: [num_transfers + 1], destination_ranks, fractions: [num_destinations]
    size_bytes, weight, delay_s: [num_transfers] bytes, 1, seconds
    rounds: [num_transfers], reduce: [num_transfers] bool
    """

    source_rank: IntArray
    relay_offsets: IntArray
    relay_ranks: IntArray
    destination_offsets: IntArray
    destination_ranks: IntArray
    fractions: FloatArray
    size_bytes: FloatArray
    weight: FloatArray
    delay_s: FloatArray
    rounds: IntArray
    reduce: BoolArray

    def __len__(self) -> int:
        return len(self.source_rank)

    @classmethod
    def from_rows(cls, rows: Iterable[Transfer]) -> Self:
        """Return the columns of `rows`, in their order."""
        rows = tuple(rows)
        destinations = [pair for row in rows for pair in row.destinations]
        return cls(
            source_rank=np.array([row.source_rank for row in rows], np.int64),
            relay_offsets=csr_offsets([len(row.relay_ranks) for row in rows]),
            relay_ranks=np.array([rank for row in rows for rank in row.relay_ranks], np.int64),
            destination_offsets=csr_offsets([len(row.destinations) for row in rows]),
            destination_ranks=np.array([rank for rank, _ in destinations], np.int64),
            fractions=np.array([fraction for _, fraction in destinations], np.float64),
            size_bytes=np.array([row.size_bytes for row in rows], np.float64),
            weight=np.array([row.weight for row in rows], np.float64),
            delay_s=np.array([row.delay_s for row in rows], np.float64),
            rounds=np.array([row.rounds for row in rows], np.int64),
            reduce=np.array([row.reduce for row in rows], np.bool_),
        )

    def select(self, indices: IntArray) -> Self:
        """Return the transfers at `indices` [num_selected], in that order."""
        relay_offsets, relays = csr_select(self.relay_offsets, indices)
        destination_offsets, destinations = csr_select(self.destination_offsets, indices)
        return type(self)(
            source_rank=self.source_rank[indices],
            relay_offsets=relay_offsets,
            relay_ranks=self.relay_ranks[relays],
            destination_offsets=destination_offsets,
            destination_ranks=self.destination_ranks[destinations],
            fractions=self.fractions[destinations],
            size_bytes=self.size_bytes[indices],
            weight=self.weight[indices],
            delay_s=self.delay_s[indices],
            rounds=self.rounds[indices],
            reduce=self.reduce[indices],
        )

    def between(self, ranks: IntArray) -> Self:
        """Return the transfers between other ranks; ranks: the one in place of 0, 1, ... in these."""
        return replace(
            self,
            source_rank=ranks[self.source_rank],
            relay_ranks=ranks[self.relay_ranks],
            destination_ranks=ranks[self.destination_ranks],
        )

    @classmethod
    def point_to_point(
        cls,
        source_rank: IntArray,
        destination_rank: IntArray,
        size_bytes: FloatArray,
        *,
        relay_rank: IntArray | None = None,
        delay_s: FloatArray | None = None,
        weight: FloatArray | None = None,
        rounds: int = 1,
    ) -> Self:
        """Return transfers with one destination each; arrays of shape [num_transfers].

        relay_rank: one relay each, -1 for none. A relay that is the source or the destination is left out.
        """
        count = len(source_rank)
        relay = np.full(count, -1) if relay_rank is None else relay_rank
        relayed = (relay >= 0) & (relay != source_rank) & (relay != destination_rank)
        return cls(
            source_rank=np.asarray(source_rank, np.int64),
            relay_offsets=csr_offsets(relayed),
            relay_ranks=np.asarray(relay[relayed], np.int64),
            destination_offsets=np.arange(count + 1, dtype=np.int64),
            destination_ranks=np.asarray(destination_rank, np.int64),
            fractions=np.ones(count),
            size_bytes=np.asarray(size_bytes, np.float64),
            weight=np.ones(count) if weight is None else np.asarray(weight, np.float64),
            delay_s=np.zeros(count) if delay_s is None else np.asarray(delay_s, np.float64),
            rounds=np.full(count, rounds, np.int64),
            reduce=np.zeros(count, np.bool_),
        )


@dataclass(frozen=True, slots=True)
class CommunicationKernel:
    """The kernel that moves a collective's bytes, as far as cost tables price it.

    name: of the cost table's `communication`; message_bytes: the bytes that it moves at a time
    codec: of the cost table's `codec`, "" where it moves values as they are
    combines: whether it brings results back and adds them up, as combine does, or spreads tokens as dispatch does
    beside_compute: whether the ranks compute while it runs
    over_nics: whether it crosses the network even between GPUs of one node, NVLink left unused
    num_sms: streaming multiprocessors that it holds on each rank while it runs
    """

    name: str
    message_bytes: int
    codec: str = ""
    combines: bool = False
    beside_compute: bool = False
    over_nics: bool = False
    num_sms: int = 0


@dataclass(frozen=True, slots=True)
class Collective:
    """Transfers that belong together. A rank takes part by a task of its own; see `Task.collective`.

    kernel: what moves them; None for transfers that cost nothing but their links' time
    from_host: whether the bytes of each come out of the memory of its destination's host, over that GPU's PCIe port;
    the source says who must be there for them to start
    """

    name: str
    transfers: Transfers
    kernel: CommunicationKernel | None = None
    from_host: bool = False


class ComputeKernel(NamedTuple):
    """A kernel that computes, priced by a cost table; SMs that communication kernels hold beside it, 0 for none."""

    call: KernelCall
    communication_sms: int = 0


class Stream(StrEnum):
    """A rank's queue of tasks: one task at a time, in the order in which the graph lists them."""

    COMPUTE = "compute"
    COMMUNICATION = "communication"


@dataclass(frozen=True, slots=True)
class Task:
    """One rank's part of the work: a kernel, or taking part in a collective.

    A kernel takes `duration_s`, or what the cost table says of `kernel`: see `TaskGraph.priced`.

    A transfer starts once all its senders have started their task of its collective; such a task ends when
    every transfer that the rank sends or receives in it has ended. A task on no stream waits for its
    dependencies alone; with no duration it is a barrier.
    """

    name: str
    rank: int
    stream: Stream | None
    after: tuple[int, ...] = ()  # indices into TaskGraph.tasks
    duration_s: float = 0.0
    collective: int | None = None  # index into TaskGraph.collectives
    kernel: ComputeKernel | None = None


class TaskPhase(NamedTuple):
    """A stretch of a rank's tasks that belong together, for tables and pictures.

    kind: what the rank does meanwhile, such as `forward` or `optimizer`; forward, backward: the (pipeline, stage,
    micro-batch) whose forward or backward it is, None for none; first_task, end_task: its tasks are
    range(first_task, end_task)
    """

    rank: int
    kind: str
    forward: tuple[int, int, int] | None
    backward: tuple[int, int, int] | None
    first_task: int
    end_task: int


@dataclass(frozen=True, slots=True)
class TaskGraph:
    """All tasks of a step, each stream's in the order in which it runs them, and their collectives.

    leader_of_rank: [num_ranks] ranks with one leader, which is the least of them, are a *fold*: they run in lockstep,
    and each task of the leader stands for one of every rank of its fold. They start it together, once all can; all
    take part in its collective; and it ends when it has ended for all. None where every rank has tasks of its own.
    phases: stretches of tasks, for tables and pictures
    """

    num_ranks: int
    tasks: tuple[Task, ...]
    collectives: tuple[Collective, ...]
    leader_of_rank: IntArray | None = None
    phases: tuple[TaskPhase, ...] = ()

    def fold_of(self, leader: int) -> IntArray:
        """Return the ranks that a leader's tasks stand for, rising; the leader alone where nothing is folded."""
        if self.leader_of_rank is None:
            return np.array([leader])
        return np.flatnonzero(self.leader_of_rank == leader)

    def priced(self, seconds: Callable[[ComputeKernel], float]) -> "TaskGraph":
        """Return the graph with the duration of each task that has a kernel."""
        if not any(task.kernel for task in self.tasks):
            return self
        tasks = (
            task
            if task.kernel is None
            else Task(  # `replace` takes four times as long, and there are many
                task.name,
                task.rank,
                task.stream,
                task.after,
                seconds(task.kernel),
                task.collective,
                task.kernel,
            )
            for task in self.tasks
        )
        return replace(self, tasks=tuple(tasks))


@dataclass(frozen=True, slots=True)
class TaskTimes:
    """When each task of a graph ran: arrays of shape [num_tasks], seconds from the start of the step."""

    start_s: FloatArray
    end_s: FloatArray

    @property
    def step_time_s(self) -> float:
        """Return when the last task ended."""
        return float(self.end_s.max(initial=0.0))


class GpuLimits(NamedTuple):
    """What a GPU has, as datasheets have it: memory, its dense BF16 peak, and NVLink and its NIC in one direction."""

    memory_bytes: float
    peak_bf16_flops_per_s: float
    nvlink_bytes_per_s: float
    nic_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Setting:
    """What a workload's spec is checked against and built for.

    num_ranks: GPUs of the cluster; folder: where relative paths of the scenario start
    nics_meet: whether every NIC reaches every other over the network, as between planes they do not
    gpu: what each GPU has; None for a workload that does not ask
    """

    model: Model | None
    num_ranks: int
    gpus_per_node: int
    folder: Path
    nics_meet: bool = True
    gpu: GpuLimits | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a workload says of its own run.

    breakdown_s: part -> seconds, adding up to the step time; metrics: `name_unit` -> value in SI units
    tables: more that only this kind of workload has, as name -> rows with the same keys in each
    """

    breakdown_s: dict[str, float]
    metrics: dict[str, float]
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class Workload(Protocol):
    """A step ready to run: made by a workload's spec, run by the engine."""

    @property
    def graph(self) -> TaskGraph:
        """The step's tasks."""

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the workload takes for granted, one sentence each."""

    @property
    def before_balancing(self) -> tuple[Collective, ...]:
        """The collectives that there would be if loads were not balanced; none where they are not."""

    def summarise(self, times: TaskTimes) -> Summary:
        """Return the breakdown and the metrics of a run with these task times."""


def run_in_turn(collectives: tuple[Collective, ...], ranks: Iterable[int], num_ranks: int) -> TaskGraph:
    """Return a graph in which `ranks` run the collectives one after the other, a barrier between them."""
    ranks = tuple(ranks)
    tasks: list[Task] = []
    barrier: tuple[int, ...] = ()
    for index, collective in enumerate(collectives):
        if index:
            last = tuple(range(len(tasks) - len(ranks), len(tasks)))
            barrier = (len(tasks),)
            tasks.append(Task("barrier", ranks[0], None, after=last))
        tasks += [
            Task(collective.name, rank, Stream.COMMUNICATION, after=barrier, collective=index)
            for rank in ranks
        ]
    return TaskGraph(num_ranks, tuple(tasks), collectives)
