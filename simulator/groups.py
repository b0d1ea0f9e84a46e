"""Flows with the same remaining path and weight are one group: found by a hash, kept as a heap of targets.

All flows of a group have the same level at all times, so that they have got the same number of bytes per unit of
weight since any instant: the group's *service*. A flow that joins when the service is s ends when it reaches its
target, s + bytes / weight. So the group's next end is its least target, and to move time on costs nothing per flow.

Service itself follows the clock of the link that holds the group, which counts what a flow of weight 1 held there
would have got: service = that clock + offset. When another link comes to hold the group, only the offset changes.

Links that cannot bind (`simulator.slack`) are no part of a group's path: flows that differ in those alone share a
group.
"""

import math
from typing import Any

import numpy as np

from simulator.compiled import called, inlined
from simulator.flow_state import BINDING, SLACK, FlowState
from simulator.heap import meld, without_first
from simulator.holding import add_to_path, add_weight, end_group, forget_groups, new_group
from simulator.sharing import NOWHERE, TO_REGROUP
from simulator.tournament import set_value


@inlined
def _mix(number: np.integer[Any]) -> np.uint64:
    """Return a well-mixed 64-bit number (splitmix64's finaliser; Steele et al., OOPSLA 2014)."""
    mixed = np.uint64(number) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@inlined
def _bits(value: float) -> np.int64:
    """Return a number that tells positive floats apart well: mantissa and exponent, folded together."""
    mantissa, exponent = math.frexp(value)
    return np.int64(mantissa * 2.0**53) ^ np.int64(exponent)


@inlined
def _key(state: FlowState, number: int) -> np.uint64:
    """Return a hash of a flow's weight and of the binding links and coefficients on its path."""
    key = _mix(_bits(state.flows[number].weight))
    for entry in range(state.bill_offsets[number], state.bill_offsets[number + 1]):
        link = state.bill_links[entry]
        if state.service[link].standing == BINDING:
            key = _mix(key ^ _mix(link) ^ np.uint64(_bits(state.bill_coefficients[entry])))
    return key


@inlined
def _is_alike(state: FlowState, number: int, group: int) -> bool:
    """Return whether a flow has the weight and the binding path of a group."""
    if state.members[group].flow_weight != state.flows[number].weight:
        return False
    sharing = state.sharing
    place = sharing.groups[group].path
    end = sharing.groups[group].path_end
    for entry in range(state.bill_offsets[number], state.bill_offsets[number + 1]):
        if state.service[state.bill_links[entry]].standing == BINDING:
            if (
                place == end
                or sharing.path_links[place] != state.bill_links[entry]
                or sharing.path_coefficients[place] != state.bill_coefficients[entry]
            ):
                return False
            place += 1
    return place == end


@inlined
def _group_for(state: FlowState, number: int) -> int:
    """Return the group that a flow belongs to: one with flows if there is any, else a new one."""
    key = _key(state, number)
    mask = len(state.slots) - 1
    slot = np.int64(key & np.uint64(mask))
    while state.slots[slot] != NOWHERE:
        group = state.slots[slot]
        if state.members[group].key == key and _is_alike(state, number, group):
            if state.members[group].num_flows > 0:
                return group
            break  # links have let it go: a new group takes its slot
        slot = (slot + 1) & mask
    sharing = state.sharing
    group = new_group(sharing)
    for entry in range(state.bill_offsets[number], state.bill_offsets[number + 1]):
        if state.service[state.bill_links[entry]].standing == BINDING:
            add_to_path(sharing, group, state.bill_links[entry], state.bill_coefficients[entry])
    members = state.members[group]
    members.flow_weight = state.flows[number].weight
    members.key = key
    members.num_flows = 0
    members.first = NOWHERE
    state.follows[group].clock_of = NOWHERE
    state.follows[group].offset = 0.0
    state.slots[slot] = group
    return group


@inlined
def service_at(state: FlowState, group: int, at_s: float) -> float:
    """Return the bytes per unit of weight that a group's flows have got by an instant since the last solve."""
    follows = state.follows[group]
    if follows.clock_of == NOWHERE:
        return follows.offset
    held_by = state.service[follows.clock_of]
    level = state.sharing.level[follows.clock_of]
    return follows.offset + held_by.clock + level * (at_s - held_by.since_s)


@inlined
def _set_end(state: FlowState, group: int) -> None:
    """Note when the first flow of a group ends, on the clock of the link that holds it."""
    held_by = state.sharing.held_by[group]
    if held_by != NOWHERE and held_by == state.follows[group].clock_of:
        place = state.sharing.links[held_by].row + state.sharing.groups[group].place
        target = state.flows[state.members[group].first].target
        state.sharing.held[place].end = target - state.follows[group].offset
        state.sharing.links[held_by].first_end = np.nan


