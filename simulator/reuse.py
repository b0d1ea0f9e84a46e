"""The fluid network with a memory: what repeats is played back, not solved again.

Batches of flows that meet on links are an *episode* (`simulator.episode`); flows of different episodes share no link,
not even through others, so that they do not know of each other. An episode with a key that has come before takes the
solution of that one: parts of batches end at its times, and no flow enters a network. Otherwise it is solved in a
network of its own, and the solution is kept (`simulator.solution_library`). What becomes of batches is decided when
time moves on, so that those that come at one instant are solved together.

A batch that comes to links of an episode joins it, and one that comes to those of several makes them one. The key is
then that of what they were and of the batch, and the episode goes on by the solution of all its batches from its
begin on. Until the batch came that is the same as what has been played: the same flows, the same starts.

Episodes that grow on and on would be solved time and again. Where one has taken too much work, or has become too
large, all that it has left to send goes on in a network that all such share, in which nothing is reused; and so do
batches that come to links of those, and batches on links without capacity.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.episode import Batch, Episode
from simulator.fluid import FluidNetwork
from simulator.link_owners import SHARED, LinkOwners
from simulator.meter import LinkMeter
from simulator.pattern import Pattern
from simulator.played_meter import PlayedMeter
from simulator.solution import run_until, solve
from simulator.solution_library import Library

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# So many times the flows that an episode has may be solved for it: k alike batches that come one after the other take
# k (k + 1) / 2 times the work of one. When an episode that was given up comes again, it is known that far, and gets
# as far again.
_MOST_WORK = 8
_MOST_BATCHES = 256
_MOST_FLOWS = 200_000  # of several batches


class ReusingNetwork:
    """Links, and batches of flows on them, with a clock that only moves forward.

    capacity_bytes_per_s: [num_links] effective capacity
    on_progress: called now and then with the number of flows whose ends are known
    reuse: whether to play back at all; without it all flows are in `shared`
    shared: the network of flows that are not played back
    """

    def __init__(
        self,
        capacity_bytes_per_s: FloatArray,
        on_progress: Callable[[int], None] | None = None,
        *,
        reuse: bool = True,
    ) -> None:
        self._progress = _Progress(on_progress)
        self.shared = FluidNetwork(capacity_bytes_per_s, self._progress.in_shared if on_progress else None)
        self.now_s = 0.0
        self._reuse = reuse
        self._library = Library()
        self._pending: list[Batch] = []  # added at this instant
        self._num_batches = self._num_episodes = 0
        num_links = len(self.shared.capacity_bytes_per_s)
        self._owners = LinkOwners(num_links)
        self._episodes: dict[int, Episode] = {}
        self._next: list[_Next] = []  # heap
        self._part_of_watch: dict[int, tuple[Batch, int]] = {}  # by watch of the shared network
        self._remainders: dict[int, _Remainder] = {}  # by number of the batch
        self._played = PlayedMeter(num_links)
        self._solves_alone = 0

    @property
    def solves(self) -> int:
        """Return how often rates have been solved, in all networks."""
        return self.shared.solves + self._solves_alone

    @property
    def meter(self) -> LinkMeter:
        """What has passed each link by now, but for episodes that have yet to end."""
        return self._played.with_others(self.shared.meter if self.shared.num_flows else None)

    def add(self, pattern: Pattern) -> Batch:
        """Return a new batch that begins now."""
        batch = Batch(pattern, self._num_batches, self.now_s)
        self._num_batches += 1
        if self._reuse:
            self._pending.append(batch)
        else:
            self._share(batch, np.ones(len(pattern), np.bool_), pattern.size_bytes)
        return batch

    def ids_of(self, batch: Batch) -> IntArray:
        """Return the ids in the shared network of what is in there of a batch that has yet to end."""
        return self._remainders[batch.number].ids

    def advance(self, until_s: float) -> list[tuple[Batch, int]]:
        """Move the clock to until_s, or to the first instant at which parts of batches end, and return those.

        With no horizon (`until_s` infinite) and no part left to end, returns once nothing can move any more.
        """
        if self._pending and until_s > self.now_s:
            self._admit()
        ended: list[tuple[Batch, int]] = []
        while until_s > self.now_s and not ended:
            next_s, rounding_s = self._next_end()
            if self.shared.num_flows and self.shared.num_ended < self.shared.num_flows:
                # what the network ends within rounding of an episode's end ends with it
                ended += self._run_shared(min(until_s, next_s + rounding_s))
            elif min(until_s, next_s) < np.inf:
                self.now_s = max(self.now_s, min(until_s, next_s))
            ended += self._play(until_s)
            if not ended and next_s == np.inf:
                break
        return ended

    def _admit(self) -> None:
        """Decide what becomes of the batches that have come at this instant."""
        batches, self._pending = self._pending, []
        joined = {number: None for batch in batches if (number := self._join(batch)) is not None}
        for number in joined:
            if number in self._episodes and not self._episodes[number].is_settled:
                self._settle(self._episodes[number])

    def _join(self, batch: Batch) -> int | None:
        """Let a batch begin an episode, or join those on its links, which are one from then on; return its number.

        None if the batch is to run in the shared network.
        """
        links = batch.pattern.links
        owners, found = self._owners.of(links)
        others = found.tolist()
        if not batch.pattern.can_end or SHARED in others:
            for number in others:
                if number != SHARED:
                    self._give_up(self._episodes[number])
            self._share(batch, np.ones(len(batch.pattern), np.bool_), batch.pattern.size_bytes)
            return None
        if others:
            episode, known = self._as_one(others)
            episode.join(batch, self._owners.numbers_of(links, owners), known)
        else:
            self._num_episodes += 1
            episode = self._episodes[self._num_episodes] = Episode(self._num_episodes, batch.begin_s)
            episode.begin_with(batch)
        self._owners.claim(links, episode.number, episode.numbers[-1])
        return episode.number

    def _as_one(self, numbers: list[int]) -> tuple[Episode, list[tuple[bytes, float]]]:
        """Return some episodes as one, and the key and the begin of each that it was."""
        one, *others = sorted(
            (self._episodes[number] for number in numbers), key=lambda each: (each.begin_s, each.number)
        )
        known = [(each.key, each.begin_s) for each in (one, *others)]
        for other in others:
            self._owners.hand_over(other.number, one.number, one.num_links)
            one.absorb(self._episodes.pop(other.number))
        return one, known

    def _settle(self, episode: Episode) -> None:
        """Let an episode go on by the solution of all its batches, or in the shared network."""
        solution = self._library.find(episode.key)
        is_known = solution is not None and solution.is_of(episode.begin_after_s, self.now_s)
        count = len(episode.batches)
        if (
            count > _MOST_BATCHES
            or (count > 1 and episode.num_flows > _MOST_FLOWS)
            or (not is_known and episode.num_solved >= _MOST_WORK * episode.num_flows)
        ):
            self._give_up(episode)
            return
        if solution is not None and is_known:
            episode.play(solution)
        else:
            self._solve(episode)
        self._progress.know(episode.num_flows - episode.num_known)
        episode.num_known = episode.num_flows
        self._push(episode)

    def _solve(self, episode: Episode) -> None:
        """Solve an episode and keep the solution, with less of when bytes passed than is known of this episode."""
        capacity = self.shared.capacity_bytes_per_s[episode.link_of_number]
        report = None
        if self._progress.is_wanted:
            report = lambda ended: self._progress.alone(ended - episode.num_known)  # noqa: E731
        solution, carried = solve(episode.placed(), capacity, self._played.bin_s, report)
        self._solves_alone += solution.solves
        self._library.keep(episode.key, solution)
        episode.num_solved += episode.num_flows
        for batch in episode.batches:
            if batch.num_left:
                batch.is_reused = False
        episode.play(solution, carried)

    def _give_up(self, episode: Episode) -> None:
        """Go on with an episode in the shared network: what has passed is on record, what is left joins others."""
        links = episode.link_of_number
        capacity = self.shared.capacity_bytes_per_s[links]
        so_far = run_until(episode.placed(), capacity, self._played.bin_s, self.now_s - episode.begin_s)
        self._solves_alone += so_far.solves
        self._played.add(so_far.carried, links, episode.begin_s)
        del self._episodes[episode.number]
        self._progress.know(-episode.num_known)
        for batch, finish_after_s, left_bytes in zip(
            episode.batches, so_far.finish_after_s, so_far.left_bytes, strict=True
        ):
            self._progress.know(len(batch.pattern))
            if batch.num_left:
                self._release(batch)
                is_left = _still_to_end(batch, finish_after_s, self.now_s)
                self._progress.know(-int(is_left.sum()))
                batch.finish_after_s = finish_after_s
                self._share(batch, is_left, left_bytes)

    def _share(self, batch: Batch, is_left: BoolArray, left_bytes: FloatArray) -> None:
        """Let flows of a batch [num_flows] into the shared network, which counts for parts by watches."""
        pattern, flows = batch.pattern, np.flatnonzero(is_left)
        if self.shared.num_ended == self.shared.num_flows:
            self.shared.advance(self.now_s)  # it has stood still while there was nothing in it
        parts = np.flatnonzero(np.frombuffer(batch.part_has_ended, np.uint8) == 0)
        watches = self.shared.add_watches(pattern.num_of_parts(is_left)[parts])
        self._part_of_watch |= {
            watch: (batch, part) for watch, part in zip(watches.tolist(), parts.tolist(), strict=True)
        }
        watch_of_part = np.full(pattern.num_parts, -1)
        watch_of_part[parts] = watches
        offsets, named = pattern.parts_of(flows, watch_of_part >= 0)
        ids = self.shared.add_flows(
            pattern.bills.select(flows),
            left_bytes[flows],
            batch.begin_s + pattern.start_after_s[flows],
            pattern.weights[flows],
            offsets,
            watch_of_part[named],
        )
        self._remainders[batch.number] = _Remainder(flows, ids)
        batch.is_reused = False
        if self._reuse:
            self._owners.share(pattern.links)

    def _run_shared(self, until_s: float) -> list[tuple[Batch, int]]:
        """Run the shared network; return the parts that end at its clock, which is everybody's."""
        ended = []
        for watch in self.shared.advance(until_s):
            batch, part = self._part_of_watch.pop(watch)
            ended.append((batch, part))
            batch.end_part(part)
            if not batch.num_left:
                flows, ids = self._remainders.pop(batch.number)
                if batch.finish_after_s is None:
                    batch.finish_after_s = np.zeros(len(batch.pattern))
                batch.finish_after_s[flows] = self.shared.finish_s[ids] - batch.begin_s
                self._release(batch)
        self.now_s = max(self.now_s, self.shared.now_s)
        return ended

    def _play(self, until_s: float) -> list[tuple[Batch, int]]:
        """Let all parts in episodes end that do so by now, up to rounding; return them."""
        ended: list[tuple[Batch, int]] = []
        while True:
            at_s, rounding_s = self._next_end()
            if at_s > until_s or at_s - rounding_s > self.now_s:
                return ended
            episode = self._episodes[heappop(self._next).episode]
            for number, part in episode.take_ends():
                batch = episode.batches[number]
                batch.end_part(part)
                ended.append((batch, part))
                if not batch.num_left:
                    batch.finish_after_s = episode.finish_after_s(number)
                    episode.num_left -= 1
                    self._release(batch)
            if episode.num_left:
                self._push(episode)
            else:
                self._played.add(episode.carried, episode.link_of_number, episode.begin_s)
                del self._episodes[episode.number]

    def _push(self, episode: Episode) -> None:
        at_s, rounding_s = episode.next_end()
        heappush(self._next, _Next(at_s, episode.number, episode.version, rounding_s))

    def _next_end(self) -> tuple[float, float]:
        """Return when the next part in an episode ends, infinite if none, and the rounding of that."""
        while self._next:
            first = self._next[0]
            episode = self._episodes.get(first.episode)
            if episode is not None and episode.version == first.version:
                return first.at_s, first.rounding_s
            heappop(self._next)  # of an episode that has gone, or goes on otherwise
        return np.inf, 0.0

    def _release(self, batch: Batch) -> None:
        """Leave the links that a batch crosses to others where it was the last one."""
        if self._reuse:
            self._owners.leave(batch.pattern.links)


