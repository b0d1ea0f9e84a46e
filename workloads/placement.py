"""Where experts live: which rank of an expert-parallel group holds each of them."""

import numpy as np

from workloads.tasks import IntArray


def place_in_blocks(num_experts: int, degree: int) -> IntArray:
    """Return [num_experts] the rank within its group that holds each expert: blocks of consecutive experts.

    degree: ranks of a group; it divides num_experts, so that each rank holds equally many.
    """
    return np.arange(num_experts, dtype=np.int64) // (num_experts // degree)


def working_degrees(num_experts: int, num_ranks: int, gpus_per_node: int) -> tuple[int, ...]:
    """Return the expert-parallel degrees, ascending, that experts, ranks and nodes all allow.

    A degree divides the experts (each rank holds equally many) and the ranks (each group is complete), and a
    group is a part of a node that divides it or some whole nodes, as the forwarding between GPUs of the same
    index demands.
    """
    return tuple(
        degree
        for degree in range(1, min(num_experts, num_ranks) + 1)
        if num_experts % degree == 0 and num_ranks % degree == 0 and fits_nodes(degree, gpus_per_node)
    )


def fits_nodes(degree: int, gpus_per_node: int) -> bool:
    """Return whether groups of `degree` consecutive ranks are equal parts of a node, or whole nodes."""
    return gpus_per_node % degree == 0 or degree % gpus_per_node == 0
