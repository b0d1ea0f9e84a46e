"""The traffic of a mixture of experts: copies that tokens need, and the transfers that carry them.

A token is sent once to each node that holds one of its experts, whatever their number there, and handed on over
NVLink once to each GPU of that node that holds one (DeepSeek-V3 technical report, section 3.2.2).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from simulator.rows import csr_offsets
from workloads.tasks import IntArray, Layout, Transfers

# DeepEP's normal kernels between nodes: `get_num_bytes_per_token` and `SourceMeta` in csrc/kernels/internode.cu.
# A message is the token's values, the scales of an FP8 token, where it came from, and its top-k indices and weights.
VALUES_PER_SCALE: Final = 128
SCALE_BYTES: Final = 4
SOURCE_META_BYTES: Final = 8
TOP_K_INDEX_BYTES: Final = 4
TOP_K_WEIGHT_BYTES: Final = 4
MESSAGE_ALIGNMENT_BYTES: Final = 16
FP8_BYTES: Final = 1
BF16_BYTES: Final = 2


def fp8_payload_bytes(hidden_size: int) -> int:
    """Return the bytes of a token as FP8 values with a 4-byte scale per 128 of them: 7,392 for 7,168 values."""
    return hidden_size * FP8_BYTES + -(-hidden_size // VALUES_PER_SCALE) * SCALE_BYTES


def bf16_payload_bytes(hidden_size: int) -> int:
    """Return the bytes of a token as BF16 values: 14,336 for 7,168 values."""
    return hidden_size * BF16_BYTES


def dispatch_message_bytes(hidden_size: int, top_k: int) -> int:
    """Return the bytes that one token takes on a link in dispatch (FP8): 7,472 for DeepSeek-V3."""
    routing = top_k * (TOP_K_INDEX_BYTES + TOP_K_WEIGHT_BYTES)
    return _aligned(fp8_payload_bytes(hidden_size) + SOURCE_META_BYTES + routing)


def combine_message_bytes(hidden_size: int, top_k: int) -> int:
    """Return the bytes that one token takes on a link in combine (BF16): 14,384 for DeepSeek-V3."""
    return _aligned(bf16_payload_bytes(hidden_size) + SOURCE_META_BYTES + top_k * TOP_K_WEIGHT_BYTES)


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // MESSAGE_ALIGNMENT_BYTES) * MESSAGE_ALIGNMENT_BYTES


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

    tokens_to_rank: [num_ranks, degree] tokens of the row's rank with an expert on that place of its group.
    tokens_to_node: [num_ranks, num_slots] tokens with an expert on that node of the group.
    expert_load: [num_groups, num_experts] tokens that each group's copy of an expert gets.
    """

    groups: ExpertGroups
    tokens_to_rank: IntArray
    tokens_to_node: IntArray
    expert_load: IntArray

    def to_other_ranks(self) -> int:
        """Return the copies that leave their rank: one per token and other rank that needs it."""
        ranks = np.arange(len(self.tokens_to_rank))
        own = self.tokens_to_rank[ranks, ranks % self.groups.degree]
        return int(self.tokens_to_rank.sum() - own.sum())

    def to_other_nodes(self) -> int:
        """Return the copies that leave their node: one per token and other node that needs it."""
        own = self.tokens_to_node[np.arange(len(self.tokens_to_node)), self.groups.slot_of_rank]
        return int(self.tokens_to_node.sum() - own.sum())


def count_traffic(
    experts_by_rank: Iterable[IntArray], place_of_expert: IntArray, groups: ExpertGroups
) -> ExpertTraffic:
    """Return the tokens that each rank has for each rank and node of its group.

    experts_by_rank: for each rank in order, [num_tokens, top_k] the experts of its tokens; one rank's at a time is
    held. place_of_expert: [num_experts] the place in the group that holds each expert.
    """
    num_ranks = len(groups.slot_of_rank)
    num_experts = len(place_of_expert)
    tokens_to_rank = np.zeros((num_ranks, groups.degree), np.int64)
    tokens_to_node = np.zeros((num_ranks, groups.num_slots), np.int64)
    expert_load = np.zeros((num_ranks // groups.degree, num_experts), np.int64)
    slot_of_expert = groups.slot_of_rank[: groups.degree][place_of_expert]
    for rank, experts in enumerate(experts_by_rank):
        tokens_to_rank[rank] = _tokens_per_target(place_of_expert[experts], groups.degree)
        tokens_to_node[rank] = _tokens_per_target(slot_of_expert[experts], groups.num_slots)
        expert_load[rank // groups.degree] += np.bincount(experts.ravel(), minlength=num_experts)
    return ExpertTraffic(groups, tokens_to_rank, tokens_to_node, expert_load)


def _tokens_per_target(targets: IntArray, num_targets: int) -> IntArray:
    """Return [num_targets] tokens that name a target at least once; targets: [num_tokens, top_k]."""
    ordered = np.sort(targets, axis=1)
    first = np.ones(ordered.shape, np.bool_)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=first[:, 1:])
    return np.bincount(ordered[first], minlength=num_targets)


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
    return Transfers(
        source_rank=source_rank.astype(np.int64),
        relay_offsets=csr_offsets(relayed),
        relay_ranks=layout.rank_at[node, layout.gpu_of_rank[source_rank]][relayed].astype(np.int64),
        destination_offsets=csr_offsets(reached.sum(axis=1)),
        destination_ranks=reachable[source_rank, slot][reached].astype(np.int64),
        fractions=fractions[reached],
        size_bytes=tokens_to_node.astype(np.float64) * message_bytes,
        weight=np.ones(count),
        delay_s=np.zeros(count),
        rounds=np.ones(count, np.int64),
        reduce=np.full(count, reduce),
    )
