"""What episodes have carried in all, in bins like those of the fluid network."""

import numpy as np
from numpy.typing import NDArray

from simulator.compiled import compiled, inlined
from simulator.meter import LinkMeter, fold, new_bins
from simulator.solution import Carried

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_TINY_S = np.finfo(np.float64).tiny


class PlayedMeter:
    """What episodes have carried: bytes in bins as `LinkMeter` has them, and seconds at full capacity."""

    def __init__(self, num_links: int) -> None:
        self._saturated_s = np.zeros(num_links)
        self._bins, self._width_s = new_bins(num_links)
        self._is_empty = True

    @property
    def bin_s(self) -> float:
        """Return the width of its bins so far, which only grows."""
        return float(self._width_s[0])

    def add(self, carried: Carried, links: IntArray, begin_s: float) -> None:
        """Add what an episode has carried that began at begin_s; links: those of its numbers, some perhaps twice."""
        num_bins, end_s = len(self._bins), begin_s + carried.until_s
        self._widen(end_s / num_bins)
        self._is_empty = False
        width_s = float(self._width_s[0])
        last = min(int(end_s / width_s), num_bins - 1)
        first = min(int(begin_s / width_s), last)
        _add_passed(
            self._bins,
            self._saturated_s,
            width_s,
            first,
            last,
            links,
            carried.passed_bytes,
            carried.place,
            carried.passing,
            carried.saturated_s,
            carried.width_s,
            carried.until_s,
            begin_s,
        )

    def with_others(self, meter: LinkMeter | None) -> LinkMeter:
        """Return what episodes and others, if any, have carried; their bins' widths are one first width, doubled."""
        if meter is None:
            return LinkMeter(self._saturated_s, self._bins, float(self._width_s[0]))
        if self._is_empty:
            return meter
        self._widen(meter.width_s)
        bins, width_s = meter.bins.copy(), np.array([meter.width_s])
        while width_s[0] < self._width_s[0]:
            fold(bins, width_s)
        bins += self._bins
        return LinkMeter(meter.saturated_s + self._saturated_s, bins, float(width_s[0]))

    def _widen(self, width_s: float) -> None:
        """Double the width of bins, adding up neighbours, until it is this or more."""
        while self._width_s[0] < width_s:
            if self._is_empty:
                self._width_s *= 2.0
            else:
                fold(self._bins, self._width_s)


@inlined
def _place_of(edge_s: float, num_instants: int, instant_s: float) -> int:
    """Return the instant, or the one before it, up to which bytes are known at an edge of a bin."""
    return max(0, min(int(edge_s / instant_s), num_instants - 1))


@inlined
def _share_of(edge_s: float, place: int, instant_s: float, until_s: float) -> float:
    """Return how much of the time from an instant to the next, or to until_s, has passed at an edge: 0 to 1."""
    from_s = place * instant_s
    lasting_s = max(min(from_s + instant_s, until_s) - from_s, _TINY_S)
    return max(0.0, min(1.0, (edge_s - from_s) / lasting_s))


@compiled
def _add_passed(
    bins: FloatArray,
    saturated_s: FloatArray,
    width_s: float,
    first: int,
    last: int,
    links: IntArray,
    passed_bytes: FloatArray,
    place_of: IntArray,
    passing: FloatArray,
    more_saturated_s: FloatArray,
    instant_s: float,
    until_s: float,
    begin_s: float,
) -> None:
    """Add bytes, known at instants and linear between them, to bins of width_s: exact but for what is between.

    passed_bytes: [num_instants + 1, num_series], instant_s apart but for the last, at until_s; they began at begin_s,
    in the bin `first`, and ended in the bin `last`
    place_of, passing: [num_links] the series of each link, and what passes the link of that
    """
    num_instants = len(passed_bytes) - 1
    place, share = 0, 0.0
    for number in range(first, last + 1):
        edge_s = (number + 1) * width_s - begin_s
        if number < last:
            next_place = _place_of(edge_s, num_instants, instant_s)
            next_share = _share_of(edge_s, next_place, instant_s, until_s)
        else:
            next_place, next_share = num_instants - 1, 1.0
        for row in range(len(links)):
            column = place_of[row]
            before = passed_bytes[place, column]
            before += share * (passed_bytes[place + 1, column] - before)
            after = passed_bytes[next_place, column]
            # the whole, to the last bit, where all has passed
            if next_share == 1.0:
                after = passed_bytes[next_place + 1, column]
            else:
                after += next_share * (passed_bytes[next_place + 1, column] - after)
            bins[number, links[row]] += (after - before) * passing[row]
        place, share = next_place, next_share
    for row in range(len(links)):
        saturated_s[links[row]] += more_saturated_s[row]
