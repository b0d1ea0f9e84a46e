"""The loop of the fluid network, compiled: from instant to instant, each component on its own clock.

Rules for equal times: an instant takes in all starts within a few spacings of floats around the clock's value,
and all ends within those and a tiny part of the flow's own duration; they share one solve and its time. Without
that window a completion closer than the clock can tell would leave it where it was, and the loop standing still;
and alike flows, which rounding tells apart, would end one by one.
"""

from heapq import heappop, heappush

import numpy as np
from numba import njit

from simulator.fairness import max_min_rates
from simulator.meter import cover, record

CLOCK_ROUNDING = 4 * np.finfo(np.float64).eps  # of the clock's value
FLOW_ROUNDING = 1e-12  # of a flow's duration


@njit(cache=True)
def _solve(active, offsets, local_links, coefficients, weights, capacity, rates, loads):  # type: ignore[no-untyped-def]
    """Write the rates of a component's active flows, and the loads of its links.

    active: flows; capacity, loads: [num_links of the component]; rates: [num_flows] of all components
    """
    lengths = np.empty(len(active), np.int64)
    for position in range(len(active)):
        lengths[position] = offsets[active[position] + 1] - offsets[active[position]]
    packed_offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    packed_links = np.empty(packed_offsets[-1], np.int64)
    packed_coefficients = np.empty(packed_offsets[-1])
    packed_weights = np.empty(len(active))
    for position in range(len(active)):
        flow = active[position]
        start, end = packed_offsets[position], packed_offsets[position + 1]
        packed_links[start:end] = local_links[offsets[flow] : offsets[flow + 1]]
        packed_coefficients[start:end] = coefficients[offsets[flow] : offsets[flow + 1]]
        packed_weights[position] = weights[flow]
    found = max_min_rates(capacity, packed_offsets, packed_links, packed_coefficients, packed_weights)
    loads[:] = 0.0
    for position in range(len(active)):
        rates[active[position]] = found[position]
        if found[position] < np.inf:
            for entry in range(packed_offsets[position], packed_offsets[position + 1]):
                loads[packed_links[entry]] += packed_coefficients[entry] * found[position]


@njit(cache=True)
def _next_end(now_s, active, left_bytes, rates):  # type: ignore[no-untyped-def]
    """Return when the first of the active flows ends if rates stay as they are; one without limits ends at once."""
    next_s = np.inf
    for flow in active:
        if left_bytes[flow] <= 0.0 or rates[flow] == np.inf:
            return now_s
        if rates[flow] > 0.0:
            next_s = min(next_s, now_s + left_bytes[flow] / rates[flow])
    return next_s


@njit(cache=True)
def _retire(  # type: ignore[no-untyped-def]
    flow, now_s, offsets, links, coefficients, left_bytes, meter_bytes, bins, width_s,
    watch_offsets, watches, watch_left, fired,
):  # fmt: skip
    """Account for an ended flow: what rounding left of its bytes, and the watches that it counts for."""
    cover(bins, width_s, now_s)
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
def _move(  # type: ignore[no-untyped-def]
    active, rates, left_bytes, links, loads, capacity, since_s, until_s,
    meter_bytes, saturated_s, bins, width_s,
):  # fmt: skip
    """Let a component's active flows send from since_s to until_s, at their rates."""
    if until_s <= since_s:
        return
    record(meter_bytes, saturated_s, bins, width_s, links, loads, capacity, since_s, until_s)
    for flow in active:
        if rates[flow] < np.inf:
            left_bytes[flow] -= rates[flow] * (until_s - since_s)


@njit(cache=True)
def _keep_sending(active, now_s, left_bytes, rates, start_s, finish_s):  # type: ignore[no-untyped-def]
    """Move the flows that go on to the front of `active`, write when the others ended; return how many go on.

    A flow ends if it does so within the rounding of this instant. Those that go on keep their order.
    """
    kept = 0
    for position in range(len(active)):
        flow = active[position]
        rounding_s = CLOCK_ROUNDING * now_s + FLOW_ROUNDING * (now_s - start_s[flow])
        # Times are compared, not bytes: what takes no time that the clock can tell must end, or it stands still.
        left_s = 0.0
        if left_bytes[flow] > 0.0:
            left_s = left_bytes[flow] / rates[flow] if rates[flow] > 0.0 else np.inf
        if left_s > rounding_s:
            active[position], active[kept] = active[kept], flow
            kept += 1
        else:
            finish_s[flow] = max(now_s, start_s[flow])
    return kept


