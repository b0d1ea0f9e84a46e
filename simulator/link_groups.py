"""Links in groups that people speak of: layers, planes and rails; and how busy each group is over time.

A *layer* is a kind of link and a direction, such as `leaf_spine` from the leaves to the spines. All of it
is told by the tables of a result alone, as a saved folder has them.
"""

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_DEVICE: Final = re.compile(r"node(\d+)/(gpu|nvswitch|pcie|host|nic)(\d*)")
_NAMES: Final = {"gpu": "GPU", "nvswitch": "NVSwitch", "pcie": "PCIe switch", "host": "host", "nic": "NIC"}
_ROUTER_KINDS: Final = ("router_local", "router_global")
NETWORK_KINDS: Final = ("nic", "leaf_spine", "spine_core", *_ROUTER_KINDS)
_ROUNDING: Final = 1e-12


class Place(NamedTuple):
    """Where a device of a node is: the node, the kind of device and its index (0 for those that are one a node)."""

    node: int
    device: str
    place: int


def place_of(vertex: str) -> Place | None:
    """Return where a device of a node is, None for a switch of the network: nodes name their devices alike."""
    match = _DEVICE.fullmatch(vertex)
    return None if match is None else Place(int(match[1]), match[2], int(match[3] or 0))


def switch_layers(links: pd.DataFrame) -> dict[str, str]:
    """Return the layer of each network switch: `leaf`, `spine`, `core` or `router`, in the order of the links.

    links: as `simulator.result.links_table` has it. Switches with NICs are leaves, unless they are routers; a
    `leaf_spine` link leads from a leaf to a spine or back, a `spine_core` link from a spine to a core or back.
    """
    cables = links[links["kind"].isin(NETWORK_KINDS)].drop_duplicates(["kind", "source", "target"])
    pairs: dict[str, list[tuple[str, str]]] = {kind: [] for kind in NETWORK_KINDS}
    for kind, source, target in zip(cables["kind"], cables["source"], cables["target"], strict=True):
        pairs[kind].append((source, target))
    routers = {end for kind in _ROUTER_KINDS for pair in pairs[kind] for end in pair}
    layer = dict.fromkeys(sorted(routers), "router")
    for pair in pairs["nic"]:
        layer |= {end: "leaf" for end in pair if place_of(end) is None and end not in routers}
    other = {"leaf": "spine", "spine": "leaf"}
    waiting = pairs["leaf_spine"]
    while waiting:
        for one, end in (ends for pair in waiting for ends in (pair, pair[::-1])):
            if one in layer:
                layer.setdefault(end, other[layer[one]])
        left = [pair for pair in waiting if pair[0] not in layer or pair[1] not in layer]
        if len(left) == len(waiting):  # no NIC can reach these: the first of them is called a leaf
            layer[left[0][0]] = "leaf"
        waiting = left
    for pair in pairs["spine_core"]:
        layer |= {end: "core" for end in pair if end not in layer}
    order = dict.fromkeys(
        end for kind in pairs for pair in pairs[kind] for end in pair if place_of(end) is None
    )
    return {name: layer[name] for name in order}


def layer_names(links: pd.DataFrame) -> list[str]:
    """Return the layer of each link, a kind and a direction in words: [num_links], such as `NIC to leaf`.

    Links between routers have no direction: they are named by their kind.
    """
    layer = switch_layers(links)
    known: dict[str, str] = {}

    def name(vertex: str) -> str:
        if vertex not in known:
            place = place_of(vertex)
            known[vertex] = layer[vertex] if place is None else _NAMES[place.device]
        return known[vertex]

    between = {"router_local": "router to router of its group", "router_global": "router to another group"}
    return [
        between.get(kind) or f"{name(source)} to {name(target)}"
        for kind, source, target in zip(links["kind"], links["source"], links["target"], strict=True)
    ]


