"""What the memory-bound kernels should compute, in float64, and how far a right kernel may be from it.

The bounds follow from the formats alone: what is rounded, how often, and by how much at most. FP32 arithmetic
rounds by 2^-24 of a result; a bound counts its roundings, so that a kernel may sum in any order.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.calibration.gpu.truth_formats import (
    BF16_HALF_ULP,
    E4M3_HALF_ULP,
    E4M3_MAX,
    E4M3_SUBNORMAL_HALF_STEP,
    from_bf16_bits,
    from_e4m3_bits,
    to_e4m3_bits,
)

Bf16 = NDArray[np.uint16]
FloatArray = NDArray[np.float64]

TILE_VALUES: Final = 128

# What one operation in FP32 rounds by, over its result; the reciprocal root is off by 2 ulp, as CUDA documents it.
FP32_HALF_ULP: Final = 2.0**-24
RECIPROCAL_ROOT_ERROR: Final = 2.0**-22

# bf16's smallest step, between subnormal numbers: an absolute floor for relative bounds.
BF16_SMALLEST_STEP: Final = 2.0**-133


class QuantisedTokens(NamedTuple):
    """codes: [tokens, hidden] e4m3; scale: [tokens, ceil(hidden / 128)] float32."""

    codes: NDArray[np.uint8]
    scale: NDArray[np.float32]


class NormalisedTokens(NamedTuple):
    """out, total: [tokens, hidden] normalised sum times gamma, and the sum."""

    out: FloatArray
    total: FloatArray


def copy(source: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what a copy of `source` holds."""
    return source.copy()


# --- dispatch ---


def quantise(x: Bf16) -> QuantisedTokens:
    """Return each token's tiles as e4m3 over a scale: their largest magnitude over 448, 1 where all are zero.

    x: [tokens, hidden] bf16 bits
    """
    tiles = _tiles(from_bf16_bits(x).astype(np.float64))
    largest = np.abs(tiles).max(axis=2)
    scale = np.where(largest > 0, largest / E4M3_MAX, 1.0).astype(np.float32)
    codes = to_e4m3_bits(tiles / scale[:, :, None].astype(np.float64))
    return QuantisedTokens(codes.reshape(len(x), -1)[:, : x.shape[1]], scale)


def pack(
    tokens: QuantisedTokens, slot_of_copy: NDArray[np.int32], slots: int, poison: int
) -> QuantisedTokens:
    """Return what the slots hold: each copy its token, slots without a copy the byte `poison` as before.

    slot_of_copy: [tokens, copies] -1 for no copy
    """
    codes = np.full((slots, tokens.codes.shape[1]), poison, np.uint8)
    scale = np.full((slots, 4 * tokens.scale.shape[1]), poison, np.uint8).view(np.float32)
    token, copy_index = np.nonzero(slot_of_copy >= 0)
    slot = slot_of_copy[token, copy_index]
    codes[slot], scale[slot] = tokens.codes[token], tokens.scale[token]
    return QuantisedTokens(codes, scale)


def dequantised(tokens: QuantisedTokens) -> FloatArray:
    """Return what the codes stand for: [tokens, hidden]."""
    values = _tiles(from_e4m3_bits(tokens.codes).astype(np.float64)) * tokens.scale[:, :, None].astype(
        np.float64
    )
    flat: FloatArray = values.reshape(len(tokens.codes), -1)[:, : tokens.codes.shape[1]]
    return flat


def quantise_bound(x: Bf16, scale: NDArray[np.float32]) -> FloatArray:
    """Return how far what right codes stand for may be from x: [tokens, hidden].

    Rounding takes 2^-4 of a normal number, and of a subnormal one half a step, 2^-10, each times the scale. The
    quotient is computed in FP32, and its own rounding can move a value across the middle of two codes, which are
    then equally good but for that rounding: 2^-23 of x, an ulp. The scale too is rounded, so that the largest
    quotient may lie beyond 448 by as much and saturates; that is less than the rest.
    """
    magnitude = np.abs(from_bf16_bits(x).astype(np.float64))
    per_value = np.repeat(scale.astype(np.float64), TILE_VALUES, axis=1)[:, : x.shape[1]]
    format_error = np.maximum(E4M3_HALF_ULP * magnitude, E4M3_SUBNORMAL_HALF_STEP * per_value)
    return format_error + 2 * FP32_HALF_ULP * magnitude


