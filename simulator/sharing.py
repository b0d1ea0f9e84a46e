"""How links are shared: what is known between two solves of links, and of the groups of flows that cross them.

A group is flows that are alike to the solver: they cross the same links at the same coefficients and have the same
weight, so that they have the same level (rate over weight) whatever happens. Each group is *held* by one link: one
that is full, and on which no group has a higher level, so that the group cannot go faster. That link's level is the
group's. A link that holds no group is not full.

Rows (of groups on links) have a fixed room each; a row's groups that have no flow left are taken out as they are met.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.tournament import new_tournament

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

LINK = np.dtype(
    [
        # What `simulator.pouring` reads and writes of every link that it pours: one cache line.
        ("touched", np.int64),  # the number of the last solve that this link took part in
        ("capacity", np.float64),  # bytes/s
        ("demand_held", np.float64),  # what the groups that it holds add to the load for each unit of level
        # Of the ends of the groups that it holds the first, on its clock; NaN until that is known again.
        ("first_end", np.float64),
        ("level_before", np.float64),  # its level before the solve under way
        ("num_held", np.int32),  # groups that it holds
        ("stale", np.int32),  # solves since its load was summed afresh
        # Its row: where it starts, its room, and the groups on it.
        ("row", np.int64),
        ("room", np.int32),
        ("num_groups", np.int32),
        # Its region: links that groups connect, known by one of them, to which these point, maybe over others.
        ("region", np.int64),
        # Of the one: what rates in the region have grown by (bytes/s), the falls left out, and what that may come to.
        ("risen", np.float64),
        ("due", np.float64),
        # What `simulator.fairness.fill` needs: capacity not taken yet, what groups without a level add to the load
        # for each unit of level, what that was before it was reduced, how many such groups there are, and how many
        # there were when the link's key was computed.
        ("free", np.float64),
        ("demand", np.float64),
        ("demand_summed", np.float64),
        ("unfixed", np.int32),
        ("keyed", np.int32),
    ]
)
_CACHE_LINE = 64
GROUP = np.dtype(
    [
        ("weight", np.float64),  # of all its flows together; 0: it has none left
        ("path", np.uint32),  # where its links start
        ("path_end", np.uint32),
        ("plain", np.int32),  # whether all coefficients on its path are 1
        ("place", np.int32),  # in the row of groups that the link holds
        (
            "mark",
            np.int32,
        ),  # UNFIXED while `fill` has no level for it yet, TO_REGROUP before it is formed anew
        ("unused", np.int32),
    ]
)
# A group in the row of the link that holds it, with all that pouring needs: rows are read from end to end.
HELD = np.dtype(
    [
        ("weight", np.float64),  # the group's
        ("end", np.float64),  # the link's clock when its first flow ends; NaN until that is known
        ("group", np.uint32),
        # The other links on its path, up to NO_LINK; or WALK, if there are more than three or it is not plain.
        ("first", np.uint32),
        ("second", np.uint32),
        ("third", np.uint32),
    ]
)
NO_LINK, WALK = 2**32 - 1, 2**32 - 2
UNMARKED, UNFIXED, TO_REGROUP = 0, 1, 2
SOLVE = np.dtype(
    [
        ("number", np.int64),  # of this solve, from 1
        ("num_touched", np.int64),
        ("num_joined", np.int64),
        ("risen", np.float64),  # bytes/s: what rates have grown by in all solves, the falls left out
        ("united", np.int64),  # whether regions have become one since this was last asked
        (
            "due",
            np.int64,
        ),  # whether a region's rates have grown by more than they may since this was last asked
        ("num_waiting", np.int64),  # links that wait to be poured
        ("num_poured", np.int64),  # links poured in this solve
        ("filled", np.int64),  # solves in which it did, or that began by filling
        ("patience", np.int64),  # links that may be poured for each one touched, before pouring gives up
        ("work", np.int64),  # entries of paths walked, in all solves
        ("num_groups", np.int64),  # group numbers given out
        ("num_entries", np.int64),  # entries of paths given out
    ]
)
NOWHERE = -1
IN_LINE, HOLDS_NOTHING = 1, 2

# Links whose levels differ by less than this (relative) fill at once: symmetric flows then get the very same
# rate, whatever the order in which rounding met their links.
SAME_LEVEL = 1e-12
# Most solves pour a link once, few a link twice.
_PATIENCE = 6


class Sharing(NamedTuple):
    """Links, groups, and who crosses what.

    links: [num_links] LINK; groups: [most groups] GROUP
    load: [num_links] bytes/s
    level: [num_links + 1] bytes/s per unit of weight; infinite if the link holds no group; the last, NOWHERE's, is 0
    level_elsewhere: [num_links] no group on the link that others hold has a higher level
    waits: [num_links] IN_LINE while a link waits to be poured, or HOLDS_NOTHING once it has been met and need not
    held_by: [most groups] the link that holds each group, or NOWHERE
    path_links, path_coefficients: [most entries] the paths of groups
    groups_on, coefficients_on: [sum of room] rows of links: the groups on each, and at which coefficients
    held: [sum of room] HELD, rows of links: the groups that each holds
    solve: [1] SOLVE
    touched: [num_links] the links of the solve under way
    joined: [most groups] groups that no link holds yet
    waiting, waiting_levels: [num_links] links that wait to be poured, highest level first
    tree, keys: scratch of `fill`
    """

    links: NDArray[Any]
    load: FloatArray
    level: FloatArray
    level_elsewhere: FloatArray
    waits: NDArray[np.int8]
    groups: NDArray[Any]
    held_by: NDArray[np.int32]
    path_links: NDArray[np.uint32]
    path_coefficients: FloatArray
    groups_on: NDArray[np.uint32]
    coefficients_on: FloatArray
    held: NDArray[Any]
    solve: NDArray[Any]
    touched: NDArray[np.uint32]
    joined: NDArray[np.uint32]
    waiting: NDArray[np.uint32]
    waiting_levels: FloatArray
    tree: FloatArray
    keys: FloatArray


def new_sharing(capacity: FloatArray, room: IntArray, most_groups: int, most_entries: int) -> Sharing:
    """Return links that nothing crosses yet.

    capacity: [num_links] bytes/s; room: [num_links] the most groups on each link at a time
    """
    links = _in_cache_lines(len(capacity))
    links["capacity"] = capacity
    links["room"] = room
    links["region"] = np.arange(len(capacity))
    links["due"] = np.inf
    links["row"] = np.cumsum(room) - room
    solve = np.zeros(1, SOLVE)
    solve["number"] = 1
    solve["patience"] = _PATIENCE
    return Sharing(
        links=links,
        load=np.zeros(len(capacity)),
        level=np.append(np.full(len(capacity), np.inf), 0.0),
        level_elsewhere=np.zeros(len(capacity)),
        waits=np.zeros(len(capacity), np.int8),
        groups=np.zeros(most_groups, GROUP),
        held_by=np.full(most_groups, NOWHERE, np.int32),
        path_links=np.zeros(most_entries, np.uint32),
        path_coefficients=np.zeros(most_entries),
        groups_on=np.zeros(int(room.sum()), np.uint32),
        coefficients_on=np.zeros(int(room.sum())),
        held=np.zeros(int(room.sum()), HELD),
        solve=solve,
        touched=np.zeros(len(capacity), np.uint32),
        joined=np.zeros(most_groups, np.uint32),
        waiting=np.zeros(len(capacity), np.uint32),
        waiting_levels=np.zeros(len(capacity)),
        tree=new_tournament(len(capacity)),
        keys=np.zeros(len(capacity)),
    )


def _in_cache_lines(num_links: int) -> NDArray[Any]:
    """Return links at zero, the first at the start of a cache line."""
    space = np.zeros(num_links * LINK.itemsize + _CACHE_LINE, np.uint8)
    first = -space.ctypes.data % _CACHE_LINE
    return space[first : first + num_links * LINK.itemsize].view(LINK)
