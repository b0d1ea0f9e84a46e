"""RankLayout: where each rank of the parallel layout runs. The only place where ranks meet GPUs."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class RankLayout:
    """Each rank's GPU: no two ranks share one.

    node_of_rank, gpu_of_rank: [num_ranks] the node, and the GPU's index within it
    """

    num_nodes: int
    gpus_per_node: int
    node_of_rank: IntArray
    gpu_of_rank: IntArray

    @classmethod
    def in_order(cls, num_nodes: int, gpus_per_node: int) -> Self:
        """Return the layout with a rank on every GPU, node after node: rank r on node r // gpus_per_node."""
        nodes, gpus = np.divmod(np.arange(num_nodes * gpus_per_node), gpus_per_node)
        return cls(num_nodes, gpus_per_node, nodes, gpus)

    @property
    def num_ranks(self) -> int:
        """Number of ranks."""
        return len(self.node_of_rank)

    @cached_property
    def endpoint_of_rank(self) -> IntArray:
        """[num_ranks] each rank's GPU, all GPUs of the cluster being numbered node after node."""
        return self.node_of_rank * self.gpus_per_node + self.gpu_of_rank

    @cached_property
    def rank_at(self) -> IntArray:
        """[num_nodes, gpus_per_node] the rank on each GPU, -1 where there is none."""
        ranks = np.full((self.num_nodes, self.gpus_per_node), -1)
        ranks[self.node_of_rank, self.gpu_of_rank] = np.arange(self.num_ranks)
        return ranks
