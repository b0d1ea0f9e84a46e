"""Weighted max-min fair rates from link capacities and flow bills: arrays in, arrays out, no clock.

Each flow f has a weight w_f > 0 and a bill: for each link l that it uses, a coefficient b_lf > 0, the bytes
that l carries for each byte of f delivered. Rates r_f must satisfy, for every link l,

    sum over f of b_lf * r_f <= capacity_l

and be max-min fair: no flow's level r_f / w_f can grow without lowering that of a flow whose level is no
larger. The rates are unique. They are found by progressive filling (Bertsekas and Gallager, Data Networks,
2nd ed., section 6.5.2): raise the level of all flows together; the link that fills first fixes its flows at
that level; go on with the others. Link l fills at the level

    (capacity_l - what fixed flows take) / (sum over unfixed f of b_lf * w_f),

and every step fixes flows at a level no higher than l's own, so that this level never falls. Hence a tournament
of levels that are brought up to date only when they win gives the links in the right order.

Worked example: link 0 of capacity 2 carries flows 0 and 1, link 1 of capacity 10 carries flows 1 and 2, all
with weight and coefficients 1. Levels: link 0 fills at 2/2 = 1, link 1 at 10/2 = 5. Link 0 first: flows 0 and
1 get 1. Link 1 now fills at (10 - 1)/1 = 9: flow 2 gets 9.

**Only what can change is solved again.** After a solve each group is held by a full link on which no group has a
higher level (`simulator.sharing`); such levels are max-min fair, and no others are. When weights change, the loads
of some links do: those are touched. A touched link's level may change, so the groups that it holds are taken out of
the loads, to be fixed anew, and their other links are touched in turn. Groups that others hold need not be, as long
as the link fills no lower than before, or still above them; when it fills below one, that one is taken out too, and
so are those that its link holds, before anything is fixed at that level or above. In the end every group that was
left alone is still held by a full link, and nobody on that link is faster.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.compiled import called, compiled, inlined
from simulator.holding import (
    CANCELLED,
    add_to_path,
    add_weight,
    drop_empty,
    grow,
    hold,
    is_doubtful,
    level_of,
    new_group,
    touch,
    unhold,
)
from simulator.pouring import pour_all
from simulator.sharing import NOWHERE, SAME_LEVEL, UNFIXED, UNMARKED, Sharing, new_sharing
from simulator.tournament import first_value, least, set_value, set_values

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# More groups than this are not placed one by one.
_MOST_PLACED = 32


@inlined
def solve(sharing: Sharing) -> None:
    """Give all groups their max-min levels, after weights have changed; see `add_weight`.

    Afterwards the first num_touched of `touched` are the links whose loads may have changed, until `end_solve`.
    """
    if sharing.solve[0].num_joined > _MOST_PLACED or not pour_all(sharing):
        sharing.solve[0].filled += 1
        find_affected(sharing)
        fill(sharing)
    for position in range(sharing.solve[0].num_touched):
        number = sharing.touched[position]
        sharing.waits[number] = False
        if sharing.links[number].num_held == 0:
            sharing.level[number] = np.inf
            sharing.links[number].demand_held = 0.0


@inlined
def end_solve(sharing: Sharing) -> None:
    """Forget which links the last solve touched."""
    solve = sharing.solve[0]
    solve.number += 1
    solve.num_touched = 0
    solve.num_joined = 0


@called
def find_affected(sharing: Sharing) -> None:
    """Take groups that have joined, and those that touched links hold, out of the loads, with all that follows."""
    solve = sharing.solve[0]
    for position in range(solve.num_touched):
        _begin(sharing, sharing.touched[position])
    for position in range(solve.num_joined):
        group = sharing.joined[position]
        if sharing.groups[group].weight > 0.0 and sharing.held_by[group] == NOWHERE:
            _unfix(sharing, group)
    _unfix_held(sharing, 0)


@inlined
def _unfix_held(sharing: Sharing, first: int) -> None:
    """Take out what touched links hold, from the first-th on, and what the links hold that this touches."""
    position = first
    while position < sharing.solve[0].num_touched:
        link = sharing.links[sharing.touched[position]]
        for place in range(link.row, link.row + link.num_held):
            _unfix(sharing, sharing.held[place].group)
        position += 1


@inlined
def _begin(sharing: Sharing, number: int) -> None:
    """Begin a solve at a link, with all groups at the levels that they have."""
    link = sharing.links[number]
    link.free = link.capacity - sharing.load[number]
    link.stale += 1
    link.demand = 0.0
    link.demand_summed = 0.0
    link.unfixed = 0


@inlined
def touch_and_begin(sharing: Sharing, number: int):  # type: ignore[no-untyped-def]
    """Return a link, which takes part in the solve under way from now on if it did not before."""
    link = sharing.links[number]
    if link.touched != sharing.solve[0].number:
        touch(sharing, number)
        _begin(sharing, number)
    return link


@inlined
def _unfix(sharing: Sharing, number: int) -> None:
    """Take a group out of the loads of its links, and let it be given a new level."""
    group = sharing.groups[number]
    level = level_of(sharing, number)
    solve = sharing.solve[0]
    group.mark = UNFIXED
    solve.work += group.path_end - group.path
    for entry in range(group.path, group.path_end):
        link = touch_and_begin(sharing, sharing.path_links[entry])
        demand = sharing.path_coefficients[entry] * group.weight
        link.free += demand * level
        link.demand += demand
        link.unfixed += 1


@called
def fill(sharing: Sharing) -> None:
    """Fill links in rising order of their levels until every group that was taken out has one."""
    solve = sharing.solve[0]
    tree = sharing.tree[: _levels(sharing)]
    num_touched = solve.num_touched
    level = 0.0
    first = first_value(tree)
    while True:
        position = least(tree)
        key = tree[first + position]
        if key == np.inf:
            break
        number = sharing.touched[position]
        link = sharing.links[number]
        if link.unfixed == 0:
            set_value(tree, position, np.inf)
        elif link.unfixed != link.keyed:
            link.keyed = link.unfixed
            set_value(tree, position, _level_at(sharing, number))
        else:
            level = key if key > level * (1.0 + SAME_LEVEL) else level
            if sharing.level_elsewhere[number] > level * (1.0 + SAME_LEVEL):
                _unfix_above(sharing, number, level)
            if solve.num_touched == num_touched:
                set_value(tree, position, np.inf)
                _fix_all(sharing, number, level)
            else:  # what is taken out may lower the key of any link that it crosses
                num_touched = solve.num_touched
                tree = sharing.tree[: _levels(sharing)]
                first = first_value(tree)
    for position in range(solve.num_touched):
        number = sharing.touched[position]
        sharing.load[number] = sharing.links[number].capacity - sharing.links[number].free


@inlined
def _levels(sharing: Sharing) -> int:
    """Write the tournament of the levels at which touched links fill, as far as is known now; return its size."""
    keys = sharing.keys[: sharing.solve[0].num_touched]
    for position in range(len(keys)):
        link = sharing.links[sharing.touched[position]]
        keys[position] = np.inf
        if link.unfixed > 0:
            link.demand_summed = max(link.demand_summed, link.demand)
            link.keyed = 0 if _is_doubtful(link) else link.unfixed
            keys[position] = link.free / link.demand
    return set_values(sharing.tree, keys)


@inlined
def _unfix_above(sharing: Sharing, number: int, level: float) -> None:
    """Take out the groups on a link that others hold at levels above this one, with all that follows."""
    drop_empty(sharing, number)
    link = sharing.links[number]
    first = sharing.solve[0].num_touched
    level_elsewhere = 0.0
    for position in range(link.row, link.row + link.num_groups):
        group = sharing.groups_on[position]
        if sharing.groups[group].mark == UNFIXED:
            continue
        its_level = level_of(sharing, group)
        if its_level > level * (1.0 + SAME_LEVEL):
            touch_and_begin(sharing, sharing.held_by[group])
        else:
            level_elsewhere = max(level_elsewhere, its_level)
    sharing.level_elsewhere[number] = level_elsewhere
    _unfix_held(sharing, first)


@inlined
def _is_doubtful(link) -> bool:  # type: ignore[no-untyped-def]
    """Return whether rounding may show in what is left of a link for groups without a level."""
    return is_doubtful(link, link.free) or link.demand < CANCELLED * link.demand_summed


@inlined
def _level_at(sharing: Sharing, number: int) -> float:
    """Return the level at which a link fills if nobody else is fixed before."""
    link = sharing.links[number]
    if _is_doubtful(link):
        drop_empty(sharing, number)
        taken = 0.0
        demand = 0.0
        for position in range(link.row, link.row + link.num_groups):
            group = sharing.groups[sharing.groups_on[position]]
            charge = sharing.coefficients_on[position] * group.weight
            if group.mark == UNFIXED:
                demand += charge
            else:
                taken += charge * level_of(sharing, sharing.groups_on[position])
        link.free = link.capacity - taken
        link.demand = demand
        link.demand_summed = demand
        link.stale = 0
    return link.free / link.demand


@inlined
def _fix_all(sharing: Sharing, number: int, level: float) -> None:
    """Fix the groups that have no level yet on a link that is full at this one, and let the link hold them."""
    link = sharing.links[number]
    demand = link.demand
    level_elsewhere = sharing.level_elsewhere[number]
    for place in range(link.row, link.row + link.num_held):
        _fix(sharing, sharing.held[place].group, sharing.level[number], level)
    if link.unfixed > 0:
        for position in range(link.row, link.row + link.num_groups):
            group = sharing.groups_on[position]
            if sharing.groups[group].mark == UNFIXED:
                before = level_of(sharing, group)
                if sharing.held_by[group] != NOWHERE:
                    unhold(sharing, group)
                hold(sharing, group, number)
                _fix(sharing, group, before, level)
    sharing.level[number] = level
    link.demand_held = demand
    sharing.level_elsewhere[number] = level_elsewhere


@inlined
def _fix(sharing: Sharing, number: int, before: float, level: float) -> None:
    """Charge the links of a group for its level, which was another before."""
    group = sharing.groups[number]
    for entry in range(group.path, group.path_end):
        crossed = sharing.path_links[entry]
        link = sharing.links[crossed]
        demand = sharing.path_coefficients[entry] * group.weight
        link.free -= demand * level
        link.demand -= demand
        link.unfixed -= 1
        sharing.level_elsewhere[crossed] = max(sharing.level_elsewhere[crossed], level)
    grow(sharing, sharing.held_by[number], group.weight * max(0.0, level - before))
    group.mark = UNMARKED


def max_min_rates(
    capacity_bytes_per_s: FloatArray,
    bill_offsets: IntArray,
    bill_links: IntArray,
    coefficients: FloatArray,
    weights: FloatArray,
) -> FloatArray:
    """Return the weighted max-min fair rates.

    capacity_bytes_per_s: [num_links] bytes/s, >= 0 (0: a dead link; its flows get rate 0)
    bill_offsets: [num_flows + 1], bill_links and coefficients: [num_entries], bills in CSR form; a link at
    most once in a bill; coefficients > 0
    weights: [num_flows] > 0
    returns: [num_flows] bytes/s; infinite for a flow with an empty bill, which nothing holds back
    """
    room = np.bincount(bill_links, minlength=len(capacity_bytes_per_s))
    sharing = new_sharing(capacity_bytes_per_s, room, len(weights), len(bill_links))
    _solve_once(sharing, bill_offsets, bill_links, coefficients, weights)
    rates: FloatArray = sharing.level[sharing.held_by] * weights
    rates[np.diff(bill_offsets) == 0] = np.inf
    return rates


@compiled
def _solve_once(
    sharing: Sharing,
    bill_offsets: IntArray,
    bill_links: IntArray,
    coefficients: FloatArray,
    weights: FloatArray,
) -> None:
    """Make a group of every flow, and solve."""
    for flow in range(len(weights)):
        group = new_group(sharing)
        for entry in range(bill_offsets[flow], bill_offsets[flow + 1]):
            add_to_path(sharing, group, bill_links[entry], coefficients[entry])
        add_weight(sharing, group, weights[flow])
    find_affected(sharing)
    fill(sharing)
