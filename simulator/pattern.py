"""What a batch of flows asks for, whoever asks: the same for every collective that repeats another.

A *batch* is flows that are added at one instant, its begin. Its *pattern* is all that its course depends on while no
other flow is on its links: bills, bytes, weights, and when each flow starts after the begin. In a pattern links are
numbered in order of first appearance, so that groups on other nodes that ask for the same of links with the same
capacities have one digest, and share what has been found out about it.
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.rows import csr_offsets

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pattern:
    """One flow or more.

    bills: on the links of the network; size_bytes, weights: [num_flows]
    start_after_s: [num_flows] seconds after the begin at which each joins the sharing
    part_offsets, part_flows: the flows of each *part*, whose end somebody waits for, in CSR form; none is without
    flows, and each flow is in one or more
    capacity_bytes_per_s: [num_links] of the network; what follows holds as long as these stay
    """

    bills: Bills
    size_bytes: FloatArray
    weights: FloatArray
    start_after_s: FloatArray
    part_offsets: IntArray
    part_flows: IntArray
    capacity_bytes_per_s: FloatArray

    def __len__(self) -> int:
        return len(self.size_bytes)

    @property
    def num_parts(self) -> int:
        """Return the number of parts."""
        return len(self.part_offsets) - 1

    @property
    def links(self) -> IntArray:
        """[num_used] the links that flows cross, in order of first appearance."""
        return self._numbering[0]

    @property
    def link_of_entry(self) -> IntArray:
        """[num_entries] where each entry's link is among `links`."""
        return self._numbering[1]

    @cached_property
    def capacity(self) -> FloatArray:
        """[num_used] bytes per second of `links`."""
        return self.capacity_bytes_per_s[self.links]

    @cached_property
    def can_end(self) -> bool:
        """Whether all links have capacity."""
        return bool(self.capacity.all())

    @cached_property
    def busiest_s(self) -> float:
        """What the busiest link needs for what all flows charge it, where all have capacity."""
        charged = self.bills.coefficients * np.repeat(self.size_bytes, np.diff(self.bills.offsets))
        on_link = np.bincount(self.link_of_entry, charged, len(self.capacity))
        return float((on_link / self.capacity).max(initial=0.0))

    @cached_property
    def digest(self) -> bytes:
        """What patterns share that differ in nothing but which links they cross."""
        bills = self.bills
        counts = np.array([len(self), len(bills.links), len(self.links), self.num_parts])
        digest = blake2b(counts.data, digest_size=16)
        for column in (
            *(self.capacity, bills.offsets, self.link_of_entry, bills.coefficients, bills.passing_bytes),
            *(self.size_bytes, self.weights, self.start_after_s, self.part_offsets, self.part_flows),
        ):
            digest.update(np.ascontiguousarray(column).data)
        return digest.digest()

    def last_of_parts(self, of_flow: FloatArray) -> FloatArray:
        """Return the largest value among the flows of each part: [num_parts]; of_flow: [num_flows]."""
        last: FloatArray = np.maximum.reduceat(of_flow[self.part_flows], self.part_offsets[:-1])
        return last

    def num_of_parts(self, is_counted: BoolArray) -> IntArray:
        """Return how many of its flows count of each part: [num_parts]; is_counted: [num_flows]."""
        num: IntArray = np.add.reduceat(is_counted[self.part_flows].astype(np.int64), self.part_offsets[:-1])
        return num

    def parts_of(self, flows: IntArray, is_wanted: BoolArray) -> tuple[IntArray, IntArray]:
        """Return the parts that each of some flows is in, in CSR form: offsets [num_named + 1], and parts.

        is_wanted: [num_parts] whether to list a part
        """
        place = np.full(len(self), -1)
        place[flows] = np.arange(len(flows))
        part = np.repeat(np.arange(self.num_parts), np.diff(self.part_offsets))
        places = place[self.part_flows]
        order = np.argsort(places, kind="stable")
        order = order[(places[order] >= 0) & is_wanted[part[order]]]
        return csr_offsets(np.bincount(places[order], minlength=len(flows))), part[order]

    @cached_property
    def _numbering(self) -> tuple[IntArray, IntArray]:
        rising, first, place = np.unique(self.bills.links, return_index=True, return_inverse=True)
        order = np.argsort(first)
        number = np.empty(len(order), np.int64)
        number[order] = np.arange(len(order))
        return rising[order], number[place]
