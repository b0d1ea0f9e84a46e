"""Wall-clock time of a call: the best and the median of several."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

ENOUGH_S: Final = 3.0  # a call is repeated until its runs have taken this long together,
MOST_RUNS: Final = 15  # or there are this many


@dataclass(frozen=True, slots=True)
class Timing(Generic[T]):
    """What a call returned the last time, and the seconds that its runs took."""

    value: T
    runs_s: tuple[float, ...]

    @property
    def best_s(self) -> float:
        """Return the shortest run: the one that other work on the machine disturbed least."""
        return min(self.runs_s)

    @property
    def median_s(self) -> float:
        """Return the median run."""
        return statistics.median(self.runs_s)


def timed(call: Callable[[], T]) -> Timing[T]:
    """Return the timing of a call, which runs once if it is long and several times if it is short."""
    runs_s: list[float] = []
    while True:
        gc.collect()
        before_s = time.perf_counter()
        value = call()
        runs_s.append(time.perf_counter() - before_s)
        if sum(runs_s) >= ENOUGH_S or len(runs_s) == MOST_RUNS:
            return Timing(value, tuple(runs_s))
