"""A pairing heap of flows by target: which flow of a group ends first (Fredman et al., Algorithmica 1 (1986) 111).

A heap is known by its first flow. Each flow knows its first child and its next sibling, and no child's target is
below its parent's; equal targets: the lower number goes first.
"""

from typing import Any

from numpy.typing import NDArray

from simulator.compiled import compiled
from simulator.sharing import NOWHERE


@compiled
def meld(flows: NDArray[Any], one: int, other: int) -> int:
    """Return the first flow of two heaps made one; either may be empty (NOWHERE)."""
    if one == NOWHERE:
        return other
    if other == NOWHERE:
        return one
    first, second = one, other
    a, b = flows[one].target, flows[other].target
    if b < a or (b == a and other < one):
        first, second = other, one
    flows[second].sibling = flows[first].child
    flows[first].child = second
    return first


@compiled
def without_first(flows: NDArray[Any], first: int) -> int:
    """Return the first flow of a heap without the one that it is known by: its children melded by pairs."""
    child = flows[first].child
    flows[first].child = NOWHERE
    pairs = NOWHERE
    while child != NOWHERE:
        other = flows[child].sibling
        flows[child].sibling = NOWHERE
        after = NOWHERE
        if other != NOWHERE:
            after = flows[other].sibling
            flows[other].sibling = NOWHERE
        pair = meld(flows, child, other)
        flows[pair].sibling = pairs
        pairs = pair
        child = after
    rest = NOWHERE
    while pairs != NOWHERE:
        after = flows[pairs].sibling
        flows[pairs].sibling = NOWHERE
        rest = meld(flows, rest, pairs)
        pairs = after
    return rest
