"""The truths of the memory-bound kernels against formulas that do not share their way of computing."""

import numpy as np
import pytest

from simulator.calibration.gpu.truth_formats import E4M3_MAX, from_bf16_bits, from_e4m3_bits, to_bf16_bits
from simulator.calibration.gpu.truth_streaming import (
    QuantisedTokens,
    combine,
    combine_bound,
    copy,
    dequantised,
    pack,
    quantise,
    quantise_bound,
    rms_norm,
    rms_norm_bound,
)

POISON = 0xFF


@pytest.fixture
def rng():
    return np.random.default_rng(6)


def drawn(rng, *shape):
    """Numbers of widely different size, as bf16 bits."""
    return to_bf16_bits(rng.standard_normal(shape) * np.exp(2 * rng.standard_normal(shape)))


def number(bits):
    return from_bf16_bits(bits).astype(np.float64)


def test_a_copy_is_another_array_with_the_same_bytes():
    source = np.arange(17, dtype=np.uint8)
    copied = copy(source)
    np.testing.assert_array_equal(copied, source)
    assert not np.shares_memory(copied, source)


# --- dispatch ---


@pytest.mark.parametrize("hidden", [8, 128, 136, 1000])
def test_dequantised_tiles_are_within_the_bound_of_the_format(rng, hidden):
    x = drawn(rng, 100, hidden)
    tokens = quantise(x)
    missed = np.abs(dequantised(tokens) - number(x))
    bound = quantise_bound(x, tokens.scale)
    assert tokens.scale.shape == (100, -(-hidden // 128))
    assert (missed <= bound).all()
    # It binds: some value is rounded by nearly all that the format may take.
    assert (missed / np.maximum(bound, 1e-300)).max() > 0.9


def test_the_bound_of_quantising_is_left_by_the_next_code(rng):
    # A code that is off by one is a wrong kernel; for most values the bound must say so.
    x = drawn(rng, 4, 512)
    tokens = quantise(x)
    magnitude = tokens.codes & 0x7F
    # the largest code's neighbour towards zero, that of any other one away from it
    off = np.where(magnitude == 0x7E, tokens.codes - 1, tokens.codes + 1).astype(np.uint8)
    missed = np.abs(dequantised(QuantisedTokens(off, tokens.scale)) - number(x))
    assert (missed > quantise_bound(x, tokens.scale)).mean() > 0.6


def test_the_largest_of_a_tile_becomes_448(rng):
    x = drawn(rng, 3, 256)
    tiles = np.abs(number(x)).reshape(3, 2, 128)
    codes = quantise(x).codes.reshape(3, 2, 128)
    largest = np.take_along_axis(codes, tiles.argmax(axis=2)[:, :, None], axis=2)
    np.testing.assert_array_equal(np.abs(from_e4m3_bits(largest)), E4M3_MAX)


def test_powers_of_two_scale_the_scale_and_nothing_else(rng):
    x = drawn(rng, 3, 300)
    plain, scaled = quantise(x), quantise(to_bf16_bits(from_bf16_bits(x) * np.float32(2**10)))
    np.testing.assert_array_equal(plain.codes, scaled.codes)
    np.testing.assert_array_equal(plain.scale * np.float32(2**10), scaled.scale)


def test_a_tile_of_zeros_has_scale_one():
    x = np.zeros((1, 136), np.uint16)
    x[0, :128] = to_bf16_bits(2.0)
    tokens = quantise(x)
    np.testing.assert_array_equal(tokens.scale, np.float32([[2 / 448, 1]]))
    np.testing.assert_array_equal(tokens.codes[0, 128:], 0)


def test_packing_puts_each_copy_where_it_belongs_and_touches_no_other_slot():
    tokens = QuantisedTokens(np.uint8([[1, 2], [3, 4]]), np.float32([[5], [6]]))
    packed = pack(tokens, np.int32([[3, -1], [0, 2]]), slots=4, poison=POISON)
    np.testing.assert_array_equal(packed.codes, [[3, 4], [POISON, POISON], [3, 4], [1, 2]])
    np.testing.assert_array_equal(packed.scale[[0, 2, 3]], [[6], [6], [5]])
    assert np.isnan(packed.scale[1]).all()


# --- combine ---


def test_combining_what_was_dispatched_is_the_identity_for_weights_that_add_up_to_one(rng):
    # Four copies in any slots, each weighing a quarter: exact, for a quarter is a power of two.
    x = drawn(rng, 6, 40)
    slot_of_copy = rng.permutation(24).reshape(6, 4).astype(np.int32)
    rows = np.zeros((24, 40), np.uint16)
    rows[slot_of_copy.ravel()] = np.repeat(x, 4, axis=0)
    np.testing.assert_array_equal(combine(rows, slot_of_copy, np.full((6, 4), 0.25, np.float32)), number(x))


def test_missing_copies_count_for_nothing_even_where_their_weight_is_none(rng):
    rows = drawn(rng, 3, 8)
    weight = np.float32([[0.5, np.nan], [np.nan, np.nan]])
    combined = combine(rows, np.int32([[2, -1], [-1, -1]]), weight)
    np.testing.assert_array_equal(combined, np.stack([number(rows)[2] / 2, np.zeros(8)]))


def test_combining_is_a_product_with_a_matrix_of_weights(rng):
    rows, weight = drawn(rng, 20, 16), rng.random((7, 3)).astype(np.float32)
    slot_of_copy = rng.integers(-1, 20, (7, 3)).astype(np.int32)
    matrix = np.zeros((7, 21))
    np.add.at(matrix, (np.arange(7)[:, None], slot_of_copy), weight.astype(np.float64))  # -1: the last column
    np.testing.assert_allclose(combine(rows, slot_of_copy, weight), matrix[:, :20] @ number(rows), rtol=1e-12)


def test_sums_in_single_precision_are_within_the_bound_of_combining(rng):
    # The other way to sum: in float32, from the last copy to the first, rounded to bf16 at the end.
    rows, weight = drawn(rng, 50, 64), rng.standard_normal((9, 8)).astype(np.float32)
    slot_of_copy = rng.integers(0, 50, (9, 8)).astype(np.int32)
    total = np.zeros((9, 64), np.float32)
    for index in reversed(range(8)):
        total += weight[:, index, None] * from_bf16_bits(rows)[slot_of_copy[:, index]]
    missed = np.abs(number(to_bf16_bits(total)) - combine(rows, slot_of_copy, weight))
    bound = combine_bound(rows, slot_of_copy, weight)
    assert (missed <= bound).all()
    assert (missed / bound).max() > 0.9


# --- normalisation ---


def test_normalised_tokens_have_a_root_mean_square_of_one(rng):
    x, residual = drawn(rng, 4, 1000), drawn(rng, 4, 1000)
    gamma = to_bf16_bits(np.ones(1000))
    out = rms_norm(x, residual, gamma, 0.0).out
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), np.sqrt(1000), rtol=1e-12)


