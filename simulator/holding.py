"""Who holds whom: how groups come to cross links, are held by them, change their weight and go.

See `simulator.sharing` for what is known of links and groups.
"""

import numpy as np

from simulator.compiled import called, inlined
from simulator.sharing import HOLDS_NOTHING, NO_LINK, NOWHERE, UNMARKED, WALK, Sharing

# Differences drift. A link's load is summed afresh after this many solves, and where what matters is this small a
# part of the capacity, so that rounding would show in it.
_SOLVES_UNTIL_STALE = 64
CANCELLED = 1e-3


@inlined
def touch(sharing: Sharing, number: int) -> None:
    """Let a link take part in the next solve."""
    link = sharing.links[number]
    solve = sharing.solve[0]
    if link.touched != solve.number:
        link.touched = solve.number
        link.level_before = sharing.level[number]
        sharing.touched[solve.num_touched] = number
        solve.num_touched += 1


@inlined
def new_group(sharing: Sharing) -> int:
    """Return the number of a new group; its path is the entries written from num_entries on: see `end_path`."""
    solve = sharing.solve[0]
    number = solve.num_groups
    solve.num_groups += 1
    group = sharing.groups[number]
    group.weight = 0.0
    group.plain = True
    group.mark = UNMARKED
    sharing.held_by[number] = NOWHERE
    group.path = solve.num_entries
    group.path_end = solve.num_entries
    return number


@inlined
def region_of(sharing: Sharing, number: int) -> int:
    """Return the link by which a link's region is known (union-find, paths halved)."""
    while sharing.links[number].region != number:
        sharing.links[number].region = sharing.links[sharing.links[number].region].region
        number = sharing.links[number].region
    return number


@inlined
def unite(sharing: Sharing, one: int, other: int) -> None:
    """Let two links be of one region."""
    one, other = region_of(sharing, one), region_of(sharing, other)
    if one != other:
        sharing.links[max(one, other)].region = min(one, other)
        sharing.solve[0].united = True


@inlined
def grow(sharing: Sharing, number: int, rise: float) -> None:
    """Note that the rates of flows that a link holds have grown by so much altogether."""
    region = sharing.links[region_of(sharing, number)]
    sharing.solve[0].risen += rise
    region.risen += rise
    if region.risen > region.due:
        sharing.solve[0].due = True


@inlined
def add_to_path(sharing: Sharing, number: int, link: int, coefficient: float) -> None:
    """Append a link to the path of the newest group, and the group to the link's row."""
    solve = sharing.solve[0]
    sharing.path_links[solve.num_entries] = link
    sharing.path_coefficients[solve.num_entries] = coefficient
    solve.num_entries += 1
    sharing.groups[number].path_end = solve.num_entries
    unite(sharing, sharing.path_links[sharing.groups[number].path], link)
    if coefficient != 1.0:
        sharing.groups[number].plain = False
    crossed = sharing.links[link]
    if crossed.num_groups == crossed.room:
        drop_empty(sharing, link)
    sharing.groups_on[crossed.row + crossed.num_groups] = number
    sharing.coefficients_on[crossed.row + crossed.num_groups] = coefficient
    crossed.num_groups += 1


@inlined
def drop_empty(sharing: Sharing, number: int) -> None:
    """Take groups without flows out of a link's row."""
    link = sharing.links[number]
    kept = 0
    for position in range(link.row, link.row + link.num_groups):
        group = sharing.groups_on[position]
        if sharing.groups[group].weight > 0.0:
            sharing.groups_on[link.row + kept] = group
            sharing.coefficients_on[link.row + kept] = sharing.coefficients_on[position]
            kept += 1
    link.num_groups = kept


@inlined
def add_weight(sharing: Sharing, number: int, weight: float) -> None:
    """Add (or take away, if negative) flows to a group, at its level; the next solve says what becomes of it."""
    group = sharing.groups[number]
    solve = sharing.solve[0]
    held_by = sharing.held_by[number]
    if group.weight == 0.0 and held_by == NOWHERE:
        sharing.joined[solve.num_joined] = number
        solve.num_joined += 1
    group.weight += weight
    level = level_of(sharing, number)
    if held_by != NOWHERE:
        grow(sharing, held_by, max(0.0, weight) * level)
        sharing.held[sharing.links[held_by].row + group.place].weight = group.weight
    for entry in range(group.path, group.path_end):
        number_of_link = sharing.path_links[entry]
        touch(sharing, number_of_link)
        sharing.load[number_of_link] += sharing.path_coefficients[entry] * weight * level
        if held_by == number_of_link:
            sharing.links[number_of_link].demand_held += sharing.path_coefficients[entry] * weight


