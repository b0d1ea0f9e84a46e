"""What flows charge links, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from simulator.rows import csr_join, csr_select

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bills:
    """What flows charge links per byte delivered, in CSR form.

    offsets: [num_flows + 1]; links, coefficients: [num_entries], a link at most once in a flow's bill
    passing: [num_entries] bytes that pass the link per byte delivered, None where they are what is charged. A charge
    is more than what passes where a port is busy with a message longer than its bytes take.
    """

    offsets: IntArray
    links: IntArray
    coefficients: FloatArray
    passing: FloatArray | None = None

    @property
    def num_flows(self) -> int:
        """Return the number of flows."""
        return len(self.offsets) - 1

    @property
    def passing_bytes(self) -> FloatArray:
        """[num_entries] bytes that pass the link per byte delivered."""
        return self.coefficients if self.passing is None else self.passing

    def select(self, flows: IntArray) -> "Bills":
        """Return the bills of some flows, in that order."""
        offsets, entries = csr_select(self.offsets, flows)
        passing = None if self.passing is None else self.passing[entries]
        return Bills(offsets, self.links[entries], self.coefficients[entries], passing)

    def on_links(self, links: IntArray) -> "Bills":
        """Return the same bills with the links named anew: [num_entries]."""
        return replace(self, links=links)

    @classmethod
    def joined(cls, parts: Sequence["Bills"]) -> Self:
        """Return the bills of all flows of the parts, one part after the other; there is at least one."""
        alike = all(part.passing is None for part in parts)
        return cls(
            csr_join([part.offsets for part in parts]),
            np.concatenate([part.links for part in parts]),
            np.concatenate([part.coefficients for part in parts]),
            None if alike else np.concatenate([part.passing_bytes for part in parts]),
        )