def rails(links: pd.DataFrame) -> IntArray:
    """Return the rail of each link of a multi-rail network, -1 elsewhere: [num_links].

    Rails are told by the leaves: each has NICs of one index alone, in a tree that is not split into planes.
    """
    rail = np.full(len(links), -1)
    kinds, sources, targets = (links[name].to_numpy() for name in ("kind", "source", "target"))
    if links["plane"].max() > 0 or np.isin(kinds, _ROUTER_KINDS).any():
        return rail
    rail_of_leaf: dict[str, set[int]] = {}
    for source, target in zip(sources[kinds == "nic"], targets[kinds == "nic"], strict=True):
        for end, leaf in ((source, target), (target, source)):
            place = place_of(end)
            if place is not None:
                rail_of_leaf.setdefault(leaf, set()).add(place.place)
    if any(len(indices) > 1 for indices in rail_of_leaf.values()):
        return rail
    index = {leaf: min(indices) for leaf, indices in rail_of_leaf.items()}
    if len(set(index.values())) < 2:
        return rail
    touches = np.flatnonzero(np.isin(kinds, ("nic", "leaf_spine")))
    rail[touches] = [
        index.get(target, index.get(source, -1))
        for source, target in zip(sources[touches], targets[touches], strict=True)
    ]
    return rail


@dataclass(frozen=True, slots=True)
class LinkGroups:
    """Links in groups. labels: of each group; of_link: [num_links] the group of each link, -1 for none."""

    labels: tuple[str, ...]
    of_link: IntArray

    @property
    def counts(self) -> IntArray:
        """Return how many links each group has: [num_groups]."""
        return np.bincount(self.of_link[self.of_link >= 0], minlength=len(self.labels))

    @classmethod
    def by(
        cls, keys: Sequence[Hashable | None], label: Callable[[Any], str] = str, *, order: bool = False
    ) -> "LinkGroups":
        """Return groups of links with equal keys, None for links of no group; ascending if `order`, else as met."""
        met: Any = dict.fromkeys(key for key in keys if key is not None)
        numbers = {key: number for number, key in enumerate(sorted(met) if order else met)}
        of_link = np.array([-1 if key is None else numbers[key] for key in keys], np.int64)
        return cls(tuple(label(key) for key in numbers), of_link)


class LoadsOverTime(NamedTuple):
    """How busy groups of links are over time, as shares of their datasheet capacity.

    edges_s: [num_bins + 1] of the time bins; mean: [num_groups, num_bins] over all links of a group, those that carry
    nothing too; busiest: [num_groups, num_bins] of the link that is busiest in that bin
    """

    edges_s: FloatArray
    mean: FloatArray
    busiest: FloatArray


def loads_over_time(
    link_timeline: pd.DataFrame, links: pd.DataFrame, groups: LinkGroups, step_time_s: float
) -> LoadsOverTime:
    """Return how busy groups of links are in each time bin; the last bin counts as long as the step lasts."""
    starts_s = np.unique(link_timeline["start_s"].to_numpy(np.float64))
    starts_s = starts_s[starts_s < step_time_s * (1 - _ROUNDING)]
    edges_s = np.append(starts_s, step_time_s)
    width_s, num_bins, num_groups = np.diff(edges_s), len(starts_s), len(groups.labels)
    capacity = links["capacity_bytes_per_s"].to_numpy(np.float64)
    row_of_link = np.full(int(links["link"].max()) + 1 if len(links) else 0, -1)
    row_of_link[links["link"].to_numpy()] = np.arange(len(links))
    row = row_of_link[link_timeline["link"].to_numpy()]
    place = np.searchsorted(starts_s, link_timeline["start_s"].to_numpy(np.float64))
    kept = (groups.of_link[row] >= 0) & (place < num_bins)
    row, place, moved = row[kept], place[kept], link_timeline["bytes"].to_numpy(np.float64)[kept]
    cell = groups.of_link[row] * num_bins + place
    grouped = groups.of_link >= 0
    total = np.bincount(groups.of_link[grouped], capacity[grouped], num_groups)
    of_bytes = np.bincount(cell, moved, num_groups * num_bins).reshape(num_groups, num_bins)
    busiest = np.zeros(num_groups * num_bins)
    np.maximum.at(busiest, cell, moved / (capacity[row] * width_s[place]))
    mean = of_bytes / (total[:, np.newaxis] * width_s)
    return LoadsOverTime(edges_s, mean, busiest.reshape(num_groups, num_bins))
