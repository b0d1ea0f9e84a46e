"""What passed each link: bytes, time at full capacity, and a timeline in equal bins, all integrated exactly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.compiled import compiled

FloatArray = NDArray[np.float64]

# A link counts as saturated when its load is within this share of its capacity.
SATURATED = 1e-9
MAX_BINS = 1000
_FIRST_BIN_S = 1e-9
MAX_CELLS = 20_000_000  # of links and bins: bounds the memory of the timelines to 160 MB


@dataclass(frozen=True, slots=True)
class LinkMeter:
    """What passed each link.

    saturated_s: [num_links] seconds at full capacity; bins: [num_bins, num_links] bytes in equal bins of width_s
    """

    saturated_s: FloatArray
    bins: FloatArray
    width_s: float

    @property
    def bytes(self) -> FloatArray:
        """Return what passed each link in all: [num_links]."""
        total: FloatArray = self.bins.sum(axis=0)
        return total

    def covering(self, until_s: float) -> "LinkMeter":
        """Return the meter with bins so wide that they reach until_s."""
        bins, width = self.bins.copy(), np.array([self.width_s])
        while until_s > width[0] * len(bins):
            fold(bins, width)
        return LinkMeter(self.saturated_s, bins, float(width[0]))


def new_bins(num_links: int, max_cells: int = MAX_CELLS) -> tuple[FloatArray, FloatArray]:
    """Return bins at zero, fewer for large networks but always an even number, and their width in an array [1]."""
    num_bins = min(MAX_BINS, max(2, max_cells // max(1, num_links) // 2 * 2))
    return np.zeros((num_bins, num_links)), np.array([_FIRST_BIN_S])


@compiled
def fold(bins: FloatArray, width_s: FloatArray) -> None:
    """Add up neighbouring bins, doubling their width."""
    half = len(bins) // 2
    for position in range(half):
        for link in range(bins.shape[1]):
            bins[position, link] = bins[2 * position, link] + bins[2 * position + 1, link]
    bins[half:] = 0.0
    width_s[0] *= 2.0
