"""The truth of matrix products against sums term by term, and the bounds against kernels made right and wrong."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest

from simulator.calibration.gpu.draws import FreshDraw
from simulator.calibration.gpu.kernels_gemm import OPERANDS
from simulator.calibration.gpu.truth_formats import from_bf16_bits, from_e4m3_bits, to_bf16_bits
from simulator.calibration.gpu.truth_gemm import (
    bf16_bound,
    fp8_bound,
    padded_tiles,
    product,
    with_blocks,
    with_row_tiles,
)

OPERANDS_OF = {operands.name: operands for operands in OPERANDS}


def drawn(name, m, n, k, seed=0):
    """Operands of a format as they are stored, and in float64 as they are meant."""
    arrays = OPERANDS_OF[name].draw(m, n, k, FreshDraw(np.random.default_rng(seed)))
    return arrays, *OPERANDS_OF[name].meant(arrays)


def added_by_steps(a, b, bits, step=32):
    """D as a tensor core adds it: `step` products and the running sum aligned to the largest and cut off."""
    total = np.zeros((len(a), len(b)))
    for first in range(0, a.shape[1], step):
        products = a[:, None, first : first + step] * b[None, :, first : first + step]
        terms = np.concatenate([products, total[:, :, None]], axis=2)
        largest = np.abs(terms).max(axis=2, keepdims=True)
        unit = np.exp2(np.floor(np.log2(np.maximum(largest, 1e-300))) - (bits - 1))
        total = (np.trunc(terms / unit) * unit).sum(axis=2)
    return total


def as_bf16(values):
    return from_bf16_bits(to_bf16_bits(values)).astype(float)


def is_within(found, truth, bound):
    norm = np.linalg.norm(found - truth) / np.linalg.norm(truth)
    return bool((np.abs(found - truth) <= bound.element).all()) and norm <= bound.norm


def test_tiles_along_k_are_counted_up_to_a_multiple_of_four():
    # cuBLASLt wants the stride between columns of the blocks' scales to be a multiple of 4.
    assert [padded_tiles(k) for k in (1, 128, 512, 513, 7168)] == [4, 4, 4, 8, 56]


def test_bf16_products_are_sums_of_exact_products():
    arrays, a, b = drawn("bf16", 3, 5, 40)
    by_terms = [
        [float(sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(row, column, strict=True)))
         for column in from_bf16_bits(arrays["b"])]
        for row in from_bf16_bits(arrays["a"])
    ]  # fmt: skip
    np.testing.assert_allclose(product(a, b), by_terms, rtol=1e-13, atol=1e-14)


def test_a_scale_per_tensor_scales_every_product():
    arrays, a, b = drawn("fp8", 3, 4, 50)
    unscaled = from_e4m3_bits(arrays["a"]).astype(float) @ from_e4m3_bits(arrays["b"]).astype(float).T
    scale = float(arrays["scale_a"][0]) * float(arrays["scale_b"][0])
    np.testing.assert_allclose(product(a, b), scale * unscaled, rtol=1e-13)


def test_scales_by_blocks_are_read_where_the_library_reads_them():
    # D[i, j] = sum over tiles t of scale_a[t, i] scale_b[j // 128, t] (A[i, tile] . B[j, tile]): the library's own
    # formula, tile by tile. Sizes that 128 does not divide, five tiles where the stride is eight.
    m, n, k = 4, 300, 600
    arrays, a, b = drawn("fp8-block", m, n, k)
    assert arrays["scale_a"].shape == (5, m)
    assert arrays["scale_b"].shape == (3, 8)
    codes_a, codes_b = (from_e4m3_bits(arrays[name]).astype(float) for name in ("a", "b"))
    total = np.zeros((m, n))
    for i in range(m):
        for j in range(n):
            for t in range(ceil(k / 128)):
                inside = slice(128 * t, 128 * (t + 1))
                scale = float(arrays["scale_a"][t, i]) * float(arrays["scale_b"][j // 128, t])
                total[i, j] += scale * (codes_a[i, inside] @ codes_b[j, inside])
    np.testing.assert_allclose(product(a, b), total, rtol=1e-11, atol=1e-9)


def test_scaling_a_tile_or_block_leaves_the_others():
    a, scale = np.ones((2, 200)), np.array([[1.0, 2.0], [3.0, 4.0]])
    scaled = with_row_tiles(a, scale)
    assert (scaled[0, 127], scaled[0, 128], scaled[1, 127], scaled[1, 128]) == (1, 3, 2, 4)
    blocks = with_blocks(np.ones((130, 130)), np.array([[1.0, 2.0, 9.0, 9.0], [3.0, 4.0, 9.0, 9.0]]))
    assert (blocks[127, 127], blocks[127, 128], blocks[128, 127], blocks[129, 129]) == (1, 2, 3, 4)


@pytest.mark.parametrize("k", [8, 100, 2000])
@pytest.mark.parametrize("seed", range(3))
def test_a_bf16_kernel_that_adds_in_fp32_is_within_its_bound(k, seed):
    _, a, b = drawn("bf16", 7, 9, k, seed)
    found = as_bf16(added_by_steps(a, b, bits=24, step=16))
    assert is_within(found, product(a, b), bf16_bound(a, b))


def test_a_bf16_kernel_that_adds_in_bf16_is_not():
    _, a, b = drawn("bf16", 7, 9, 500)
    total = np.zeros((7, 9))
    for i in range(500):
        total = as_bf16(total + np.outer(a[:, i], b[:, i]))
    assert not is_within(total, product(a, b), bf16_bound(a, b))


@pytest.mark.parametrize("name", ["fp8", "fp8-block"])
@pytest.mark.parametrize("k", [128, 640, 4096])
@pytest.mark.parametrize("seed", range(3))
def test_an_fp8_kernel_with_14_bits_is_within_its_bound(name, k, seed):
    # Worse than the library, which promotes partial sums: these stay in the short accumulator to the end.
    _, a, b = drawn(name, 8, 48, k, seed)
    found = as_bf16(added_by_steps(a, b, bits=14))
    assert is_within(found, product(a, b), fp8_bound(a, b))


def test_an_fp8_kernel_with_10_bits_is_not():
    _, a, b = drawn("fp8", 8, 48, 640)
    found = as_bf16(added_by_steps(a, b, bits=10))
    assert not is_within(found, product(a, b), fp8_bound(a, b))


def without_the_last_tile(a, b, arrays):
    return product(a[:, :-128], b[:, :-128])


def with_scales_of_neighbouring_rows(a, b, arrays):
    codes = from_e4m3_bits(arrays["a"]).astype(float)
    return product(with_row_tiles(codes, np.roll(arrays["scale_a"], 1, axis=1)), b)


def with_the_stride_not_rounded_up(a, b, arrays):
    codes = from_e4m3_bits(arrays["b"]).astype(float)
    scale = arrays["scale_b"].ravel()[: 3 * 5].reshape(3, 5)
    return product(a, with_blocks(codes, scale))


def with_one_element_a_tenth_off(a, b, arrays):
    truth = product(a, b)
    truth[np.unravel_index(np.abs(truth).argmax(), truth.shape)] *= 1.1
    return truth


@pytest.mark.parametrize(
    "wrong",
    [
        without_the_last_tile,
        with_scales_of_neighbouring_rows,
        with_the_stride_not_rounded_up,
        with_one_element_a_tenth_off,
    ],
)
def test_an_fp8_kernel_that_is_wrong_is_beyond_the_bound(wrong):
    arrays, a, b = drawn("fp8-block", 8, 300, 640)
    assert not is_within(wrong(a, b, arrays), product(a, b), fp8_bound(a, b))
