"""What a tolerance saves and what it costs: the true error of finish times, measured against the exact replay."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from cases import Flows
from table import ROWS
from timing import timed

from simulator.replay import Replay, replay_flows

_CASES: Final = ("lognormal-multi-plane-static-64", "lognormal-multi-rail-ecmp-64", "random-starts-3500")
_TOLERANCES: Final = (1e-4, 1e-3, 1e-2)


@dataclass(frozen=True, slots=True)
class Inexact:
    """A case replayed with a tolerance.

    faster: how many times as fast as the exact replay; error: the largest, relative to a flow's exact finish time
    """

    case: str
    tolerance: float
    faster: float
    replay: Replay
    error: float


def inexact_replays(seed: int) -> Iterator[Inexact]:
    """Yield some cases with several tolerances each."""
    for row in ROWS:
        if row.name not in _CASES:
            continue
        flows = row.make(row.scale, seed)
        exact = timed(_replaying(flows, 0.0))
        for tolerance in _TOLERANCES:
            inexact = timed(_replaying(flows, tolerance))
            error = np.abs(inexact.value.finish_s / exact.value.finish_s - 1.0).max()
            faster = exact.best_s / inexact.best_s
            yield Inexact(row.name, tolerance, faster, inexact.value, float(error))


def _replaying(flows: Flows, tolerance: float) -> Callable[[], Replay]:
    """Return a call that replays the flows."""
    return lambda: replay_flows(
        flows.capacity_bytes_per_s,
        flows.path_offsets,
        flows.path_links,
        flows.size_bytes,
        flows.start_s,
        tolerance=tolerance,
    )
