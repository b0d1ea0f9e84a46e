"""Max-min levels after a small change, by pouring link after link: what a full filling would give, for less work.

After a solve each group is held by a full link on which no group has a higher level. A start or an end upsets that
on a few links: their loads no longer are their capacities. To *pour* link l is to give the groups that it holds the
level at which it is full again,

    level + (capacity - load) / (sum over the groups it holds of coefficient x weight),

which changes the loads of the other links on their paths; those are poured in turn, in rising order of their levels,
because what a link holds takes from links with higher levels and never from lower ones. Where a link comes to lie
below a group that another link holds, it takes that group over, highest first, and the other link is poured too.

When no link is left to pour, every link that holds a group is full, no group on it is faster than those that it
holds, and no other link is over its capacity. Levels like that are max-min fair, and there are no others: whichever
way led there, the answer is the same. Only how long it takes rests on the order, so that pouring gives up when it
takes too long, and leaves what it has done to `simulator.fairness.fill`, which starts from any state.
"""

import numpy as np

from simulator.compiled import inlined
from simulator.holding import (
    CANCELLED,
    coefficient_at,
    grow,
    hold,
    is_doubtful,
    level_of,
    sum_afresh,
    touch,
    unhold,
)
from simulator.sharing import HOLDS_NOTHING, IN_LINE, NO_LINK, NOWHERE, SAME_LEVEL, WALK, Sharing

# However few links are touched, pouring goes on as if there were so many more.
_AT_LEAST = 40
# Of paths walked, what a group that changes its level is counted as.
_WORK_OF_A_GROUP = 2


@inlined
def pour_all(sharing: Sharing) -> bool:
    """Pour until all links are right; return whether that came to an end."""
    solve = sharing.solve[0]
    solve.num_poured = 0
    for position in range(solve.num_joined):
        if sharing.groups[sharing.joined[position]].weight > 0.0:
            _place(sharing, sharing.joined[position])
    for position in range(solve.num_touched):
        _line_up(sharing, sharing.touched[position])
    while True:
        while solve.num_waiting > 0:
            solve.num_waiting -= 1
            number = sharing.waiting[solve.num_waiting]
            sharing.waits[number] = False
            solve.num_poured += 1
            if solve.num_poured > solve.patience * (solve.num_touched + _AT_LEAST):
                _clear_line(sharing)
                return False
            _pour(sharing, number)
        # Links that hold nothing come last, so that their loads are final; one that is too full begins anew.
        if not _pour_overfull(sharing):
            return True


@inlined
def _clear_line(sharing: Sharing) -> None:
    """Let no link wait to be poured."""
    solve = sharing.solve[0]
    while solve.num_waiting > 0:
        solve.num_waiting -= 1
        sharing.waits[sharing.waiting[solve.num_waiting]] = False


@inlined
def _line_up(sharing: Sharing, number: int) -> None:
    """Let a link that holds groups wait to be poured, behind those with lower levels."""
    link = sharing.links[number]
    if sharing.waits[number]:
        return
    if link.num_held == 0:
        sharing.waits[number] = HOLDS_NOTHING
        return
    sharing.waits[number] = IN_LINE
    level = sharing.level[number]
    place = sharing.solve[0].num_waiting
    sharing.solve[0].num_waiting += 1
    while place > 0 and sharing.waiting_levels[place - 1] < level:
        sharing.waiting[place] = sharing.waiting[place - 1]
        sharing.waiting_levels[place] = sharing.waiting_levels[place - 1]
        place -= 1
    sharing.waiting[place] = number
    sharing.waiting_levels[place] = level


@inlined
def _place(sharing: Sharing, number: int) -> None:
    """Let the link that leaves a new group the least hold it, as a first guess."""
    group = sharing.groups[number]
    holder = NOWHERE
    level = np.inf
    for entry in range(group.path, group.path_end):
        crossed = sharing.path_links[entry]
        link = sharing.links[crossed]
        spare = link.capacity - sharing.load[crossed]
        demand = sharing.path_coefficients[entry] * group.weight
        if link.num_held > 0:
            spare += link.demand_held * sharing.level[crossed]
            demand += link.demand_held
        if max(0.0, spare) / demand < level:
            level, holder = max(0.0, spare) / demand, crossed
    link = sharing.links[holder]
    if link.num_held > 0:
        _raise_held(sharing, holder, level)
    sharing.level[holder] = level
    hold(sharing, number, holder)
    link.demand_held += coefficient_at(sharing, number, holder) * group.weight
    sharing.load[holder] += coefficient_at(sharing, number, holder) * group.weight * level
    grow(sharing, holder, group.weight * level)
    _charge_others(sharing, number, level)


@inlined
def _charge_others(sharing: Sharing, number: int, rise: float) -> None:
    """Charge the links that a group crosses, beside the one that holds it, for a rise of its level to that one's."""
    group = sharing.groups[number]
    level = sharing.level[sharing.held_by[number]]
    for entry in range(group.path, group.path_end):
        if sharing.path_links[entry] != sharing.held_by[number]:
            _charge(
                sharing,
                sharing.path_links[entry],
                sharing.path_coefficients[entry] * group.weight * rise,
                level,
            )


