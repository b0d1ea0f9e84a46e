"""Rows of varying length as one flat array and offsets into it (CSR): row i is flat[offsets[i]:offsets[i + 1]]."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

IntArray = NDArray[np.int64]


def csr_offsets(lengths: ArrayLike) -> IntArray:
    """Return the offsets [num_rows + 1] of rows with these lengths."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(lengths, np.int64))])


def csr_select(offsets: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Return the offsets of the given rows, in that order, and the flat indices of their entries."""
    lengths = offsets[rows + 1] - offsets[rows]
    selected = csr_offsets(lengths)
    return selected, np.arange(selected[-1]) + np.repeat(offsets[rows] - selected[:-1], lengths)


def csr_join(parts: list[IntArray]) -> IntArray:
    """Return the offsets of the rows of all parts, one part after the other."""
    return csr_offsets(np.concatenate([np.diff(part) for part in parts]))
