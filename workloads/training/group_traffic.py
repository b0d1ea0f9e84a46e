"""The traffic of an expert-parallel group: drawn once, the same in every group.

All groups draw the same experts, and a group's GPUs compute as the one that receives most: they wait for it at the
next exchange. Each exchange is then one set of transfers for each group, whatever the layer and the micro-batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from workloads.expert_settings import ExpertSettings, with_shared
from workloads.moe import ExpertGroups, ExpertTraffic, combine_transfers, count_traffic, dispatch_transfers
from workloads.tasks import IntArray, Setting, Transfers

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
    """

    received: int
    rows: int
    scatter: Transfers
    gather: Transfers


def draw_loads(
    spec: ExpertSettings,
    setting: Setting,
    num_tokens: int,
    message_bytes: tuple[int, int],
    rng: np.random.Generator,
) -> Iterator[GroupLoad]:
    """Yield draws of a group, as many as are asked for.

    num_tokens: of each member; message_bytes: of a token there and back
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
        scattered, gathered = message_bytes
        yield GroupLoad(
            received,
            rows,
            dispatch_transfers(traffic, layout, scattered),
            combine_transfers(traffic, layout, gathered),
        )


def fullest(traffic: ExpertTraffic) -> tuple[int, int]:
    """Return tokens received, each once, and pairs of a token and an expert, of the member with most pairs."""
    pairs, tokens = traffic.pairs_to_rank.sum(axis=0), traffic.tokens_to_rank.sum(axis=0)
    member = int(np.lexsort((tokens, pairs))[-1])
    return int(tokens[member]), int(pairs[member])
