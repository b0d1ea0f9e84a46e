"""The fluid network: flows share links by max-min fairness, and the clock moves from completion to completion.

Between two instants at which a flow starts or ends, every rate is constant: bytes left fall linearly, and each
link's traffic is its load times the time. So nothing is sampled: finish times, bytes and saturated time are
integrals of piecewise constant functions. Flows that share no link, not even through others, have clocks of their
own (`simulator.components`). The loop is compiled (`simulator.fluid_loop`); it knows neither SimPy nor a cluster.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.components import Components, find_components
from simulator.fluid_loop import run_flows
from simulator.meter import LinkMeter
from simulator.rows import csr_join, csr_select

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_SOLVES_AT_ONCE = 512  # between two looks at progress and at Ctrl-C, which compiled code cannot see


def _grown(array: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    """Return `array`, or a copy with room for at least `size` and at least twice as many items."""
    if size <= len(array):
        return array
    larger = np.zeros(max(size, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger


@dataclass(frozen=True, slots=True)
class _Flows:
    """Flows that have not ended, as columns; see `FluidNetwork.add_flows`."""

    bills: Bills
    weights: FloatArray
    left_bytes: FloatArray
    start_s: FloatArray
    ids: IntArray
    watch_offsets: IntArray
    watches: IntArray

    @classmethod
    def none(cls) -> "_Flows":
        """Return no flows."""
        numbers, rows, values = np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0)
        return cls(Bills(rows, numbers, values), values, values, values, numbers, rows, numbers)

    @classmethod
    def joined(cls, parts: "list[_Flows]") -> "_Flows":
        """Return the flows of all parts, one after the other."""
        return cls(
            bills=Bills(
                csr_join([part.bills.offsets for part in parts]),
                np.concatenate([part.bills.links for part in parts]),
                np.concatenate([part.bills.coefficients for part in parts]),
            ),
            weights=np.concatenate([part.weights for part in parts]),
            left_bytes=np.concatenate([part.left_bytes for part in parts]),
            start_s=np.concatenate([part.start_s for part in parts]),
            ids=np.concatenate([part.ids for part in parts]),
            watch_offsets=csr_join([part.watch_offsets for part in parts]),
            watches=np.concatenate([part.watches for part in parts]),
        )

    def only(self, kept: NDArray[np.bool_]) -> "_Flows":
        """Return the flows for which `kept` [num_flows] is true."""
        rows = np.flatnonzero(kept)
        offsets, entries = csr_select(self.bills.offsets, rows)
        watch_offsets, watch_entries = csr_select(self.watch_offsets, rows)
        return _Flows(
            Bills(offsets, self.bills.links[entries], self.bills.coefficients[entries]),
            self.weights[kept],
            self.left_bytes[kept],
            self.start_s[kept],
            self.ids[kept],
            watch_offsets,
            self.watches[watch_entries],
        )


@dataclass(slots=True)
class FluidNetwork:
    """Links and the flows on them, with a clock that only moves forward.

    capacity_bytes_per_s: [num_links] effective capacity
    on_progress: called now and then with the number of flows that have ended
    """

    capacity_bytes_per_s: FloatArray
    on_progress: Callable[[int], None] | None = None
    now_s: float = 0.0
    solves: int = 0
    num_flows: int = 0
    num_ended: int = 0
    meter: LinkMeter = field(init=False)
    _flows: _Flows = field(init=False)
    _components: Components = field(init=False)
    _new_flows: list[_Flows] = field(default_factory=list)
    _finish_s: FloatArray = field(default_factory=lambda: np.zeros(16))
    _watch_left: IntArray = field(default_factory=lambda: np.zeros(16, np.int64))
    _num_watches: int = 0

    def __post_init__(self) -> None:
        self.meter = LinkMeter.for_links(len(self.capacity_bytes_per_s))
        self._flows = _Flows.none()
        self._components = find_components(
            self._flows.bills, self._flows.start_s, len(self.capacity_bytes_per_s)
        )

    @property
    def finish_s(self) -> FloatArray:
        """[num_flows] seconds: when each flow ended, NaN while it has not."""
        return self._finish_s[: self.num_flows]

    def add_watches(self, num_flows_watched: IntArray) -> IntArray:
        """Return ids of new watches, each to fire when that many (> 0) of the flows that name it have ended."""
        first, self._num_watches = self._num_watches, self._num_watches + len(num_flows_watched)
        self._watch_left = _grown(self._watch_left, self._num_watches)  # type: ignore[assignment]
        self._watch_left[first : self._num_watches] = num_flows_watched
        return np.arange(first, self._num_watches)

    def add_flows(
        self,
        bills: Bills,
        size_bytes: FloatArray,
        start_s: FloatArray,
        weights: FloatArray,
        watch_offsets: IntArray,
        watches: IntArray,
    ) -> IntArray:
        """Return the ids of new flows that join the sharing at start_s, or now where that has passed.

        size_bytes, start_s, weights: [num_flows]; watch_offsets: [num_flows + 1] and watches: the watches that
        each flow counts for, in CSR form
        """
        first, self.num_flows = self.num_flows, self.num_flows + bills.num_flows
        self._finish_s = _grown(self._finish_s, self.num_flows)  # type: ignore[assignment]
        self._finish_s[first : self.num_flows] = np.nan
        ids = np.arange(first, self.num_flows)
        begin_s = np.maximum(start_s, self.now_s)
        # left_bytes is written to as bytes move: it must not be the caller's array.
        self._new_flows.append(
            _Flows(bills, weights, size_bytes.copy(), begin_s, ids, watch_offsets, watches)
        )
        return ids

    def backlog_bytes(self) -> FloatArray:
        """Return the bytes that flows under way have yet to send over each link: [num_links]."""
        backlog = np.zeros(len(self.capacity_bytes_per_s))
        for flows in (self._flows, *self._new_flows):
            left_bytes = np.repeat(flows.left_bytes, np.diff(flows.bills.offsets))
            np.add.at(backlog, flows.bills.links, flows.bills.coefficients * left_bytes)
        return backlog

    def advance(self, until_s: float) -> list[int]:
        """Move the clock to until_s, or to the first instant at which watches fire, and return those.

        With no horizon (`until_s` infinite) and no watch left to fire, returns once nothing can move any more.
        """
        while True:
            self._regroup()
            if not len(self._flows.ids) or until_s <= self.now_s:
                self.now_s = max(self.now_s, until_s) if until_s < np.inf else self.now_s
                return []
            # Every component is solved once as the loop is entered: the clock must get beyond that.
            most_solves = _SOLVES_AT_ONCE + 8 * (len(self._components.flow_offsets) - 1)
            solves, fired = self._run_some(until_s, most_solves)
            if fired or solves < most_solves or self.now_s >= until_s:
                return sorted(fired)

    def _regroup(self) -> None:
        """Take in new flows, and leave out those that have ended, if there are any or many."""
        live = np.isnan(self._finish_s[self._flows.ids])
        if self._new_flows or 2 * live.sum() < len(live):
            self._flows = _Flows.joined([self._flows.only(live), *self._new_flows])
            self._new_flows = []
            num_links = len(self.capacity_bytes_per_s)
            self._components = find_components(self._flows.bills, self._flows.start_s, num_links)

    def _run_some(self, until_s: float, most_solves: int) -> tuple[int, list[int]]:
        """Run the compiled loop once; return how often it solved rates, and the watches that fired."""
        flows, components, meter = self._flows, self._components, self.meter
        finish_s = self._finish_s[flows.ids]
        ended_before = int(np.isfinite(finish_s).sum())
        self.now_s, solves, fired = run_flows(
            self.now_s, until_s, self.capacity_bytes_per_s, flows.bills.offsets, flows.bills.links,
            flows.bills.coefficients, flows.weights, flows.left_bytes, flows.start_s, finish_s,
            components.flow_offsets, components.flows, components.link_offsets, components.links,
            components.local_links, flows.watch_offsets, flows.watches, self._watch_left, meter.bytes,
            meter.saturated_s, meter.bins, meter.width_s, most_solves,
        )  # fmt: skip
        self.solves += solves
        self._finish_s[flows.ids] = finish_s
        self.num_ended += int(np.isfinite(finish_s).sum()) - ended_before
        if self.on_progress is not None:
            self.on_progress(self.num_ended)
        return solves, fired
