"""Diameter and bisection of a network whose graph is at hand; `simulator.extent` says what they are."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topologies import ClusterGraph

_MOST_HALVINGS: Final = 32
_MOST_ROUNDS: Final = 12


def graph_diameter(graph: ClusterGraph) -> tuple[int, bool]:
    """Return the diameter in cables, and whether all switches of a plane that hold NICs reach each other."""
    switches = [vertex for vertex, data in graph.nodes.items() if data["kind"] == "switch"]
    number = {vertex: place for place, vertex in enumerate(switches)}
    pairs = [
        (number[one], number[other]) for one, other in graph.edges() if one in number and other in number
    ]
    holding: dict[int, set[int]] = {}
    for _, other, data in graph.edges(data=True):
        if data["kind"] == "nic" and other in number:
            holding.setdefault(graph.nodes[other]["plane"], set()).add(number[other])
    return diameter_of_pairs(len(switches), pairs, [sorted(own) for own in holding.values()])


def diameter_of_pairs(
    num_switches: int, pairs: Iterable[tuple[int, int]], planes: Sequence[Sequence[int]]
) -> tuple[int, bool]:
    """Return the most cables between two switches of one plane, and whether all of each plane reach each other.

    pairs: the switches that cables join; planes: for each plane, its switches that hold endpoints.
    """
    neighbours: list[set[int]] = [set() for _ in range(num_switches)]
    for one, other in pairs:
        neighbours[one].add(other)
        neighbours[other].add(one)
    wanted = [(own, sum(1 << switch for switch in own)) for own in planes]
    # Bit s of reached[t]: switch s is at most `hops` cables from t. All switches take a step at once.
    reached = [1 << switch for switch in range(num_switches)]
    hops = 0
    while any(
        reached[switch] & all_of_plane != all_of_plane for own, all_of_plane in wanted for switch in own
    ):
        further = list(reached)
        for switch, around in enumerate(neighbours):
            for neighbour in around:
                further[switch] |= reached[neighbour]
        if further == reached:
            return _farthest(neighbours, wanted), False
        reached, hops = further, hops + 1
    return hops, True


def _farthest(neighbours: list[set[int]], planes: list[tuple[Sequence[int], int]]) -> int:
    """Return the most cables between two switches of one plane that do reach each other."""
    reached = [1 << switch for switch in range(len(neighbours))]
    hops = farthest = 0
    while True:
        further = list(reached)
        for switch, around in enumerate(neighbours):
            for neighbour in around:
                further[switch] |= reached[neighbour]
        if further == reached:
            return farthest
        hops += 1
        if any((further[one] & ~reached[one]) & all_of_plane for own, all_of_plane in planes for one in own):
            farthest = hops
        reached = further


def graph_bisection(graph: ClusterGraph) -> float:
    """Return an upper bound of the bisection in bytes per second one way; 0 for one node.

    The first half of the nodes, counted on from each of at most 32 places, against the others. Any placing of the
    switches gives a cut; each is put, a few times over, on the side to which more of its capacity leads.
    """
    num_nodes = graph.graph["num_nodes"]
    vertices = [vertex for vertex, data in graph.nodes.items() if data["kind"] in {"nic", "switch"}]
    number = {vertex: place for place, vertex in enumerate(vertices)}
    cables = [
        (number[one], number[other], data["capacity_bytes_per_s"])
        for one, other, data in graph.edges(data=True)
        if one in number and other in number and number[one] < number[other]
    ]
    if num_nodes < 2 or not cables:
        return 0.0
    ends = np.array([cable[:2] for cable in cables], np.int64)
    capacity = np.array([cable[2] for cable in cables])
    node = np.array([graph.nodes[vertex].get("node", -1) for vertex in vertices])
    places = range(0, num_nodes // 2, max(1, num_nodes // 2 // _MOST_HALVINGS))
    return min(_least_cut(node, (node - place) % num_nodes, num_nodes, ends, capacity) for place in places)


def _least_cut(
    node: NDArray[np.int64],
    turn: NDArray[np.int64],
    num_nodes: int,
    ends: NDArray[np.int64],
    capacity: NDArray[np.float64],
) -> float:
    """Return the least cut found between the nodes with a turn in the first half and those in the second.

    node, turn: [num_vertices] the NIC's node and its turn; node is -1 for switches. Of an odd number of nodes the
    last is in neither half, and is placed as the switches are.
    """
    half = num_nodes // 2
    free = (node < 0) | (turn >= 2 * half)
    fixed = np.where(turn < half, 1.0, -1.0)
    side = np.where(free, 0.0, fixed)
    one, other = ends.T

    def cut(signs: NDArray[np.float64]) -> float:
        return float(capacity[signs[one] != signs[other]].sum())

    least = min(cut(np.where(free, sign, fixed)) for sign in (1.0, -1.0))
    for _ in range(_MOST_ROUNDS):
        pull = np.bincount(one, capacity * side[other], len(node))
        pull += np.bincount(other, capacity * side[one], len(node))
        moved = np.where(free, np.sign(pull), fixed)
        least = min(least, *(cut(np.where(moved == 0.0, sign, moved)) for sign in (1.0, -1.0)))
        if np.array_equal(moved, side):
            break
        side = moved
    return least