def _tiles(values: FloatArray) -> FloatArray:
    """Return [tokens, tiles, 128] of [tokens, hidden], the last tile filled up with zeros."""
    tokens, hidden = values.shape
    missing = -hidden % TILE_VALUES
    return np.pad(values, ((0, 0), (0, missing))).reshape(tokens, -1, TILE_VALUES)


# --- combine ---


def combine(rows: Bf16, slot_of_copy: NDArray[np.int32], weight: NDArray[np.float32]) -> FloatArray:
    """Return each token as the sum of its copies' rows by weight: [tokens, hidden].

    rows: [slots, hidden] bf16 bits; slot_of_copy: [tokens, copies] -1 for no copy; weight: [tokens, copies]
    """
    return _weighted(from_bf16_bits(rows).astype(np.float64), slot_of_copy, weight.astype(np.float64))


def combine_bound(rows: Bf16, slot_of_copy: NDArray[np.int32], weight: NDArray[np.float32]) -> FloatArray:
    """Return how far a right kernel's sum may be from the truth: [tokens, hidden].

    Every copy is multiplied and added in FP32: at most 2 x copies roundings, each of no more than the sum of the
    magnitudes. Then the result is rounded to bf16: 2^-8 of it.
    """
    values = from_bf16_bits(rows).astype(np.float64)
    magnitudes = _weighted(np.abs(values), slot_of_copy, np.abs(weight.astype(np.float64)))
    in_sums = 2 * slot_of_copy.shape[1] * FP32_HALF_ULP * magnitudes
    bound: FloatArray = in_sums + _bf16_rounding(np.abs(combine(rows, slot_of_copy, weight)) + in_sums)
    return bound


def _weighted(values: FloatArray, slot_of_copy: NDArray[np.int32], weight: FloatArray) -> FloatArray:
    """Return [tokens, hidden] sums of [slots, hidden] values."""
    total = np.zeros((len(slot_of_copy), values.shape[1]))
    for token, slots in enumerate(slot_of_copy):
        is_copy = slots >= 0
        total[token] = weight[token, is_copy] @ values[slots[is_copy]]
    return total


# --- normalisation ---


def rms_norm(x: Bf16, residual: Bf16, gamma: Bf16, epsilon: float) -> NormalisedTokens:
    """Return (x + residual) over its root mean square, times gamma, and x + residual.

    x, residual: [tokens, hidden] bf16 bits; gamma: [hidden] bf16 bits; epsilon: added to the mean square
    """
    total = from_bf16_bits(x).astype(np.float64) + from_bf16_bits(residual).astype(np.float64)
    rms = np.sqrt((total**2).mean(axis=1, keepdims=True) + epsilon)
    out: FloatArray = total / rms * from_bf16_bits(gamma).astype(np.float64)
    return NormalisedTokens(out, total)


def rms_norm_bound(x: Bf16, residual: Bf16, gamma: Bf16, epsilon: float) -> NormalisedTokens:
    """Return how far a right kernel's two results may be from the truth.

    total: one addition in FP32, 2^-24, and rounding to bf16, 2^-8 of it.
    out: a square is off by 2^-23 for the sum under it and 2^-24 for the product, and passes through at most `hidden`
    additions of positive numbers, the mean's division and epsilon's addition: (hidden + 5) x 2^-24 of it; the root
    halves that. Then the root's own error, the sum's rounding, two products, and bf16.
    """
    truth = rms_norm(x, residual, gamma, epsilon)
    total_error = FP32_HALF_ULP * np.abs(truth.total)
    of_root = (x.shape[1] + 5) * FP32_HALF_ULP / 2 + RECIPROCAL_ROOT_ERROR
    out_error = (of_root + 3 * FP32_HALF_ULP) * np.abs(truth.out)
    return NormalisedTokens(
        out_error + _bf16_rounding(np.abs(truth.out) + out_error),
        total_error + _bf16_rounding(np.abs(truth.total) + total_error),
    )


def _bf16_rounding(magnitude: FloatArray) -> FloatArray:
    """Return what rounding a number of that magnitude to bf16 takes at most."""
    rounding: FloatArray = np.maximum(BF16_HALF_ULP * magnitude, BF16_SMALLEST_STEP / 2)
    return rounding