@njit(cache=True)
def _join(active, kept, flows, first, now_s, start_s, finish_s):  # type: ignore[no-untyped-def]
    """Append to the first `kept` active flows those whose start has come; return how many there are, and the next.

    flows: a component's, in order of start; first: the place of the first that has not started
    """
    while first < len(flows) and start_s[flows[first]] <= now_s * (1.0 + CLOCK_ROUNDING):
        if np.isnan(finish_s[flows[first]]):
            active[kept] = flows[first]
            kept += 1
        first += 1
    return kept, first


@njit(cache=True)
def run_flows(  # type: ignore[no-untyped-def]
    now_s, until_s, capacity, offsets, links, coefficients, weights, left_bytes, start_s, finish_s,
    flow_offsets, flows, link_offsets, component_links, local_links,
    watch_offsets, watches, watch_left, meter_bytes, saturated_s, bins, width_s, most_solves,
):  # fmt: skip
    """Run flows until `until_s`, to the first instant at which a watch has no flow left, or for most_solves.

    Rows of offsets ... finish_s are flows; finish_s [num_flows] is NaN, and is written as they end; rows of
    flow_offsets ... local_links are their components; watch_left [all watches] counts down. Returns the clock,
    the number of solves, and the watches that fired.
    """
    # Each component has a clock, active flows (the first num_active of its row), and its next instant in a heap.
    num_components = len(flow_offsets) - 1
    clock_s = np.full(num_components, now_s)
    active = np.empty(len(flows), np.int64)
    num_active = np.zeros(num_components, np.int64)
    joined = np.zeros(num_components, np.int64)
    rates = np.zeros(len(flows))
    loads = np.zeros(len(component_links))
    its_capacity = capacity[component_links]
    heap = [(now_s, component) for component in range(num_components)]
    solves = 0
    fired = [0 for _ in range(0)]
    while len(heap) > 0 and heap[0][0] <= until_s and solves < most_solves:
        now_s, component = heappop(heap)
        row = slice(flow_offsets[component], flow_offsets[component + 1])
        link_row = slice(link_offsets[component], link_offsets[component + 1])

        # 1. Bytes move until the component's next instant, and flows end.
        sending = active[row][: num_active[component]]
        _move(
            sending, rates, left_bytes, component_links[link_row], loads[link_row], its_capacity[link_row],
            clock_s[component], now_s, meter_bytes, saturated_s, bins, width_s,
        )  # fmt: skip
        clock_s[component] = now_s
        kept = _keep_sending(sending, now_s, left_bytes, rates, start_s, finish_s)
        for flow in sending[kept:]:
            _retire(
                flow, now_s, offsets, links, coefficients, left_bytes, meter_bytes, bins, width_s,
                watch_offsets, watches, watch_left, fired,
            )  # fmt: skip

        # 2. Flows whose start has come join, and one solve gives the rates until the instant after.
        count, joined[component] = _join(
            active[row], kept, flows[row], joined[component], now_s, start_s, finish_s
        )
        num_active[component] = count
        sending = active[row][:count]
        _solve(
            sending, offsets, local_links, coefficients, weights, its_capacity[link_row], rates, loads[link_row]
        )  # fmt: skip
        solves += count > 0

        # 3. That instant is the first end, or the next start. Once a watch has fired, only this one is finished.
        next_s = _next_end(now_s, sending, left_bytes, rates)
        if joined[component] < len(flows[row]):
            next_s = min(next_s, start_s[flows[row][joined[component]]])
        if next_s < np.inf:
            heappush(heap, (next_s, component))
        if len(fired) > 0:
            until_s = min(until_s, now_s)

    # 4. All components come to one instant: the horizon, or the last event if there is none or it is far.
    if solves < most_solves and until_s < np.inf:
        now_s = until_s
    for component in range(num_components):
        link_row = slice(link_offsets[component], link_offsets[component + 1])
        first = flow_offsets[component]
        _move(
            active[first : first + num_active[component]], rates, left_bytes, component_links[link_row],
            loads[link_row], its_capacity[link_row], clock_s[component], now_s,
            meter_bytes, saturated_s, bins, width_s,
        )  # fmt: skip
    return now_s, solves, fired
