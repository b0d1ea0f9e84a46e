"""Which rank holds which place in the pipelines, and on which node that puts it.

A *pipeline rank* is what a schedule calls a rank: one of `pipeline_parallel` places, each with equally many GPUs, its
*members*. Member i of each pipeline rank works on the same sequences, and sends to member i of its neighbours.
Consecutive members form groups that work in lockstep: expert-parallel groups, or tensor-parallel ones where those are
larger.
"""

from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np

from simulator.units import FieldError
from workloads.tasks import IntArray, Setting

RankOrder = Literal["pipeline-outermost", "data-outermost"]
_FIELD: Final = "pipeline_parallel"


@dataclass(frozen=True, slots=True)
class ParallelLayout:
    """Where the places of all pipelines are.

    ranks: [pipeline_parallel, num_members] the rank of each
    group_size: members of a group
    """

    ranks: IntArray
    group_size: int

    @property
    def num_members(self) -> int:
        """Number of ranks of each pipeline rank."""
        return int(self.ranks.shape[1])

    @property
    def num_groups(self) -> int:
        """Number of groups of each pipeline rank."""
        return self.num_members // self.group_size

    def group(self, pipeline_rank: int, number: int) -> IntArray:
        """Return the ranks of a group, in the order of its members."""
        first = number * self.group_size
        group: IntArray = self.ranks[pipeline_rank, first : first + self.group_size]
        return group

    @classmethod
    def of(
        cls,
        setting: Setting,
        pipeline_parallel: int,
        group_size: int,
        rank_order: RankOrder,
        node_order: tuple[int, ...] | None,
    ) -> Self:
        """Return the layout of all ranks of a cluster.

        rank_order: which places are neighbours. In both, members of a group are. `pipeline-outermost`: all groups of
        the first pipeline rank, then all of the second, and so on; `data-outermost`: one group of each pipeline rank,
        then the next of each.
        node_order: [num_nodes] the node on which the first, second, ... ranks are; None for the cluster's order

        Raises FieldError where ranks do not multiply out, or the order does not name every node once.
        """
        num_members = members_of(setting.num_ranks, pipeline_parallel)
        order = np.arange(setting.num_ranks)
        if rank_order == "pipeline-outermost":
            places = order.reshape(pipeline_parallel, num_members)
        else:
            blocks = order.reshape(-1, pipeline_parallel, group_size)
            places = blocks.transpose(1, 0, 2).reshape(pipeline_parallel, num_members)
        if node_order is not None:
            num_nodes = setting.num_ranks // setting.gpus_per_node
            check_nodes(node_order, num_nodes)
            nodes, gpus = np.divmod(places, setting.gpus_per_node)
            places = np.array(node_order)[nodes] * setting.gpus_per_node + gpus
        return cls(places, group_size)


def members_of(num_ranks: int, pipeline_parallel: int) -> int:
    """Return how many ranks each pipeline rank has; FieldError where they do not divide."""
    if num_ranks % pipeline_parallel:
        near = [degree for degree in range(1, num_ranks + 1) if num_ranks % degree == 0]
        best = sorted(near, key=lambda degree: abs(degree - pipeline_parallel))[:3]
        msg = (
            f"{num_ranks:,} ranks do not divide into {pipeline_parallel} pipeline ranks; "
            f"{', '.join(map(str, sorted(best)))} would do, or another number of nodes"
        )
        raise FieldError(_FIELD, msg)
    return num_ranks // pipeline_parallel


def check_nodes(node_order: tuple[int, ...], num_nodes: int) -> None:
    """Raise FieldError unless an order names each node of the cluster once."""
    named = set(node_order)
    if len(node_order) != num_nodes or named != set(range(num_nodes)):
        missing = sorted(set(range(num_nodes)) - named)
        wrong = sorted(named - set(range(num_nodes)))
        fault = (
            f"there is no node {wrong[0]}"
            if wrong
            else f"node {missing[0]} is not named"
            if missing
            else "a node is named twice"
        )
        msg = f"must name each of the cluster's nodes, 0 to {num_nodes - 1}, once, and {fault}"
        raise FieldError("node_order", msg)
