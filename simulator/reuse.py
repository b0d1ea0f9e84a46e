"""The fluid network with a memory: a batch of flows that repeats one solved before takes that solution.

A *batch* is what one call of `add_flows` brings. Repeats have equal keys: equal bills, bytes and weights, and starts
that are equal relative to the earliest one. A batch that finds others under way, or waiting, on a link that it
crosses runs with them in the network. Of those with one key that come alone,

- the first batch runs in the network;
- the second is solved ahead, in a network of its own, and the solution is kept and played back;
- further ones are played back without a solve, from the starts that the second had. Theirs may differ from those by
  what rounding of the clock and the loop's own rule for equal times leave open, no more.

To play back is to let watches fire and the clock pass; no flow enters the network. That is exact: flows that share no
link, not even through others, do not know of each other.

**Disturbance.** When flows come that cross a link of a playback before it has ended, the playback is taken back: the
batch is run alone up to now, its flows enter the network with what they have left, and its key is not played again,
so that traffic that overlaps is solved twice at most once for each key. What becomes of a batch is decided when time
moves on, so that those that come at one instant and share links disturb nothing.

A change of capacity forgets all keys. Where solutions together take more memory than they may, those that have not
served for longest are forgotten.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.bills import Bills
from simulator.flow_rows import FlowRows
from simulator.fluid import FluidNetwork
from simulator.meter import LinkMeter
from simulator.playback import Event, Playback, PlayedMeter
from simulator.solution import NOBODY, Batch, Partial, Solution, run_alone, solve_alone

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# Solutions may take this much memory in all: as much as the timelines of two networks at their largest.
_MOST_SOLUTION_BYTES = 2**28


class ReusingNetwork:
    """A `FluidNetwork` that plays back what it has solved before; see there for what is not said here.

    capacity_bytes_per_s: [num_links] effective capacity
    on_progress: called now and then with the number of flows that have ended; those of playbacks count at their end
    reuse: whether to play back at all
    """

    def __init__(
        self,
        capacity_bytes_per_s: FloatArray,
        on_progress: Callable[[int], None] | None = None,
        *,
        reuse: bool = True,
    ) -> None:
        self._network = FluidNetwork(capacity_bytes_per_s)
        self._num_played = 0  # flows that have ended outside the network
        if on_progress is not None:
            self._network.on_progress = lambda ended: on_progress(ended + self._num_played)
        self._num_links = len(self._network.capacity_bytes_per_s)
        self._reuse = reuse
        self._library = _Library()
        self._pending: list[Batch] = []  # added at this instant
        self._num_running = np.zeros(self._num_links, np.int64)  # batches in the network, by link
        self._num_playing = np.zeros(self._num_links, np.int64)  # batches that are played back, by link
        self._playing: dict[int, Playback] = {}  # by number of the batch
        self._events: list[Event] = []  # heap of the next one of each playback
        # Of each call of add_flows: when its flows ended, if not in the network, and whether it was reused.
        self._finish_s: list[FloatArray] = []
        self._reused: list[bool] = []
        self._flows_inside = [np.zeros(0, np.int64)]  # ids of the network's flows, in its order
        self._watch_left: list[int] = []
        self._part_of_watch: dict[int, _Part] = {}  # by the network's watch
        self._played = PlayedMeter(self._num_links)
        self._solves_alone = 0
        self.num_flows = 0

    @property
    def now_s(self) -> float:
        """Return the clock."""
        return self._network.now_s

    @property
    def solves(self) -> int:
        """Return how often rates have been solved, in the network and ahead."""
        return self._network.solves + self._solves_alone

    @property
    def solved(self) -> int:
        """Return how many batches have been solved, in the network or ahead."""
        return len(self._reused) - self.reused

    @property
    def reused(self) -> int:
        """Return how many batches took the solution of one before."""
        return sum(self._reused)

    @property
    def reused_flows(self) -> BoolArray:
        """[num_flows] whether each flow's batch took the solution of one before."""
        lengths = np.array([len(finish_s) for finish_s in self._finish_s], np.int64)
        return np.repeat(np.array(self._reused, np.bool_), lengths)

    @property
    def num_ended(self) -> int:
        """Return the number of flows that have ended."""
        playing = sum(int(playback.ended(self.now_s).sum()) for playback in self._playing.values())
        return self._network.num_ended + self._num_played + playing

    @property
    def finish_s(self) -> FloatArray:
        """[num_flows] seconds: when each flow ended, NaN while it has not."""
        finish_s = np.concatenate([np.zeros(0), *self._finish_s])
        finish_s[np.concatenate(self._flows_inside)] = self._network.finish_s
        for playback in self._playing.values():
            ended, rows = playback.ended(self.now_s), playback.batch.rows
            finish_s[rows.ids[ended]] = playback.batch.begin_s + playback.solution.finish_s[ended]
        return finish_s

    @property
    def meter(self) -> LinkMeter:
        """What has passed each link by now."""
        played = self._played.copy() if self._playing else self._played
        for playback in self._playing.values():
            played.add(self._run_until_now(playback).carried, playback.batch.begin_s)
        return played.with_others(self._network.meter)

    def add_watches(self, num_flows_watched: ArrayLike) -> IntArray:
        """Return ids of new watches, each to fire when that many (> 0) of the flows that name it have ended."""
        first = len(self._watch_left)
        self._watch_left += np.asarray(num_flows_watched, np.int64).tolist()
        return np.arange(first, len(self._watch_left))

    def add_flows(
        self,
        bills: Bills,
        size_bytes: FloatArray,
        start_s: FloatArray,
        weights: FloatArray,
        watch_offsets: IntArray,
        watches: IntArray,
    ) -> IntArray:
        """Return the ids of new flows, one batch, that join the sharing at start_s, or now where that has passed."""
        ids = np.arange(self.num_flows, self.num_flows + bills.num_flows)
        begin_s = np.maximum(start_s, self.now_s)
        rows = FlowRows(bills, weights, size_bytes, begin_s, ids, watch_offsets, watches)
        if len(ids):
            self._pending.append(Batch.of(rows, len(self._reused), self._num_links))
            self._finish_s.append(np.full(len(ids), np.nan))
            self._reused.append(False)
            self.num_flows += len(ids)
        return ids

    def set_capacity(self, links: IntArray, capacity_bytes_per_s: FloatArray) -> None:
        """Change the capacity of some links from now on; no solution from before is played any more."""
        while self._playing:
            self._take_back(next(iter(self._playing.values())))
        self._network.set_capacity(links, capacity_bytes_per_s)
        self._library = _Library()

    def reroute(self, ids: IntArray, bills: Bills) -> None:
        """Let flows that have not ended go on with other bills from now on; nothing is played back any more.

        bills: those at the same places as `ids`. Raises ValueError for flows that have ended.
        """
        self._reuse = False
        self._admit()
        while self._playing:
            self._take_back(next(iter(self._playing.values())))
        inside = np.full(self.num_flows, -1)
        numbers = np.concatenate(self._flows_inside)
        inside[numbers] = np.arange(len(numbers))
        self._network.reroute(inside[ids], bills)

    def backlog_bytes(self) -> FloatArray:
        """Return the bytes that flows under way, or to start, have yet to send over each link: [num_links]."""
        backlog = self._network.backlog_bytes()
        left = [(batch, batch.rows.left_bytes) for batch in self._pending]
        left += [
            (playback.batch, self._run_until_now(playback).left_bytes) for playback in self._playing.values()
        ]
        for batch, left_bytes in left:
            backlog = backlog + batch.charged_bytes(left_bytes, self._num_links)
        return backlog

    def advance(self, until_s: float) -> list[int]:
        """Move the clock to until_s, or to the first instant at which watches fire, and return those.

        With no horizon (`until_s` infinite) and no watch left to fire, returns once nothing can move any more.
        """
        if until_s > self.now_s:
            self._admit()
        fired: list[int] = []
        while until_s > self.now_s and not fired:
            next_s, rounding_s = self._next_event()
            if self._network.num_ended < self._network.num_flows:
                next_s += rounding_s  # what the network ends within rounding of a playback ends with it
            ended = self._network.advance(min(until_s, next_s))
            for watch in ended:
                fired += self._end_part(self._part_of_watch.pop(watch))
            fired += self._play(until_s)
            if not ended and next_s == np.inf:
                break
        return sorted(fired)

    def _admit(self) -> None:
        """Decide what becomes of the batches that have come at this instant."""
        batches, self._pending = self._pending, []
        if not batches:
            return
        num_come = np.bincount(np.concatenate([batch.links for batch in batches]), minlength=self._num_links)
        for batch in batches:
            self._disturb(batch)
        for batch in batches:
            is_alone = not (self._num_running[batch.links].any() or (num_come[batch.links] > 1).any())
            playback = self._playback(batch) if self._reuse and is_alone else None
            if playback is None:
                self._run(batch)
            else:
                self._playing[batch.number] = playback
                self._num_playing[batch.links] += 1
                heappush(self._events, playback.event())

    def _playback(self, batch: Batch) -> Playback | None:
        """Return what a batch that is alone will do, or None if it is to run in the network."""
        capacity = self._network.capacity_bytes_per_s
        if not len(batch.links) or not capacity[batch.links].all():
            return None
        key = batch.key(capacity)
        if not self._library.may_play(key):
            return None
        solution = self._library.find(key)
        if solution is None:
            solution, solves = solve_alone(batch, capacity)
            self._solves_alone += solves
            self._library.keep(key, solution)
        elif solution.is_of(batch):
            self._reused[batch.number] = True
        else:
            self._library.forget(key)
            return None
        return Playback.of(batch, key, solution)

    def _run(self, batch: Batch) -> None:
        """Let the flows of a batch into the network, which counts for its watches by watches of its own."""
        self._disturb(batch)
        rows, running = batch.rows, _Running(batch.links, len(batch.watches))
        watches = self._network.add_watches(batch.waits_for)
        for inside, watch, waits_for in zip(
            watches.tolist(), batch.watches.tolist(), batch.waits_for.tolist(), strict=True
        ):
            self._part_of_watch[inside] = _Part(running, watch, waits_for)
        self._network.add_flows(
            rows.bills,
            rows.left_bytes,
            rows.start_s,
            rows.weights,
            rows.watch_offsets,
            watches[batch.part_of_entry],
        )
        self._flows_inside.append(rows.ids)
        self._num_running[batch.links] += 1

    def _disturb(self, batch: Batch) -> None:
        """Take back the playbacks that have yet to end, on links that a batch crosses, when the batch begins."""
        if not self._num_playing[batch.links].any():
            return
        crossed = np.zeros(self._num_links, np.bool_)
        crossed[batch.links] = True
        for number, playback in list(self._playing.items()):
            if playback.lasts_beyond(batch.begin_s) and crossed[playback.batch.links].any():
                self._library.never_play(playback.key)
                # one taken back may have outlasted, and so taken back, others that waited for its end
                if number in self._playing:
                    self._take_back(playback)

    def _take_back(self, playback: Playback) -> None:
        """Go on with a playback in the network: what has passed is on record, what is left joins the others."""
        batch, so_far = playback.batch, self._run_until_now(playback)
        self._solves_alone += so_far.solves
        self._played.add(so_far.carried, batch.begin_s)
        ended = playback.ended(self.now_s)
        for watch, num_ended in playback.ended_in_parts_to_end(ended):
            self._watch_left[watch] -= num_ended
        self._forget(playback, ended)
        self._reused[batch.number] = False
        rows = replace(batch.rows, left_bytes=so_far.left_bytes).at(np.flatnonzero(~ended))
        self._run(Batch.of(rows, batch.number, self._num_links))

    def _forget(self, playback: Playback, ended: BoolArray) -> None:
        """Play back no longer, noting the flows that have ended: [num_flows] bool."""
        batch = playback.batch
        finish_s = batch.begin_s + playback.solution.finish_s
        self._finish_s[batch.number] = np.where(ended, finish_s, np.nan)
        self._num_played += int(ended.sum())
        self._num_playing[batch.links] -= 1
        del self._playing[batch.number]

    def _run_until_now(self, playback: Playback) -> Partial:
        """Return what a playback has done by now."""
        capacity = self._network.capacity_bytes_per_s
        passed_s = playback.passed_s(self.now_s)
        return run_alone(playback.batch, playback.solution.start_s, capacity, passed_s)

    def _next_event(self) -> tuple[float, float]:
        """Return when the next part of a playback ends, infinite if none, and the rounding of that."""
        while self._events and self._events[0].batch not in self._playing:
            heappop(self._events)  # of one that has been taken back
        return (self._events[0].at_s, self._events[0].rounding_s) if self._events else (np.inf, 0.0)

    def _play(self, until_s: float) -> list[int]:
        """Let all parts of playbacks end that do so by now, up to rounding; return the watches that fire."""
        fired: list[int] = []
        while True:
            at_s, rounding_s = self._next_event()
            if at_s > until_s or at_s - rounding_s > self.now_s:
                return fired
            playback = self._playing[heappop(self._events).batch]
            for watch, waits_for in playback.take_next():
                fired += self._count_down(watch, waits_for)
            if playback.is_over:
                self._played.add(playback.solution.carried, playback.batch.begin_s)
                self._forget(playback, np.ones(len(playback.batch.rows), np.bool_))
            else:
                heappush(self._events, playback.event())

    def _end_part(self, part: "_Part") -> list[int]:
        """Note that a part of a batch in the network has ended; return the watch if it fires."""
        part.of.num_parts -= 1
        if part.of.num_parts == 0:
            self._num_running[part.of.links] -= 1
        return self._count_down(part.watch, part.waits_for)

    def _count_down(self, watch: int, num_flows: int) -> list[int]:
        """Count flows that have ended for a watch; return it if it fires."""
        if watch == NOBODY:
            return []
        self._watch_left[watch] -= num_flows
        return [watch] if self._watch_left[watch] == 0 else []