@inlined
def end_group(sharing: Sharing, number: int) -> None:
    """Let a group go whose last flow has left."""
    group = sharing.groups[number]
    group.weight = 0.0
    if sharing.held_by[number] != NOWHERE:
        unhold(sharing, number)


@inlined
def level_of(sharing: Sharing, number: int) -> float:
    """Return the level of a group: that of the link that holds it; 0 if there is none yet."""
    return sharing.level[sharing.held_by[number]]


@inlined
def unhold(sharing: Sharing, number: int) -> None:
    """Take a group from the link that holds it."""
    group = sharing.groups[number]
    link = sharing.links[sharing.held_by[number]]
    link.num_held -= 1
    last = sharing.held[link.row + link.num_held]
    here = sharing.held[link.row + group.place]
    if here.end == link.first_end:
        link.first_end = np.nan
    here.weight = last.weight
    here.end = last.end
    here.group = last.group
    here.first = last.first
    here.second = last.second
    here.third = last.third
    sharing.groups[last.group].place = group.place
    sharing.held_by[number] = NOWHERE


@inlined
def hold(sharing: Sharing, number: int, at: int) -> None:
    """Let a link hold a group."""
    group = sharing.groups[number]
    link = sharing.links[at]
    if link.num_held == 0 and sharing.waits[at] == HOLDS_NOTHING:
        sharing.waits[at] = False
    group.place = link.num_held
    sharing.held_by[number] = at
    held = sharing.held[link.row + link.num_held]
    link.num_held += 1
    held.weight = group.weight
    held.end = np.nan
    link.first_end = np.nan
    held.group = number
    held.first = NO_LINK
    held.second = NO_LINK
    held.third = NO_LINK
    others = 0
    for entry in range(group.path, group.path_end):
        crossed = sharing.path_links[entry]
        if crossed != at:
            if others == 0:
                held.first = crossed
            elif others == 1:
                held.second = crossed
            elif others == 2:
                held.third = crossed
            others += 1
    if others > 3 or not group.plain:
        held.first = WALK


@inlined
def forget_groups(sharing: Sharing) -> None:
    """Give out group numbers from 0 again; no group has a flow."""
    sharing.solve[0].num_groups = 0
    sharing.solve[0].num_entries = 0
    sharing.solve[0].num_joined = 0
    for number in range(len(sharing.links)):
        sharing.links[number].num_groups = 0
        sharing.load[number] = 0.0


@inlined
def coefficient_at(sharing: Sharing, number: int, at: int) -> float:
    """Return the coefficient at which a group charges a link on its path."""
    group = sharing.groups[number]
    for entry in range(group.path, group.path_end):
        if sharing.path_links[entry] == at:
            return sharing.path_coefficients[entry]
    return 0.0


@inlined
def is_doubtful(link, held: float) -> bool:  # type: ignore[no-untyped-def]
    """Return whether rounding may show in what is left of a link for the groups that it holds."""
    return link.stale >= _SOLVES_UNTIL_STALE or held < CANCELLED * link.capacity


@called
def sum_afresh(sharing: Sharing, number: int) -> float:
    """Sum the load of a link, and the demand of the groups that it holds; return the load of those it does not."""
    drop_empty(sharing, number)
    link = sharing.links[number]
    elsewhere = 0.0
    link.demand_held = 0.0
    link.stale = 0
    for position in range(link.row, link.row + link.num_groups):
        group = sharing.groups_on[position]
        charge = sharing.coefficients_on[position] * sharing.groups[group].weight
        if sharing.held_by[group] == number:
            link.demand_held += charge
        else:
            elsewhere += charge * level_of(sharing, group)
    sharing.load[number] = elsewhere
    if link.num_held > 0:
        sharing.load[number] += link.demand_held * sharing.level[number]
    return elsewhere
