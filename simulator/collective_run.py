"""Collectives under way: which ranks have joined, what that starts, and for whom all has ended.

Ranks of a fold join together, by a task of their leader. Here everybody is a leader: of itself, where nothing is
folded.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.episode import Batch
from simulator.pattern import Pattern
from simulator.pricing import Pricing
from simulator.rows import csr_offsets, csr_select
from simulator.transfer_times import TransferTimes
from workloads.tasks import Transfers

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Key = TypeVar("Key", np.int64, np.float64)

# Of collectives that start part by part, the parts' patterns are kept up to so many transfers.
_MOST_KEPT = 2**20
_NONE: IntArray = np.zeros(0, np.int64)


class Start(NamedTuple):
    """Transfers of a collective that start together.

    rows: [num_flows] their places in the collective; leaders: [num_parts] who waits for each part of the pattern
    """

    rows: IntArray
    pattern: Pattern
    leaders: list[int]


class Plan:
    """What all collectives with the same transfers and the same kernel have in common.

    transfers: the collective's; pricing: what the kernel costs; leader_of_rank: [num_ranks]
    starts: of those seen so far that may serve again, by the bytes of their rows, b"" for all
    """

    def __init__(self, transfers: Transfers, pricing: Pricing, leader_of_rank: IntArray) -> None:
        self.transfers, self.pricing = transfers, pricing
        count = len(transfers)
        rows = np.arange(count)
        fan_rows = np.repeat(rows, np.diff(transfers.destination_offsets))
        source, destination = (
            leader_of_rank[transfers.source_rank],
            leader_of_rank[transfers.destination_ranks],
        )
        gathered = transfers.reduce[fan_rows]
        # A leader that is named more than once still joins once.
        sent, senders = _unique_pairs(
            np.concatenate([rows[~transfers.reduce], fan_rows[gathered]]),
            np.concatenate([source[~transfers.reduce], destination[gathered]]),
        )
        self.sent_by = rows_by_key(senders, sent)
        self.num_senders = np.bincount(sent, minlength=count)
        end_rows, end_leaders = _unique_pairs(
            np.concatenate([rows, fan_rows]), np.concatenate([source, destination])
        )
        leaders, counts = np.unique(end_leaders, return_counts=True)
        self.num_waited_for: dict[int, int] = dict(zip(leaders.tolist(), counts.tolist(), strict=True))
        self._end_offsets = csr_offsets(np.bincount(end_rows, minlength=count))
        self._end_leaders = end_leaders
        self.starts: dict[bytes, Start] = {}
        self._num_kept = 0

    def keep(self, key: bytes, start: Start) -> None:
        """Keep a start for repeats; forget the others if they are too many."""
        self._num_kept += len(start.rows)
        if self._num_kept > _MOST_KEPT:
            self.starts.clear()
            self._num_kept = len(start.rows)
        self.starts[key] = start

    def start(
        self, rows: IntArray, bills: Bills, start_after_s: FloatArray, capacity_bytes_per_s: FloatArray
    ) -> Start:
        """Return transfers as flows with these bills and starts [num_flows], a part for each leader among the ends.

        rows: [num_flows] their places, rising; capacity_bytes_per_s: [num_links] of the network
        """
        offsets, entries = csr_select(self._end_offsets, rows)
        flow, leader = np.repeat(np.arange(len(rows)), np.diff(offsets)), self._end_leaders[entries]
        order = np.argsort(leader, kind="stable")
        leaders, counts = np.unique(leader, return_counts=True)
        transfers = self.transfers
        pattern = Pattern(
            bills,
            transfers.size_bytes[rows],
            transfers.weight[rows],
            start_after_s,
            csr_offsets(counts),
            flow[order],
            capacity_bytes_per_s,
        )
        return Start(rows, pattern, leaders.tolist())


@dataclass(frozen=True, slots=True)
class _Piece:
    """Transfers that started together, and the batch of flows that they became."""

    start: Start
    batch: Batch


class CollectiveRun:
    """A collective under way.

    waiting: the task of each leader that has joined and waits for transfers
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.waiting: dict[int, int] = {}
        self._missing: IntArray | None = (
            None  # senders of each transfer that have yet to join, once some have
        )
        self._num_left = dict(plan.num_waited_for)  # transfers that each leader sends or receives
        self._ready: list[IntArray] = []
        self._pieces: list[_Piece] = []
        self._num_to_end = len(plan.transfers)

    @property
    def is_over(self) -> bool:
        """Return whether all transfers have ended."""
        return self._num_to_end == 0

    @property
    def has_started(self) -> bool:
        """Return whether any transfer has started."""
        return bool(self._pieces)

    @property
    def is_reused(self) -> bool:
        """Return whether all that has started took the solution of one before."""
        return all(piece.batch.is_reused for piece in self._pieces)

    def join(self, leader: int) -> IntArray:
        """Let a leader take part; return the transfers all of whose senders now do."""
        plan = self.plan
        mine: IntArray = plan.sent_by.get(leader, _NONE)
        if len(plan.sent_by) == 1:
            return mine
        if self._missing is None:
            self._missing = plan.num_senders.copy()
        self._missing[mine] -= 1
        complete: IntArray = mine[self._missing[mine] == 0]
        return complete

    def waits(self, leader: int) -> bool:
        """Return whether a leader sends or receives what has yet to end."""
        return self._num_left.get(leader, 0) > 0

    def make_ready(self, rows: IntArray) -> None:
        """Have transfers started before bytes move on."""
        self._ready.append(rows)

    def take_ready(self) -> IntArray:
        """Return the places of all that have become ready, in order, so that repeats are equal flow by flow."""
        ready = self._ready[0] if len(self._ready) == 1 else np.sort(np.concatenate(self._ready))
        self._ready = []
        return ready

    def started(self, start: Start, batch: Batch) -> None:
        """Note what transfers have become."""
        self._pieces.append(_Piece(start, batch))

    def end_part(self, start: Start, part: int) -> int | None:
        """Note that a part of what started together has ended; return the task for which that was the last."""
        leader, offsets = start.leaders[part], start.pattern.part_offsets
        self._num_left[leader] -= int(offsets[part + 1] - offsets[part])
        return None if self._num_left[leader] else self.waiting.pop(leader, None)

    def end_start(self, start: Start) -> None:
        """Note that all that started together has ended."""
        self._num_to_end -= len(start.rows)

    def times(self) -> TransferTimes:
        """Return when transfers ran, by now; repeats that started as one share the arrays."""
        if self.is_over and len(self._pieces) == 1:
            piece = self._pieces[0]
            assert piece.batch.finish_after_s is not None, "what is over has ended"
            return TransferTimes(
                piece.start.pattern.start_after_s, piece.batch.finish_after_s, piece.batch.begin_s
            )
        count = len(self.plan.transfers)
        start_s, end_s = np.full(count, np.nan), np.full(count, np.nan)
        for piece in self._pieces:
            batch, rows = piece.batch, piece.start.rows
            start_s[rows] = batch.begin_s + piece.start.pattern.start_after_s
            if batch.finish_after_s is not None:
                end_s[rows] = batch.begin_s + batch.finish_after_s
        return TransferTimes(start_s, end_s)


def _unique_pairs(rows: IntArray, leaders: IntArray) -> tuple[IntArray, IntArray]:
    """Return the distinct pairs of a row and a leader, in rising order."""
    num_leaders = int(leaders.max(initial=0)) + 1
    # with counts it sorts; without, it would hash, and take several times as long
    pairs, _ = np.unique(rows * num_leaders + leaders, return_counts=True)
    unique_rows, unique_leaders = np.divmod(pairs, num_leaders)
    return unique_rows, unique_leaders


def rows_by_key(keys: NDArray[Key], values: IntArray) -> dict[Any, IntArray]:
    """Return the values of each key, in rising order of position."""
    order = np.argsort(keys, kind="stable")
    unique, starts, counts = np.unique(keys[order], return_index=True, return_counts=True)
    rows = zip(unique.tolist(), starts.tolist(), counts.tolist(), strict=True)
    return {key: values[order[start : start + count]] for key, start, count in rows}
