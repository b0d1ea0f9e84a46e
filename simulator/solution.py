"""What a batch of flows does while it is alone on its links: solved once, it holds for every repeat.

Flows that share no link with any other move as if there were no others: what they do depends on nothing but
themselves, the capacities of their links, and their starts relative to each other. Here a batch runs in a network of
its own, of just the links that it crosses, from time 0; shifted by its start, that is what it does in the whole.
"""

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from simulator.flow_rows import FlowRows
from simulator.fluid import FluidNetwork
from simulator.fluid_loop import CLOCK_ROUNDING, FLOW_ROUNDING
from simulator.meter import fold
from simulator.rows import csr_offsets

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

NOBODY: Final = -1  # in place of a watch: what flows count for that no watch names

# What a link has carried is known at no more instants than this, so that a solution takes kilobytes a link.
_MOST_INSTANTS = 256
# Starts are rounded to this part of what the batch's busiest link needs before they enter its key: rounding of the
# clock, which differs from repeat to repeat, is far smaller; `Solution.is_of` then compares the starts themselves.
_START_GRID = 2.0**-20


@dataclass(frozen=True, slots=True)
class Batch:
    """Flows that were added in one call.

    rows: the flows, their starts in seconds of the clock
    number: of the call
    begin_s: the earliest start
    links: [num_used] the links that flows cross, rising
    watches, waits_for: [num_parts] the watches that flows count for, rising (NOBODY, if there are some that count
    for none), and how many of these flows each waits for
    part_of_entry: where each entry of `rows.watches` is among those
    """

    rows: FlowRows
    number: int
    begin_s: float
    links: IntArray
    watches: IntArray
    waits_for: IntArray
    part_of_entry: IntArray

    @classmethod
    def of(cls, rows: FlowRows, number: int, num_links: int) -> Self:
        """Return a batch of one flow or more, each of which counts for NOBODY if for nothing else."""
        lengths = rows.watch_offsets[1:] - rows.watch_offsets[:-1]
        if not lengths.all():
            watches = np.insert(rows.watches, rows.watch_offsets[:-1][lengths == 0], NOBODY)
            rows = replace(rows, watch_offsets=csr_offsets(np.maximum(lengths, 1)), watches=watches)
        first = int(rows.watches.min())
        named = np.bincount(rows.watches - first)
        present = np.flatnonzero(named)
        crossed = np.zeros(num_links, np.bool_)
        crossed[rows.bills.links] = True
        return cls(
            rows=rows,
            number=number,
            begin_s=float(rows.start_s.min()),
            links=np.flatnonzero(crossed),
            watches=present + first,
            waits_for=named[present],
            part_of_entry=(np.cumsum(named > 0) - 1)[rows.watches - first],
        )

    @property
    def start_s(self) -> FloatArray:
        """Return when each flow starts, in seconds after `begin_s`: [num_flows]."""
        return self.rows.start_s - self.begin_s

    def charged_bytes(self, bytes_of_flow: FloatArray, num_links: int) -> FloatArray:
        """Return what flows charge each link in all, [num_links], if each delivers so many bytes: [num_flows]."""
        bills = self.rows.bills
        bytes_of_entry = bills.coefficients * np.repeat(bytes_of_flow, np.diff(bills.offsets))
        return np.bincount(bills.links, bytes_of_entry, num_links).astype(np.float64)

    def key(self, capacity_bytes_per_s: FloatArray) -> bytes:
        """Return a digest that repeats share: of bills, bytes, weights, and starts relative to the earliest.

        capacity_bytes_per_s: [num_links], positive on the batch's links; those who compare keys see to it that it
        is the same for both
        """
        rows, num_links = self.rows, len(capacity_bytes_per_s)
        on_link = self.charged_bytes(rows.left_bytes, num_links)[self.links]
        busiest_s = float((on_link / capacity_bytes_per_s[self.links]).max())
        starts = np.rint(self.start_s / ((busiest_s or 1.0) * _START_GRID))
        digest = blake2b(np.array([len(rows), len(rows.bills.links)]).data, digest_size=16)
        bills = rows.bills
        charges = bills.coefficients, bills.passing_bytes
        for column in (bills.offsets, bills.links, *charges, rows.left_bytes, rows.weights, starts):
            digest.update(np.ascontiguousarray(column).data)
        return digest.digest()


