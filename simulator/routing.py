"""Which cables between switches a flow takes: one function per policy.

A fabric is switches joined by directed cables. All policies choose among the shortest paths between two
switches (equal-cost paths); parallel cables make paths of their own. They differ in how they choose:

`ecmp`          every switch on the way hashes the flow to one of its equal-cost cables, with a seed
`static`        destination mod k: every switch sends all traffic of a destination over one cable
`adaptive`      packet by packet: the flow is split over all equal-cost paths by equal coefficients
`least-loaded`  the whole flow takes the path whose fullest cable has the least left to send
`minimal`       as `ecmp`, but between groups of a Dragonfly over one global cable, also where two would be shorter
`valiant`       a minimal path to a random router (Slim Fly) or group (Dragonfly), and a minimal one on from there
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.rows import csr_offsets, csr_select

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# A path or a bundle of paths: cables, and the bytes that each carries per byte of the flow.
Route = list[tuple[int, float]]

# The length of a cable between groups where one of them is to be preferred to two: a path has at most a local cable
# on either side of it, so that with this it is shorter than any path with two.
ONE_GLOBAL_CABLE: Final = 3


class NoPathError(ValueError):
    """Two endpoints have no path between them."""


@dataclass(frozen=True, slots=True)
class Request:
    """A flow that looks for its way from one switch to another.

    destination: the endpoint's number among those of the fabric, counted leaf by leaf (for `static`)
    flow: a number that tells this flow from others of its collective (for `ecmp`, `minimal` and `valiant`)
    """

    source_switch: int
    destination_switch: int
    destination: int
    flow: int


@dataclass(frozen=True, slots=True)
class _Tree:
    """The shortest paths towards one switch.

    distance: [num_switches] length of the shortest path, -1 for switches that do not reach it
    num_paths: [num_switches] how many of that length there are
    """

    distance: IntArray
    num_paths: IntArray


@dataclass(slots=True)
class Fabric:
    """Switches 0 .. n-1 and the directed cables between them.

    cables_from: [num_switches] -> [(cable, next switch)] in order of (next switch, cable)
    group_of: [num_switches] the group of each router; empty, or -1, where there are no groups
    length_between_groups: of a cable that joins two groups; all others have length 1
    """

    cables_from: list[list[tuple[int, int]]]
    group_of: Sequence[int] = ()
    length_between_groups: int = 1
    _ends: tuple[IntArray, IntArray, IntArray] = field(init=False, repr=False)
    _landings: dict[int, dict[int, list[int]]] = field(init=False, repr=False, default_factory=dict)
    _trees: dict[int, _Tree] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        # All cables by the switch that they lead to, as CSR rows: offsets, sources, lengths.
        target = np.array([following for row in self.cables_from for _, following in row], np.int64)
        source = np.repeat(np.arange(len(self.cables_from)), [len(row) for row in self.cables_from])
        order = np.lexsort((source, target))
        source, target = source[order], target[order]
        length = np.ones(len(target), np.int64)
        if len(self.group_of):
            group = np.asarray(self.group_of)
            length[group[source] != group[target]] = self.length_between_groups
        offsets = csr_offsets(np.bincount(target, minlength=len(self.cables_from)))
        self._ends = offsets, source, length

    def without(self, dead_cables: frozenset[int]) -> "Fabric":
        """Return the fabric that is left when these cables carry nothing."""
        alive = [[pair for pair in row if pair[0] not in dead_cables] for row in self.cables_from]
        return Fabric(alive, self.group_of, self.length_between_groups)

    def hops(self, source_switch: int, destination_switch: int) -> int | None:
        """Return the length of the shortest path between two switches, None if there is no path."""
        distance = int(self._tree(destination_switch).distance[source_switch])
        return None if distance < 0 else distance

    def num_paths(self, source_switch: int, destination_switch: int) -> int:
        """Return how many equal-cost paths there are between two switches."""
        return int(self._tree(destination_switch).num_paths[source_switch])

    def next_cables(self, switch: int, destination_switch: int) -> list[tuple[int, int]]:
        """Return the (cable, next switch) pairs at `switch` that lie on a shortest path to the destination."""
        distance = self._tree(destination_switch).distance
        here = int(distance[switch])
        return [
            pair
            for pair in self.cables_from[switch]
            if 0 <= distance[pair[1]] == here - self._length(switch, pair[1])
        ]

    def landings(self, switch: int) -> dict[int, list[int]]:
        """Return the routers of other groups at which cables from the group of a router end: group -> routers."""
        group = self.group_of[switch]
        if group not in self._landings:
            found: dict[int, set[int]] = {}
            for member, row in enumerate(self.cables_from):
                if self.group_of[member] == group:
                    for _, following in row:
                        if self.group_of[following] != group:
                            found.setdefault(self.group_of[following], set()).add(following)
            self._landings[group] = {number: sorted(found[number]) for number in sorted(found)}
        return self._landings[group]

    def _length(self, switch: int, following: int) -> int:
        if len(self.group_of) and self.group_of[switch] != self.group_of[following]:
            return self.length_between_groups
        return 1

    def _tree(self, destination_switch: int) -> _Tree:
        """Return the shortest paths to a switch, found once: length by length, all switches of one at once."""
        if destination_switch not in self._trees:
            offsets, source, length = self._ends
            distance = np.full(len(self.cables_from), -1)
            num_paths = np.zeros(len(self.cables_from), np.int64)
            distance[destination_switch], num_paths[destination_switch] = 0, 1
            pending: dict[int, list[IntArray]] = {0: [np.array([destination_switch])]}
            while pending:
                reached = min(pending)
                found = np.unique(np.concatenate(pending.pop(reached)))
                found = found[distance[found] == reached]
                into = _entries(offsets, found)
                onward = np.repeat(num_paths[found], np.diff(offsets)[found])
                for step in np.unique(length[into]).tolist():
                    of_step = length[into] == step
                    previous = source[into[of_step]]
                    farther = (distance[previous] < 0) | (distance[previous] > reached + step)
                    distance[previous[farther]] = reached + step
                    num_paths[previous[farther]] = 0
                    tight = distance[previous] == reached + step
                    np.add.at(num_paths, previous[tight], onward[of_step][tight])
                    pending.setdefault(reached + step, []).append(previous[tight])
            self._trees[destination_switch] = _Tree(distance, num_paths)
        return self._trees[destination_switch]


def _entries(offsets: IntArray, rows: IntArray) -> IntArray:
    """Return the places of all entries of some CSR rows."""
    return csr_select(offsets, rows)[1]


def ecmp(fabric: Fabric, request: Request, seed: int, _backlog_s: FloatArray) -> Route:
    """Return the path on which every switch's hash of (seed, flow, switch) sends the flow."""
    route: Route = []
    switch = request.source_switch
    while switch != request.destination_switch:
        choices = fabric.next_cables(switch, request.destination_switch)
        cable, switch = choices[_hash(seed, request.flow, switch) % len(choices)]
        route.append((cable, 1.0))
    return route


