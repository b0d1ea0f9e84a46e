"""The task graph of a training step: the phases of a schedule on every group of ranks, sends between them, ZeRO-1.

Each group of `ParallelLayout` is a fold: its ranks run in lockstep. A phase starts when the phase before has ended on
both streams and what it needs has come; what it gives leaves when it has ended, on no stream, so that a send holds up
nothing but the bytes that it shares links with.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from workloads.group_traffic import GroupLoad
from workloads.schedules import Cell, Kind, Phase, Schedule
from workloads.schedules.order import Output, execution_order, inputs, outputs
from workloads.tasks import (
    Collective,
    CommunicationKernel,
    ComputeKernel,
    IntArray,
    Stream,
    Task,
    TaskGraph,
    TaskPhase,
    Transfers,
)
from workloads.training.items import Item, phase_items, weight_items
from workloads.training.parallel_layout import ParallelLayout
from workloads.training.stage_work import StageWork
from workloads.training.synchronise import Joint, Synchronisation

# Kinds of phases behind those of the schedule.
REDUCE_GRADIENTS: Final = "reduce-gradients"
OPTIMIZER: Final = "optimizer"
GATHER_WEIGHTS: Final = "gather-weights"

Group = tuple[int, int]  # pipeline rank, number of the group there


@dataclass(frozen=True, slots=True)
class Exchanges:
    """What exchanges move and what moves them.

    load: (layer, micro-batch) -> the draw that holds; kernel: (gathers, beside compute) -> the kernel
    """

    load: Callable[[int, int], GroupLoad]
    kernel: Callable[[bool, bool], CommunicationKernel]


@dataclass(frozen=True, slots=True)
class StepParts:
    """What a step is made of.

    work: (stage, micro-batch) -> what a GPU computes of it
    send_bytes: of one micro-batch's activations between stages, on each GPU
    ending: what follows the last phase
    rings: (ranks of a group, bytes) -> how its tensor-parallel ranks gather or scatter those; None where none do
    """

    schedule: Schedule
    layout: ParallelLayout
    work: Callable[[int, int], StageWork]
    exchanges: Exchanges
    send_bytes: float
    ending: Synchronisation
    rings: Callable[[IntArray, float], Transfers] | None = None


def build_graph(parts: StepParts) -> TaskGraph:
    """Return the task graph of a step."""
    builder = _Builder(parts)
    for pipeline_rank, place in execution_order(parts.schedule):
        phase = parts.schedule.phases[pipeline_rank][place]
        for number in range(parts.layout.num_groups):
            builder.add_phase((pipeline_rank, number), phase)
    builder.add_joints(REDUCE_GRADIENTS, parts.ending.reductions)
    builder.add_optimizer(parts.ending.optimizer)
    builder.add_joints(GATHER_WEIGHTS, parts.ending.gathers)
    return builder.graph()


@dataclass(slots=True)
class _Builder:
    """A graph so far.

    last: of each group the tasks that end its latest phase; sends: task that brings an output to a group
    """

    parts: StepParts
    tasks: list[Task] = field(default_factory=list)
    collectives: list[Collective] = field(default_factory=list)
    phases: list[TaskPhase] = field(default_factory=list)
    last: dict[Group, tuple[int, ...]] = field(default_factory=dict)
    sends: dict[tuple[Output, int], int] = field(default_factory=dict)
    _leaders: dict[Group, int] = field(default_factory=dict)
    _items: dict[tuple[object, ...], tuple[Item, ...]] = field(default_factory=dict)
    _transfers: dict[tuple[object, ...], Transfers] = field(default_factory=dict)

    def graph(self) -> TaskGraph:
        """Return the whole graph."""
        layout = self.parts.layout
        leader_of_rank = np.zeros(layout.ranks.size, np.int64)
        for pipeline_rank in range(len(layout.ranks)):
            for number in range(layout.num_groups):
                group = layout.group(pipeline_rank, number)
                leader_of_rank[group] = group.min()
        return TaskGraph(
            layout.ranks.size,
            tuple(self.tasks),
            tuple(self.collectives),
            leader_of_rank=leader_of_rank,
            phases=tuple(self.phases),
        )

    def add_phase(self, group: Group, phase: Phase) -> None:
        """Add a phase of a group, and the sends of what it gives."""
        schedule, (pipeline_rank, number) = self.parts.schedule, group
        first = len(self.tasks)
        arrived = [
            self.sends[need, number]
            for need in inputs(schedule, phase)
            if schedule.rank_of_stage[need.cell.pipeline][need.cell.stage] != pipeline_rank
        ]
        starts = (*self.last.get(group, ()), *arrived)
        for item in self._items_of(phase):
            after = tuple(first + place for place in item.after) or starts
            self._add_item(group, item, phase, after)
        self._end_phase(group, str(phase.kind), phase.forward, phase.backward, first)
        for output in outputs(phase):
            self._add_send(group, output)

    def _end_phase(
        self, group: Group, kind: str, forward: Cell | None, backward: Cell | None, first: int
    ) -> None:
        """Note a phase of all tasks from `first` on; it ends with the last task of each stream."""
        end = len(self.tasks)
        last = {task.stream: first + place for place, task in enumerate(self.tasks[first:end])}
        self.last[group] = tuple(sorted(last.values()))
        self.phases.append(TaskPhase(self._leader(group), kind, forward, backward, first, end))

    def _items_of(self, phase: Phase) -> tuple[Item, ...]:
        """Return the items of a phase, one object for all phases with the same work."""
        work = self.parts.work
        forward, backward = (
            None if cell is None else work(cell.stage, cell.micro_batch)
            for cell in (phase.forward, phase.backward)
        )
        key = (phase.kind, id(forward), id(backward))
        if key not in self._items:
            if phase.kind is Kind.WEIGHT:
                assert backward is not None
                self._items[key] = weight_items(backward)
            else:
                self._items[key] = phase_items(
                    forward, backward, weights=phase.kind is not Kind.BACKWARD_INPUT
                )
        return self._items[key]

    def _add_item(self, group: Group, item: Item, phase: Phase, after: tuple[int, ...]) -> None:
        if item.ring_bytes:
            self._add_rings(group, item, after)
            return
        if item.exchange is None:
            self._add_kernel(group, item.name, item.kernel, after)
            return
        # forward and backward of a micro-batch go through the same experts
        cell = phase.backward if item.name.endswith("B") else phase.forward
        assert cell is not None
        exchange = item.exchange
        load = self.parts.exchanges.load(exchange.layer, cell.micro_batch)
        transfers = load.gather if exchange.gathers else load.scatter
        key = (group, id(transfers))
        if key not in self._transfers:
            self._transfers[key] = transfers.between(self.parts.layout.group(*group))
        kernel = self.parts.exchanges.kernel(exchange.gathers, exchange.beside_compute)
        self.collectives.append(Collective(item.name, self._transfers[key], kernel))
        self._take_part(group, item.name, after, Stream.COMMUNICATION)

    def _add_rings(self, group: Group, item: Item, after: tuple[int, ...]) -> None:
        """Add what tensor-parallel ranks gather or scatter: one collective for all rings of a group."""
        assert self.parts.rings is not None
        key = ("rings", group, item.ring_bytes)
        if key not in self._transfers:
            ranks = self.parts.layout.group(*group)
            self._transfers[key] = self.parts.rings(ranks, float(item.ring_bytes))
        self.collectives.append(Collective(item.name, self._transfers[key]))
        self._take_part(group, item.name, after, Stream.COMMUNICATION)

    def _add_send(self, group: Group, output: Output) -> None:
        """Add the send of an output to the stage that waits for it, if that is on another pipeline rank."""
        schedule, (pipeline_rank, number) = self.parts.schedule, group
        cell = output.cell
        stage = cell.stage - 1 if output.is_gradient else cell.stage + 1
        if not 0 <= stage < schedule.num_stages:
            return
        receiver = schedule.rank_of_stage[cell.pipeline][stage]
        if receiver == pipeline_rank:
            return
        name = "send gradients" if output.is_gradient else "send activations"
        key = ("send", pipeline_rank, receiver, number)
        if key not in self._transfers:
            source, destination = (
                self.parts.layout.group(rank, number) for rank in (pipeline_rank, receiver)
            )
            sizes = np.full(len(source), self.parts.send_bytes)
            self._transfers[key] = Transfers.point_to_point(source, destination, sizes)
        self.collectives.append(Collective(name, self._transfers[key]))
        self.sends[output, number] = len(self.tasks)
        self._take_part(group, name, self.last[group], None)

    # The end of the step

    def add_joints(self, kind: str, joints: Sequence[Joint]) -> None:
        """Add collectives of several groups, each of which a group joins after what it has done before."""
        for joint in joints:
            self.collectives.append(joint.collective)
            for group in self._groups_of(joint.pipeline_ranks):
                first = len(self.tasks)
                self._take_part(group, joint.collective.name, self.last[group], Stream.COMMUNICATION)
                self._end_phase(group, kind, None, None, first)

    def add_optimizer(self, kernels: Sequence[ComputeKernel]) -> None:
        """Add each group's update, after a barrier: clipping needs the norm of all gradients."""
        barrier = len(self.tasks)
        last = tuple(sorted({task for tasks in self.last.values() for task in tasks}))
        self.tasks.append(Task("norm of all gradients", 0, None, after=last))
        for group in self._groups_of(range(len(kernels))):
            first = len(self.tasks)
            self._add_kernel(group, "optimizer", kernels[group[0]], (barrier,))
            self._end_phase(group, OPTIMIZER, None, None, first)

    def _groups_of(self, pipeline_ranks: Iterable[int]) -> list[Group]:
        return [
            (pipeline_rank, number)
            for pipeline_rank in pipeline_ranks
            for number in range(self.parts.layout.num_groups)
        ]

    def _leader(self, group: Group) -> int:
        if group not in self._leaders:
            self._leaders[group] = int(self.parts.layout.group(*group).min())
        return self._leaders[group]

    def _add_kernel(
        self, group: Group, name: str, kernel: ComputeKernel | None, after: tuple[int, ...]
    ) -> None:
        self.tasks.append(Task(name, self._leader(group), Stream.COMPUTE, after=after, kernel=kernel))

    def _take_part(self, group: Group, name: str, after: tuple[int, ...], stream: Stream | None) -> None:
        """Add a task that takes part in the latest collective."""
        latest = len(self.collectives) - 1
        self.tasks.append(Task(name, self._leader(group), stream, after=after, collective=latest))
