"""Batches that meet on links, from the instant at which the first comes until all have ended.

The course of an episode is known from its *key*: which patterns its batches have, when each begins after the first,
and which links each shares with those before. Links are numbered in the order in which an episode's batches come to
them, so that episodes in other places, or other layers, have one key where the same happens. A link that nothing of
the episode crosses any more is as good as new: it is free for others, and counts as another if it is crossed again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from simulator.fluid_loop import CLOCK_ROUNDING, FLOW_ROUNDING
from simulator.pattern import Pattern
from simulator.solution import Carried, Placed, Solution

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# Begins are rounded to this part of what the busiest link of a batch needs before they enter a key: rounding of the
# clock, which differs from repeat to repeat, is far smaller; `Solution.is_of` then compares the begins themselves.
_BEGIN_GRID = 2.0**-20


@dataclass(slots=True, eq=False)
class Batch:
    """Flows of one pattern that have been added, and what has become of them.

    part_has_ended: [num_parts]; num_left: parts that have not; is_reused: whether all that it was part of was known
    finish_after_s: [num_flows] seconds after the begin, once all parts have ended
    """

    pattern: Pattern
    number: int
    begin_s: float
    num_left: int = field(init=False)
    part_has_ended: bytearray = field(init=False)
    is_reused: bool = True
    finish_after_s: FloatArray | None = None

    def __post_init__(self) -> None:
        self.num_left = self.pattern.num_parts
        self.part_has_ended = bytearray(self.num_left)

    def end_part(self, part: int) -> None:
        """Note that a part has ended."""
        self.part_has_ended[part] = True
        self.num_left -= 1


@dataclass(slots=True, eq=False)
class Episode:
    """Batches that meet, and the solution that they play.

    number: by which episodes that begin at one instant are in order
    links: the network's link of each number; numbers: by batch, of the links of its pattern
    num_left: batches that have yet to end; num_known: flows that the solution has; num_solved: flows that have been
    solved for it so far, each as often as it was
    version: of the solution; place: of the next end in it; is_settled: whether it is that of all batches
    """

    number: int
    begin_s: float
    key: bytes = b""
    batches: list[Batch] = field(default_factory=list)
    numbers: list[IntArray] = field(default_factory=list)
    links: list[IntArray] = field(default_factory=list)
    num_links: int = 0
    num_left: int = 0
    num_known: int = 0
    num_solved: int = 0
    version: int = 0
    place: int = 0
    is_settled: bool = False
    _solution: Solution | None = None
    _carried: Carried | None = None

    @property
    def num_flows(self) -> int:
        """Return the number of flows of all batches."""
        return sum(len(batch.pattern) for batch in self.batches)

    @property
    def begin_after_s(self) -> list[float]:
        """Return when each batch began after the first."""
        return [batch.begin_s - self.begin_s for batch in self.batches]

    @property
    def link_of_number(self) -> IntArray:
        """Return the network's link of each number: [num_links]."""
        return self.links[0] if len(self.links) == 1 else np.concatenate(self.links)

    def placed(self) -> list[Placed]:
        """Return the batches as `simulator.solution` takes them."""
        rows = zip(self.batches, self.begin_after_s, self.numbers, strict=True)
        return [Placed(batch.pattern, after_s, numbers) for batch, after_s, numbers in rows]

    def begin_with(self, batch: Batch) -> None:
        """Let the first batch come."""
        count = len(batch.pattern.links)
        self.key, self.num_links = batch.pattern.digest, count
        self._add(batch, np.arange(count))
        self.links.append(batch.pattern.links)

    def absorb(self, other: "Episode") -> None:
        """Take in the batches of an episode that began later, or at once with a higher number.

        Its links' numbers come after those so far. The key is wrong until a batch joins.
        """
        self.batches += other.batches
        self.numbers += [numbers + self.num_links for numbers in other.numbers]
        self.links += other.links
        self.num_links += other.num_links
        self.num_left += other.num_left
        self.num_known += other.num_known
        self.num_solved += other.num_solved

    def join(self, batch: Batch, numbers: IntArray, parts: list[tuple[bytes, float]]) -> None:
        """Let a further batch come.

        numbers: [num_used] of its links, -1 for those that nothing of the episode crosses; parts: the keys of what
        the episode was until now, its own and of those that it absorbed, and when each began
        """
        is_new = numbers < 0
        shared = np.flatnonzero(~is_new)
        grid_s = (batch.pattern.busiest_s or 1.0) * _BEGIN_GRID
        digest = blake2b(batch.pattern.digest, digest_size=16)
        for key, begin_s in parts:
            digest.update(key + b"%d" % round((begin_s - self.begin_s) / grid_s))
        digest.update(b"%d" % round((batch.begin_s - self.begin_s) / grid_s))
        digest.update(shared.data)
        digest.update(numbers[shared].data)
        self.key = digest.digest()
        numbers[is_new] = self.num_links + np.arange(len(numbers) - len(shared))
        self.links.append(batch.pattern.links[is_new])
        self.num_links += len(numbers) - len(shared)
        self._add(batch, numbers)

    def play(self, solution: Solution, carried: Carried | None = None) -> None:
        """Go on by the solution of all batches; carried: all that is known of that, if it was found just now."""
        self._solution, self._carried, self.is_settled = solution, carried, True
        self.version += 1
        self.place = 0
        self._skip_ended()

    @property
    def solution(self) -> Solution:
        """Return what the episode plays; there is one once it is settled."""
        assert self._solution is not None, "an episode is settled before it plays"
        return self._solution

    @property
    def carried(self) -> Carried:
        """Return what the episode carries, if nothing joins it any more."""
        return self._carried or self.solution.carried

    def finish_after_s(self, batch: int) -> FloatArray:
        """Return when the flows of a batch end after it began: [num_flows], shared by all who play the solution."""
        return self.solution.finish_after_s[batch]

    def next_end(self) -> tuple[float, float]:
        """Return when the next part ends, and by how much what ends at the same instant may differ from that."""
        after_s = self.solution.ends[self.place].after_s
        at_s = self.begin_s + after_s
        return at_s, CLOCK_ROUNDING * at_s + FLOW_ROUNDING * after_s

    def take_ends(self) -> Iterator[tuple[int, int]]:
        """Yield the parts that end next, all at one time: the batch of each, and its number there."""
        ends, first = self.solution.ends, self.solution.ends[self.place]
        while self.place < len(ends) and ends[self.place].after_s == first.after_s:
            end = ends[self.place]
            self.place += 1
            if not self.batches[end.batch].part_has_ended[end.part]:
                yield end.batch, end.part
        self._skip_ended()

    def _skip_ended(self) -> None:
        """Go on to the next part that has yet to end; an earlier solution may have had some end before others."""
        ends = self.solution.ends
        while self.place < len(ends):
            end = ends[self.place]
            if not self.batches[end.batch].part_has_ended[end.part]:
                return
            self.place += 1

    def _add(self, batch: Batch, numbers: IntArray) -> None:
        self.batches.append(batch)
        self.numbers.append(numbers)
        self.num_left += 1
        self.is_settled = False