def test_normalising_forgets_the_scale_of_its_input(rng):
    x, residual, gamma = drawn(rng, 4, 64), drawn(rng, 4, 64), drawn(rng, 64)
    plain = rms_norm(x, residual, gamma, 0.0)
    scaled = rms_norm(*(to_bf16_bits(from_bf16_bits(a) * np.float32(8)) for a in (x, residual)), gamma, 0.0)
    np.testing.assert_allclose(plain.out, scaled.out, rtol=1e-12)
    np.testing.assert_array_equal(plain.total * 8, scaled.total)


def test_epsilon_is_added_to_the_mean_square():
    # Sums of 3 and 4 among eight: mean square 25/8; with 39/8 more it is 8, so that 4 becomes 4 / sqrt(8) = sqrt(2).
    x = to_bf16_bits([[3, 4, 0, 0, 0, 0, 0, 0]])
    out = rms_norm(x, np.zeros_like(x), to_bf16_bits(np.ones(8)), 39 / 8).out
    assert out[0, 1] == pytest.approx(np.sqrt(2), rel=1e-12)


def test_single_precision_is_within_the_bound_of_normalising(rng):
    x, residual, gamma = drawn(rng, 6, 512), drawn(rng, 6, 512), drawn(rng, 512)
    truth, bound = rms_norm(x, residual, gamma, 1e-6), rms_norm_bound(x, residual, gamma, 1e-6)
    total = from_bf16_bits(x) + from_bf16_bits(residual)
    squares = np.add.accumulate(total * total, axis=1)[:, -1:]  # one after another: the worst order
    out = total / np.sqrt(squares / np.float32(512) + np.float32(1e-6)) * from_bf16_bits(gamma)
    for computed, right, most in zip((out, total), truth, bound, strict=True):
        missed = np.abs(number(to_bf16_bits(computed)) - right)
        assert (missed <= most).all()
        assert (missed / np.maximum(most, 1e-300)).max() > 0.9
