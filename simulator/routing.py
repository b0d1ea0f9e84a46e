"""Which cables between switches a flow takes: one function per policy.

A fabric is switches joined by directed cables. All policies choose among the shortest paths between two
switches (equal-cost paths); parallel cables make paths of their own. They differ in how they choose:

`ecmp`          every switch on the way hashes the flow to one of its equal-cost cables, with a seed
`static`        destination mod k: every switch sends all traffic of a destination over one cable
`adaptive`      packet by packet: the flow is split over all equal-cost paths by equal coefficients
`least-loaded`  the whole flow takes the path whose fullest cable has the least left to send
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# A path or a bundle of paths: cables, and the bytes that each carries per byte of the flow.
Route = list[tuple[int, float]]


class NoPathError(ValueError):
    """Two endpoints have no path between them."""


@dataclass(frozen=True, slots=True)
class Request:
    """A flow that looks for its way from one switch to another.

    destination: the endpoint's number among those of the fabric, counted leaf by leaf (for `static`)
    flow: a number that tells this flow from others of its collective (for `ecmp`)
    """

    source_switch: int
    destination_switch: int
    destination: int
    flow: int


@dataclass(frozen=True, slots=True)
class _Tree:
    """The equal-cost paths towards one switch.

    distance: switch -> hops; num_paths: switch -> number of shortest paths; both only for switches that reach it
    """

    distance: dict[int, int]
    num_paths: dict[int, int]


@dataclass(slots=True)
class Fabric:
    """Switches 0 .. n-1 and the directed cables between them.

    cables_from: [num_switches] -> [(cable, next switch)] in order of (next switch, cable)
    """

    cables_from: list[list[tuple[int, int]]]
    _sources_of: list[list[int]] = field(init=False)
    _trees: dict[int, _Tree] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sources_of = [[] for _ in self.cables_from]
        for switch, cables in enumerate(self.cables_from):
            for _, following in cables:
                self._sources_of[following].append(switch)

    def hops(self, source_switch: int, destination_switch: int) -> int | None:
        """Return the number of cables between two switches, None if there is no path."""
        return self._tree(destination_switch).distance.get(source_switch)

    def num_paths(self, source_switch: int, destination_switch: int) -> int:
        """Return how many equal-cost paths there are between two switches."""
        return self._tree(destination_switch).num_paths.get(source_switch, 0)

    def next_cables(self, switch: int, destination_switch: int) -> list[tuple[int, int]]:
        """Return the (cable, next switch) pairs at `switch` that lie on a shortest path to the destination."""
        distance = self._tree(destination_switch).distance
        closer = distance[switch] - 1
        return [pair for pair in self.cables_from[switch] if distance.get(pair[1]) == closer]

    def _tree(self, destination_switch: int) -> _Tree:
        """Return the shortest paths to a switch, found breadth first, each tree once."""
        if destination_switch not in self._trees:
            distance, num_paths = {destination_switch: 0}, {destination_switch: 1}
            queue = deque([destination_switch])
            while queue:
                switch = queue.popleft()
                for previous in self._sources_of[switch]:
                    if previous not in distance:
                        distance[previous], num_paths[previous] = distance[switch] + 1, 0
                        queue.append(previous)
                    if distance[previous] == distance[switch] + 1:
                        num_paths[previous] += num_paths[switch]
            self._trees[destination_switch] = _Tree(distance, num_paths)
        return self._trees[destination_switch]


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


Policy = Callable[[Fabric, Request, int, FloatArray], Route]
POLICIES: Final[dict[str, Policy]] = {
    "adaptive": adaptive,
    "ecmp": ecmp,
    "least-loaded": least_loaded,
    "static": static,
}

_MASK: Final = (1 << 64) - 1


def _hash(*numbers: int) -> int:
    """Return 64 well mixed bits of some integers: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), chained."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state
