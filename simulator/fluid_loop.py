"""The loop of the fluid network, compiled: from instant to instant, each link on its own clock.

Between two instants all levels are constant, so that the next thing to happen is a start or the end of the first
flow that some link holds; a tournament over links knows when. An instant walks only to links and groups whose levels
can change (`simulator.fairness`), and all others keep their clocks: flows that share no link with what happened, not
even through others, are not visited, and neither are those that only others below the floor connect with it.

Rules for equal times: an instant takes in all starts within a few spacings of floats around the clock's value,
and all ends within those and a tiny part of the flow's own duration; they share one solve and its time. Without
that window a completion closer than the clock can tell would leave it where it was, and the loop standing still;
and alike flows, which rounding tells apart, would end one by one.
"""

import numpy as np

from simulator.compiled import compiled, inlined
from simulator.fairness import end_solve, solve
from simulator.flow_meter import meter_end, meter_until, settle
from simulator.flow_state import BINDING, ENDED, SLACK, FlowState
from simulator.groups import form_anew, has_room, join, leave_first, service_at
from simulator.slack import choose_links, let_in, look_again, mark_groups_over
from simulator.tournament import least, least_value, set_value

CLOCK_ROUNDING = 4 * np.finfo(np.float64).eps  # of the clock's value
FLOW_ROUNDING = 1e-12  # of a flow's duration


@compiled
def run_flows(state: FlowState, until_s: float, most_solves: int) -> None:
    """Run flows until `until_s`, to the first instant at which watches fire, or for most_solves."""
    now = state.now[0]
    last = now.solves + most_solves
    while now.num_fired == 0 and now.solves < last:
        next_s = min(least_value(state.ends), _next_start_s(state))
        if next_s == np.inf or next_s > until_s:
            if until_s < np.inf:
                meter_until(state, until_s)
            return
        _run_instant(state, max(next_s, now.now_s))


@inlined
def _next_start_s(state: FlowState) -> float:
    """Return when the next flow starts."""
    now = state.now[0]
    if now.next_start == now.num_starts:
        return np.inf
    return state.flows[state.starts[now.next_start]].start_s


@inlined
def _run_instant(state: FlowState, first_s: float) -> None:
    """Let flows end and start, and solve rates; the instant is at first_s, or later by the tolerance."""
    now = state.now[0]
    window_s = _window_s(state, first_s)
    meter_until(state, first_s + window_s)
    if not has_room(state):
        form_anew(state, 0)
    _end_flows(state, first_s)
    _start_flows(state)
    choose_links(state)
    sharing_solve = state.sharing.solve[0]
    if sharing_solve.num_touched == 0:
        return
    while True:
        solve(state.sharing)
        now.solves += now.num_under_way > 0
        settle(state, window_s)
        end_solve(state.sharing)
        if not look_again(state):
            break


@inlined
def _window_s(state: FlowState, first_s: float) -> float:
    """Return for how long after first_s flows may end without a solve: a part of what the first took.

    No start falls into it.
    """
    now = state.now[0]
    if now.tolerance == 0.0 or least_value(state.ends) > first_s:
        return 0.0
    link = state.sharing.links[least(state.ends)]
    began_s = 0.0
    first_end_s = np.inf
    for place in range(link.row, link.row + link.num_held):
        group = state.sharing.held[place].group
        flow = state.flows[state.members[group].first]
        end_s = (
            first_s
            + (flow.target - service_at(state, group, first_s)) / state.sharing.level[least(state.ends)]
        )
        if end_s < first_end_s:
            first_end_s = end_s
            began_s = flow.start_s
    return max(0.0, min(now.tolerance * (first_s - began_s), _next_start_s(state) - first_s))


@inlined
def _end_flows(state: FlowState, first_s: float) -> None:
    """End all flows that do so at this instant, or would have since first_s if nothing else had."""
    now_s = state.now[0].now_s
    num_due = 0
    while least_value(state.ends) <= now_s * (1.0 + FLOW_ROUNDING):
        number = least(state.ends)
        set_value(state.ends, number, np.inf)
        state.regroup[num_due] = number
        num_due += 1
        link = state.sharing.links[number]
        here = state.service[number]
        clock = here.clock + state.sharing.level[number] * (now_s - here.since_s)
        level = state.sharing.level[number]
        most_s = (CLOCK_ROUNDING + FLOW_ROUNDING) * now_s
        place = link.row
        while place < link.row + link.num_held:
            # a group without flows goes, and another takes its place
            if (state.sharing.held[place].end - clock) / level > most_s:
                place += 1
            else:
                place += _end_members(state, state.sharing.held[place].group, clock, level, first_s)
    for position in range(num_due):
        number = state.regroup[position]
        if state.sharing.links[number].touched != state.sharing.solve[0].number:
            _set_next_end(state, number)


