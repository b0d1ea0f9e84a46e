"""The traffic of a group of ranks that exchange tokens: drawn once, the same in every group.

All groups draw the same experts. Each exchange is then one set of transfers for each group, whatever the layer and
the micro-batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from workloads.collectives import ring_transfers
from workloads.expert_settings import ExpertSettings, with_shared
from workloads.messages import Kernel
from workloads.moe import (
    ExpertGroups,
    ExpertTraffic,
    combine_transfers,
    count_traffic,
    direct_transfers,
    dispatch_transfers,
)
from workloads.tasks import IntArray, Layout, Setting, Transfers

LoadChanges = Literal["never", "per-layer", "per-micro-batch"]


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """A group of its own, its members being ranks 0, 1, ... on nodes 0, 1, ...: a `workloads.tasks.Layout`."""

    num_ranks: int
    gpus_per_node: int

    @property
    def node_of_rank(self) -> IntArray:
        """[num_ranks] the node of each member."""
        return np.arange(self.num_ranks) // self.gpus_per_node

    @property
    def gpu_of_rank(self) -> IntArray:
        """[num_ranks] its place there."""
        return np.arange(self.num_ranks) % self.gpus_per_node

    @property
    def rank_at(self) -> IntArray:
        """[num_nodes, gpus_per_node] the member at each place."""
        return np.arange(self.num_ranks).reshape(-1, self.gpus_per_node)


class GroupLoad(NamedTuple):
    """What one draw makes a group do.

    received, rows: of the GPU that gets most pairs of a token and an expert: tokens that it receives, each once, and
    pairs; scatter, gather: the transfers between members, numbered from 0, of an exchange there and back
    of_members: (received, rows) of each member
    """

    received: int
    rows: int
    scatter: Transfers
    gather: Transfers
    of_members: tuple[tuple[int, int], ...]


def draw_loads(
    spec: ExpertSettings,
    setting: Setting,
    num_tokens: int,
    message_bytes: tuple[int, int],
    rng: np.random.Generator,
    kernel: Kernel = "normal",
) -> Iterator[GroupLoad]:
    """Yield draws of a group, as many as are asked for.

    num_tokens: of each member; message_bytes: of a token there and back; kernel: that carries them
    """
    experts = spec.experts(setting)
    layout = GroupLayout(spec.expert_parallel, min(spec.expert_parallel, setting.gpus_per_node))
    groups = ExpertGroups.of_layout(layout, spec.expert_parallel)
    source = None
    while True:
        if source is None or spec.gate.kind != "file":  # a file's tokens go on from draw to draw
            source = spec.gate.open(experts.top_k, rng, setting.folder)
        placement = spec.place(experts, source, groups.num_slots)
        chosen = (
            with_shared(source.experts(num_tokens), experts.top_k.num_experts, experts.num_logical)
            for _ in range(spec.expert_parallel)
        )
        (traffic,) = count_traffic(chosen, [placement], groups)
        received, rows = fullest(traffic)
        of_members = zip(
            traffic.tokens_to_rank.sum(axis=0).tolist(),
            traffic.pairs_to_rank.sum(axis=0).tolist(),
            strict=True,
        )
        scattered, gathered = message_bytes
        if kernel == "low-latency":
            there = direct_transfers(traffic, layout, scattered)
            back = direct_transfers(traffic, layout, gathered, combine=True)
        else:
            there = dispatch_transfers(traffic, layout, scattered)
            back = combine_transfers(traffic, layout, gathered)
        yield GroupLoad(received, rows, there, back, tuple(of_members))


def place_draws(
    drawn: Iterator[GroupLoad], changes: LoadChanges, layers: Sequence[int], micro_batches: int
) -> Callable[[int, int], GroupLoad]:
    """Return (layer, micro-batch) -> the draw that holds there; draws are taken by layer, then micro-batch.

    layers: those that have experts
    """
    if changes == "never":
        only = next(drawn)
        return lambda _layer, _micro_batch: only
    if changes == "per-layer":
        by_layer = dict(zip(layers, drawn, strict=False))
        return lambda layer, _micro_batch: by_layer[layer]
    places = [(layer, batch) for layer in layers for batch in range(micro_batches)]
    by_place = dict(zip(places, drawn, strict=False))
    return lambda layer, micro_batch: by_place[layer, micro_batch]


def num_draws(changes: LoadChanges, num_layers: int, micro_batches: int) -> int:
    """Return how many draws those are."""
    return {"never": 1, "per-layer": num_layers, "per-micro-batch": num_layers * micro_batches}[changes]


def fullest(traffic: ExpertTraffic) -> tuple[int, int]:
    """Return tokens received, each once, and pairs of a token and an expert, of the member with most pairs."""
    pairs, tokens = traffic.pairs_to_rank.sum(axis=0), traffic.tokens_to_rank.sum(axis=0)
    member = int(np.lexsort((tokens, pairs))[-1])
    return int(tokens[member]), int(pairs[member])


def tensor_rings(ranks: IntArray, degree: int, cluster: Layout, size_bytes: float) -> Transfers:
    """Return the rings of all tensor-parallel groups among the ranks of a group: one gathering, or one scattering.

    ranks: [group_size] consecutive members, of which each `degree` are a tensor-parallel group; size_bytes: of what a
    rank has after gathering, or before scattering
    """
    return ring_transfers(ranks.reshape(-1, degree), cluster, size_bytes, 1)


def in_each_group(transfers: Transfers, group_size: int, num_groups: int) -> Transfers:
    """Return the transfers of a group in each of several: ranks 0, 1, ... of each, one group after the other."""
    if num_groups == 1:
        return transfers
    many = transfers.select(np.tile(np.arange(len(transfers)), num_groups))
    first = group_size * np.arange(num_groups)

    def of_each(ranks: IntArray, before: IntArray) -> IntArray:
        return ranks + np.repeat(first, len(before))

    return replace(
        many,
        source_rank=of_each(many.source_rank, transfers.source_rank),
        relay_ranks=of_each(many.relay_ranks, transfers.relay_ranks),
        destination_ranks=of_each(many.destination_ranks, transfers.destination_ranks),
    )
