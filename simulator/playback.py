"""Solutions played back: when the parts of a batch end, and what playbacks have carried in all."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from simulator.fluid_loop import CLOCK_ROUNDING, FLOW_ROUNDING
from simulator.meter import LinkMeter, fold, new_bins
from simulator.solution import NOBODY, Batch, Carried, Solution

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class Event(NamedTuple):
    """When the next part of a playback ends, and by how much what ends at the same instant may differ from that."""

    at_s: float
    batch: int
    rounding_s: float


@dataclass(slots=True)
class Playback:
    """A batch that is played back, part by part: a part is the flows that count for one watch.

    parts, part_end_s: [num_parts] in the order in which they end, and when, in seconds after the batch's earliest
    start; next_part: the first, in that order, that has not ended
    """

    batch: Batch
    key: bytes
    solution: Solution
    parts: IntArray
    part_end_s: FloatArray
    next_part: int = 0

    @classmethod
    def of(cls, batch: Batch, key: bytes, solution: Solution) -> Self:
        """Return the playback of a solution by a batch."""
        end_s = np.zeros(len(batch.watches))
        finish_of_entry_s = np.repeat(solution.finish_s, np.diff(batch.rows.watch_offsets))
        np.maximum.at(end_s, batch.part_of_entry, finish_of_entry_s)
        parts = np.argsort(end_s, kind="stable")
        return cls(batch, key, solution, parts, end_s[parts])

    @property
    def is_over(self) -> bool:
        """Return whether all parts have ended."""
        return self.next_part == len(self.parts)

    def event(self, part: int | None = None) -> Event:
        """Return when the next part ends, or another one."""
        after_s = float(self.part_end_s[self.next_part if part is None else part])
        at_s = self.batch.begin_s + after_s
        return Event(at_s, self.batch.number, CLOCK_ROUNDING * at_s + FLOW_ROUNDING * after_s)

    def lasts_beyond(self, instant_s: float) -> bool:
        """Return whether it ends later than an instant, and not by rounding alone."""
        last = self.event(-1)
        return last.at_s - last.rounding_s > instant_s

    def take_next(self) -> list[tuple[int, int]]:
        """Let the next parts end; return the watch of each, and the number of its flows."""
        first, batch = self.next_part, self.batch
        self.next_part = int(np.searchsorted(self.part_end_s, self.part_end_s[first], "right"))
        taken = self.parts[first : self.next_part]
        return list(zip(batch.watches[taken].tolist(), batch.waits_for[taken].tolist(), strict=True))

    def ended_in_parts_to_end(self, ended: BoolArray) -> list[tuple[int, int]]:
        """Return, of the parts that have not ended, the watch of each, and how many of its flows have.

        ended: [num_flows]
        """
        batch, to_end = self.batch, self.parts[self.next_part :]
        ended_entries = np.repeat(ended, np.diff(batch.rows.watch_offsets))
        num_ended = np.bincount(batch.part_of_entry[ended_entries], minlength=len(batch.watches))
        watches = zip(batch.watches[to_end].tolist(), num_ended[to_end].tolist(), strict=True)
        return [(watch, count) for watch, count in watches if watch != NOBODY]

    def passed_s(self, now_s: float) -> float:
        """Return how far it has been played; the parts that have ended say so where rounding leaves it open."""
        last_s = self.part_end_s[self.next_part - 1] if self.next_part else 0.0
        return float(min(max(now_s - self.batch.begin_s, last_s), self.part_end_s[self.next_part]))

    def ended(self, now_s: float) -> BoolArray:
        """Return whether each flow has ended: [num_flows]; all have of the parts that have, and none of the next."""
        finish_s, passed_s = self.solution.finish_s, self.passed_s(now_s)
        if now_s < self.batch.begin_s and self.next_part == 0:
            return np.zeros(len(finish_s), np.bool_)
        ended: BoolArray = (finish_s <= passed_s) & (finish_s < self.part_end_s[self.next_part])
        return ended


class PlayedMeter:
    """What playbacks have carried: bytes in bins as `LinkMeter` has them, and seconds at full capacity."""

    def __init__(self, num_links: int) -> None:
        self._saturated_s = np.zeros(num_links)
        self._bins, self._width_s = new_bins(num_links)
        self._is_empty = True

    def copy(self) -> "PlayedMeter":
        """Return a meter of its own that shows the same."""
        other = PlayedMeter(0)
        other._saturated_s, other._bins = self._saturated_s.copy(), self._bins.copy()
        other._width_s, other._is_empty = self._width_s.copy(), self._is_empty
        return other

    def add(self, carried: Carried, begin_s: float) -> None:
        """Add what a batch has carried that began at begin_s."""
        end_s = begin_s + carried.until_s
        num_bins = self._bins.shape[1]
        while end_s > self._width_s[0] * num_bins:
            if self._is_empty:
                self._width_s *= 2.0
            else:
                fold(self._bins, self._width_s)
        self._is_empty = False
        width_s = float(self._width_s[0])
        last = min(int(end_s / width_s), num_bins - 1)
        first = min(int(begin_s / width_s), last)
        edges_s = np.arange(first + 1, last + 1) * width_s - begin_s
        self._bins[carried.links, first : last + 1] += carried.between(edges_s)
        self._saturated_s[carried.links] += carried.saturated_s

    def with_others(self, meter: LinkMeter) -> LinkMeter:
        """Return what playbacks and others have carried; their bins' widths are one first width, doubled."""
        if self._is_empty:
            return meter
        while self._width_s[0] < meter.width_s:
            fold(self._bins, self._width_s)
        others = meter.covering(float(self._width_s[0]) * self._bins.shape[1])
        return LinkMeter(others.saturated_s + self._saturated_s, others.bins + self._bins, others.width_s)
