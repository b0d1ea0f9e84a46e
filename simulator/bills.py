"""What flows charge links, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bills:
    """What flows charge links per byte delivered, in CSR form.

    offsets: [num_flows + 1]; links, coefficients: [num_entries], a link at most once in a flow's bill
    """

    offsets: IntArray
    links: IntArray
    coefficients: FloatArray

    @property
    def num_flows(self) -> int:
        """Return the number of flows."""
        return len(self.offsets) - 1
