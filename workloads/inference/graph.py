"""The task graph of a forward pass: the same items on every group of ranks.

In lockstep a group is a fold, and one task stands for all its ranks. At their own pace all ranks have tasks of their
own, and only exchanges and rings tie them to others: a rank starts to send when it can, and goes on when all that it
sends and receives has ended.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from workloads.group_traffic import GroupLoad, tensor_rings
from workloads.inference.cache_transfers import CACHE_TRANSFER, layer_transfers
from workloads.inference.order import Exchange, Item
from workloads.inference.settings import CacheTransfers, HostCopies
from workloads.tasks import (
    Collective,
    CommunicationKernel,
    ComputeKernel,
    IntArray,
    Layout,
    Stream,
    Task,
    TaskGraph,
    Transfers,
)

OVERHEAD = "framework overhead"


@dataclass(frozen=True, slots=True)
class PassParts:
    """What a pass is made of.

    items: of a group; group_size: its ranks, which are consecutive; tensor_parallel: of them, each so many
    load: (layer, micro-batch) -> the draw that holds; kernel: (gathers, beside compute) -> what moves it
    overhead_s: at the end; cache_transfers: that come in meanwhile, if any; num_ranks: that take part in the pass
    own_pace: whether ranks do without lockstep
    """

    items: Sequence[Item]
    group_size: int
    tensor_parallel: int
    load: Callable[[int, int], GroupLoad]
    kernel: Callable[[bool, bool], CommunicationKernel]
    overhead_s: float
    cache_transfers: CacheTransfers | None
    num_ranks: int
    own_pace: bool


def pass_graph(parts: PassParts, cluster: Layout) -> TaskGraph:
    """Return the graph of a pass on all groups of a cluster."""
    builder = _Builder(parts, cluster)
    ranks = np.arange(parts.num_ranks).reshape(-1, parts.group_size)
    for group in ranks:
        builder.add_group(group)
    # those that prefill are one fold: they have nothing to do but to send
    leader_of_rank = np.full(cluster.num_ranks, parts.num_ranks)
    leader_of_rank[: parts.num_ranks] = (
        ranks.ravel() if parts.own_pace else np.repeat(ranks[:, 0], ranks.shape[1])
    )
    return TaskGraph(cluster.num_ranks, tuple(builder.tasks), tuple(builder.collectives), leader_of_rank)


class _Builder:
    """A graph so far."""

    def __init__(self, parts: PassParts, cluster: Layout) -> None:
        self._parts, self._cluster = parts, cluster
        self.tasks: list[Task] = []
        self.collectives: list[Collective] = []

    def add_group(self, group: IntArray) -> None:
        """Add all tasks of a group, those of an item one after the other."""
        parts = self._parts
        transfers = _TransfersOfGroup(parts, group, self._cluster)
        leaders = group.tolist() if parts.own_pace else [int(group[0])]
        first = len(self.tasks)
        # by item and leader
        after_of = [
            [
                tuple(first + len(leaders) * before + place for before in item.after)
                for place in range(len(leaders))
            ]
            for item in parts.items
        ]
        for item, after in zip(parts.items, after_of, strict=True):
            self._add_item(item, leaders, after, transfers)
        end = len(self.tasks)
        if parts.cache_transfers is not None:
            begins = [after for item, after in zip(parts.items, after_of, strict=True) if item.begins_layer]
            self._add_caches(parts.cache_transfers, group, leaders, begins)
        if parts.overhead_s > 0.0:
            for place, leader in enumerate(leaders):
                own = tuple(range(first + place, end, len(leaders)))
                self.tasks.append(Task(OVERHEAD, leader, Stream.COMPUTE, own, duration_s=parts.overhead_s))

    def _add_item(
        self, item: Item, leaders: list[int], after: list[tuple[int, ...]], transfers: "_TransfersOfGroup"
    ) -> None:
        step, exchange = item.step, item.exchange
        if step.kernel is not None:
            kernels: list[ComputeKernel | None] = [step.kernel] * len(leaders)
            if self._parts.own_pace and step.rank_kernels is not None:
                kernels = list(step.rank_kernels)
            self.tasks += [
                Task(step.name, leader, Stream.COMPUTE, before, kernel=kernel)
                for leader, before, kernel in zip(leaders, after, kernels, strict=True)
            ]
            return
        # rings of tensor-parallel ranks are on no stream: they stay on NVLink, and run beside exchanges
        stream, moves = None, None
        if exchange is not None:
            stream = Stream.COMMUNICATION
            moves = self._parts.kernel(exchange.gathers, exchange.beside_compute)
        self.collectives.append(Collective(step.name, transfers.of(item), moves))
        self._take_part(step.name, leaders, stream, after)

    def _add_caches(
        self,
        settings: CacheTransfers,
        group: IntArray,
        leaders: list[int],
        begins: Sequence[list[tuple[int, ...]]],
    ) -> None:
        """Add what comes in beside each layer: when that begins, and what came before has come."""
        from_host = isinstance(settings, HostCopies)
        transfers = layer_transfers(settings, group, self._cluster.num_ranks, len(begins))
        latest: list[tuple[int, ...]] = [()] * len(leaders)
        for after in begins:
            self.collectives.append(Collective(CACHE_TRANSFER, transfers, from_host=from_host))
            if not from_host:
                self._take_part(CACHE_TRANSFER, [self._parts.num_ranks], None, [()])
            both = [(*begin, *before) for begin, before in zip(after, latest, strict=True)]
            latest = [(len(self.tasks) + place,) for place in range(len(leaders))]
            self._take_part(CACHE_TRANSFER, leaders, None, both)

    def _take_part(
        self, name: str, leaders: list[int], stream: Stream | None, after: list[tuple[int, ...]]
    ) -> None:
        """Add a task of each leader that takes part in the latest collective."""
        latest = len(self.collectives) - 1
        self.tasks += [
            Task(name, leader, stream, before, collective=latest)
            for leader, before in zip(leaders, after, strict=True)
        ]


class _TransfersOfGroup:
    """The transfers of a group's exchanges and rings, one object for all that are alike."""

    def __init__(self, parts: PassParts, group: IntArray, cluster: Layout) -> None:
        self._parts, self._group, self._cluster = parts, group, cluster
        self._known: dict[tuple[str, float | int], Transfers] = {}

    def of(self, item: Item) -> Transfers:
        """Return the transfers of an item."""
        if item.exchange is not None:
            return self._exchanged(item.exchange)
        size_bytes = item.step.ring_bytes
        key = ("ring", size_bytes)
        if key not in self._known:
            degree = self._parts.tensor_parallel
            self._known[key] = tensor_rings(self._group, degree, self._cluster, size_bytes)
        return self._known[key]

    def _exchanged(self, exchange: Exchange) -> Transfers:
        load = self._parts.load(exchange.layer, exchange.micro_batch)
        transfers = load.gather if exchange.gathers else load.scatter
        key = ("exchange", id(transfers))
        if key not in self._known:
            self._known[key] = transfers.between(self._group)
        return self._known[key]
