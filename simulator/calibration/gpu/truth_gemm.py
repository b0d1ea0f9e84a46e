"""What a matrix product D[m, n] = A[m, k] B[n, k]^T should be, in float64, and how far a right kernel may be from it.

The operands are given as they were meant: BF16 values, or FP8 values times their scales. Their products are exact in
FP32 (8 or 4 significant bits each), so that a kernel errs in two places only: as it adds, and as it rounds the sum to
BF16.

- Rounding to BF16 (8 significant bits) errs by at most 2^-8 of the value.
- BF16 products are added in FP32. Tensor cores align what they add to the largest and cut off what falls below its
  24 significant bits; k terms then lose at most k * 2^-22 of the sum of magnitudes, whatever the order.
- FP8 products are added by Hopper's tensor cores with about 14 bits: each of 32 products and the running sum is cut
  off at 2^-13 of the largest among them. (DeepSeek-V3 technical report, section 3.3.2, which promotes partial sums to
  FP32 for it, as cuBLASLt does with fast accumulation off.) A worst case over all signs would be of no use, as it is
  the size of the result. For operands of random signs, let q = sqrt(sum of squared products), the deviation of the
  sum: neither a product nor a running sum exceeds 4 q but once in ten thousand. Each of the k products then loses up
  to c = 2^-13 * 4 q, with random sign (deviation c / sqrt(3)), and the running sum, cut off towards zero k / 32
  times, up to c each time: an element may err by k / 32 * c and six deviations of c sqrt(k / 3). Over a whole matrix
  what is added is no larger than q on average: its norm may err by k / 32 * c and one deviation, with c = 2^-13 q.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TILE: Final = 128
BF16_HALF_ULP: Final = 2.0**-8
FP32_CUT: Final = 2.0**-22
FP8_CUT: Final = 2.0**-13
FP8_LARGEST: Final = 4.0  # of what is added to one element, over the deviation of the sum
FP8_PRODUCTS_PER_STEP: Final = 32
FP8_DEVIATIONS: Final = 6.0


class Bound(NamedTuple):
    """How far a right kernel's output may be from the truth.

    element: [m, n] of each element, absolute
    norm: of ||out - truth|| / ||truth||
    """

    element: Array
    norm: float


def padded_tiles(num_values: int) -> int:
    """Return the number of tiles of 128 that cover this many values, rounded up to a multiple of 4.

    It is the stride between rows of the scales of B's blocks, which cuBLASLt asks for.
    """
    return -(-num_values // (4 * TILE)) * 4


def with_row_tiles(a: Array, scale: Array) -> Array:
    """Return A with its 1 x 128 tiles scaled.

    a: [m, k] values of the format
    scale: [ceil(k / 128), m] of each tile, as cuBLASLt takes it
    """
    return a * np.repeat(scale.T, TILE, axis=1)[:, : a.shape[1]]


def with_blocks(b: Array, scale: Array) -> Array:
    """Return B with its 128 x 128 blocks scaled.

    b: [n, k] values of the format
    scale: [ceil(n / 128), padded_tiles(k)] of each block, as cuBLASLt takes it
    """
    rows, columns = b.shape
    return b * np.repeat(np.repeat(scale, TILE, axis=0)[:rows], TILE, axis=1)[:, :columns]


def product(a: Array, b: Array) -> Array:
    """Return A B^T.

    a: [m, k] operand as meant, scales included
    b: [n, k] likewise
    """
    return a @ b.T


def bf16_bound(a: Array, b: Array) -> Bound:
    """Return the bound for BF16 operands, which holds for any of them."""
    truth = product(a, b)
    added = a.shape[1] * FP32_CUT * (np.abs(a) @ np.abs(b).T)
    return _bound(truth, BF16_HALF_ULP * np.abs(truth) + added)


def fp8_bound(a: Array, b: Array) -> Bound:
    """Return the bound for FP8 operands of random signs."""
    truth = product(a, b)
    k = a.shape[1]
    cut = FP8_CUT * np.sqrt((a**2) @ (b**2).T)
    cuts_of_sum = -(-k // FP8_PRODUCTS_PER_STEP)
    cuts_of_products = np.sqrt(k / 3)
    rounding = BF16_HALF_ULP * np.abs(truth)
    element = rounding + FP8_LARGEST * cut * (cuts_of_sum + FP8_DEVIATIONS * cuts_of_products)
    typical = rounding + cut * (cuts_of_sum + cuts_of_products)
    return Bound(element, _bound(truth, typical).norm)


def _bound(truth: Array, element: Array) -> Bound:
    return Bound(element, float(np.linalg.norm(element) / np.linalg.norm(truth)))
