"""bf16 and e4m3 in NumPy, bit by bit: what the kernels read and write.

bf16 is the upper half of a float32: 1 sign bit, 8 of exponent, 7 of fraction. e4m3 is 1, 4 and 3, with bias
7, without infinities: the largest number is 448, codes 0x7F and 0xFF are NaN. Rounding is to nearest, ties to even.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

E4M3_MAX: Final = 448.0

# Half the distance to the next number, over the number: what rounding a normal number can do at most. Fractions of 7
# and 3 bits put neighbours 2^-7 and 2^-3 of a power of two apart; half of that.
BF16_HALF_ULP: Final = 2.0**-8
E4M3_HALF_ULP: Final = 2.0**-4

# Below 2^-6 e4m3 is subnormal: neighbours lie 2^-9 apart, so that rounding adds at most 2^-10.
E4M3_SUBNORMAL_HALF_STEP: Final = 2.0**-10

_BF16_NAN: Final = 0x7FFF
_E4M3_NAN: Final = 0x7F
_E4M3_SIGN: Final = 0x80
_E4M3_LARGEST_CODE: Final = 0x7E


def to_bf16_bits(values: ArrayLike) -> NDArray[np.uint16]:
    """Return float32 values as bf16; what is too large becomes infinite, NaN becomes 0x7FFF."""
    exact = np.asarray(values, np.float32)
    bits = exact.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(exact), _BF16_NAN, rounded).astype(np.uint16)


def from_bf16_bits(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return what bf16 bits stand for, exactly."""
    return (np.asarray(bits, np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def from_e4m3_bits(bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what e4m3 bits stand for, exactly."""
    return _values_of_e4m3()[np.asarray(bits, np.uint8)]


def to_e4m3_bits(values: ArrayLike) -> NDArray[np.uint8]:
    """Return values as e4m3; what lies beyond 448, infinity too, becomes 448; NaN becomes 0x7F."""
    exact = np.asarray(values, np.float64)
    magnitude = np.abs(exact)
    # Codes of positive numbers ascend with them, so that the code is the number of midpoints below the magnitude.
    # On a midpoint the even code wins: the upper one where the lower is odd.
    ladder = _values_of_e4m3()[: _E4M3_LARGEST_CODE + 1].astype(np.float64)
    midpoints = (ladder[:-1] + ladder[1:]) / 2
    below = np.searchsorted(midpoints, magnitude, side="left")
    at_most = np.searchsorted(midpoints, magnitude, side="right")
    codes = np.where(below % 2 == 0, below, at_most)
    signed = codes + np.where(np.signbit(exact), _E4M3_SIGN, 0)
    return np.where(np.isnan(exact), _E4M3_NAN, signed).astype(np.uint8)


def _values_of_e4m3() -> NDArray[np.float32]:
    """Return the value of each of the 256 codes, from the format's definition."""
    code = np.arange(256)
    field, fraction = code >> 3 & 0xF, code & 0x7
    normal = np.ldexp(1.0 + fraction / 8, field - 7)
    magnitude: NDArray[Any] = np.where(field == 0, np.ldexp(fraction / 8, -6), normal)
    magnitude[(code & _E4M3_NAN) == _E4M3_NAN] = np.nan
    return np.where(code & _E4M3_SIGN, -magnitude, magnitude).astype(np.float32)