@dataclass(frozen=True, slots=True)
class Carried:
    """What a batch has carried since its start.

    links: [num_used] the links that it crosses
    passed_bytes: [num_used, num_instants + 1] bytes since the start; the instants are width_s apart from 0 on, but
    for the last, which is at until_s
    saturated_s: [num_used] seconds at full capacity
    """

    links: IntArray
    passed_bytes: FloatArray
    width_s: float
    until_s: float
    saturated_s: FloatArray

    @classmethod
    def by(cls, network: FluidNetwork, links: IntArray, until_s: float) -> Self:
        """Return what a network that will not be used any more has carried by its clock, until_s."""
        meter = network.meter
        bins, width = meter.bins, np.array([meter.width_s])
        while until_s > _MOST_INSTANTS * width[0]:
            fold(bins, width)
        num_instants = min(bins.shape[1], int(until_s / width[0]) + 1)
        passed_bytes = np.zeros((len(links), num_instants + 1))
        np.cumsum(bins[:, :num_instants], axis=1, out=passed_bytes[:, 1:])
        return cls(links, passed_bytes, float(width[0]), until_s, meter.saturated_s)

    def between(self, edges_s: FloatArray) -> FloatArray:
        """Return the bytes [num_used, num_edges + 1] up to the first edge, between edges, and after the last.

        edges_s: [num_edges] seconds after the start, rising. Exact at the instants, linear between them; rows add up
        to all that has passed.
        """
        place = np.clip((edges_s / self.width_s).astype(np.int64), 0, self.passed_bytes.shape[1] - 2)
        from_s = place * self.width_s
        to_s = np.minimum(from_s + self.width_s, self.until_s)
        share = np.clip((edges_s - from_s) / np.maximum(to_s - from_s, np.finfo(np.float64).tiny), 0.0, 1.0)
        before, after = self.passed_bytes[:, place], self.passed_bytes[:, place + 1]
        passed = np.zeros((len(self.links), len(edges_s) + 2))
        passed[:, 1:-1] = before + share * (after - before)
        passed[:, -1] = self.passed_bytes[:, -1]
        between: FloatArray = passed[:, 1:] - passed[:, :-1]
        return between


@dataclass(frozen=True, slots=True)
class Solution:
    """What a batch does alone: starts and finishes [num_flows] in seconds after its earliest start, and its bytes."""

    start_s: FloatArray
    finish_s: FloatArray
    carried: Carried

    @property
    def memory_bytes(self) -> int:
        """Return how much memory the arrays take."""
        carried = self.carried
        arrays = (self.start_s, self.finish_s, carried.links, carried.passed_bytes, carried.saturated_s)
        return sum(array.nbytes for array in arrays)

    def is_of(self, batch: Batch) -> bool:
        """Return whether a batch with the solved one's key starts its flows at the same times, up to rounding.

        That is what the loop takes for one instant, once for the clock of the batch and once for the solved one's.
        """
        latest_s = float(batch.rows.start_s.max())
        rounding_s = 2.0 * CLOCK_ROUNDING * latest_s + FLOW_ROUNDING * self.carried.until_s
        return bool((np.abs(batch.start_s - self.start_s) <= rounding_s).all())


@dataclass(frozen=True, slots=True)
class Partial:
    """What a batch has done by some instant: its bytes, what its flows [num_flows] have left, and how many solves."""

    carried: Carried
    left_bytes: FloatArray
    solves: int


def solve_alone(batch: Batch, capacity_bytes_per_s: FloatArray) -> tuple[Solution, int]:
    """Return what a batch does alone on links of these capacities [num_links], and the solves that it took."""
    network = _network_of(batch, batch.start_s, capacity_bytes_per_s)
    network.advance(np.inf)
    finish_s = network.finish_s.copy()
    carried = Carried.by(network, batch.links, float(finish_s.max()))
    return Solution(batch.start_s, finish_s, carried), network.solves


def run_alone(batch: Batch, start_s: FloatArray, capacity_bytes_per_s: FloatArray, until_s: float) -> Partial:
    """Return what a batch has done by until_s, alone on links of these capacities [num_links].

    start_s: [num_flows] in place of the batch's own; it and until_s are seconds after the batch's earliest start
    """
    network = _network_of(batch, start_s, capacity_bytes_per_s)
    network.advance(until_s)
    left_bytes = np.zeros(len(start_s))
    under_way = np.flatnonzero(np.isnan(network.finish_s))
    carried = Carried.by(network, batch.links, until_s)
    left_bytes[under_way] = network.cancel(under_way)
    return Partial(carried, left_bytes, network.solves)


def _network_of(batch: Batch, start_s: FloatArray, capacity_bytes_per_s: FloatArray) -> FluidNetwork:
    """Return a network of the links that a batch crosses, with its flows, at time 0."""
    rows, network = batch.rows, FluidNetwork(capacity_bytes_per_s[batch.links])
    links = np.searchsorted(batch.links, rows.bills.links)
    bills = rows.bills.on_links(links)
    no_watches = np.zeros(len(rows) + 1, np.int64), np.zeros(0, np.int64)
    network.add_flows(bills, rows.left_bytes, start_s, rows.weights, *no_watches)
    return network