class _Next(NamedTuple):
    """When the next part in an episode ends, as long as it plays the solution of this version."""

    at_s: float
    episode: int
    version: int
    rounding_s: float


class _Remainder(NamedTuple):
    """The flows of a batch that are in the shared network, and their ids there."""

    flows: IntArray
    ids: IntArray


class _Progress:
    """How many flows have an end that is known: those of episodes, and those that have ended in the shared network.

    It is told what has ended while networks run, and never goes down.
    """

    def __init__(self, on_progress: Callable[[int], None] | None) -> None:
        self._on_progress = on_progress
        self._known = self._ended_in_shared = self._most = 0

    @property
    def is_wanted(self) -> bool:
        """Return whether anybody wants to be told."""
        return self._on_progress is not None

    def know(self, num_flows: int) -> None:
        """Note that the ends of more flows of episodes are known, or of fewer."""
        self._known += num_flows
        self.alone(0)

    def alone(self, num_flows: int) -> None:
        """Tell that so many more have been found while an episode is solved."""
        found = self._known + self._ended_in_shared + num_flows
        if self._on_progress is not None and found > self._most:
            self._most = found
            self._on_progress(found)

    def in_shared(self, num_ended: int) -> None:
        """Note how many have ended in the shared network."""
        self._ended_in_shared = num_ended
        self.alone(0)


def _still_to_end(batch: Batch, finish_after_s: FloatArray, now_s: float) -> BoolArray:
    """Return which flows of a batch go on when its episode is given up: [num_flows].

    finish_after_s: [num_flows] NaN for those that have not ended, but for rounding: a flow has ended if all of its
    parts have, and is written down so; and a part that has not ended has a flow that has not.
    """
    pattern = batch.pattern
    part_is_left = np.frombuffer(batch.part_has_ended, np.uint8) == 0
    entry_is_left = np.repeat(part_is_left, np.diff(pattern.part_offsets))
    is_waited_for = np.zeros(len(pattern), np.bool_)
    is_waited_for[pattern.part_flows[entry_is_left]] = True
    is_left = np.isnan(finish_after_s)
    finish_after_s[is_left & ~is_waited_for] = now_s - batch.begin_s
    is_left &= is_waited_for
    for part in np.flatnonzero(part_is_left & (pattern.num_of_parts(is_left) == 0)).tolist():
        flows = pattern.part_flows[pattern.part_offsets[part] : pattern.part_offsets[part + 1]]
        is_left[flows[np.argmax(finish_after_s[flows])]] = True
    return is_left