@inlined
def join(state: FlowState, number: int, bytes_per_weight: float) -> None:
    """Let a flow join its group, with so much left to send."""
    group = _group_for(state, number)
    members = state.members[group]
    flow = state.flows[number]
    state.group_of[number] = group
    flow.target = service_at(state, group, state.now[0].now_s) + bytes_per_weight
    flow.child = NOWHERE
    flow.sibling = NOWHERE
    members.first = meld(state.flows, members.first, number)
    members.num_flows += 1
    _set_end(state, group)
    # Before the group grows by the flow, so that what this adds counts on slack links.
    for entry in range(state.bill_offsets[number], state.bill_offsets[number + 1]):
        _let_cross(state, state.bill_links[entry], state.bill_coefficients[entry])
    add_weight(state.sharing, group, flow.weight)


@inlined
def _let_cross(state: FlowState, link: int, coefficient: float) -> None:
    """Let a flow of whatever region cross a link; if that is slack, what rates rise by anywhere now counts there."""
    service = state.service[link]
    if service.region != NOWHERE:
        left = service.due - state.sharing.links[service.region].risen
        service.region = NOWHERE
        set_value(state.due, link, state.sharing.solve[0].risen + left)
    if service.dearest < coefficient:
        service.dearest = coefficient
        if service.standing == SLACK:
            set_value(state.due, link, -np.inf)


@inlined
def leave_first(state: FlowState, group: int) -> int:
    """Let the flow of a group leave that ends first, and return it."""
    members = state.members[group]
    number = members.first
    members.first = without_first(state.flows, number)
    members.num_flows -= 1
    state.group_of[number] = NOWHERE
    add_weight(state.sharing, group, -members.flow_weight)
    if members.num_flows == 0:
        end_group(state.sharing, group)
    else:
        _set_end(state, group)
    return number


@inlined
def mark_group(state: FlowState, group: int, num_marked: int) -> int:
    """Add a group to those to form anew, unless it is there; return how many there are."""
    if state.sharing.groups[group].mark == TO_REGROUP:
        return num_marked
    state.sharing.groups[group].mark = TO_REGROUP
    state.regroup[num_marked] = group
    return num_marked + 1


@called
def form_anew(state: FlowState, num_marked: int) -> None:
    """Let the flows of the groups that are marked join groups by the links that bind now.

    Group numbers, and room for paths, are given out until they run short; then all groups are formed anew, under
    numbers from 0. So there is always room for every flow to join a group of its own.
    """
    num_leaving = _take_apart(state, num_marked, 0)
    if not has_room(state):
        num_marked = 0
        for group in range(state.sharing.solve[0].num_groups):
            if state.members[group].num_flows > 0:
                num_marked = mark_group(state, group, num_marked)
        num_leaving = _take_apart(state, num_marked, num_leaving)
        for slot in range(len(state.slots)):
            state.slots[slot] = NOWHERE
        forget_groups(state.sharing)
    for position in range(num_leaving):
        join(state, state.leaving[position], state.leaving_bytes[position])


@inlined
def has_room(state: FlowState) -> bool:
    """Return whether every flow that has not ended could join a new group."""
    now = state.now[0]
    solve = state.sharing.solve[0]
    return (
        len(state.members) - solve.num_groups >= now.num_unfinished
        and len(state.sharing.path_links) - solve.num_entries >= now.unfinished_entries
    )


@inlined
def _take_apart(state: FlowState, num_groups: int, num_leaving: int) -> int:
    """Let all flows leave the first num_groups groups in `regroup`; return how many have left by now."""
    for position in range(num_groups):
        group = state.regroup[position]
        members = state.members[group]
        service = service_at(state, group, state.now[0].now_s)
        read = num_leaving
        num_leaving = _write_siblings(state, members.first, service, num_leaving)
        while read < num_leaving:
            number = state.leaving[read]
            read += 1
            num_leaving = _write_siblings(state, state.flows[number].child, service, num_leaving)
        add_weight(state.sharing, group, -state.sharing.groups[group].weight)
        members.num_flows = 0
        members.first = NOWHERE
        end_group(state.sharing, group)
    return num_leaving


@inlined
def _write_siblings(state: FlowState, number: int, service: float, num_leaving: int) -> int:
    """Write a flow and its siblings, and what each has left to send, to `leaving`; return how many are there."""
    while number != NOWHERE:
        state.leaving[num_leaving] = number
        state.leaving_bytes[num_leaving] = max(0.0, state.flows[number].target - service)
        num_leaving += 1
        state.group_of[number] = NOWHERE
        number = state.flows[number].sibling
    return num_leaving