def static(fabric: Fabric, request: Request, _seed: int, _backlog_s: FloatArray) -> Route:
    """Return the path that destination mod k gives, for k next switches, and its quotient for parallel cables.

    So the destinations of a leaf spread evenly over spines and over the parallel cables to each of them, on the
    way up as on the way down (D-mod-k: Zahavi, "Fat-tree routing and node ordering providing contention free
    traffic for MPI global collectives", J. Parallel Distrib. Comput. 72, 2012).
    """
    route: Route = []
    switch, number = request.source_switch, request.destination
    while switch != request.destination_switch:
        choices = fabric.next_cables(switch, request.destination_switch)
        switches = sorted({following for _, following in choices})
        number, pick = divmod(number, len(switches))
        switch = switches[pick]
        parallel = [cable for cable, following in choices if following == switch]
        route.append((parallel[number % len(parallel)], 1.0))
    return route


def adaptive(fabric: Fabric, request: Request, _seed: int, _backlog_s: FloatArray) -> Route:
    """Return all equal-cost paths at once, each with the same share of the flow.

    A cable's coefficient is the share of the shortest paths that cross it: of what arrives at a switch, each
    next cable takes as much as paths go on behind it.
    """
    route: Route = []
    arriving = {request.source_switch: 1.0}
    while request.destination_switch not in arriving:
        leaving: dict[int, float] = {}
        for switch in sorted(arriving):
            paths = fabric.num_paths(switch, request.destination_switch)
            for cable, following in fabric.next_cables(switch, request.destination_switch):
                onward = fabric.num_paths(following, request.destination_switch)
                share = arriving[switch] * onward / paths
                route.append((cable, share))
                leaving[following] = leaving.get(following, 0.0) + share
        arriving = leaving
    return route


