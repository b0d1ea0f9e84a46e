"""The cables of a cluster graph as arrays, and which of them may share one link of the fluid network."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topologies.schema import ClusterGraph

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Texts = NDArray[np.object_]  # of str: names are shared with the graph, and may be millions

_LAYERS: Final = {"leaf": 0, "spine": 1, "core": 2}  # of trees, upwards
_NO_LAYER: Final = -9


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

    source, target: vertex names; source_vertex, target_vertex: the places of those among the graph's vertices
    key: number among parallel cables; kind, profile: as the graph has them
    capacity_bytes_per_s: datasheet; effective_bytes_per_s: times the profile's efficiency
    plane, node: -1 where a cable belongs to none
    upward: in a tree 1 from a leaf to a spine, 2 from a spine to a core, -1 and -2 back; 0 for all other cables
    pod: of the lower switch of a cable of a tree of three layers, else -1
    """

    source: Texts
    target: Texts
    source_vertex: IntArray
    target_vertex: IntArray
    key: IntArray
    kind: Texts
    profile: Texts
    capacity_bytes_per_s: FloatArray
    effective_bytes_per_s: FloatArray
    plane: IntArray
    node: IntArray
    upward: IntArray
    pod: IntArray

    @classmethod
    def of_graph(cls, graph: ClusterGraph, costs: Mapping[str, LinkCosts]) -> "Cables":
        """Return the cables of a graph that keeps the vocabulary of `topologies.schema`."""
        source, target = _cable_ends(graph)
        between = [keys for _, targets in graph.adjacency() for keys in targets.values()]  # parallel cables
        data = [data for keys in between for data in keys.values()]
        names = _texts(graph)
        profile = _texts([edge["profile"] for edge in data])
        capacity = np.array([edge["capacity_bytes_per_s"] for edge in data], np.float64)
        efficiency = np.array([costs[name].efficiency for name in profile.tolist()])
        plane, node, group = (_of_vertices(graph, name) for name in ("plane", "node", "group"))
        layers = [_LAYERS.get(vertex.get("layer", ""), _NO_LAYER) for _, vertex in graph.nodes(data=True)]
        layer = np.array(layers, np.int64)
        rise = layer[target] - layer[source]
        upward = np.where(np.abs(rise) == 1, rise * np.maximum(layer[source], layer[target]), 0)
        lower = np.where(upward > 0, source, target)
        return cls(
            source=names[source],
            target=names[target],
            source_vertex=source,
            target_vertex=target,
            key=np.array([key for keys in between for key in keys], np.int64),
            kind=_texts([edge["kind"] for edge in data]),
            profile=profile,
            capacity_bytes_per_s=capacity,
            effective_bytes_per_s=capacity * efficiency,
            plane=np.maximum(plane[source], plane[target]),
            node=np.maximum(node[source], node[target]),
            upward=upward,
            pod=np.where(upward == 0, -1, group[lower]),
        )

    def __len__(self) -> int:
        return len(self.kind)


def _texts(values: Iterable[str]) -> Texts:
    """Return texts as an array of references."""
    texts = list(values)
    array = np.empty(len(texts), np.object_)
    array[:] = texts
    return array


def _of_vertices(graph: ClusterGraph, name: str) -> IntArray:
    """Return an attribute of all vertices, -1 where they have none: [num_vertices]."""
    return np.array([data.get(name, -1) for _, data in graph.nodes(data=True)], np.int64)


def _cable_ends(graph: ClusterGraph) -> tuple[IntArray, IntArray]:
    """Return the source and the target of each directed edge, by place of the vertex: [num_cables] each."""
    place = {vertex: number for number, vertex in enumerate(graph)}
    adjacency = list(graph.adjacency())
    cables_from = [sum(map(len, targets.values())) for _, targets in adjacency]
    target = [place[target] for _, targets in adjacency for target, keys in targets.items() for _ in keys]
    return np.repeat(np.arange(len(place)), cables_from), np.array(target, np.int64)


