"""Links that cannot bind are left out, each on a certificate that says so; those without one are let in again.

**Dominated links.** Link A dominates link B if every flow on B crosses A too and charges a larger share of A's
capacity than of B's: b_Bf / C_B < b_Af / C_A. Then load_B / C_B < load_A / C_A <= 1 whatever the rates, and B is
never full. With equal shares, as an uplink that static routing gives to one NIC has, load_B / C_B <= load_A / C_A:
B may be full, but only if A is, so that it takes nothing from what rates are possible, and the max-min fair ones
are the same without it. Since B's meter would then miss that it was full, equal shares count only where nothing is
metered. Of two links with the very same flows at equal shares the first dominates the other; so the relation has no
circles, and the last link of a chain of dominators is not left out by it. It holds for all flows known; flows added
later may end it. Once no flow is still to start, a slack link that is dominated as far as the flows under way go
need not be looked at any more.

**Slack links.** A link that is not full may be left out as long as its load stays below its capacity. If its load
was x when it was last looked at, and its flows charge it at most b per byte, it is not full before the rates of flows
that go faster have grown by (C - x) / b altogether, whichever flows those are. So a running sum of such growth, over
all solves, says when each slack link must be looked at again; the rate of a flow that starts has grown from nothing.
Such a sum is also kept for each region of links that groups connect, and where all flows of a slack link are in one
region, nothing else counts.

**The fall-back.** Where a look finds a load that is too high, rates have been solved wrongly, but no time has passed
since: the link binds from now on, flows that cross it join groups anew, and the solve is done again. Hence what is
left out never shows in a result.

To leave out links pays because flows that differ in them alone become one group, and because components fall apart.
A link is left out when it holds no group and its load is well below its capacity, in bulk; `choose_links` says when.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.compiled import called, compiled, inlined
from simulator.flow_state import BINDING, DOMINATED, ENDED, SLACK, FlowState
from simulator.groups import form_anew, mark_group
from simulator.holding import drop_empty, level_of, region_of, unite
from simulator.sharing import NOWHERE
from simulator.tournament import least, least_value, set_value

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# A load above this share of the capacity may be a full link, as far as rounding tells.
_FULL = 1.0 - 1e-9
# Links loaded less than this share are left out: they are not likely to be due again soon.
_WELL_BELOW = 0.7
# After letting all in, wait for so many times as much work as the last time.
_PATIENCE = 8
_MOST_CANDIDATES = 64  # dominators are looked for among the first links of a path, by the bits of a word


@inlined
def let_in(state: FlowState, number: int) -> None:
    """Let a link bind from now on; its flows have yet to join groups again."""
    link = state.sharing.links[number]
    service = state.service[number]
    service.standing = BINDING
    service.region = NOWHERE
    service.clock = 0.0
    service.since_s = state.now[0].now_s
    state.sharing.load[number] = 0.0
    state.sharing.level[number] = np.inf
    link.demand_held = 0.0
    state.sharing.level_elsewhere[number] = 0.0
    link.num_groups = 0
    set_value(state.due, number, np.inf)


@inlined
def mark_groups_over(state: FlowState, number: int, num_marked: int) -> int:
    """Add to those to take apart the groups of all flows that cross a link; return how many there are."""
    row = state.sharing.links[number].row
    for place in range(row, row + state.service[number].num_flows):
        group = state.group_of[state.flows_on[place]]
        if group >= 0:
            num_marked = mark_group(state, group, num_marked)
    return num_marked


@inlined
def look_again(state: FlowState) -> bool:
    """Look at the slack links that are due; return whether some had to be let in: rates must be solved again."""
    solve = state.sharing.solve[0]
    if solve.united:
        _forget_regions(state)
    if solve.due:
        _hand_over_due(state)
    num_marked = 0
    found = False
    while least_value(state.due) <= solve.risen:
        number = least(state.due)
        if _is_full(state, number):
            found = True
            num_marked = mark_groups_over(state, number, num_marked)
            let_in(state, number)
    if found:
        form_anew(state, num_marked)
    return found


@inlined
def _forget_regions(state: FlowState) -> None:
    """Let all slack links be due: of which regions their flows are is no longer known."""
    state.sharing.solve[0].united = False
    for number in range(len(state.service)):
        state.sharing.links[number].due = np.inf
        if state.service[number].standing == SLACK:
            state.service[number].region = NOWHERE
            set_value(state.due, number, -np.inf)


@inlined
def _hand_over_due(state: FlowState) -> None:
    """Let those slack links be due in whose regions rates have risen by as much as they may."""
    links = state.sharing.links
    state.sharing.solve[0].due = False
    for number in range(len(links)):
        links[number].due = np.inf
    for number in range(len(links)):
        service = state.service[number]
        if service.standing == SLACK and service.region != NOWHERE:
            region = links[service.region]
            if service.due < region.risen:
                set_value(state.due, number, -np.inf)
            else:
                region.due = min(region.due, service.due)


@inlined
def _is_full(state: FlowState, number: int) -> bool:
    """Return whether a slack link has too high a load; if not, set when it is due again."""
    service = state.service[number]
    spare = state.sharing.links[number].capacity * _FULL - _load_now(state, number)
    if spare < 0.0:
        return True
    if service.num_flows == 0 or _is_dominated_now(state, number):
        service.dearest = 0.0
        service.region = NOWHERE
        set_value(state.due, number, np.inf)
    elif service.region == NOWHERE:
        set_value(state.due, number, state.sharing.solve[0].risen + spare / service.dearest)
    else:
        region = state.sharing.links[service.region]
        service.due = region.risen + spare / service.dearest
        region.due = min(region.due, service.due)
        set_value(state.due, number, np.inf)
    return False


@inlined
def _load_now(state: FlowState, number: int) -> float:
    """Return the load of a slack link; note the region of its flows."""
    service = state.service[number]
    row = state.sharing.links[number].row
    state.now[0].looks += service.num_flows
    load = 0.0
    region = NOWHERE
    in_one = True
    kept = row
    for place in range(row, row + service.num_flows):
        flow = state.flows_on[place]
        group = state.group_of[flow]
        if group == ENDED:
            continue
        charge = state.charges_on[place]
        state.flows_on[kept] = flow
        state.charges_on[kept] = charge
        kept += 1
        load += charge * level_of(state.sharing, group)
        if in_one:
            its_region = region_of(state.sharing, state.sharing.held_by[group])
            in_one = region in (NOWHERE, its_region)
            region = its_region
    service.num_flows = kept - row
    service.region = region if in_one else NOWHERE
    return load


@inlined
def _is_dominated_now(state: FlowState, number: int) -> bool:
    """Return whether all flows under way on a link cross another that dominates it, and no flow is still to start.

    That is looked for anew only when half of the flows have gone since the last time.
    """
    now = state.now[0]
    row = state.sharing.links[number].row
    num_flows = state.service[number].num_flows
    if now.next_start < now.num_starts or 2 * num_flows > state.service[number].num_then:
        return False
    state.service[number].num_then = num_flows
    first = state.flows_on[row]
    for entry in range(state.bill_offsets[first], state.bill_offsets[first + 1]):
        dominator = state.bill_links[entry]
        if state.service[dominator].standing == BINDING and dominator != number:
            place = row
            while place < row + num_flows and _charges_more(state, state.flows_on[place], dominator, number):
                place += 1
            if place == row + num_flows:
                return True
    return False


@inlined
def _charges_more(state: FlowState, flow: int, dominator: int, number: int) -> bool:
    """Return whether a flow crosses one link and charges a larger share of its capacity than of the other's."""
    its_share = 0.0
    share = 0.0
    for entry in range(state.bill_offsets[flow], state.bill_offsets[flow + 1]):
        if state.bill_links[entry] == dominator:
            its_share = state.bill_coefficients[entry] / state.sharing.links[dominator].capacity
        elif state.bill_links[entry] == number:
            share = state.bill_coefficients[entry] / state.sharing.links[number].capacity
    return its_share >= share if _ties_count(state) else its_share * _FULL > share