def least_loaded(fabric: Fabric, request: Request, _seed: int, backlog_s: FloatArray) -> Route:
    """Return the path whose fullest cable has the least to send; ties: the least in sum, then the lowest cables.

    backlog_s: [num_cables] seconds that each cable needs for what it has yet to send
    """
    best: dict[int, tuple[float, float, Route]] = {request.destination_switch: (0.0, 0.0, [])}

    def rest(switch: int) -> tuple[float, float, Route]:
        if switch not in best:
            options = []
            for cable, following in fabric.next_cables(switch, request.destination_switch):
                fullest, total, route = rest(following)
                wait_s = float(backlog_s[cable])
                options.append((max(wait_s, fullest), wait_s + total, [(cable, 1.0), *route]))
            best[switch] = min(options)
        return best[switch]

    return rest(request.source_switch)[2]


def minimal(fabric: Fabric, request: Request, seed: int, backlog_s: FloatArray) -> Route:
    """Return a shortest path, chosen among those by hash; `fabric` says what counts as short.

    With `length_between_groups` ONE_GLOBAL_CABLE a path between groups of a Dragonfly is at most a local, a global
    and a local cable (Kim, Dally, Scott and Abts, "Technology-driven, highly-scalable dragonfly topology", ISCA 2008,
    section 4.1, MIN). On a Slim Fly it is at most two cables (Besta and Hoefler, SC 2014, section 4.1).
    """
    return ecmp(fabric, request, seed, backlog_s)


def valiant(fabric: Fabric, request: Request, seed: int, backlog_s: FloatArray) -> Route:
    """Return a minimal path to a place drawn by hash, and then a minimal one to the destination.

    On a Slim Fly the place is any other router (Besta and Hoefler, SC 2014, section 4.2, VAL). On a Dragonfly it is
    the end of a cable from the source's group into any third one (Kim et al., ISCA 2008, section 4.1, VAL); traffic
    within a group does not leave it. Where no place is left, the path is minimal. It spreads what otherwise would
    crowd, at up to twice the cables a byte (Valiant, "A scheme for fast parallel communication", SIAM J. Comput. 11,
    1982). A cable that is crossed twice is charged twice.
    """
    start, end = request.source_switch, request.destination_switch
    by_group = len(fabric.group_of) > 0 and fabric.length_between_groups > 1
    if by_group and fabric.group_of[start] == fabric.group_of[end]:
        return minimal(fabric, request, seed, backlog_s)
    places = _places_between(fabric, start, end, _hash(seed, request.flow, _VALIANT), by_group=by_group)
    place = next(
        (at for at in places if fabric.hops(start, at) is not None and fabric.hops(at, end) is not None), None
    )
    if place is None:
        return minimal(fabric, request, seed, backlog_s)
    there = Request(start, place, request.destination, request.flow)
    on = Request(place, end, request.destination, request.flow)
    return [*minimal(fabric, there, seed, backlog_s), *minimal(fabric, on, seed, backlog_s)]


def _places_between(fabric: Fabric, start: int, end: int, pick: int, *, by_group: bool) -> Iterator[int]:
    """Yield the switches over which a path may lead, in a circle from the one that a number picks; see `valiant`."""
    if not by_group:
        num_switches = len(fabric.cables_from)
        for step in range(num_switches - 2):
            place = (pick + step) % (num_switches - 2)  # of all switches but two
            for taken in sorted((start, end)):
                place += place >= taken
            yield place
        return
    landings = fabric.landings(start)
    groups = [group for group in landings if group != fabric.group_of[end]]
    pick, first = divmod(pick, max(1, len(groups)))
    for number in range(len(groups)):
        routers = landings[groups[(first + number) % len(groups)]]
        for step in range(len(routers)):
            yield routers[(pick + step) % len(routers)]


Policy = Callable[[Fabric, Request, int, FloatArray], Route]
POLICIES: Final[dict[str, Policy]] = {
    "adaptive": adaptive,
    "ecmp": ecmp,
    "least-loaded": least_loaded,
    "minimal": minimal,
    "static": static,
    "valiant": valiant,
}

_MASK: Final = (1 << 64) - 1
_VALIANT: Final = 1 << 32  # tells the draw of a place from the hashes of switches, whose numbers are smaller


def _hash(*numbers: int) -> int:
    """Return 64 well mixed bits of some integers: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), chained."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state