def bundle_cables(cables: Cables) -> IntArray:
    """Return the link of each cable [num_cables] when cables that carry equal load share one.

    For adaptive routing only, under which parallel cables always carry equal load. In a regular plane (see
    `_is_regular`) all shortest paths between two leaves are alike, so that a flow charges every cable up from
    its first leaf, and every cable down to its last, alike; and if it changes pods, every cable from its first
    pod up to the cores, and down to its last pod. All cables that are alike so are one link of their summed
    capacity: it fills at the same instant as each of them would, so that rates are the same.
    """
    regular = {plane: _is_regular(cables, plane) for plane in np.unique(cables.plane).tolist()}
    first_of: dict[tuple[object, ...], int] = {}
    first = np.arange(len(cables))  # the first cable of the bundle
    for cable in np.flatnonzero(cables.upward).tolist():
        source, target, plane = cables.source[cable], cables.target[cable], int(cables.plane[cable])
        upward = int(cables.upward[cable])
        if not regular[plane]:
            bundle: tuple[object, ...] = (source, target, float(cables.effective_bytes_per_s[cable]))
        elif abs(upward) == 1:
            bundle = (upward, source if upward > 0 else target)
        else:
            bundle = (upward, plane, int(cables.pod[cable]))
        first[cable] = first_of.setdefault(bundle, cable)
    link_of_cable: IntArray = np.unique(first, return_inverse=True)[1]
    return link_of_cable


def _is_regular(cables: Cables, plane: int) -> bool:
    """Return whether all cables of one layer and plane carry equal load under adaptive routing.

    They do if all have one capacity, each leaf has equally many cables to each spine of its pod (a tree of two layers
    is one pod), and, in three layers, spines fall into classes that share no core: every spine of a class has equally
    many cables to every core of the class, all classes have equally many cores, and all pods equally many spines of
    each class. Then as many shortest paths cross each cable as any other of its layer, between whichever leaves.
    """
    up = np.flatnonzero((cables.upward > 0) & (cables.plane == plane))
    if not len(up):
        return True
    if len(np.unique(cables.effective_bytes_per_s[up])) > 1:
        return False
    low, high = up[cables.upward[up] == 1], up[cables.upward[up] == 2]
    pairs_of_pod: defaultdict[int, Counter[tuple[str, str]]] = defaultdict(Counter)
    for pod, source, target in zip(cables.pod[low], cables.source[low], cables.target[low], strict=True):
        pairs_of_pod[int(pod)][source, target] += 1
    if not all(_is_complete(pairs) for pairs in pairs_of_pod.values()):
        return False
    return not len(high) or _are_classes_alike(cables, high, pairs_of_pod)


def _is_complete(pairs: Counter[tuple[str, str]]) -> bool:
    """Return whether every first of the pairs meets every second equally often."""
    firsts, seconds = {first for first, _ in pairs}, {second for _, second in pairs}
    return len(pairs) == len(firsts) * len(seconds) and len(set(pairs.values())) == 1


def _are_classes_alike(
    cables: Cables, high: IntArray, pairs_of_pod: Mapping[int, Counter[tuple[str, str]]]
) -> bool:
    """Return whether the cables between spines and cores carry equal load: see `_is_regular`."""
    cores_of: defaultdict[str, Counter[str]] = defaultdict(Counter)
    pod_of: dict[str, int] = {}
    for pod, source, target in zip(cables.pod[high], cables.source[high], cables.target[high], strict=True):
        cores_of[source][target] += 1
        pod_of[source] = int(pod)
    classes: defaultdict[frozenset[str], list[str]] = defaultdict(list)
    for spine, cores in cores_of.items():
        classes[frozenset(cores)].append(spine)
    spines_of_pod = {pod: {spine for _, spine in pairs} for pod, pairs in pairs_of_pod.items()}
    per_pod = {(number, pod): 0 for number in range(len(classes)) for pod in spines_of_pod}
    for number, spines in enumerate(classes.values()):
        for spine in spines:
            if (number, pod_of[spine]) not in per_pod:
                return False
            per_pod[number, pod_of[spine]] += 1
    all_cores = [core for cores in classes for core in cores]
    counts = {count for cores in cores_of.values() for count in cores.values()}
    per_leaf = {next(iter(pairs.values())) for pairs in pairs_of_pod.values()}
    return (
        len(counts) == len(per_leaf) == 1
        and len(all_cores) == len(set(all_cores))  # classes share no core
        and len({len(cores) for cores in classes}) == 1
        and len(set(per_pod.values())) == 1
        and all(spines <= cores_of.keys() for spines in spines_of_pod.values())
    )
