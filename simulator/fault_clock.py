"""What goes wrong during a run, on the clock: cables that carry less, GPUs that stop, GPUs that are slow.

Pure data and arithmetic, in the numbers of the compiled cluster; `simulator.faults` makes it from a scenario.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, prod
from typing import Final

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CableFault:
    """Cables that have only a share of their capacity left from begin_s until before end_s; share 0: dead."""

    cables: IntArray
    share: float
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Slowdown:
    """A GPU whose kernels take `slower` times as long from begin_s until before end_s."""

    endpoint: int
    slower: float
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Death:
    """A GPU that computes no more from at_s on."""

    endpoint: int
    at_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """An instant at which cables get other shares of their capacity: arrays of shape [num_changed]."""

    at_s: float
    cables: IntArray
    shares: FloatArray


@dataclass(frozen=True, slots=True)
class Faults:
    """All faults of a run."""

    cable_faults: tuple[CableFault, ...] = ()
    slowdowns: tuple[Slowdown, ...] = ()
    deaths: tuple[Death, ...] = ()

    def changes(self) -> list[Change]:
        """Return when which cables get which share of their capacity, in order of time.

        The shares of faults that overlap multiply, so that a dead cable stays dead; when a fault ends, the others
        count as before. Instants at which no share changes are left out.
        """
        faults = [fault for fault in self.cable_faults if fault.begin_s < fault.end_s and len(fault.cables)]
        if not faults:
            return []
        cables = np.unique(np.concatenate([fault.cables for fault in faults]))
        places = [np.searchsorted(cables, fault.cables) for fault in faults]
        instants = {fault.begin_s for fault in faults} | {fault.end_s for fault in faults}
        before, found = np.ones(len(cables)), []
        for at_s in sorted(instants - {inf}):
            shares = np.ones(len(cables))
            for fault, place in zip(faults, places, strict=True):
                if fault.begin_s <= at_s < fault.end_s:
                    shares[place] *= fault.share
            changed = np.flatnonzero(shares != before)
            if len(changed):
                found.append(Change(at_s, cables[changed], shares[changed]))
            before = shares
        return found


NO_FAULTS: Final = Faults()


def kernel_end_s(start_s: float, duration_s: float, slowdowns: Iterable[Slowdown]) -> float:
    """Return when a kernel ends that starts at start_s on a GPU with these slowdowns.

    duration_s: what it takes at full speed. Slowdowns that overlap multiply.
    """
    slowdowns = list(slowdowns)
    edges_s = {fault.begin_s for fault in slowdowns} | {fault.end_s for fault in slowdowns}
    now_s, left_s = start_s, duration_s
    for edge_s in sorted({edge_s for edge_s in edges_s if edge_s > start_s} | {inf}):
        slower = prod(fault.slower for fault in slowdowns if fault.begin_s <= now_s < fault.end_s)
        if now_s + left_s * slower <= edge_s:
            return now_s + left_s * slower
        left_s -= (edge_s - now_s) / slower
        now_s = edge_s
    return inf