@dataclass(slots=True)
class _Running:
    """A batch in the network: its links, and how many of its parts have yet to end."""

    links: IntArray
    num_parts: int


class _Part(NamedTuple):
    """The flows of a batch that count for one watch, and how many they are."""

    of: _Running
    watch: int
    waits_for: int


class _Library:
    """Which keys have come, which may not be played, and the solutions of others."""

    def __init__(self) -> None:
        self._come: set[bytes] = set()
        self._disturbed: set[bytes] = set()
        self._solutions: OrderedDict[bytes, Solution] = OrderedDict()  # those that served last come last
        self._memory_bytes = 0

    def may_play(self, key: bytes) -> bool:
        """Return whether a key that comes has come before, and has never been disturbed."""
        is_new = key not in self._come
        self._come.add(key)
        return not is_new and key not in self._disturbed

    def never_play(self, key: bytes) -> None:
        """Let a key not be played again."""
        self._disturbed.add(key)
        self.forget(key)

    def find(self, key: bytes) -> Solution | None:
        """Return the solution of a key, which has served now, if there is one."""
        if key in self._solutions:
            self._solutions.move_to_end(key)
        return self._solutions.get(key)

    def keep(self, key: bytes, solution: Solution) -> None:
        """Keep a solution, and forget those that served longest ago if all take too much memory."""
        self._solutions[key] = solution
        self._memory_bytes += solution.memory_bytes
        while self._memory_bytes > _MOST_SOLUTION_BYTES:
            self.forget(next(iter(self._solutions)))

    def forget(self, key: bytes) -> None:
        """Forget the solution of a key, if there is one."""
        if key in self._solutions:
            self._memory_bytes -= self._solutions.pop(key).memory_bytes