@inlined
def _ties_count(state: FlowState) -> bool:
    """Return whether a link may be left out that is full only when another is: its meter would miss it."""
    return not state.now[0].metered


@called
def leave_out_slack(state: FlowState) -> None:
    """Leave out all links that are well below their capacity and hold no group."""
    sharing = state.sharing
    num_marked = 0
    for number in range(len(sharing.links)):
        link = sharing.links[number]
        if (
            state.service[number].standing == BINDING
            and link.num_groups > 0
            and link.num_held == 0
            and link.touched != sharing.solve[0].number
            and sharing.load[number] < _WELL_BELOW * link.capacity
        ):
            drop_empty(sharing, number)
            for place in range(link.row, link.row + link.num_groups):
                num_marked = mark_group(state, sharing.groups_on[place], num_marked)
            state.service[number].standing = SLACK
            set_value(state.due, number, -np.inf)
    if num_marked > 0:
        form_anew(state, num_marked)
        _find_regions(state)


@inlined
def _find_regions(state: FlowState) -> None:
    """Find the regions that groups connect: with fewer links that bind, there may be more of them."""
    sharing = state.sharing
    for number in range(len(sharing.links)):
        sharing.links[number].region = number
    for group in range(sharing.solve[0].num_groups):
        path = sharing.groups[group].path
        if sharing.groups[group].weight > 0.0:
            for entry in range(path, sharing.groups[group].path_end):
                unite(sharing, sharing.path_links[path], sharing.path_links[entry])
    sharing.solve[0].united = True


