"""All that the compiled loop of the fluid network knows, as arrays: flows, groups of flows, links, and the clock."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.sharing import Sharing

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

FLOW = np.dtype(
    [
        ("weight", np.float64),
        ("start_s", np.float64),
        ("left_bytes", np.float64),  # before it starts; under way, what was left when last metered
        ("target", np.float64),  # the service of its group, in bytes per unit of weight, at which it ends
        ("id", np.int64),  # by which those outside know it
        # Its place in the heap of its group's targets; see `simulator.heap`.
        ("child", np.int64),
        ("sibling", np.int64),
    ]
)
# What a group's flows need beside what sharing knows of it.
MEMBERS = np.dtype(
    [
        ("flow_weight", np.float64),  # of each of its flows
        ("key", np.uint64),  # of its path and weight; see `simulator.groups`
        ("num_flows", np.int64),
        ("first", np.int64),  # the flow that ends first
    ]
)
# How a group's service follows a link's clock.
FOLLOWS = np.dtype(
    [
        ("clock_of", np.int64),  # the link, or NOWHERE
        ("offset", np.float64),  # service is this and that link's clock
    ]
)
# What a link's groups and flows need beside what sharing knows of it.
SERVICE = np.dtype(
    [
        ("clock", np.float64),  # bytes per unit of weight that groups held here have got, up to since_s
        ("since_s", np.float64),
        ("saturated_s", np.float64),
        ("saturated", np.int64),  # whether it has been since since_s
        ("standing", np.int64),  # BINDING, SLACK or DOMINATED
        ("num_known", np.int64),  # flows that cross it, of all rows of flows in use
        (
            "num_flows",
            np.int64,
        ),  # in its row: those that have started; the ended are taken out as they are met
        ("num_then", np.int64),  # flows in its row when a dominator of them all was last looked for
        ("dearest", np.float64),  # the largest coefficient of all flows that have ever been in its row
        # Of a slack link: the region of all its flows, or NOWHERE, and how far rates there may rise before it is due.
        ("region", np.int64),
        ("due", np.float64),
        ("first_flow", np.int64),  # the first that crossed it, or NOWHERE
        ("dominators", np.uint64),  # of the links of that flow, by bit, those that dominate this one
    ]
)
BINDING, SLACK, DOMINATED = 0, 1, 2
ENDED = -2
NOW = np.dtype(
    [
        ("now_s", np.float64),
        ("solves", np.int64),
        ("next_start", np.int64),  # in the order of starts
        ("num_starts", np.int64),
        ("num_flows", np.int64),  # rows of flows in use
        ("num_under_way", np.int64),
        ("num_unfinished", np.int64),
        ("unfinished_entries", np.int64),
        ("entries_under_way", np.int64),
        ("num_fired", np.int64),
        ("looks", np.int64),  # flows looked at on slack links since links were last left out,
        ("left_out_at", np.int64),  # the work on rates done before that,
        ("look_after", np.int64),  # and for how many walks over all paths to wait until the next time
        ("metered", np.int64),  # whether what passes links is on record
        ("bin", np.int64),  # of the meter
        ("next_bin_s", np.float64),  # its end; infinite without a meter
        ("tolerance", np.float64),
        ("merged", np.int64),
        ("stale_bytes", np.float64),
    ]
)


class FlowState(NamedTuple):
    """The arrays of the loop. Rows of links are those of `sharing`: where they start, and their room.

    flows: [most flows] FLOW; bill_offsets, bill_links, bill_coefficients: their bills; bill_passing: what passes the
    links, for the meter (empty without one)
    group_of: [most flows] each flow's group while it is under way; NOWHERE before, ENDED after
    finish_s: [ids] seconds, NaN until the flow ends
    flows_on, charges_on: [sum of room] rows of links: flows that have started, and their coefficient x weight
    members: [most groups] MEMBERS; follows: [most groups] FOLLOWS
    slots: the group of each slot of the hash table, or NOWHERE
    service: [num_links] SERVICE
    ends: tournament [num_links] of when the first flow that each link holds ends
    due: tournament [num_links] of what `solve.risen` may come to until each slack link must be looked at
    starts: flows in order of start
    watch_offsets, watches: what each flow counts for; watch_left: flows that each watch waits for; fired: watches
    regroup, leaving, leaving_bytes: scratch
    bins: [num_bins, num_links] bytes; bin_width_s: [1]
    now: [1] NOW
    """

    sharing: Sharing
    flows: NDArray[Any]
    group_of: NDArray[np.int32]
    bill_offsets: IntArray
    bill_links: IntArray
    bill_coefficients: FloatArray
    bill_passing: FloatArray
    finish_s: FloatArray
    flows_on: NDArray[np.int32]
    charges_on: FloatArray
    members: NDArray[Any]
    follows: NDArray[Any]
    slots: NDArray[np.int32]
    service: NDArray[Any]
    ends: FloatArray
    due: FloatArray
    starts: IntArray
    watch_offsets: IntArray
    watches: IntArray
    watch_left: IntArray
    fired: IntArray
    regroup: NDArray[np.int32]
    leaving: NDArray[np.int32]
    leaving_bytes: FloatArray
    bins: FloatArray
    bin_width_s: FloatArray
    now: NDArray[Any]
