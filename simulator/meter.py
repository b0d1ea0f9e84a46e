"""What passed each link: bytes, time at full capacity, and a timeline in equal bins, all integrated exactly."""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# A link counts as saturated when its load is within this share of its capacity.
SATURATED = 1e-9
MAX_BINS = 1000
_FIRST_BIN_S = 1e-9
_MAX_BIN_CELLS = 20_000_000  # bounds the memory of the timelines: 160 MB


@dataclass(slots=True)
class LinkMeter:
    """What passed each link, integrated exactly as rates change.

    bytes: [num_links]; saturated_s: [num_links] seconds at full capacity; bins: [num_links, num_bins] bytes
    in equal bins of width_s[0], which doubles whenever the clock outruns the last bin
    """

    bytes: FloatArray
    saturated_s: FloatArray
    bins: FloatArray
    width_s: FloatArray

    @classmethod
    def for_links(cls, num_links: int) -> "LinkMeter":
        """Return a meter at zero; large networks get fewer bins, always an even number of them."""
        num_bins = min(MAX_BINS, max(2, _MAX_BIN_CELLS // max(1, num_links) // 2 * 2))
        width_s = np.array([_FIRST_BIN_S])
        return cls(np.zeros(num_links), np.zeros(num_links), np.zeros((num_links, num_bins)), width_s)

    def cover(self, until_s: float) -> None:
        """Widen the bins, if need be, so that they reach until_s."""
        cover(self.bins, self.width_s, until_s)


@njit(cache=True)
def cover(bins, width_s, until_s):  # type: ignore[no-untyped-def]
    """Add up neighbouring bins, doubling their width, until they reach until_s."""
    num_bins = bins.shape[1]
    while until_s > width_s[0] * num_bins:
        for link in range(bins.shape[0]):
            for position in range(num_bins // 2):
                bins[link, position] = bins[link, 2 * position] + bins[link, 2 * position + 1]
            bins[link, num_bins // 2 :] = 0.0
        width_s[0] *= 2.0


@njit(cache=True)
def record(meter_bytes, saturated_s, bins, width_s, links, loads, capacity, since_s, until_s):  # type: ignore[no-untyped-def]
    """Add to the meter what links carried from since_s to until_s.

    links, loads, capacity: [num_recorded] link, and bytes/s
    """
    cover(bins, width_s, until_s)
    num_bins = bins.shape[1]
    width = width_s[0]
    first = min(int(since_s / width), num_bins - 1)
    last = min(int(until_s / width), num_bins - 1)
    for place in range(len(links)):
        link, load = links[place], loads[place]
        if load == 0.0:
            continue
        meter_bytes[link] += load * (until_s - since_s)
        if load >= capacity[place] * (1.0 - SATURATED):
            saturated_s[link] += until_s - since_s
        for position in range(first, last + 1):
            begin = since_s if position == first else position * width
            end = until_s if position == last else (position + 1) * width
            bins[link, position] += load * (end - begin)