@called
def let_in_all(state: FlowState) -> None:
    """Let all slack links bind again: to look at them costs more than they would."""
    num_marked = 0
    for number in range(len(state.service)):
        if state.service[number].standing == SLACK:
            num_marked = mark_groups_over(state, number, num_marked)
            let_in(state, number)
    form_anew(state, num_marked)


@inlined
def choose_links(state: FlowState) -> None:
    """Leave links out, or let them in again, whichever pays.

    Links are left out after so much work on rates that to leave them out costs no more; they are let in again, and
    left out the next time after several times as much work, when looking at them has cost more than solving since.
    """
    now = state.now[0]
    work = state.sharing.solve[0].work
    if now.looks > now.entries_under_way + work - now.left_out_at:
        let_in_all(state)
        now.looks = 0
        now.look_after = _PATIENCE * now.look_after
        now.left_out_at = work
    elif work - now.left_out_at > now.look_after * now.entries_under_way:
        leave_out_slack(state)
        now.looks = 0
        now.left_out_at = work


@compiled
def find_dominated(state: FlowState, first: int, end: int, crossed_by: IntArray, share: FloatArray) -> None:
    """Bring up to date, for flows first to end - 1, which links are dominated; all that then are slack are due.

    crossed_by: [num_links] NOWHERE, share: [num_links], both to be written to
    """
    for number in range(first, end):
        start, stop = state.bill_offsets[number], state.bill_offsets[number + 1]
        for entry in range(start, stop):
            link = state.bill_links[entry]
            crossed_by[link] = number
            share[link] = state.bill_coefficients[entry] / state.sharing.links[link].capacity
        for entry in range(start, stop):
            link = state.bill_links[entry]
            service = state.service[link]
            if service.first_flow == NOWHERE:
                service.first_flow = number
                service.dominators = ~np.uint64(0)
                service.standing = DOMINATED
            if service.dominators != np.uint64(0):
                _keep_dominators(state, link, number, crossed_by, share)
                if service.dominators == np.uint64(0):
                    service.standing = SLACK
    for link in range(len(state.service)):
        if state.service[link].standing == SLACK:
            set_value(state.due, link, -np.inf)


@inlined
def _keep_dominators(
    state: FlowState, link: int, number: int, crossed_by: IntArray, share: FloatArray
) -> None:
    """Keep those dominators of a link that a flow crosses too and charges more dearly.

    crossed_by, share: [num_links] the last flow on each link, and the share of its capacity that it charges
    """
    service = state.service[link]
    start = state.bill_offsets[service.first_flow]
    length = min(state.bill_offsets[service.first_flow + 1] - start, _MOST_CANDIDATES)
    kept = np.uint64(0)
    for place in range(length):
        bit = np.uint64(1) << np.uint64(place)
        if service.dominators & bit:
            other = state.bill_links[start + place]
            if crossed_by[other] == number and (
                share[other] * _FULL > share[link]
                or (share[other] == share[link] and _ties_count(state) and _comes_first(state, other, link))
            ):
                kept |= bit
    service.dominators = kept


@inlined
def _comes_first(state: FlowState, one: int, other: int) -> bool:
    """Return whether a link that all flows on another cross has more flows than that, or as many and comes first."""
    more = state.service[one].num_known - state.service[other].num_known
    return more > 0 or (more == 0 and one < other)
