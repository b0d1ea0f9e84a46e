"""How much a workload's step holds, counted before anything of it is built.

Every workload's spec says it by arithmetic of its own, in a moment and at any size: exactly, or at most, where only
what is drawn says how many ranks tokens go to.
"""

from dataclasses import dataclass
from typing import NamedTuple


class TransferCount(NamedTuple):
    """How many transfers, and how many stops all of them make: relays and destinations."""

    transfers: int = 0
    stops: int = 0

    def plus(self, other: "TransferCount") -> "TransferCount":
        """Return these and others."""
        return TransferCount(self.transfers + other.transfers, self.stops + other.stops)

    def times(self, count: int) -> "TransferCount":
        """Return so many times as many."""
        return TransferCount(self.transfers * count, self.stops * count)


@dataclass(frozen=True, slots=True)
class WorkSize:
    """How many of everything a step has, exactly or at most.

    tasks, collectives: of the task graph
    held: the transfers that are kept, those that collectives share counted once
    together: the transfers that can be under way at a time
    flows: the transfers of all collectives, as often as they run
    repeats: whether most collectives have their links for themselves, so that those that share transfers do the same
    drawn: numbers in the tables that are kept or filled while tokens get their experts, or requests their caches
    field: the workload's, which says how much that is, dotted; remedy: what to do for less, as messages have it
    """

    tasks: int
    collectives: int
    held: TransferCount
    together: TransferCount
    flows: int
    drawn: int
    field: str
    remedy: str
    repeats: bool = True


def exchange_count(degree: int, num_slots: int, choices: int, *, relayed: bool) -> TransferCount:
    """Return the most transfers of a dispatch, or of a combine, within one group of ranks.

    degree: ranks of the group, on `num_slots` nodes; choices: of experts by a rank's tokens: each leads to one rank
    relayed: whether a copy for each node is handed on there, as by normal kernels, or each rank gets its own
    """
    ranks = min(degree - 1, choices)
    if not relayed:
        return TransferCount(ranks, ranks).times(degree)
    other_nodes = min(num_slots - 1, choices)
    nodes = min(other_nodes + (degree > num_slots), choices)
    return TransferCount(nodes, ranks + other_nodes).times(degree)


def counted_numbers(degree: int, num_slots: int) -> int:
    """Return the numbers in which a draw's traffic of one rank is counted.

    Tokens and pairs for each rank of its group, and tokens for each node of it.
    """
    return 2 * degree + num_slots
