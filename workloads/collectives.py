"""The workload `collective`: all-to-all, all-gather, reduce-scatter or all-reduce as NCCL runs them."""

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from simulator.units import Bytes, FieldError, Spec
from workloads.size import TransferCount, WorkSize
from workloads.tasks import (
    Collective,
    CommunicationKernel,
    ComputeKernel,
    FloatArray,
    IntArray,
    Layout,
    Setting,
    Summary,
    TaskGraph,
    TaskTimes,
    Transfers,
    run_in_turn,
)

Operation = Literal["all-to-all", "all-gather", "reduce-scatter", "all-reduce"]

# Times that a ring passes a buffer round: all-reduce is a reduce-scatter and an all-gather.
_PASSES: Final[dict[Operation, int]] = {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2}

RankNumber = Annotated[int, Field(ge=0, lt=2**20)]


class CollectiveSpec(Spec):
    """One collective over all ranks, some of them, or groups of them at once."""

    needs_model: ClassVar[bool] = False

    kind: Literal["collective"] = Field(description="one collective operation, as NCCL runs it")
    operation: Operation = Field(
        description="all-to-all, all-gather, reduce-scatter or all-reduce (no default)",
    )
    size: Bytes = Field(
        gt=0,
        le=2**60,
        description="bytes as nccl-tests counts them; all-to-all: what each rank sends, its own share included, so "
        "that each pair exchanges size / ranks; all-gather: what each rank has at the end; reduce-scatter: what "
        "each rank has at the start; all-reduce: the buffer that each rank reduces (no default)",
    )
    ranks: Literal["all"] | Annotated[tuple[RankNumber, ...], Field(strict=False)] = Field(
        default="all",
        description="ranks that take part, in the order in which rings and groups are formed: `all`, or a list of "
        "at least 2 rank numbers (default all)",
    )
    stride: int = Field(
        default=1,
        ge=1,
        description="takes ranks that many places apart as neighbours: 8 on nodes of eight GPUs puts GPU 0 of all "
        "nodes first, then GPU 1, and so on, so that groups lie across nodes; it divides the ranks (default 1)",
    )
    group_size: int | None = Field(
        default=None,
        ge=2,
        description="splits the ranks, in their order, into groups of this many that each run the operation at the "
        "same time; a count that divides the ranks (default one group of all)",
    )

    def needed_ranks(self) -> int | None:
        """Return how many ranks there must be for the highest listed one to exist; None for all."""
        return None if self.ranks == "all" else max(self.ranks, default=0) + 1

    def check(self, setting: Setting) -> None:
        """Raise FieldError where the ranks do not exist, repeat, or do not split into groups."""
        ranks = self._ranks(setting.num_ranks)
        if len(ranks) < 2:
            msg = f"a collective needs at least 2 ranks, and there are {len(ranks)}"
            raise FieldError("ranks", msg)
        if max(ranks) >= setting.num_ranks:
            msg = f"there is no rank {max(ranks)}; the cluster's are 0 to {setting.num_ranks - 1}"
            raise FieldError("ranks", msg)
        repeated, times = Counter(ranks).most_common(1)[0]
        if times > 1:
            msg = f"rank {repeated} is listed more than once; a rank takes part once"
            raise FieldError("ranks", msg)
        if len(ranks) % self.stride:
            msg = f"{len(ranks)} ranks do not split into rows of {self.stride}; it must divide {len(ranks)}"
            raise FieldError("stride", msg)
        group_size = self.group_size or len(ranks)
        if len(ranks) % group_size:
            msg = f"{len(ranks)} ranks do not split into groups of {group_size}; it must divide {len(ranks)}"
            raise FieldError("group_size", msg)

    def communication_kernels(self, setting: Setting) -> tuple[CommunicationKernel, ...]:  # noqa: ARG002
        """Return no kernels: transfers cost nothing beside their links' time."""
        return ()

    def compute_kernels(self, setting: Setting) -> tuple[ComputeKernel, ...]:  # noqa: ARG002
        """Return no kernels: nothing is computed."""
        return ()

    def build(self, setting: Setting, layout: Layout, rng: np.random.Generator) -> "CollectiveStep":  # noqa: ARG002
        """Return the step; nothing is drawn from `rng`."""
        ranks = self._ranks(setting.num_ranks)
        groups = self._in_order(setting.num_ranks).reshape(-1, self.group_size or len(ranks))
        if self.operation == "all-to-all":
            transfers = all_to_all_transfers(groups, layout, self.size)
        else:
            transfers = ring_transfers(groups, layout, self.size, _PASSES[self.operation])
        return CollectiveStep(
            graph=run_in_turn((Collective(self.operation, transfers),), ranks, layout.num_ranks),
            assumptions=_assumptions(self.operation),
            size_bytes=self.size,
            bus_factor=_PASSES.get(self.operation, 1) * (groups.shape[1] - 1) / groups.shape[1],
        )

    def work_size(self, setting: Setting) -> WorkSize:
        """Return how much the step holds: exactly, where a group has equally many ranks on each of its nodes."""
        num_ranks = setting.num_ranks if self.ranks == "all" else len(self.ranks)
        group_size = self.group_size or max(1, num_ranks)
        if self.operation == "all-to-all":
            transfers = all_to_all_count(group_size).times(num_ranks // group_size)
        else:
            transfers = ring_count(group_size, self._most_on_a_node(setting)).times(num_ranks // group_size)
        field, remedy = "ranks", "use fewer ranks"
        if self.operation == "all-to-all":
            field, remedy = "group_size", "use smaller groups, or fewer ranks"
        return WorkSize(num_ranks, 1, transfers, transfers, transfers.transfers, 0, field, remedy)

    def _most_on_a_node(self, setting: Setting) -> int:
        """Return how many ranks of a group are on one node, at most."""
        if self.ranks != "all":
            return setting.gpus_per_node
        of_column = -(-setting.gpus_per_node // self.stride)  # ranks that are `stride` apart
        rows = setting.num_ranks // self.stride
        group_size = self.group_size or setting.num_ranks
        is_even = rows % group_size == 0 or group_size % rows == 0
        columns = max(1, -(-group_size // max(1, rows))) + (not is_even)
        return min(setting.gpus_per_node, of_column * columns)

    def _ranks(self, num_ranks: int) -> tuple[int, ...]:
        return tuple(range(num_ranks)) if self.ranks == "all" else self.ranks

    def _in_order(self, num_ranks: int) -> IntArray:
        """Return ranks in the order in which groups are formed: every stride-th from the first, then the second."""
        ranks: IntArray = np.array(self._ranks(num_ranks), np.int64).reshape(-1, self.stride).T.ravel()
        return ranks


@dataclass(frozen=True, slots=True)
class CollectiveStep:
    """One collective, ready to run.

    bus_factor: the share of `size_bytes` that each rank must send, (n - 1) / n or twice that for all-reduce.
    """

    graph: TaskGraph
    assumptions: tuple[str, ...]
    size_bytes: float
    bus_factor: float

    @property
    def before_balancing(self) -> tuple[Collective, ...]:
        """Return no collectives: nothing is balanced."""
        return ()

    def summarise(self, times: TaskTimes) -> Summary:
        """Return algorithm and bus bandwidth as nccl-tests defines them; of several groups, the slowest's.

        https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md. Both are 0 if the step took no time.
        """
        seconds = times.step_time_s
        algbw_bytes_per_s = self.size_bytes / seconds if seconds else 0.0
        return Summary(
            breakdown_s={"collective": seconds},
            metrics={
                "algbw_bytes_per_s": algbw_bytes_per_s,
                "busbw_bytes_per_s": algbw_bytes_per_s * self.bus_factor,
            },
        )


def all_to_all_transfers(groups: IntArray, layout: Layout, size_bytes: float) -> Transfers:
    """Return a transfer of `size_bytes` / n for each ordered pair of ranks of a group, with NCCL's PXN.

    groups: [num_groups, n] ranks. To another node the bytes go over NVLink to the GPU of the sender's node that has
    the destination's index, and from there over its rail. Where that GPU holds no rank of the group, and within
    a node, they go straight to the destination. Rows are in order of group, source and destination.
    """
    num_groups, num_ranks = groups.shape
    pair = (num_groups, num_ranks, num_ranks)
    apart = np.broadcast_to(~np.eye(num_ranks, dtype=np.bool_), pair)
    source_rank = np.broadcast_to(groups[:, :, None], pair)[apart]
    destination_rank = np.broadcast_to(groups[:, None, :], pair)[apart]
    group_of_rank = np.full(layout.num_ranks, -1)
    group_of_rank[groups] = np.arange(num_groups)[:, None]
    node = layout.node_of_rank[source_rank]
    relay_rank = layout.rank_at[node, layout.gpu_of_rank[destination_rank]]
    relayed = (
        (node != layout.node_of_rank[destination_rank])
        & (relay_rank >= 0)
        & (group_of_rank[relay_rank] == group_of_rank[source_rank])
    )
    return Transfers.point_to_point(
        source_rank,
        destination_rank,
        np.full(len(source_rank), size_bytes / num_ranks),
        relay_rank=np.where(relayed, relay_rank, -1),
    )


def all_to_all_count(num_ranks: int) -> TransferCount:
    """Return the transfers of an all-to-all within a group, and the stops if each is relayed."""
    pairs = num_ranks * (num_ranks - 1)
    return TransferCount(pairs, 2 * pairs)


def ring_count(num_ranks: int, ranks_per_node: int) -> TransferCount:
    """Return the transfers of a group's rings, if it has so many ranks on each of its nodes."""
    hops = num_ranks * min(num_ranks, ranks_per_node)
    return TransferCount(hops, hops)


def ring_transfers(groups: IntArray, layout: Layout, size_bytes: float, passes: int) -> Transfers:
    """Return a transfer for each hop of each group's rings.

    groups: [num_groups, n] ranks. The buffer is split evenly over the rings of `ring_orders`. While a ring of n is
    pipelined all its hops are busy at once, so that each carries (n - 1) / n of its ring's bytes per pass, and a
    hop's latency is paid n - 1 times per pass.
    """
    num_ranks = groups.shape[1]
    source_rank: list[IntArray] = []
    destination_rank: list[IntArray] = []
    hop_bytes: list[FloatArray] = []
    for group in groups:
        rings = ring_orders(group, layout)
        source_rank.append(rings.ravel())
        destination_rank.append(np.roll(rings, -1, axis=1).ravel())
        ring_bytes = size_bytes / len(rings)
        hop_bytes.append(np.full(rings.size, passes * (num_ranks - 1) / num_ranks * ring_bytes))
    return Transfers.point_to_point(
        np.concatenate(source_rank),
        np.concatenate(destination_rank),
        np.concatenate(hop_bytes),
        rounds=passes * (num_ranks - 1),
    )


def ring_orders(group: IntArray, layout: Layout) -> IntArray:
    """Return [num_rings, n] the order in which each ring visits the group's ranks, before it closes.

    Nodes are visited in the order in which `group` first names them, and the ranks of a node one after the other.
    Where every node has equally many ranks there is a ring for each of them: ring c enters the first node at its
    c-th rank, walks up to the one before it (in a circle), crosses, walks the next node down to its c-th rank,
    crosses, and so on, so that it leaves and enters nodes at equal places and each place carries one ring's
    crossing. On GPUs of equal indices that keeps crossings within a rail; with an odd number of nodes the last
    crossing, which closes the ring, goes from place c - 1 to place c. Otherwise there is one ring, walked alike.
    """
    nodes = layout.node_of_rank[group]
    by_node = [group[nodes == node] for node in dict.fromkeys(nodes.tolist())]
    sizes = {len(ranks) for ranks in by_node}
    num_rings = sizes.pop() if len(sizes) == 1 else 1
    rings = []
    for place in range(num_rings):
        upwards = [np.roll(ranks, -place) for ranks in by_node]
        walks = [ranks[::-1] if index % 2 else ranks for index, ranks in enumerate(upwards)]
        rings.append(np.concatenate(walks))
    return np.array(rings)


def _assumptions(operation: Operation) -> tuple[str, ...]:
    """Return what the workload takes for granted."""
    start = "All ranks start at once; the operation costs nothing to start, and copying and summing are free."
    if operation == "all-to-all":
        return (
            start,
            "All pairs move at once; to another node the bytes cross NVLink to the GPU of the destination's index "
            "first (NCCL's PXN), where its rank takes part.",
        )
    return (
        start,
        "NCCL's ring algorithm: one ring for each rank of a node, in opposite directions on neighbouring nodes so "
        "that rings cross between GPUs of equal index; one ring where nodes have unequal numbers of ranks.",
        "Rings are pipelined: all hops are busy at once, and a hop's latency is paid once per step of the ring.",
    )
