"""bf16 and e4m3 bit by bit: every code, every midpoint between two, and what lies just beside it."""

import struct
from fractions import Fraction

import numpy as np
import pytest

from simulator.calibration.gpu.truth_formats import (
    BF16_HALF_ULP,
    E4M3_HALF_ULP,
    E4M3_MAX,
    E4M3_SUBNORMAL_HALF_STEP,
    from_bf16_bits,
    from_e4m3_bits,
    to_bf16_bits,
    to_e4m3_bits,
)

ALL_BF16 = np.arange(1 << 16, dtype=np.uint16)
ALL_E4M3 = np.arange(1 << 8, dtype=np.uint8)
INFINITE_BF16 = 0x7F80
LARGEST_E4M3 = 0x7E


def e4m3_by_hand(code):
    """The value of a code from the format's definition, in exact fractions."""
    sign = -1 if code >> 7 else 1
    exponent, fraction = code >> 3 & 15, code & 7
    if exponent == 0:
        return sign * Fraction(fraction, 8) * Fraction(1, 2**6)
    return sign * (1 + Fraction(fraction, 8)) * Fraction(2) ** (exponent - 7)


# --- bf16 ---


def test_bf16_is_the_upper_half_of_a_float():
    for bits in (0x0000, 0x3F80, 0xC049, 0x7F7F, 0x0001, 0x8001):
        (value,) = struct.unpack("<f", struct.pack("<HH", 0, bits))
        assert from_bf16_bits(np.uint16([bits]))[0] == value


def test_every_bf16_comes_back():
    values = from_bf16_bits(ALL_BF16)
    is_number = ~np.isnan(values)
    np.testing.assert_array_equal(to_bf16_bits(values)[is_number], ALL_BF16[is_number])
    np.testing.assert_array_equal(to_bf16_bits(values)[~is_number], 0x7FFF)


@pytest.mark.parametrize("sign", [1, -1])
def test_bf16_rounds_to_the_nearest_and_on_a_midpoint_to_the_even_one(sign):
    # Between neighbours, infinity the last one's: the midpoint is a float32 with bit 15 set. IEEE gives the overflow
    # threshold the same rule, as if 2^128 came next.
    lower = np.arange(INFINITE_BF16, dtype=np.uint32)
    midpoint = ((lower << np.uint32(16)) | np.uint32(0x8000)).view(np.float32)
    negative = 0x8000 if sign < 0 else 0
    even = lower + lower % 2
    np.testing.assert_array_equal(to_bf16_bits(sign * midpoint), even + negative)
    np.testing.assert_array_equal(
        to_bf16_bits(sign * np.nextafter(midpoint, np.float32(0))), lower + negative
    )
    above = sign * np.nextafter(midpoint, np.float32(np.inf))
    np.testing.assert_array_equal(to_bf16_bits(above), lower + 1 + negative)


def test_bf16_keeps_infinity():
    np.testing.assert_array_equal(to_bf16_bits([np.inf, -np.inf]), [INFINITE_BF16, INFINITE_BF16 + 0x8000])


def test_bf16_half_ulp_is_what_rounding_takes_at_most():
    # Of the numbers from 1 to 2, just above 1 the most: half of 2^-7, over 1.
    values = 1 + np.arange(1 << 23, step=64, dtype=np.float32) * np.float32(2**-23)
    missed = np.abs(from_bf16_bits(to_bf16_bits(values)) - values) / values
    assert 0.99 * BF16_HALF_ULP < missed.max() <= BF16_HALF_ULP


# --- e4m3 ---


def test_every_e4m3_is_what_its_definition_says():
    values = from_e4m3_bits(ALL_E4M3)
    for code in range(256):
        if code & 0x7F == 0x7F:
            assert np.isnan(values[code])
        else:
            assert Fraction(float(values[code])) == e4m3_by_hand(code)
    assert values[LARGEST_E4M3] == E4M3_MAX


def test_every_e4m3_comes_back():
    values = from_e4m3_bits(ALL_E4M3)
    is_number = ~np.isnan(values)
    np.testing.assert_array_equal(to_e4m3_bits(values)[is_number], ALL_E4M3[is_number])
    np.testing.assert_array_equal(to_e4m3_bits(values)[~is_number], 0x7F)


@pytest.mark.parametrize("sign", [1, -1])
def test_e4m3_rounds_to_the_nearest_and_on_a_midpoint_to_the_even_one(sign):
    lower = np.arange(LARGEST_E4M3)
    midpoint = np.array([float(e4m3_by_hand(code) + e4m3_by_hand(code + 1)) / 2 for code in lower])
    negative = 0x80 if sign < 0 else 0
    np.testing.assert_array_equal(to_e4m3_bits(sign * midpoint), lower + lower % 2 + negative)
    np.testing.assert_array_equal(to_e4m3_bits(sign * np.nextafter(midpoint, 0)), lower + negative)
    np.testing.assert_array_equal(to_e4m3_bits(sign * np.nextafter(midpoint, np.inf)), lower + 1 + negative)


def test_e4m3_saturates():
    beyond = np.array([448.0, 463.9, 464.0, 480.0, 1e9, np.inf])
    np.testing.assert_array_equal(to_e4m3_bits(beyond), LARGEST_E4M3)
    np.testing.assert_array_equal(to_e4m3_bits(-beyond), LARGEST_E4M3 + 0x80)


def test_e4m3_half_steps_are_what_rounding_takes_at_most():
    normal = np.linspace(2.0**-6, E4M3_MAX, 200_001)
    missed = np.abs(from_e4m3_bits(to_e4m3_bits(normal)) - normal) / normal
    assert missed.max() <= E4M3_HALF_ULP
    just_above_one = 1 + 2.0**-4
    assert abs(from_e4m3_bits(to_e4m3_bits([just_above_one]))[0] - just_above_one) == E4M3_HALF_ULP
    subnormal = np.linspace(0, 2.0**-6, 100_001)
    missed = np.abs(from_e4m3_bits(to_e4m3_bits(subnormal)) - subnormal)
    assert 0.99 * E4M3_SUBNORMAL_HALF_STEP < missed.max() <= E4M3_SUBNORMAL_HALF_STEP
