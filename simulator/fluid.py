"""The fluid network: flows share links by max-min fairness, and the clock moves from completion to completion.

Between two instants at which a flow starts or ends, every rate is constant: bytes left fall linearly, and each
link's traffic is its load times the time. So nothing is sampled: finish times, bytes and saturated time are
integrals of piecewise constant functions. The loop is compiled; it knows neither SimPy nor a cluster.

Rules for equal times: an instant takes in all starts within a few spacings of floats around the clock's value,
and all ends within those and a tiny part of the flow's own duration; they share one solve and its time. Without
that window a completion closer than the clock can tell would leave it where it was, and the loop standing still;
and alike flows, which rounding tells apart, would end one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.fairness import max_min_rates
from simulator.meter import LinkMeter, record
from simulator.rows import csr_join, csr_select

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

CLOCK_ROUNDING = 4 * np.finfo(np.float64).eps  # of the clock's value
FLOW_ROUNDING = 1e-12  # of a flow's duration
_SOLVES_AT_ONCE = 512  # between two looks at progress and at Ctrl-C, which compiled code cannot see


@njit(cache=True)
def _pack(active, offsets, links, coefficients, weights):  # type: ignore[no-untyped-def]
    """Return the bills and weights of the active flows alone."""
    packed_offsets = np.zeros(len(active) + 1, np.int64)
    for position in range(len(active)):
        flow = active[position]
        packed_offsets[position + 1] = packed_offsets[position] + offsets[flow + 1] - offsets[flow]
    packed_links = np.empty(packed_offsets[-1], np.int64)
    packed_coefficients = np.empty(packed_offsets[-1])
    packed_weights = np.empty(len(active))
    for position in range(len(active)):
        flow = active[position]
        start, end = packed_offsets[position], packed_offsets[position + 1]
        packed_links[start:end] = links[offsets[flow] : offsets[flow + 1]]
        packed_coefficients[start:end] = coefficients[offsets[flow] : offsets[flow + 1]]
        packed_weights[position] = weights[flow]
    return packed_offsets, packed_links, packed_coefficients, packed_weights


@njit(cache=True)
def _loads(num_links: int, bill_offsets, bill_links, coefficients, rates):  # type: ignore[no-untyped-def]
    """Return each link's load [num_links] bytes/s and the links that have one."""
    loads = np.zeros(num_links)
    for flow in range(len(rates)):
        if np.isfinite(rates[flow]):
            for entry in range(bill_offsets[flow], bill_offsets[flow + 1]):
                loads[bill_links[entry]] += coefficients[entry] * rates[flow]
    return loads, np.flatnonzero(loads)


@njit(cache=True)
def _project_ends(now_s, active, left_bytes, rates):  # type: ignore[no-untyped-def]
    """Return when each active flow ends if rates stay as they are; one that nothing holds back ends at once."""
    ends_s = np.full(len(active), np.inf)
    for position in range(len(active)):
        left = left_bytes[active[position]]
        if left <= 0.0 or rates[position] == np.inf:
            ends_s[position] = now_s
        elif rates[position] > 0.0:
            ends_s[position] = now_s + left / rates[position]
    return ends_s


@njit(cache=True)
def _move(active, rates, ends_s, duration_s, next_s, left_bytes, start_s, finish_s):  # type: ignore[no-untyped-def]
    """Let the active flows send for duration_s, up to next_s; return which of them have ended [num_active] bool."""
    ended = np.zeros(len(active), np.bool_)
    for position in range(len(active)):
        flow = active[position]
        if rates[position] < np.inf:
            left_bytes[flow] -= rates[position] * duration_s
        rounding_s = CLOCK_ROUNDING * next_s + FLOW_ROUNDING * (next_s - start_s[flow])
        if ends_s[position] <= next_s + rounding_s:
            ended[position] = True
            finish_s[flow] = max(next_s, start_s[flow])
    return ended


@njit(cache=True)
def _retire(  # type: ignore[no-untyped-def]
    flow, now_s, offsets, links, coefficients, left_bytes, meter_bytes, bins, width_s,
    watch_offsets, watches, watch_left, fired,
):  # fmt: skip
    """Account for an ended flow: what rounding left of its bytes, and the watches that it counts for."""
    position = min(int(now_s / width_s[0]), bins.shape[1] - 1)
    for entry in range(offsets[flow], offsets[flow + 1]):
        meter_bytes[links[entry]] += coefficients[entry] * left_bytes[flow]
        bins[links[entry], position] += coefficients[entry] * left_bytes[flow]
    left_bytes[flow] = 0.0
    for entry in range(watch_offsets[flow], watch_offsets[flow + 1]):
        watch_left[watches[entry]] -= 1
        if watch_left[watches[entry]] == 0:
            fired.append(watches[entry])


