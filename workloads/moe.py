"""The traffic of a mixture of experts: copies that tokens need, and the transfers that carry them.

By normal kernels a token is sent once to each node that holds one of its experts, whatever their number there, and
handed on over NVLink once to each GPU of that node that holds one (DeepSeek-V3 technical report, section 3.2.2). By
low-latency kernels it is sent once for each of its experts, straight to that one's rank (section 3.4.2).

Kernels go through their tokens in order, so that what a rank has for its peers advances alike: a transfer's weight is
its bytes over the mean of its collective.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from simulator.rows import csr_offsets
from workloads.placement import Placement
from workloads.tasks import FloatArray, IntArray, Layout, Transfers


@dataclass(frozen=True, slots=True)
class ExpertGroups:
    """Expert-parallel groups of `degree` consecutive ranks; each holds all experts and runs its own collectives.

    Place p of a group is its p-th rank. Its nodes are slots: places [slot x places_per_slot, ...) share a node.
    num_slots: nodes of a group; node_of_slot: [num_groups, num_slots]; slot_of_rank: [num_ranks] of its own group.
    """

    degree: int
    node_of_slot: IntArray
    slot_of_rank: IntArray

    @classmethod
    def of_layout(cls, layout: Layout, degree: int) -> "ExpertGroups":
        """Return the groups that the layout's ranks form.

        Raises ValueError where the ranks of a node in a group are not consecutive and equally many on each node.
        """
        places_per_slot = min(degree, layout.gpus_per_node)
        nodes = layout.node_of_rank.reshape(-1, degree // places_per_slot, places_per_slot)
        if (nodes != nodes[:, :, :1]).any():
            msg = f"groups of {degree} ranks are neither parts of a node nor whole nodes in this layout"
            raise ValueError(msg)
        slots = np.arange(layout.num_ranks) % degree // places_per_slot
        return cls(degree, np.ascontiguousarray(nodes[:, :, 0]), slots)

    @property
    def num_slots(self) -> int:
        """Number of nodes of a group."""
        return int(self.node_of_slot.shape[1])


@dataclass(frozen=True, slots=True)
class ExpertTraffic:
    """How many tokens each rank has for each place of its group.

    tokens_to_rank: [num_ranks, degree] tokens of the row's rank with an expert on that place of its group
    tokens_to_node: [num_ranks, num_slots] tokens with an expert on that node of the group
    pairs_to_rank: [num_ranks, degree] pairs of a token and an expert on that place, 1 or more for each such token
    expert_load: [num_groups, num_experts] tokens that each group's copies of an expert get
    """

    groups: ExpertGroups
    tokens_to_rank: IntArray
    tokens_to_node: IntArray
    pairs_to_rank: IntArray
    expert_load: IntArray

    def to_other_ranks(self) -> int:
        """Return the copies that leave their rank: one per token and other rank that needs it."""
        return self._leaving_rank(self.tokens_to_rank)

    def pairs_to_other_ranks(self) -> int:
        """Return the pairs of a token and an expert that is on another rank."""
        return self._leaving_rank(self.pairs_to_rank)

    def pairs_to_other_nodes(self) -> int:
        """Return the pairs of a token and an expert that is on another node."""
        num_ranks, num_slots = self.tokens_to_node.shape
        by_slot = self.pairs_to_rank.reshape(num_ranks, num_slots, -1).sum(axis=2)
        return int(by_slot.sum() - by_slot[np.arange(num_ranks), self.groups.slot_of_rank].sum())

    def to_other_nodes(self) -> int:
        """Return the copies that leave their node: one per token and other node that needs it."""
        own = self.tokens_to_node[np.arange(len(self.tokens_to_node)), self.groups.slot_of_rank]
        return int(self.tokens_to_node.sum() - own.sum())

    def place_load(self) -> IntArray:
        """Return the pairs of a token and an expert that each place of each group gets: [num_groups, degree]."""
        by_group = self.pairs_to_rank.reshape(-1, self.groups.degree, self.groups.degree)
        load: IntArray = by_group.sum(axis=1)
        return load

    def node_load(self) -> IntArray:
        """Return the same of each node of each group: [num_groups, num_slots]."""
        load: IntArray = (
            self.place_load().reshape(len(self.expert_load), self.groups.num_slots, -1).sum(axis=2)
        )
        return load

    def _leaving_rank(self, counts: IntArray) -> int:
        ranks = np.arange(len(counts))
        return int(counts.sum() - counts[ranks, ranks % self.groups.degree].sum())


def count_traffic(
    experts_by_rank: Iterable[IntArray], placements: Sequence[Placement], groups: ExpertGroups
) -> list[ExpertTraffic]:
    """Return, for each placement, the tokens that each rank has for each rank and node of its group.

    experts_by_rank: for each rank in order, [num_tokens, top_k] the experts of its tokens; one rank's at a time is
    held. Tokens are numbered within their group, rank after rank, which decides the copy of an expert that each
    takes.
    """
    num_ranks, num_experts = len(groups.slot_of_rank), len(placements[0].copies)
    expert_load = np.zeros((num_ranks // groups.degree, num_experts), np.int64)
    found = [
        ExpertTraffic(
            groups,
            tokens_to_rank=np.zeros((num_ranks, groups.degree), np.int64),
            tokens_to_node=np.zeros((num_ranks, groups.num_slots), np.int64),
            pairs_to_rank=np.zeros((num_ranks, groups.degree), np.int64),
            expert_load=expert_load,
        )
        for _ in placements
    ]
    slot_of_place = groups.slot_of_rank[: groups.degree]
    for rank, experts in enumerate(experts_by_rank):
        expert_load[rank // groups.degree] += np.bincount(experts.ravel(), minlength=num_experts)
        first_token = rank % groups.degree * len(experts)
        for placement, traffic in zip(placements, found, strict=True):
            places = placement.place_of(experts, first_token)
            traffic.pairs_to_rank[rank] = np.bincount(places.ravel(), minlength=groups.degree)
            traffic.tokens_to_rank[rank] = _tokens_per_target(places, groups.degree)
            traffic.tokens_to_node[rank] = _tokens_per_target(slot_of_place[places], groups.num_slots)
    return found


def _tokens_per_target(targets: IntArray, num_targets: int) -> IntArray:
    """Return [num_targets] tokens that name a target at least once; targets: [num_tokens, top_k]."""
    ordered = np.sort(targets, axis=1)
    first = np.ones(ordered.shape, np.bool_)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=first[:, 1:])
    return np.bincount(ordered[first], minlength=num_targets)


def direct_transfers(
    traffic: ExpertTraffic, layout: Layout, message_bytes: int, *, combine: bool = False
) -> Transfers:
    """Return the transfers of a low-latency kernel: one for each rank and other rank that has experts of its tokens.

    `size_bytes` is pairs of a token and an expert there times `message_bytes`. In a combine each expert's result goes
    back as it came: the same transfers, turned round, in the same order.
    """
    degree = traffic.groups.degree
    ranks = np.arange(layout.num_ranks)
    pairs = traffic.pairs_to_rank.copy()
    pairs[ranks, ranks % degree] = 0
    owner, place = np.nonzero(pairs)
    holder = owner // degree * degree + place
    size_bytes = pairs[owner, place].astype(np.float64) * message_bytes
    source, destination = (holder, owner) if combine else (owner, holder)
    return Transfers.point_to_point(source, destination, size_bytes, weight=_in_proportion(size_bytes))


def _in_proportion(size_bytes: FloatArray) -> FloatArray:
    """Return weights with which transfers that share a link advance alike: 1 on average."""
    return size_bytes / size_bytes.mean() if len(size_bytes) else size_bytes


def dispatch_transfers(traffic: ExpertTraffic, layout: Layout, message_bytes: int) -> Transfers:
    """Return the transfers of a dispatch by DeepEP's normal kernel: one for each rank and node of its group.

    To another node the bytes go to the GPU of the sender's index there, which hands them on over NVLink; a copy
    for that GPU itself is among the destinations and crosses no further link. Within the node they go straight
    to each GPU; copies that stay on their GPU are left out. `size_bytes` is tokens for the node times
    `message_bytes`; a destination's fraction is its tokens over the node's.
    """
    return _relayed(traffic, layout, message_bytes, reduce=False)


def combine_transfers(traffic: ExpertTraffic, layout: Layout, message_bytes: int) -> Transfers:
    """Return the transfers of a combine: the trees of the dispatch run backwards, summing before the wire.

    Each GPU sends one sum per token that it got; the GPU of the token's owner's index adds those of its node and
    sends one sum per token and node home.
    """
    return _relayed(traffic, layout, message_bytes, reduce=True)


def _relayed(traffic: ExpertTraffic, layout: Layout, message_bytes: int, *, reduce: bool) -> Transfers:
    """Return a tree for each rank and node that has tokens for others; rows are in order of rank, then node."""
    groups = traffic.groups
    num_ranks, num_slots = traffic.tokens_to_node.shape
    first_rank = np.arange(num_ranks) // groups.degree * groups.degree
    # [num_ranks, num_slots, places_per_slot] ranks that a transfer could reach, and whether it does
    reachable = (first_rank[:, None] + np.arange(groups.degree)).reshape(num_ranks, num_slots, -1)
    tokens = traffic.tokens_to_rank.reshape(reachable.shape)
    reached = (tokens > 0) & (reachable != np.arange(num_ranks)[:, None, None])
    source_rank, slot = np.nonzero(reached.any(axis=2))
    reached = reached[source_rank, slot]
    tokens_to_node = traffic.tokens_to_node[source_rank, slot]
    fractions = tokens[source_rank, slot] / tokens_to_node[:, None]
    relayed = slot != groups.slot_of_rank[source_rank]
    node = groups.node_of_slot[source_rank // groups.degree, slot]
    count = len(source_rank)
    size_bytes = tokens_to_node.astype(np.float64) * message_bytes
    return Transfers(
        source_rank=source_rank.astype(np.int64),
        relay_offsets=csr_offsets(relayed),
        relay_ranks=layout.rank_at[node, layout.gpu_of_rank[source_rank]][relayed].astype(np.int64),
        destination_offsets=csr_offsets(reached.sum(axis=1)),
        destination_ranks=reachable[source_rank, slot][reached].astype(np.int64),
        fractions=fractions[reached],
        size_bytes=size_bytes,
        weight=_in_proportion(size_bytes),
        delay_s=np.zeros(count),
        rounds=np.ones(count, np.int64),
        reduce=np.full(count, reduce),
    )
