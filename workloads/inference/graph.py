"""The task graph of a forward pass: the same items on every group of ranks, which works in lockstep."""

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
    """

    items: Sequence[Item]
    group_size: int
    tensor_parallel: int
    load: Callable[[int, int], GroupLoad]
    kernel: Callable[[bool, bool], CommunicationKernel]
    overhead_s: float
    cache_transfers: CacheTransfers | None
    num_ranks: int


def pass_graph(parts: PassParts, cluster: Layout) -> TaskGraph:
    """Return the graph of a pass on all groups of a cluster."""
    builder = _Builder(parts, cluster)
    ranks = np.arange(parts.num_ranks).reshape(-1, parts.group_size)
    for group in ranks:
        builder.add_group(group)
    # those that prefill are one fold: they have nothing to do but to send
    leader_of_rank = np.full(cluster.num_ranks, parts.num_ranks)
    leader_of_rank[: parts.num_ranks] = np.repeat(ranks[:, 0], parts.group_size)
    return TaskGraph(cluster.num_ranks, tuple(builder.tasks), tuple(builder.collectives), leader_of_rank)


class _Builder:
    """A graph so far."""

    def __init__(self, parts: PassParts, cluster: Layout) -> None:
        self._parts, self._cluster = parts, cluster
        self.tasks: list[Task] = []
        self.collectives: list[Collective] = []

    def add_group(self, group: IntArray) -> None:
        """Add all tasks of a group."""
        transfers = _TransfersOfGroup(self._parts, group, self._cluster)
        leader, first = int(group[0]), len(self.tasks)
        after_of = [tuple(first + place for place in item.after) for item in self._parts.items]
        for item, after in zip(self._parts.items, after_of, strict=True):
            self._add_item(item, leader, after, transfers)
        rest = tuple(range(first, len(self.tasks)))
        if self._parts.cache_transfers is not None:
            begins = [
                after for item, after in zip(self._parts.items, after_of, strict=True) if item.begins_layer
            ]
            self._add_caches(self._parts.cache_transfers, group, begins)
        if self._parts.overhead_s > 0.0:
            self.tasks.append(Task(OVERHEAD, leader, Stream.COMPUTE, rest, duration_s=self._parts.overhead_s))

    def _add_item(
        self, item: Item, leader: int, after: tuple[int, ...], transfers: "_TransfersOfGroup"
    ) -> None:
        step, exchange = item.step, item.exchange
        if step.kernel is not None:
            self.tasks.append(Task(step.name, leader, Stream.COMPUTE, after, kernel=step.kernel))
            return
        # rings of tensor-parallel ranks are on no stream: they stay on NVLink, and run beside exchanges
        stream, kernel = None, None
        if exchange is not None:
            stream = Stream.COMMUNICATION
            kernel = self._parts.kernel(exchange.gathers, exchange.beside_compute)
        self.collectives.append(Collective(step.name, transfers.of(item), kernel))
        self._take_part(step.name, leader, stream, after)

    def _add_caches(
        self, settings: CacheTransfers, group: IntArray, begins: Sequence[tuple[int, ...]]
    ) -> None:
        """Add what comes in beside each layer: when that begins, and what came before has come."""
        from_host = isinstance(settings, HostCopies)
        transfers = layer_transfers(settings, group, self._cluster.num_ranks, len(begins))
        before: tuple[int, ...] = ()
        for after in begins:
            self.collectives.append(Collective(CACHE_TRANSFER, transfers, from_host=from_host))
            if not from_host:
                self._take_part(CACHE_TRANSFER, self._parts.num_ranks, None, ())
            self._take_part(CACHE_TRANSFER, int(group[0]), None, (*after, *before))
            before = (len(self.tasks) - 1,)

    def _take_part(self, name: str, leader: int, stream: Stream | None, after: tuple[int, ...]) -> None:
        """Add a task that takes part in the latest collective."""
        self.tasks.append(Task(name, leader, stream, after, collective=len(self.collectives) - 1))


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
