"""Flows in and out of the arrays of the loop: columns of flows, and the room that the arrays have for more."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.compiled import compiled
from simulator.flow_state import BINDING, ENDED, FLOW, FOLLOWS, MEMBERS, NOW, SERVICE, SLACK, FlowState
from simulator.groups import service_at
from simulator.rows import csr_join, csr_select
from simulator.sharing import NOWHERE, new_sharing
from simulator.slack import find_dominated
from simulator.tournament import new_tournament

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# Flows may join groups anew as links are left out or let in; when numbers run out, all groups get new ones. With so
# many group numbers for each flow, that is rare.
_GROUPS_PER_FLOW = 3
# To leave out slack links takes about as long as a walk over all paths; those who leave early are let in soon.
_LOOK_AFTER = 4


@dataclass(frozen=True, slots=True)
class FlowRows:
    """Flows that have not ended, as columns [num_flows]; bills, and watches that a flow counts for, in CSR form."""

    bills: Bills
    weights: FloatArray
    left_bytes: FloatArray
    start_s: FloatArray
    ids: IntArray
    watch_offsets: IntArray
    watches: IntArray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def none(cls) -> "FlowRows":
        """Return no flows."""
        numbers, rows, values = np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0)
        return cls(Bills(rows, numbers, values), values, values, values, numbers, rows, numbers)

    def joined(self, more: "FlowRows") -> "FlowRows":
        """Return these flows and then more."""
        return FlowRows(
            bills=Bills.joined([self.bills, more.bills]),
            weights=np.concatenate([self.weights, more.weights]),
            left_bytes=np.concatenate([self.left_bytes, more.left_bytes]),
            start_s=np.concatenate([self.start_s, more.start_s]),
            ids=np.concatenate([self.ids, more.ids]),
            watch_offsets=csr_join([self.watch_offsets, more.watch_offsets]),
            watches=np.concatenate([self.watches, more.watches]),
        )

    def at(self, rows: IntArray) -> "FlowRows":
        """Return some of the flows."""
        watch_offsets, watch_entries = csr_select(self.watch_offsets, rows)
        return FlowRows(
            self.bills.select(rows),
            self.weights[rows],
            self.left_bytes[rows],
            self.start_s[rows],
            self.ids[rows],
            watch_offsets,
            self.watches[watch_entries],
        )


def new_state(
    capacity: FloatArray, rows: FlowRows, spare: int, watch_left: IntArray, *, metered: bool
) -> FlowState:
    """Return the state at time 0 of a network on which these flows have yet to start.

    spare: room for this many times the flows, 1 or more
    metered: whether a meter is to be added
    """
    num_links = len(capacity)
    per_link = np.bincount(rows.bills.links, minlength=num_links)
    most_flows = spare * len(rows) + 16 * (spare - 1)
    most_entries = spare * len(rows.bills.links) + 64 * (spare - 1)
    most_groups = _GROUPS_PER_FLOW * most_flows
    room = spare * per_link + 4 * (spare - 1)
    service = np.zeros(num_links, SERVICE)
    service["first_flow"] = NOWHERE
    service["region"] = NOWHERE
    now = np.zeros(1, NOW)
    now["metered"] = metered
    now["next_bin_s"] = np.inf
    now["look_after"] = _LOOK_AFTER
    scratch = max(most_groups, num_links)
    state = FlowState(
        sharing=new_sharing(capacity, room, most_groups, _GROUPS_PER_FLOW * most_entries),
        flows=np.zeros(most_flows, FLOW),
        group_of=np.full(most_flows, NOWHERE, np.int32),
        bill_offsets=np.zeros(most_flows + 1, np.int64),
        bill_links=np.zeros(most_entries, np.int64),
        bill_coefficients=np.zeros(most_entries),
        bill_passing=np.zeros(most_entries if metered else 0),
        finish_s=np.zeros(0),
        flows_on=np.zeros(int(room.sum()), np.int32),
        charges_on=np.zeros(int(room.sum())),
        members=np.zeros(most_groups, MEMBERS),
        follows=np.zeros(most_groups, FOLLOWS),
        slots=np.full(2 << (2 * most_groups).bit_length(), NOWHERE, np.int32),
        service=service,
        ends=new_tournament(num_links),
        due=new_tournament(num_links),
        starts=np.zeros(most_flows, np.int64),
        watch_offsets=np.zeros(most_flows + 1, np.int64),
        watches=np.zeros(0, np.int64),
        watch_left=watch_left,
        fired=np.zeros_like(watch_left),
        regroup=np.zeros(scratch, np.int32),
        leaving=np.zeros(most_flows, np.int32),
        leaving_bytes=np.zeros(scratch),
        bins=np.zeros((1, num_links)),
        bin_width_s=np.full(1, np.inf),
        now=now,
    )
    added = appended(state, rows)
    assert added is not None, "a new state has room for its own flows"
    return added


def appended(state: FlowState, rows: FlowRows) -> FlowState | None:
    """Return the state with more flows that have yet to start, or None, nothing being changed, if it has no room."""
    now = state.now[0]
    first, end = int(now["num_flows"]), int(now["num_flows"]) + len(rows)
    entries = state.bill_offsets[first]
    per_link = np.bincount(rows.bills.links, minlength=len(state.service))
    if (
        end > len(state.flows)
        or entries + len(rows.bills.links) > len(state.bill_links)
        or (state.service["num_known"] + per_link > state.sharing.links["room"]).any()
    ):
        return None
    flows = state.flows[first:end]
    flows["weight"], flows["left_bytes"], flows["start_s"] = rows.weights, rows.left_bytes, rows.start_s
    flows["id"], state.group_of[first:end] = rows.ids, NOWHERE
    state.bill_offsets[first : end + 1] = entries + rows.bills.offsets
    state.bill_links[entries : entries + len(rows.bills.links)] = rows.bills.links
    state.bill_coefficients[entries : entries + len(rows.bills.links)] = rows.bills.coefficients
    if now["metered"]:
        state.bill_passing[entries : entries + len(rows.bills.links)] = rows.bills.passing_bytes
    watches = np.concatenate([state.watches[: state.watch_offsets[first]], rows.watches])
    state.watch_offsets[first : end + 1] = state.watch_offsets[first] + rows.watch_offsets
    waiting = np.concatenate([state.starts[now["next_start"] : now["num_starts"]], np.arange(first, end)])
    waiting = waiting[np.argsort(state.flows["start_s"][waiting], kind="stable")]
    state.starts[: len(waiting)] = waiting
    now["next_start"], now["num_starts"], now["num_flows"] = 0, len(waiting), end
    now["num_unfinished"] += len(rows)
    now["unfinished_entries"] += len(rows.bills.links)
    state = state._replace(watches=watches)
    state.service["num_known"] += per_link
    num_links = len(state.service)
    find_dominated(state, first, end, np.full(num_links, NOWHERE), np.zeros(num_links))
    if now["num_under_way"] == 0:
        slack = state.service["standing"] == SLACK
        state.service["standing"][slack] = BINDING
        # flows that start make links with a region due, as only slack ones may be
        state.service["region"][slack] = NOWHERE
        state.due[:] = np.inf
    return state


@compiled
def find_left_bytes(state: FlowState, left: FloatArray) -> None:
    """Write what each flow has left to send now: [num_flows] bytes."""
    for number in range(len(left)):
        flow, group = state.flows[number], state.group_of[number]
        if group >= 0:
            service = service_at(state, group, state.now[0].now_s)
            left[number] = max(0.0, flow.target - service) * flow.weight
        elif group != ENDED:
            left[number] = flow.left_bytes


def unfinished(state: FlowState) -> FlowRows:
    """Return the flows that have not ended, with what each has left."""
    count = int(state.now[0]["num_flows"])
    offsets, watch_offsets = state.bill_offsets[: count + 1], state.watch_offsets[: count + 1]
    flows = state.flows[:count]
    left_bytes = np.zeros(count)
    find_left_bytes(state, left_bytes)
    passing = state.bill_passing[: offsets[-1]] if state.now[0]["metered"] else None
    rows = FlowRows(
        Bills(offsets, state.bill_links[: offsets[-1]], state.bill_coefficients[: offsets[-1]], passing),
        flows["weight"],
        left_bytes,
        flows["start_s"],
        flows["id"],
        watch_offsets,
        state.watches[: watch_offsets[-1]],
    )
    return rows.at(np.flatnonzero(state.group_of[:count] != ENDED))
