"""When the transfers of a collective began and ended."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TransferTimes:
    """When the transfers of one collective began and ended.

    start_after_s, end_after_s: [num_transfers] seconds after begin_s, NaN for what has not; the start is when bytes
    began to move, after the latency. Both are empty where the collective did not run. Collectives that repeat one
    another share these arrays, so that what follows from them need be found out only once; nobody writes to them.
    begin_s: seconds from the start of the step
    """

    start_after_s: FloatArray
    end_after_s: FloatArray
    begin_s: float = 0.0

    @property
    def start_s(self) -> FloatArray:
        """Return when bytes began to move, in seconds from the start of the step: [num_transfers]."""
        return self.begin_s + self.start_after_s

    @property
    def end_s(self) -> FloatArray:
        """Return when transfers ended, likewise."""
        return self.begin_s + self.end_after_s