@njit(cache=True)
def _run(  # type: ignore[no-untyped-def]
    now_s, until_s, capacity, offsets, links, coefficients, weights, left_bytes, start_s, finish_s,
    watch_offsets, watches, watch_left, meter_bytes, saturated_s, bins, width_s, most_solves,
):  # fmt: skip
    """Run flows until `until_s`, to the first instant at which a watch has no flow left, or for most_solves.

    Rows of offsets ... finish_s are flows that have not ended; finish_s [num_flows] is written as they do;
    watch_left [all watches] counts down. Returns the clock, the number of solves, and the watches that fired.
    """
    waiting = np.argsort(start_s, kind="mergesort")
    joined = 0
    active = np.empty(0, np.int64)
    solves = 0
    fired = [0 for _ in range(0)]
    while True:
        # 1. Flows whose start has come join those that are active.
        first = joined
        while joined < len(waiting) and start_s[waiting[joined]] <= now_s * (1.0 + CLOCK_ROUNDING):
            joined += 1
        if joined > first:
            active = np.sort(np.concatenate((active, waiting[first:joined])))

        # 2. One solve for this instant.
        packed = _pack(active, offsets, links, coefficients, weights)
        rates = max_min_rates(capacity, packed[0], packed[1], packed[2], packed[3])
        loads, used_links = _loads(len(capacity), packed[0], packed[1], packed[2], rates)
        solves += 1

        # 3. The next instant: the horizon, a start or an end.
        ends_s = _project_ends(now_s, active, left_bytes, rates)
        next_s = until_s
        if joined < len(waiting):
            next_s = min(next_s, start_s[waiting[joined]])
        if len(active) > 0:
            next_s = min(next_s, ends_s.min())
        if next_s == np.inf:
            return now_s, solves, fired

        # 4. Bytes move until then, and flows end.
        if next_s > now_s:
            record(meter_bytes, saturated_s, bins, width_s, used_links, loads, capacity, now_s, next_s)
        ended = _move(active, rates, ends_s, next_s - now_s, next_s, left_bytes, start_s, finish_s)
        for flow in active[ended]:
            _retire(
                flow, next_s, offsets, links, coefficients, left_bytes, meter_bytes, bins, width_s,
                watch_offsets, watches, watch_left, fired,
            )  # fmt: skip
        active = active[~ended]
        now_s = next_s
        stop = len(fired) > 0 or now_s >= until_s or (len(active) == 0 and joined == len(waiting))
        if stop or solves >= most_solves:
            return now_s, solves, fired


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
    _flows: list[_Flows] = field(default_factory=list)
    _finish_s: FloatArray = field(default_factory=lambda: np.zeros(16))
    _watch_left: IntArray = field(default_factory=lambda: np.zeros(16, np.int64))
    _num_watches: int = 0

    def __post_init__(self) -> None:
        self.meter = LinkMeter.for_links(len(self.capacity_bytes_per_s))

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
        self._flows.append(_Flows(bills, weights, size_bytes.copy(), begin_s, ids, watch_offsets, watches))
        return ids

    def backlog_bytes(self) -> FloatArray:
        """Return the bytes that flows under way have yet to send over each link: [num_links]."""
        backlog = np.zeros(len(self.capacity_bytes_per_s))
        for flows in self._flows:
            left_bytes = np.repeat(flows.left_bytes, np.diff(flows.bills.offsets))
            np.add.at(backlog, flows.bills.links, flows.bills.coefficients * left_bytes)
        return backlog

    def advance(self, until_s: float) -> list[int]:
        """Move the clock to until_s, or to the first instant at which watches fire, and return those.

        With no horizon (`until_s` infinite) and no watch left to fire, returns once nothing can move any more.
        """
        while True:
            self._drop_ended()
            if not self._flows or until_s <= self.now_s:
                self.now_s = max(self.now_s, until_s) if until_s < np.inf else self.now_s
                return []
            solves, fired = self._run_some(until_s)
            if fired or solves < _SOLVES_AT_ONCE or self.now_s >= until_s:
                return sorted(fired)

    def _drop_ended(self) -> None:
        """Join all flows to one set of columns, without those that have ended."""
        if self._flows:
            flows = _Flows.joined(self._flows) if len(self._flows) > 1 else self._flows[0]
            live = np.isnan(self._finish_s[flows.ids])
            flows = flows if live.all() else flows.only(live)
            self._flows = [flows] if len(flows.ids) else []

    def _run_some(self, until_s: float) -> tuple[int, list[int]]:
        """Run the compiled loop once; return how often it solved rates, and the watches that fired."""
        flows, meter = self._flows[0], self.meter
        finish_s = np.full(len(flows.ids), np.nan)
        self.now_s, solves, fired = _run(
            self.now_s, until_s, self.capacity_bytes_per_s, flows.bills.offsets, flows.bills.links,
            flows.bills.coefficients, flows.weights, flows.left_bytes, flows.start_s, finish_s,
            flows.watch_offsets, flows.watches, self._watch_left, meter.bytes, meter.saturated_s, meter.bins,
            meter.width_s, _SOLVES_AT_ONCE,
        )  # fmt: skip
        self.solves += solves
        self._finish_s[flows.ids] = finish_s
        ended = ~np.isnan(finish_s)
        self.num_ended += int(ended.sum())
        if self.on_progress is not None:
            self.on_progress(self.num_ended)
        return solves, fired
