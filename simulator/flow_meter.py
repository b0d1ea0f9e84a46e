"""What passes links, integrated in the loop.

Bytes are taken from flows, when a bin of the timeline ends and when a flow does: what it sent since it was last
asked passed each link on its path. So the cost is that of flows times bins, not of links times solves, and less where
bins are shorter than what lies between two solves: between these, one bin is like the next. Links that are left out
of sharing are measured like others; and the bytes of a flow that has ended add up to its size.

A link is saturated while its load is its capacity, which changes at solves alone.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.compiled import compiled, inlined
from simulator.flow_state import FlowState
from simulator.groups import service_at
from simulator.meter import SATURATED, fold
from simulator.sharing import NOWHERE
from simulator.tournament import set_value

FloatArray = NDArray[np.float64]


@inlined
def meter_until(state: FlowState, until_s: float) -> None:
    """Move the clock on, no rate changing meanwhile, and close the bins that end before."""
    now = state.now[0]
    alike = 1  # bins to close at once: all but the first lie where rates are what they are now
    while now.next_bin_s <= until_s:
        last = now.bin + alike - 1
        if now.num_under_way > 0:
            now.now_s = max(now.now_s, (last + 1) * state.bin_width_s[0])
            meter_all(state)
            if alike > 1:
                _spread(state.bins[now.bin : last + 1])
        now.bin = last + 1
        if now.bin == len(state.bins):
            fold(state.bins, state.bin_width_s)
            now.bin //= 2
        now.next_bin_s = (now.bin + 1) * state.bin_width_s[0]
        whole = np.int64(min((until_s - now.next_bin_s) / state.bin_width_s[0], len(state.bins)))
        alike = max(1, min(whole, len(state.bins) - now.bin))
    now.now_s = max(now.now_s, until_s)


@inlined
def _spread(bins: FloatArray) -> None:
    """Give each of some bins an equal part of what is in the first; the others are empty: [num_bins, num_links]."""
    for link in range(bins.shape[1]):
        bins[0, link] /= len(bins)
    for place in range(1, len(bins)):
        for link in range(bins.shape[1]):
            bins[place, link] = bins[0, link]


@inlined
def meter_all(state: FlowState) -> None:
    """Add what all flows have sent since they were last asked to the bin."""
    for number in range(state.now[0].num_flows):
        flow = state.flows[number]
        if state.group_of[number] >= 0:
            service = service_at(state, state.group_of[number], state.now[0].now_s)
            _meter(state, number, max(0.0, flow.target - service) * flow.weight)


@inlined
def meter_end(state: FlowState, number: int) -> None:
    """Add what an ending flow had left when last asked."""
    if state.now[0].next_bin_s < np.inf:
        _meter(state, number, 0.0)


@inlined
def _meter(state: FlowState, number: int, left_bytes: float) -> None:
    """Add what a flow has sent since it was last asked to the bin of each link on its path."""
    flow = state.flows[number]
    sent = flow.left_bytes - left_bytes
    flow.left_bytes = left_bytes
    passed = state.bins[state.now[0].bin]
    for entry in range(state.bill_offsets[number], state.bill_offsets[number + 1]):
        passed[state.bill_links[entry]] += state.bill_passing[entry] * sent


@inlined
def settle(state: FlowState, window_s: float) -> None:
    """After a solve: bring the clocks of touched links to this instant, and find the next end that each holds.

    window_s: for how long rates had been stale before
    """
    now_s = state.now[0].now_s
    sharing = state.sharing
    num_touched = sharing.solve[0].num_touched
    if window_s > 0.0:
        _count_stale(state, window_s)
    for position in range(num_touched):
        settle_link(state, sharing.touched[position], sharing.links[sharing.touched[position]].level_before)
    for position in range(num_touched):
        number = sharing.touched[position]
        link = sharing.links[number]
        here = state.service[number]
        if np.isnan(link.first_end):
            link.first_end = _find_first_end(state, number)
        end_s = np.inf
        if link.num_held > 0 and sharing.level[number] > 0.0:
            end_s = now_s + max(0.0, link.first_end - here.clock) / sharing.level[number]
        set_value(state.ends, number, end_s)


@inlined
def _find_first_end(state: FlowState, number: int) -> float:
    """Return the first end of the groups that a link holds, on its clock; find those that are not known yet."""
    sharing = state.sharing
    link = sharing.links[number]
    first_end = np.inf
    for place in range(link.row, link.row + link.num_held):
        held = sharing.held[place]
        if np.isnan(held.end):
            _follow(state, held.group, number)
            held.end = state.flows[state.members[held.group].first].target - state.follows[held.group].offset
        first_end = min(first_end, held.end)
    return first_end


@inlined
def _follow(state: FlowState, group: int, number: int) -> None:
    """Let a group's service follow the clock of the link that holds it now; both clocks stand at this instant."""
    follows = state.follows[group]
    if follows.clock_of != NOWHERE:
        follows.offset += state.service[follows.clock_of].clock
    follows.offset -= state.service[number].clock
    follows.clock_of = number


@inlined
def _count_stale(state: FlowState, window_s: float) -> None:
    """Count what flows on touched links have sent at the rates that they had until now."""
    sharing = state.sharing
    for position in range(sharing.solve[0].num_touched):
        link = sharing.links[sharing.touched[position]]
        for place in range(link.row, link.row + link.num_held):
            clock_of = state.follows[sharing.held[place].group].clock_of
            if clock_of != NOWHERE:
                rate = sharing.links[clock_of].level_before * sharing.held[place].weight
                state.now[0].stale_bytes += rate * window_s


@inlined
def settle_link(state: FlowState, number: int, level: float) -> None:
    """Bring a link's clock to this instant, at the level that it has had."""
    now_s = state.now[0].now_s
    link = state.sharing.links[number]
    service = state.service[number]
    passed_s = now_s - service.since_s
    service.since_s = now_s
    # A clock that no group follows begins anew: the smaller the numbers, the finer they are.
    service.clock = service.clock + level * passed_s if level < np.inf else 0.0
    if service.saturated:
        service.saturated_s += passed_s
    service.saturated = state.sharing.load[number] > 0.0 and state.sharing.load[number] >= link.capacity * (
        1.0 - SATURATED
    )


@compiled
def settle_all(state: FlowState) -> None:
    """Bring all clocks, and what links have carried, to this instant."""
    for number in range(len(state.service)):
        settle_link(state, number, state.sharing.level[number])
    if state.now[0].next_bin_s < np.inf:
        meter_all(state)
