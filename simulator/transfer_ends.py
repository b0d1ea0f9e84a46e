"""Between which ranks and nodes the transfers of a collective move bytes."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from workloads.tasks import Layout, Transfers

IntArray = NDArray[np.int64]

SEVERAL: Final = -1


@dataclass(frozen=True, slots=True)
class TransferEnds:
    """Where the bytes of transfers come from and go to: [num_transfers] each, SEVERAL where an end is more than one.

    A reduction comes from the destinations of its tree, and goes to its source.
    """

    source_rank: IntArray
    destination_rank: IntArray
    source_node: IntArray
    destination_node: IntArray

    @classmethod
    def of(cls, transfers: Transfers, layout: Layout) -> Self:
        """Return the ends of transfers."""
        fan, fan_node = _common_destination(transfers, layout)
        source, source_node = transfers.source_rank, layout.node_of_rank[transfers.source_rank]
        return cls(
            source_rank=np.where(transfers.reduce, fan, source),
            destination_rank=np.where(transfers.reduce, source, fan),
            source_node=np.where(transfers.reduce, fan_node, source_node),
            destination_node=np.where(transfers.reduce, source_node, fan_node),
        )


def _common_destination(transfers: Transfers, layout: Layout) -> tuple[IntArray, IntArray]:
    """Return the destination rank and node of each transfer, SEVERAL where they differ."""
    first = transfers.destination_offsets[:-1]
    single = np.diff(transfers.destination_offsets) == 1
    ranks = np.where(single, transfers.destination_ranks[first], SEVERAL)
    nodes = layout.node_of_rank[transfers.destination_ranks]
    alike = np.minimum.reduceat(nodes, first) == np.maximum.reduceat(nodes, first) if len(first) else single
    return ranks, np.where(alike, nodes[first], SEVERAL)
