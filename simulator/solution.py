"""What batches that meet do while no others are on their links: solved once, it holds for every repeat.

Flows that share no link with any other move as if there were no others: what they do depends on nothing but
themselves, the capacities of their links, and their starts relative to each other. Here the batches of an episode
(`simulator.episode`) run in a network of their own, of just the links that they cross, from time 0; shifted by the
episode's begin, that is what they do in the whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.fluid import FluidNetwork
from simulator.fluid_loop import CLOCK_ROUNDING, FLOW_ROUNDING
from simulator.meter import LinkMeter
from simulator.pattern import Pattern
from simulator.series import Series

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# What a kept solution says of when links carried their bytes takes no more numbers than this, unless links are so
# many that the least number of instants takes more. The most instants: as fine as a part of a step is looked at.
_MOST_NUMBERS = 2**15
_LEAST_INSTANTS, _MOST_INSTANTS = 16, 256
# What a new solution says of that: as many numbers as the timeline of a whole step has rows, and no finer than a part
# of that timeline's bins.
_MOST_CELLS = 2**20
_PARTS_OF_A_BIN = 2


class Placed(NamedTuple):
    """A batch among others: its pattern, when it begins after the first of them, and the number of each link there.

    numbers: [num_used] for the links of the pattern
    """

    pattern: Pattern
    begin_after_s: float
    numbers: IntArray


@dataclass(frozen=True, slots=True)
class Carried:
    """What batches have carried since the first began.

    passed_bytes: [num_instants + 1, num_series] bytes since then that passed the tightest links of the series; the
    instants are width_s apart from 0 on, but for the last, which is at until_s
    place: [num_links] the series of each link; passing: [num_links] bytes that pass it for each in `passed_bytes`
    saturated_s: [num_links] seconds at full capacity
    """

    passed_bytes: FloatArray
    width_s: float
    until_s: float
    place: IntArray
    passing: FloatArray
    saturated_s: FloatArray

    @classmethod
    def by(cls, meter: LinkMeter, series: Series, until_s: float, step: int = 1) -> Self:
        """Return what a network has carried by its clock, until_s, at every so many instants of its meter.

        meter: of the tightest links of each series
        """
        bins = meter.bins[: int(until_s / meter.width_s) + 1]
        if step > 1:
            bins = np.add.reduceat(bins, np.arange(0, len(bins), step))
        passed_bytes = np.zeros((len(bins) + 1, bins.shape[1]))
        np.cumsum(bins, axis=0, out=passed_bytes[1:])
        saturated_s = series.saturated_s(meter.saturated_s)
        return cls(passed_bytes, meter.width_s * step, until_s, series.place, series.passing, saturated_s)

    @classmethod
    def to_keep(cls, meter: LinkMeter, series: Series, until_s: float) -> Self:
        """Return the same at every second instant, or fourth, ..., so that it takes less memory."""
        num_bins, num_series = meter.bins.shape
        count = min(num_bins, int(until_s / meter.width_s) + 1)
        most = max(_LEAST_INSTANTS, min(_MOST_INSTANTS, _MOST_NUMBERS // max(1, num_series)))
        step = 1
        while (count - 1) // step + 1 > most:
            step *= 2
        return cls.by(meter, series, until_s, step)


class PartEnd(NamedTuple):
    """When a part of a batch ends, after the first batch of its episode began."""

    after_s: float
    batch: int
    part: int


@dataclass(frozen=True, slots=True)
class Solution:
    """What batches do.

    begin_after_s: [num_batches] when each began after the first
    finish_after_s: for each batch, [num_flows] when its flows ended after it began
    ends: of all parts, in order of time
    carried: for those who play it back; solves: how often rates were solved for it
    """

    begin_after_s: FloatArray
    finish_after_s: tuple[FloatArray, ...]
    ends: tuple[PartEnd, ...]
    carried: Carried
    solves: int
    memory_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        carried = self.carried
        of_links = (carried.place, carried.passing, carried.saturated_s)
        arrays = (carried.passed_bytes, *of_links, *self.finish_after_s)
        # a named tuple and its numbers take some 150 bytes
        memory_bytes = sum(array.nbytes for array in arrays) + 150 * len(self.ends)
        object.__setattr__(self, "memory_bytes", memory_bytes)

    def is_of(self, begin_after_s: Sequence[float], now_s: float) -> bool:
        """Return whether batches that begin so are those of the solution, up to rounding.

        now_s: the clock. That is what the loop takes for one instant, some times over: a begin is the sum of what
        tasks before it took, each of which the clock has rounded.
        """
        if len(begin_after_s) == 1:
            return True
        rounding_s = _ROUNDINGS * CLOCK_ROUNDING * now_s + FLOW_ROUNDING * self.carried.until_s
        return bool((np.abs(begin_after_s - self.begin_after_s) <= rounding_s).all())


# Begins that should be equal differ by a walk of so many roundings of the clock, or fewer: one a task since their
# streams last met.
_ROUNDINGS = 16.0


def solve(
    batches: Sequence[Placed],
    capacity_bytes_per_s: FloatArray,
    bin_s: float,
    on_progress: Callable[[int], None] | None,
) -> tuple[Solution, Carried]:
    """Return what batches do on links of these capacities, by the numbers that batches give them: [num_links].

    Beside the solution, to be kept, there is all that is known of what passed links meanwhile.
    bin_s: width of the timeline's bins, in which that is looked at
    on_progress: called now and then with the number of flows that have ended
    """
    network, series = _network_of(batches, capacity_bytes_per_s, bin_s, on_progress)
    network.advance(np.inf)
    finish_s = network.finish_s
    ends: list[PartEnd] = []
    of_batch, first = [], 0
    for number, batch in enumerate(batches):
        own_s = finish_s[first : first + len(batch.pattern)]
        first += len(batch.pattern)
        of_batch.append(own_s - batch.begin_after_s)
        ends += [
            PartEnd(after_s, number, part)
            for part, after_s in enumerate(batch.pattern.last_of_parts(own_s).tolist())
        ]
    begins_s = np.array([batch.begin_after_s for batch in batches])
    meter, until_s = network.meter, float(finish_s.max())
    to_keep = Carried.to_keep(meter, series, until_s)
    solution = Solution(begins_s, tuple(of_batch), tuple(sorted(ends)), to_keep, network.solves)
    return solution, Carried.by(meter, series, until_s)


class Until(NamedTuple):
    """What batches have done by some instant.

    finish_after_s: for each batch, [num_flows] when its flows ended after it began, NaN for those that have not
    left_bytes: for each batch, [num_flows] what its flows have left to send
    """

    finish_after_s: list[FloatArray]
    left_bytes: list[FloatArray]
    carried: Carried
    solves: int


def run_until(
    batches: Sequence[Placed], capacity_bytes_per_s: FloatArray, bin_s: float, until_s: float
) -> Until:
    """Return what batches have done by until_s, in seconds after the first began; else as `solve`."""
    network, series = _network_of(batches, capacity_bytes_per_s, bin_s, None)
    network.advance(until_s)
    carried = Carried.by(network.meter, series, until_s)
    finish_s = network.finish_s.copy()
    left_bytes = np.zeros(len(finish_s))
    under_way = np.flatnonzero(np.isnan(finish_s))
    left_bytes[under_way] = network.cancel(under_way)
    firsts = np.cumsum([len(batch.pattern) for batch in batches])[:-1]
    begins_s = [batch.begin_after_s for batch in batches]
    of_batch = [own_s - begin_s for own_s, begin_s in zip(np.split(finish_s, firsts), begins_s, strict=True)]
    return Until(of_batch, np.split(left_bytes, firsts), carried, network.solves)


def _network_of(
    batches: Sequence[Placed],
    capacity_bytes_per_s: FloatArray,
    bin_s: float,
    on_progress: Callable[[int], None] | None,
) -> tuple[FluidNetwork, Series]:
    """Return a network at time 0 with the flows of batches, one batch after the other, on the tightest links."""
    patterns = [batch.pattern for batch in batches]
    bills = Bills.joined(
        [batch.pattern.bills.on_links(batch.numbers[batch.pattern.link_of_entry]) for batch in batches]
    )
    series = Series.of(bills, capacity_bytes_per_s)
    expected_s = max(batch.begin_after_s + batch.pattern.busiest_s for batch in batches)
    num_bins = min(
        _MOST_CELLS // max(1, len(capacity_bytes_per_s)), int(_PARTS_OF_A_BIN * expected_s / bin_s)
    )
    max_cells = max(_LEAST_INSTANTS, num_bins) * len(series.tightest)
    network = FluidNetwork(capacity_bytes_per_s[series.tightest], on_progress, max_cells=max_cells)
    network.add_flows(
        series.bills_of(bills),
        np.concatenate([pattern.size_bytes for pattern in patterns]),
        np.concatenate([batch.begin_after_s + batch.pattern.start_after_s for batch in batches]),
        np.concatenate([pattern.weights for pattern in patterns]),
        np.zeros(bills.num_flows + 1, np.int64),
        np.zeros(0, np.int64),
    )
    return network, series
