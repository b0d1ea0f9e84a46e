"""The fluid network: flows share links by max-min fairness, and the clock moves from completion to completion.

Between two instants at which a flow starts or ends, every rate is constant: bytes left fall linearly, and each
link's traffic is its load times the time. So nothing is sampled: finish times, bytes and saturated time are
integrals of piecewise constant functions. The loop is compiled (`simulator.fluid_loop`), and its state stays as it
is from one call to the next; it knows neither SimPy nor a cluster.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.bills import Bills
from simulator.flow_meter import settle_all
from simulator.flow_rows import FlowRows, appended, new_state, unfinished
from simulator.flow_state import FlowState
from simulator.fluid_loop import run_flows
from simulator.meter import MAX_CELLS, LinkMeter, fold, new_bins

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# Between two looks at progress and at Ctrl-C, which compiled code cannot see, so many solves at first, and twice as
# many as before whenever they took less than this.
_SOLVES_AT_ONCE = 512
_SOON_S = 0.05


@dataclass(slots=True)
class FluidNetwork:
    """Links and the flows on them, with a clock that only moves forward.

    capacity_bytes_per_s: [num_links] effective capacity
    on_progress: called now and then with the number of flows that have ended
    metered: whether to keep a timeline of what passes each link, in max_cells of links and bins or fewer
    tolerance: see `replay_flows`
    """

    capacity_bytes_per_s: FloatArray
    on_progress: Callable[[int], None] | None = None
    metered: bool = True
    tolerance: float = 0.0
    max_cells: int = MAX_CELLS
    num_flows: int = 0
    _state: FlowState = field(init=False)
    _finish_s: FloatArray = field(default_factory=lambda: np.zeros(0))
    _watch_left: IntArray = field(default_factory=lambda: np.zeros(16, np.int64))
    _num_watches: int = 0

    def __post_init__(self) -> None:
        self.capacity_bytes_per_s = np.array(self.capacity_bytes_per_s, np.float64)
        self._state = new_state(
            self.capacity_bytes_per_s, FlowRows.none(), 1, self._watch_left, metered=self.metered
        )
        self._state.now["tolerance"] = self.tolerance
        if self.metered:
            bins, width_s = new_bins(len(self.capacity_bytes_per_s), self.max_cells)
            self._state = self._state._replace(bins=bins, bin_width_s=width_s)
            self._state.now["next_bin_s"] = width_s[0]

    @property
    def now_s(self) -> float:
        """Return the clock."""
        return float(self._state.now[0]["now_s"])

    @property
    def solves(self) -> int:
        """Return how often rates have been solved."""
        return int(self._state.now[0]["solves"])

    @property
    def merged(self) -> int:
        """Return how many flows have ended, by the tolerance, without a solve of their own."""
        return int(self._state.now[0]["merged"])

    @property
    def stale_bytes(self) -> float:
        """Return the bytes that moved, by the tolerance, at rates that had yet to be solved anew."""
        return float(self._state.now[0]["stale_bytes"])

    @property
    def num_ended(self) -> int:
        """Return the number of flows that have ended."""
        return self.num_flows - int(self._state.now[0]["num_unfinished"])

    @property
    def finish_s(self) -> FloatArray:
        """[num_flows] seconds: when each flow ended, NaN while it has not."""
        return self._finish_s[: self.num_flows]

    @property
    def meter(self) -> LinkMeter:
        """What has passed each link by now."""
        settle_all(self._state)
        width_s = float(self._state.bin_width_s[0])
        return LinkMeter(self._state.service["saturated_s"].copy(), self._state.bins, width_s)

    def add_watches(self, num_flows_watched: ArrayLike) -> IntArray:
        """Return ids of new watches, each to fire when that many (> 0) of the flows that name it have ended."""
        counts = np.asarray(num_flows_watched, np.int64)
        first, self._num_watches = self._num_watches, self._num_watches + len(counts)
        self._watch_left = _grown(self._watch_left, self._num_watches)
        self._watch_left[first : self._num_watches] = counts
        self._state = self._state._replace(
            watch_left=self._watch_left, fired=np.zeros(len(self._watch_left), np.int64)
        )
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
        self._finish_s = _grown(self._finish_s, self.num_flows)
        self._finish_s[first : self.num_flows] = np.nan
        self._state = self._state._replace(finish_s=self._finish_s)
        ids = np.arange(first, self.num_flows)
        begin_s = np.maximum(start_s, self.now_s)
        rows = FlowRows(bills, weights, size_bytes, begin_s, ids, watch_offsets, watches)
        self._widen_bins(rows)
        added = appended(self._state, rows)
        if added is not None:
            self._state = added
        else:
            self._renew(unfinished(self._state).joined(rows))
        return ids

    def set_capacity(self, links: IntArray, capacity_bytes_per_s: FloatArray) -> None:
        """Change the capacity of some links from now on; 0 for one that is dead, whose flows wait."""
        rows = unfinished(self._state)
        self.capacity_bytes_per_s[links] = capacity_bytes_per_s
        self._renew(rows)

    def cancel(self, ids: IntArray) -> FloatArray:
        """Take flows out that have not ended; return what each had left to send: [num_ids] bytes.

        Their finish stays NaN, and watches go on waiting for them. Raises ValueError for flows that have ended.
        """
        rows = unfinished(self._state)
        places = self._places(rows, ids)
        left = rows.left_bytes[places]
        self._renew(rows.at(np.setdiff1d(np.arange(len(rows)), places)))
        return left

    def reroute(self, ids: IntArray, bills: Bills) -> None:
        """Let flows that have not ended go on with other bills from now on: those at the same place in `bills`.

        Raises ValueError for flows that have ended.
        """
        rows = unfinished(self._state)
        places = self._places(rows, ids)
        moved = rows.at(places)
        moved = FlowRows(
            bills,
            moved.weights,
            moved.left_bytes,
            moved.start_s,
            moved.ids,
            moved.watch_offsets,
            moved.watches,
        )
        self._renew(rows.at(np.setdiff1d(np.arange(len(rows)), places)).joined(moved))

    def backlog_bytes(self) -> FloatArray:
        """Return the bytes that flows under way, or to start, have yet to send over each link: [num_links]."""
        rows = unfinished(self._state)
        left = np.repeat(rows.left_bytes, np.diff(rows.bills.offsets))
        backlog = np.zeros(len(self.capacity_bytes_per_s))
        np.add.at(backlog, rows.bills.links, rows.bills.coefficients * left)
        return backlog

    def advance(self, until_s: float) -> list[int]:
        """Move the clock to until_s, or to the first instant at which watches fire, and return those.

        With no horizon (`until_s` infinite) and no watch left to fire, returns once nothing can move any more.
        """
        now = self._state.now[0]
        if now["num_unfinished"] == 0:  # compiled code would only move the clock, and is slow to be called
            if until_s < np.inf:
                now["now_s"] = max(self.now_s, until_s)
            if self.on_progress is not None:
                self.on_progress(self.num_ended)
            return []
        at_once = _SOLVES_AT_ONCE
        while until_s > self.now_s:
            before, began_s = self.solves, perf_counter()
            run_flows(self._state, until_s, at_once)
            if self.on_progress is not None:
                self.on_progress(self.num_ended)
            fired = np.sort(self._state.fired[: now["num_fired"]]).tolist()
            now["num_fired"] = 0
            if fired:
                return [int(watch) for watch in fired]
            if self.solves - before < at_once:
                break
            if perf_counter() - began_s < _SOON_S:
                at_once *= 2
        return []

    def _places(self, rows: FlowRows, ids: IntArray) -> IntArray:
        """Return where flows are among those that have not ended."""
        order = np.argsort(rows.ids)
        places = np.searchsorted(rows.ids, ids, sorter=order)
        found = places < len(rows)
        found[found] = rows.ids[order[places[found]]] == np.asarray(ids)[found]
        if not found.all():
            msg = f"flow {np.asarray(ids)[~found][0]} is not under way"
            raise ValueError(msg)
        return order[places]

    def _renew(self, rows: FlowRows) -> None:
        """Start anew, at this instant, with just these flows; what has passed links stays on record."""
        old = self._state
        settle_all(old)
        spare = 1 if old.now[0]["num_flows"] == 0 else 2
        state = new_state(self.capacity_bytes_per_s, rows, spare, self._watch_left, metered=self.metered)
        for name in ("now_s", "solves", "bin", "next_bin_s", "tolerance", "merged", "stale_bytes"):
            state.now[name] = old.now[name]
        state.service["saturated_s"] = old.service["saturated_s"]
        state.service["since_s"] = self.now_s
        self._state = state._replace(finish_s=self._finish_s, bins=old.bins, bin_width_s=old.bin_width_s)

    def _widen_bins(self, rows: FlowRows) -> None:
        """Widen bins to hold at least what the busiest link needs for the new flows, so that few close in vain."""
        state = self._state
        if not self.metered:
            return
        bytes_of_entry = rows.bills.coefficients * np.repeat(rows.left_bytes, np.diff(rows.bills.offsets))
        on_link = np.bincount(rows.bills.links, bytes_of_entry, len(self.capacity_bytes_per_s))
        with np.errstate(divide="ignore", invalid="ignore"):
            needed_s = np.nan_to_num(on_link / self.capacity_bytes_per_s, posinf=0.0).max(initial=0.0)
        is_empty = self.num_flows == len(rows)  # these are the first
        while state.bin_width_s[0] * len(state.bins) < self.now_s + needed_s:
            if is_empty:
                state.bin_width_s[0] *= 2.0
            else:
                fold(state.bins, state.bin_width_s)
            state.now["bin"] //= 2
        state.now["next_bin_s"] = (state.now["bin"] + 1) * state.bin_width_s[0]


def _grown(array: NDArray[np.generic], size: int) -> NDArray[Any]:
    """Return `array`, or a copy with room for at least `size` and at least twice as many items."""
    if size <= len(array):
        return array
    larger = np.zeros(max(size, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger
