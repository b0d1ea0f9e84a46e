"""A tournament: which of many numbered values is least, kept up to date as single values change.

The values are the leaves of a tree in which each inner node holds the least of its eight children. To change a value
is a walk to the top, to find the least a walk down; eight numbers side by side are one cache line, and their least is
found without a branch that a processor could guess wrongly. Equal values: the lowest number wins.

tree: [nodes]; the first eight nodes are the top, the children of node i are 8 (i + 1) to 8 (i + 1) + 7, and the
values are the last level, in order, filled up with infinity to a multiple of eight.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.compiled import compiled

FloatArray = NDArray[np.float64]

_CHILDREN = 8


def new_tournament(num_values: int) -> FloatArray:
    """Return a tournament of this many values, all infinite."""
    first, width = 0, _CHILDREN
    while width < num_values:
        first, width = _CHILDREN * (first + 1), _CHILDREN * width
    return np.full(first + max(1, -(-num_values // _CHILDREN)) * _CHILDREN, np.inf)


@compiled
def first_value(tree: FloatArray) -> int:
    """Return the node of value 0."""
    first, width = 0, _CHILDREN
    while first + width < len(tree):
        first, width = _CHILDREN * (first + 1), _CHILDREN * width
    return first


@compiled
def set_value(tree: FloatArray, number: int, value: float) -> None:
    """Change one value."""
    node = first_value(tree) + number
    tree[node] = value
    while node >= _CHILDREN:
        node //= _CHILDREN
        least_child = _least_from(tree, _CHILDREN * node)
        node -= 1
        if tree[node] == least_child:
            return
        tree[node] = least_child


@compiled
def least(tree: FloatArray) -> int:
    """Return the number of the least value."""
    first = first_value(tree)
    node = _place_of_least(tree, 0)
    while node < first:
        node = _place_of_least(tree, _CHILDREN * (node + 1))
    return node - first


@compiled
def least_value(tree: FloatArray) -> float:
    """Return the least value."""
    return _least_from(tree, 0)


@compiled
def set_values(tree: FloatArray, values: FloatArray) -> int:
    """Write a tournament of these values to the front of an array; return its length there."""
    first, width = 0, _CHILDREN
    while width < len(values):
        first, width = _CHILDREN * (first + 1), _CHILDREN * width
    for number in range(len(values)):
        tree[first + number] = values[number]
    start, used = first, len(values)
    length = _fill_up(tree, start, used)
    while start > 0:
        above = start // _CHILDREN - 1
        blocks = (used + _CHILDREN - 1) // _CHILDREN
        for block in range(blocks):
            tree[above + block] = _least_from(tree, start + _CHILDREN * block)
        start, used = above, blocks
        _fill_up(tree, start, used)
    return length


@compiled
def _fill_up(tree: FloatArray, start: int, used: int) -> int:
    """Fill a level up with infinity to whole eights; return where it ends."""
    end = start + max(1, (used + _CHILDREN - 1) // _CHILDREN) * _CHILDREN
    for node in range(start + used, end):
        tree[node] = np.inf
    return end


@compiled
def _least_from(tree: FloatArray, start: int) -> float:
    """Return the least of eight values."""
    return min(
        tree[start],
        tree[start + 1],
        tree[start + 2],
        tree[start + 3],
        tree[start + 4],
        tree[start + 5],
        tree[start + 6],
        tree[start + 7],
    )


@compiled
def _place_of_least(tree: FloatArray, start: int) -> int:
    """Return the node of the first of eight values that is least."""
    place, value = start, tree[start]
    for node in range(start + 1, start + _CHILDREN):
        if tree[node] < value:
            place, value = node, tree[node]
    return place
