"""The random inputs of kernels: fresh for verification, repeated from a pool for timing.

Products and attention have inputs of hundreds of megabytes where they are timed; drawing each value would take
longer than the measurement. Their times do not depend on the values but through the power that random bits draw,
which a repeated pool draws too.
"""

from typing import Final, Protocol
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from simulator.calibration.gpu.truth_formats import to_bf16_bits, to_e4m3_bits

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]
Bf16Bits = NDArray[np.uint16]
E4m3Bits = NDArray[np.uint8]

# Odd, so that rows of a matrix are not equal.
POOL_VALUES: Final = 2**20 + 7
# Products of FP8 values of this deviation use the format's whole range but seldom its ends.
E4M3_DEVIATION: Final = 32.0
MISSING_SHARE: Final = 0.2


class Draw(Protocol):
    """Where inputs come from."""

    def normal(self, *shape: int) -> Floats:
        """Return values of deviation 1."""

    def bf16(self, *shape: int) -> Bf16Bits:
        """Return bits of values of deviation 1."""

    def e4m3(self, *shape: int) -> E4m3Bits:
        """Return bits of values that use the format's range."""

    def scales(self, *shape: int) -> Floats:
        """Return positive factors from 1/128 to 1/32, such that a product's operands have a deviation near 1."""

    def slots(self, tokens: int, copies: int) -> Integers:
        """Return the slot of each copy.

        result: [tokens, copies] a slot of its own below tokens * copies, or -1 for no copy
        """

    def lengths(self, requests: int, most: int) -> Integers:
        """Return the cached tokens of each request, the first of which has the most."""

    def order(self, count: int) -> Integers:
        """Return 0 to count - 1 in random order."""


def _shuffled(rng: np.random.Generator, count: int) -> Integers:
    return rng.permutation(count).astype(np.int32)


class FreshDraw:
    """Each value drawn anew: ragged requests (one of them empty), copies that are missing."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def normal(self, *shape: int) -> Floats:
        """Return values of deviation 1."""
        return self._rng.standard_normal(shape, dtype=np.float32)

    def bf16(self, *shape: int) -> Bf16Bits:
        """Return bits of values of deviation 1."""
        return to_bf16_bits(self.normal(*shape))

    def e4m3(self, *shape: int) -> E4m3Bits:
        """Return bits of values that use the format's range."""
        return to_e4m3_bits(E4M3_DEVIATION * self.normal(*shape))

    def scales(self, *shape: int) -> Floats:
        """Return positive factors from 1/128 to 1/32."""
        return (2.0 ** self._rng.uniform(-7, -5, shape)).astype(np.float32)

    def slots(self, tokens: int, copies: int) -> Integers:
        """Return the slot of each copy; some are missing, the first is there."""
        slots = _shuffled(self._rng, tokens * copies).reshape(tokens, copies)
        is_missing = self._rng.random(slots.shape) < MISSING_SHARE
        is_missing[0, 0] = False
        slots[is_missing] = -1
        return slots

    def lengths(self, requests: int, most: int) -> Integers:
        """Return lengths from 1 to the most; the second request has none."""
        lengths = self._rng.integers(1, most, requests, endpoint=True, dtype=np.int32)
        lengths[0] = most
        lengths[1:2] = 0
        return lengths

    def order(self, count: int) -> Integers:
        """Return 0 to count - 1 in random order."""
        return _shuffled(self._rng, count)


class PooledDraw:
    """Values repeated from a pool; every copy present, every request of the same length."""

    def __init__(self, rng: np.random.Generator) -> None:
        fresh = FreshDraw(rng)
        self._rng = rng
        self._normal = fresh.normal(POOL_VALUES)
        self._bf16 = to_bf16_bits(self._normal)
        self._e4m3 = to_e4m3_bits(E4M3_DEVIATION * self._normal)
        self._scales = fresh.scales(POOL_VALUES)

    def normal(self, *shape: int) -> Floats:
        """Return values of deviation 1."""
        return np.resize(self._normal, shape)

    def bf16(self, *shape: int) -> Bf16Bits:
        """Return bits of values of deviation 1."""
        return np.resize(self._bf16, shape)

    def e4m3(self, *shape: int) -> E4m3Bits:
        """Return bits of values that use the format's range."""
        return np.resize(self._e4m3, shape)

    def scales(self, *shape: int) -> Floats:
        """Return positive factors from 1/128 to 1/32."""
        return np.resize(self._scales, shape)

    def slots(self, tokens: int, copies: int) -> Integers:
        """Return the slot of each copy; none is missing."""
        return _shuffled(self._rng, tokens * copies).reshape(tokens, copies)

    def lengths(self, requests: int, most: int) -> Integers:
        """Return the most for each request."""
        return np.full(requests, most, np.int32)

    def order(self, count: int) -> Integers:
        """Return 0 to count - 1 in random order."""
        return _shuffled(self._rng, count)


def rng_of(kernel: str, shape: dict[str, int], seed: int) -> np.random.Generator:
    """Return the generator of one case of a run, whatever other cases the run has."""
    return np.random.default_rng([seed, crc32(repr((kernel, sorted(shape.items()))).encode())])
