"""The cables of a cluster graph as arrays, and which of them may share one link of the fluid network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topologies.schema import ClusterGraph

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_UPWARD: Final = {("leaf", "spine"): 1, ("spine", "leaf"): -1}


@dataclass(frozen=True, slots=True)
class LinkCosts:
    """What a cost table says of the cables of one profile.

    efficiency: share of the datasheet capacity that payload reaches
    latency_s: end to end, through one switch; switch_latency_s: more for each further switch
    """

    efficiency: float
    latency_s: float
    switch_latency_s: float


@dataclass(frozen=True, slots=True)
class Cables:
    """The directed edges of the cluster graph, in its order: arrays of shape [num_cables].

    source, target: vertex names; key: number among parallel cables; kind, profile: as the graph has them
    capacity_bytes_per_s: datasheet; effective_bytes_per_s: times the profile's efficiency
    plane, node: -1 where a cable belongs to none
    upward: 1 from a leaf switch to a spine, -1 back, 0 for all other cables
    """

    source: NDArray[np.str_]
    target: NDArray[np.str_]
    key: IntArray
    kind: NDArray[np.str_]
    profile: NDArray[np.str_]
    capacity_bytes_per_s: FloatArray
    effective_bytes_per_s: FloatArray
    plane: IntArray
    node: IntArray
    upward: IntArray

    @classmethod
    def of_graph(cls, graph: ClusterGraph, costs: Mapping[str, LinkCosts]) -> "Cables":
        """Return the cables of a graph that keeps the vocabulary of `topologies.schema`."""
        edges = list(graph.edges(keys=True, data=True))
        vertices = [(graph.nodes[source], graph.nodes[target]) for source, target, _, _ in edges]
        profile = [data["profile"] for *_, data in edges]
        capacity = np.array([data["capacity_bytes_per_s"] for *_, data in edges], np.float64)
        efficiency = np.array([costs[name].efficiency for name in profile])
        return cls(
            source=np.array([source for source, *_ in edges]),
            target=np.array([target for _, target, *_ in edges]),
            key=np.array([key for *_, key, _ in edges], np.int64),
            kind=np.array([data["kind"] for *_, data in edges]),
            profile=np.array(profile),
            capacity_bytes_per_s=capacity,
            effective_bytes_per_s=capacity * efficiency,
            plane=np.array([max(a.get("plane", -1), b.get("plane", -1)) for a, b in vertices], np.int64),
            node=np.array([max(a.get("node", -1), b.get("node", -1)) for a, b in vertices], np.int64),
            upward=np.array(
                [_UPWARD.get((a.get("layer", ""), b.get("layer", "")), 0) for a, b in vertices], np.int64
            ),
        )

    def __len__(self) -> int:
        return len(self.kind)


def bundle_cables(cables: Cables) -> IntArray:
    """Return the link of each cable [num_cables] when cables that carry equal load share one.

    For adaptive routing only, under which parallel cables always carry equal load. If, in a plane, every leaf
    has the same number of cables to every spine, all of the same capacity, then all spines lie on equally many
    shortest paths between any two leaves: a flow between them charges every cable up from the one, and every
    cable down to the other, alike. All cables up from a leaf then are one link of their summed capacity, and
    all cables down to it another: the link fills at the same instant as each of its cables would, so that
    rates are the same.
    """
    regular = {int(plane): _is_regular(cables, int(plane)) for plane in np.unique(cables.plane)}
    link: dict[tuple[object, ...], int] = {}
    link_of_cable = np.empty(len(cables), np.int64)
    for cable in range(len(cables)):
        source, target, upward = (
            str(cables.source[cable]),
            str(cables.target[cable]),
            int(cables.upward[cable]),
        )
        if upward == 0:
            bundle: tuple[object, ...] = (cable,)
        elif regular[int(cables.plane[cable])]:
            bundle = (upward, source if upward > 0 else target)
        else:
            bundle = (source, target, float(cables.effective_bytes_per_s[cable]))
        link_of_cable[cable] = link.setdefault(bundle, len(link))
    return link_of_cable


def _is_regular(cables: Cables, plane: int) -> bool:
    """Return whether each leaf of a plane has equally many cables to each spine, all of one capacity."""
    up = np.flatnonzero((cables.upward > 0) & (cables.plane == plane))
    if not len(up):
        return True
    pairs, counts = np.unique(np.stack([cables.source[up], cables.target[up]]), axis=1, return_counts=True)
    complete = pairs.shape[1] == len(np.unique(pairs[0])) * len(np.unique(pairs[1]))
    alike = len(np.unique(counts)) == 1 and len(np.unique(cables.effective_bytes_per_s[up])) == 1
    return bool(complete and alike)
