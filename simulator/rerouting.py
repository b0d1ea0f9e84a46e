"""Faults of cables while traffic is under way: capacities change, and flows leave routes that are dead.

The rules, at the instant of a change:

- a cable has the share of its capacity that its faults leave it;
- under `adaptive` routing every flow that has yet to end, or to start, goes on over the paths that are alive now, so
  that it comes back to those that have healed. Under the other policies a flow moves only if a cable of its route is
  dead, to the route that it would get if it started now, and stays there;
- a flow keeps what it has left to send, and pays no latency again: nothing is lost or sent twice;
- a flow for which no way is left waits on the one that a change to come will open first. If none will, the run is
  over.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.fault_clock import Change
from simulator.fluid import FluidNetwork
from simulator.network import Network
from simulator.pricing import Pricing
from workloads.tasks import Transfers

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_MOST_NAMED = 3  # flows, and cables, in a message


class FaultError(RuntimeError):
    """Faults leave the run no way to its end."""


@dataclass(slots=True)
class _Started:
    """Transfers that became flows together: their numbers in the collective, their ids as flows, and their bills."""

    transfers: Transfers
    numbers: IntArray
    ids: IntArray
    bills: Bills
    pricing: Pricing


class Rerouting:
    """The network as faults leave it at each instant, and the flows that must know.

    network: whole; changes: in order of time; endpoint_of_rank: [num_ranks]
    """

    def __init__(
        self, network: Network, fluid: FluidNetwork, endpoint_of_rank: IntArray, changes: Sequence[Change]
    ) -> None:
        self.network = network  # as it is now
        self.num_rerouted = 0
        self._whole, self._fluid, self._endpoint_of_rank = network, fluid, endpoint_of_rank
        self._to_come = list(changes)
        self._share = np.ones(len(network.cables))
        self._started: list[_Started] = []

    @property
    def must_know(self) -> bool:
        """Return whether flows that start are to be noted."""
        return bool(self._to_come) or self.network is not self._whole

    def note(
        self, transfers: Transfers, numbers: IntArray, ids: IntArray, bills: Bills, pricing: Pricing
    ) -> None:
        """Take notice of flows that start: [num_flows] each. Raises FaultError for those that have no way."""
        started = _Started(transfers, numbers, ids, bills, pricing)
        self._started.append(started)
        self._check_ways([started])

    def apply_next(self) -> None:
        """Let the next change happen. Raises FaultError, naming flows, when some have no way and none is to come."""
        change = self._to_come.pop(0)
        was_dead = self._dead()
        self._share[change.cables] = change.shares
        whole = self._whole
        links = np.unique(whole.link_of_cable[change.cables])
        effective = whole.cables.effective_bytes_per_s * self._share
        capacity = np.bincount(whole.link_of_cable, effective, whole.num_links).astype(np.float64)
        self._fluid.set_capacity(links, capacity[links])
        dead = self._dead()
        moved = not np.array_equal(was_dead, dead)
        if moved:
            left = whole.without(frozenset(dead.tolist()), self._dead_later()) if len(dead) else whole
            self.network = left
        if whole.routes_by_load:
            self.network = self.network.at_shares(self._share)
        if moved:
            self._move_flows()
        self._check_ways(self._started)

    def _dead(self) -> IntArray:
        """Return the cables that carry nothing now."""
        return np.flatnonzero(self._share == 0.0)

    def _dead_later(self) -> tuple[frozenset[int], ...]:
        """Return the cables that carry nothing after each of the changes to come."""
        share, found = self._share.copy(), []
        for change in self._to_come:
            share[change.cables] = change.shares
            found.append(frozenset(np.flatnonzero(share == 0.0).tolist()))
        return tuple(found)

    def _move_flows(self) -> None:
        """Let flows that have yet to end take other routes where the rules say so."""
        finish_s = self._fluid.finish_s
        ids, changed = [], []
        for started in self._started:
            is_left = np.isnan(finish_s[started.ids])
            if not self.network.sprays:
                is_left &= self._crosses_dead(started.bills)
            moving = np.flatnonzero(is_left)
            if not len(moving):
                continue
            bills, _ = self.network.bills(
                started.transfers.select(moving),
                self._endpoint_of_rank,
                started.numbers[moving],
                self._fluid.backlog_bytes,
                started.pricing,
            )
            differs = np.flatnonzero(_differ(started.bills.select(moving), bills))
            new = bills.select(differs)
            started.bills = _replaced(started.bills, moving[differs], new)
            ids.append(started.ids[moving[differs]])
            changed.append(new)
        self._started = [each for each in self._started if np.isnan(finish_s[each.ids]).any()]
        if any(map(len, ids)):
            bills = Bills.joined(changed)
            self._fluid.reroute(np.concatenate(ids), bills)
            self.num_rerouted += bills.num_flows

    def _crosses_dead(self, bills: Bills) -> BoolArray:
        """Return whether each flow is charged on a link that carries nothing: [num_flows]."""
        dead = self._fluid_is_dead()[bills.links]
        flow = np.repeat(np.arange(bills.num_flows), np.diff(bills.offsets))
        return np.bincount(flow[dead], minlength=bills.num_flows) > 0

    def _fluid_is_dead(self) -> BoolArray:
        """Return whether each link carries nothing: [num_links]."""
        alive = np.bincount(self._whole.link_of_cable, self._share, self._whole.num_links)
        return np.asarray(alive == 0.0)

    def _check_ways(self, started: list[_Started]) -> None:
        """Raise FaultError, naming them, if flows that have yet to end cross cables that are dead for good."""
        dead = self._dead()
        healing = [change.cables[change.shares > 0.0] for change in self._to_come]
        lost = np.setdiff1d(dead, np.concatenate([np.zeros(0, np.int64), *healing]))
        if not len(lost):
            return
        is_lost = np.zeros(self._whole.num_links, np.bool_)
        is_lost[self._whole.link_of_cable[lost]] = True
        finish_s = self._fluid.finish_s
        flows: list[str] = []
        crossed = np.zeros(self._whole.num_links, np.bool_)
        count = 0
        for each in started:
            flow = np.repeat(np.arange(each.bills.num_flows), np.diff(each.bills.offsets))
            stuck = is_lost[each.bills.links] & np.isnan(finish_s[each.ids])[flow]
            crossed[each.bills.links[stuck]] = True
            rows = np.unique(flow[stuck])
            count += len(rows)
            flows += [self._name(each.transfers, row) for row in rows[: _MOST_NAMED - len(flows)].tolist()]
        if count:
            cables = lost[crossed[self._whole.link_of_cable[lost]]]
            ends = zip(self._whole.cables.source[cables], self._whole.cables.target[cables], strict=True)
            names = [f"{source} -> {target}" for source, target in ends]
            msg = (
                f"from {self._fluid.now_s:.6g} s on {count:,} of the flows have no way left: "
                f"{_some(flows, count)}; dead on their way, and not to heal: {_some(names, len(names))}"
            )
            raise FaultError(msg)

    def _name(self, transfers: Transfers, row: int) -> str:
        """Return a transfer as the GPUs that it leads from and to."""
        ranks = transfers.destination_ranks[
            transfers.destination_offsets[row] : transfers.destination_offsets[row + 1]
        ]
        source = self._whole.gpu_name(int(self._endpoint_of_rank[transfers.source_rank[row]]))
        others = [self._whole.gpu_name(int(self._endpoint_of_rank[rank])) for rank in ranks[:_MOST_NAMED]]
        arrow = "<-" if transfers.reduce[row] else "->"
        return f"{source} {arrow} {_some(others, len(ranks)).replace(', ', ' and ')}"


def _some(names: Sequence[str], count: int) -> str:
    """Return the first names of so many."""
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if count > _MOST_NAMED else "")


def _differ(one: Bills, other: Bills) -> BoolArray:
    """Return whether two bills of each flow differ: [num_flows]."""
    differs = np.asarray(np.diff(one.offsets) != np.diff(other.offsets))
    alike = np.flatnonzero(~differs)
    left, right = one.select(alike), other.select(alike)
    flow = np.repeat(alike, np.diff(left.offsets))
    differs[flow[(left.links != right.links) | (left.coefficients != right.coefficients)]] = True
    return differs


def _replaced(bills: Bills, rows: IntArray, new: Bills) -> Bills:
    """Return bills with those of some flows replaced."""
    order = np.arange(bills.num_flows)
    order[rows] = bills.num_flows + np.arange(len(rows))
    return Bills.joined([bills, new]).select(order)