@inlined
def _charge(sharing: Sharing, number: int, more: float, level: float) -> None:
    """Add to the load of a link for a group that another link holds at a level."""
    sharing.load[number] += more
    sharing.level_elsewhere[number] = max(sharing.level_elsewhere[number], level)
    if not sharing.waits[number]:
        touch(sharing, number)
        _line_up(sharing, number)


@inlined
def _pour(sharing: Sharing, number: int) -> None:
    """Give the groups that a link holds the level at which it is full, taking over those that are faster."""
    link = sharing.links[number]
    if link.num_held == 0:
        sharing.level[number] = np.inf
        link.demand_held = 0.0
        return
    link.stale += 1
    level = max(0.0, sharing.level[number] + (link.capacity - sharing.load[number]) / link.demand_held)
    fell = level < CANCELLED * sharing.level[number]
    if fell or is_doubtful(link, sharing.level[number] * link.demand_held):
        elsewhere = sum_afresh(sharing, number)
        level = max(0.0, (link.capacity - elsewhere) / link.demand_held)
    if fell:
        _raise_held(sharing, number, level)
        sum_afresh(sharing, number)
    if sharing.level_elsewhere[number] > level * (1.0 + SAME_LEVEL):
        level = _take_over(sharing, number, level)
    _raise_held(sharing, number, level)


@inlined
def _raise_held(sharing: Sharing, number: int, level: float) -> None:
    """Give all groups that a link holds another level."""
    link = sharing.links[number]
    rise = level - sharing.level[number]
    sharing.load[number] += link.demand_held * rise
    sharing.level[number] = level
    weight = 0.0
    for place in range(link.row, link.row + link.num_held):
        held = sharing.held[place]
        weight += held.weight
        more = held.weight * rise
        if held.first == WALK:
            _charge_others(sharing, held.group, rise)
        elif held.first != NO_LINK:
            _charge(sharing, held.first, more, level)
            if held.second != NO_LINK:
                _charge(sharing, held.second, more, level)
                if held.third != NO_LINK:
                    _charge(sharing, held.third, more, level)
    grow(sharing, number, max(0.0, weight * rise))
    sharing.solve[0].work += _WORK_OF_A_GROUP * link.num_held


@inlined
def _take_over(sharing: Sharing, number: int, level: float) -> float:
    """Let a link hold all groups on it that would be faster than those that it holds; return the level of all."""
    link = sharing.links[number]
    held_elsewhere = sharing.load[number] - sharing.level[number] * link.demand_held
    while True:
        highest = _highest_elsewhere(sharing, number)
        sharing.level_elsewhere[number] = highest
        if highest <= level * (1.0 + SAME_LEVEL):
            return level
        position = link.row
        while (
            level_of(sharing, sharing.groups_on[position]) != highest
            or sharing.held_by[sharing.groups_on[position]] == number
        ):
            position += 1
        held_elsewhere -= _take(sharing, number, position) * highest
        level = max(0.0, (link.capacity - held_elsewhere) / link.demand_held)


@inlined
def _highest_elsewhere(sharing: Sharing, number: int) -> float:
    """Return the highest level of the groups on a link that others hold; no branch that could be guessed wrongly."""
    link = sharing.links[number]
    own_level = sharing.level[number]
    sharing.level[number] = 0.0
    highest = 0.0
    for position in range(link.row, link.row + link.num_groups):
        highest = max(highest, level_of(sharing, sharing.groups_on[position]))
    sharing.level[number] = own_level
    return highest


@inlined
def _take(sharing: Sharing, number: int, position: int) -> float:
    """Let a link hold the group at a position of its row, until now held elsewhere; return what it charges."""
    taken = sharing.groups_on[position]
    group = sharing.groups[taken]
    holder = sharing.held_by[taken]
    touch(sharing, holder)
    sharing.links[holder].demand_held -= coefficient_at(sharing, taken, holder) * group.weight
    # what it held is no longer its own: nobody there may be faster than those that it goes on holding
    before = sharing.level[holder]
    sharing.level_elsewhere[holder] = max(sharing.level_elsewhere[holder], before)
    _line_up(sharing, holder)
    unhold(sharing, taken)
    hold(sharing, taken, number)
    link = sharing.links[number]
    charge = sharing.coefficients_on[position] * group.weight
    link.demand_held += charge
    sharing.load[number] += charge * (sharing.level[number] - before)
    _charge_others(sharing, taken, sharing.level[number] - before)
    return charge


@inlined
def _pour_overfull(sharing: Sharing) -> bool:
    """Pour links that hold nothing and are over their capacity; return whether there were any."""
    solve = sharing.solve[0]
    found = False
    for position in range(solve.num_touched):
        number = sharing.touched[position]
        link = sharing.links[number]
        if link.num_held == 0 and sharing.load[number] > link.capacity * (1.0 + SAME_LEVEL):
            sum_afresh(sharing, number)
            if sharing.load[number] > link.capacity * (1.0 + SAME_LEVEL):
                found = True
                sharing.level[number] = 0.0
                link.demand_held = 0.0
                _raise_held(sharing, number, _take_over(sharing, number, 0.0))
    return found