@inlined
def _set_next_end(state: FlowState, number: int) -> None:
    """Note when the first flow that a link holds ends, seen from now: rounding had it too early."""
    now_s = state.now[0].now_s
    link = state.sharing.links[number]
    here = state.service[number]
    clock = here.clock + state.sharing.level[number] * (now_s - here.since_s)
    left_s = np.inf
    for place in range(link.row, link.row + link.num_held):
        left_s = min(left_s, (state.sharing.held[place].end - clock) / state.sharing.level[number])
    set_value(state.ends, number, now_s + left_s)


@inlined
def _end_members(state: FlowState, group: int, clock: float, level: float, first_s: float) -> int:
    """End the flows of a group that do so by this instant; return whether the group has any left."""
    now = state.now[0]
    sharing_group = state.sharing.groups[group]
    place = state.sharing.links[state.sharing.held_by[group]].row + sharing_group.place
    most_s = (CLOCK_ROUNDING + FLOW_ROUNDING) * now.now_s
    while True:
        # Times are compared, not bytes: what takes no time that the clock can tell must end, or it stands still.
        left_s = (state.sharing.held[place].end - clock) / level
        if left_s > most_s:
            return 1
        start_s = state.flows[state.members[group].first].start_s
        rounding_s = CLOCK_ROUNDING * now.now_s + FLOW_ROUNDING * (now.now_s - start_s)
        if left_s > rounding_s:
            return 1
        number = leave_first(state, group)
        end_s = now.now_s
        if end_s + left_s > first_s + rounding_s:  # only under a tolerance
            end_s += left_s
            now.merged += 1
            now.stale_bytes += state.flows[number].weight * level * (end_s - first_s)
        elif now.now_s > first_s:
            end_s = first_s
        finish(state, number, max(end_s, start_s))
        if state.members[group].num_flows == 0:
            return 0


@inlined
def finish(state: FlowState, number: int, end_s: float) -> None:
    """Note that a flow has ended, and count it for its watches."""
    now = state.now[0]
    meter_end(state, number)
    state.finish_s[state.flows[number].id] = end_s
    state.group_of[number] = ENDED
    now.num_under_way -= 1
    now.num_unfinished -= 1
    now.entries_under_way -= state.bill_offsets[number + 1] - state.bill_offsets[number]
    now.unfinished_entries -= state.bill_offsets[number + 1] - state.bill_offsets[number]
    for entry in range(state.watch_offsets[number], state.watch_offsets[number + 1]):
        watch = state.watches[entry]
        state.watch_left[watch] -= 1
        if state.watch_left[watch] == 0:
            state.fired[now.num_fired] = watch
            now.num_fired += 1


@inlined
def _start_flows(state: FlowState) -> None:
    """Let flows whose start has come join groups; those that cross no link end at once."""
    now = state.now[0]
    first = now.next_start
    until_s = now.now_s * (1.0 + CLOCK_ROUNDING)
    num_marked = 0
    while now.next_start < now.num_starts and _next_start_s(state) <= until_s:
        num_marked = _let_bind(state, state.starts[now.next_start], num_marked)
        now.next_start += 1
    if num_marked > 0:
        form_anew(state, num_marked)
    for position in range(first, now.next_start):
        number = state.starts[position]
        flow = state.flows[number]
        now.num_under_way += 1
        now.entries_under_way += state.bill_offsets[number + 1] - state.bill_offsets[number]
        if state.bill_offsets[number + 1] == state.bill_offsets[number]:
            finish(state, number, max(now.now_s, flow.start_s))
        else:
            join(state, number, flow.left_bytes / flow.weight)
            for entry in range(state.bill_offsets[number], state.bill_offsets[number + 1]):
                link = state.bill_links[entry]
                place = state.sharing.links[link].row + state.service[link].num_flows
                state.flows_on[place] = number
                state.charges_on[place] = state.bill_coefficients[entry] * flow.weight
                state.service[link].num_flows += 1
                state.service[link].num_then = 2 * state.service[link].num_flows


@inlined
def _let_bind(state: FlowState, number: int, num_marked: int) -> int:
    """Let links in if none on a flow's path binds; mark the groups over them, and return how many are marked."""
    for entry in range(state.bill_offsets[number], state.bill_offsets[number + 1]):
        if state.service[state.bill_links[entry]].standing == BINDING:
            return num_marked
    for entry in range(state.bill_offsets[number], state.bill_offsets[number + 1]):
        link = state.bill_links[entry]
        if state.service[link].standing == SLACK:
            num_marked = mark_groups_over(state, link, num_marked)
            let_in(state, link)
    return num_marked
