"""Verification on the emulated kernels: right ones pass, and each kind of wrong one is caught and named."""

import re

import numpy as np
import pytest

from simulator.calibration.gpu.cases import VERIFICATION_CASES
from simulator.calibration.gpu.cuda_library import CudaError
from simulator.calibration.gpu.draws import FreshDraw, rng_of
from simulator.calibration.gpu.gemm_library import GemmFormat, NoLibraryKernel
from simulator.calibration.gpu.kernels import every_kernel
from simulator.calibration.gpu.machine import on_bench
from simulator.calibration.gpu.truth_formats import from_bf16_bits
from simulator.calibration.gpu.verify import GUARD_BYTES, verify
from support.damaged_kernels import (
    Damaged,
    corrupt_one_element,
    do_nothing_right,
    leave_last_element_unwritten,
    refuse,
    write_past_the_end,
    write_to_an_input,
)
from support.emulated import MISSING_COMPILER, emulated_library, has_compiler
from support.emulated_gemm import emulated_gemm_library

pytestmark = pytest.mark.skipif(not has_compiler(), reason=MISSING_COMPILER)

NAMES = sorted(every_kernel())
# The emulation takes a second for what a GPU does in microseconds.
SMALL = {
    "copy": [{"bytes": 1}, {"bytes": 15}, {"bytes": 16}, {"bytes": 4099}],
    "quantise": [{"tokens": 1, "copies": 1, "hidden": 8}, {"tokens": 7, "copies": 3, "hidden": 1000}],
    "combine": [{"tokens": 1, "copies": 1, "hidden": 8}, {"tokens": 7, "copies": 3, "hidden": 1000}],
    "norm": [{"tokens": 1, "hidden": 8}, {"tokens": 3, "hidden": 1000}],
    "mla-decode": [
        {"requests": 1, "heads": 1, "cached": 1, "splits": 1},
        {"requests": 3, "heads": 20, "cached": 129, "splits": 2},
        {"requests": 3, "heads": 16, "cached": 200},
    ],
    "gemm-fp8-block": [{"m": 4, "n": 128, "k": 128}, {"m": 12, "n": 320, "k": 640}],
}


def cases(name):
    return SMALL.get(name) or VERIFICATION_CASES[name][:2]


@pytest.fixture(scope="module")
def bench():
    with on_bench(emulated_library(), emulated_gemm_library(), 0) as (found, _):
        yield found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [1, 2])
def test_right_kernels_pass(bench, name, seed):
    for shape in cases(name):
        results = verify(bench, every_kernel()[name], shape, seed)
        assert results
        assert [each.why for each in results] == [""] * len(results)
        for each in results:
            assert each.passed
            assert each.norm_error <= each.norm_bound
            assert each.worst_share <= 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (corrupt_one_element, "off by more than they may"),
        (leave_last_element_unwritten, r"not written|off by more than they may"),  # a byte has no NaN
        (write_past_the_end, r"wrote 1 bytes past the end, the first 5 bytes beyond it"),
        (write_to_an_input, "is an input, and was written to"),
        (do_nothing_right, r"not written|off by more than they may"),
        (refuse, "illegal memory access"),
    ],
)
def test_wrong_kernels_are_caught_and_named(bench, name, damage, said):
    shape = cases(name)[-1]
    results = verify(bench, Damaged(every_kernel()[name], damage), shape, 1)
    wrong = [each for each in results if not each.passed]
    assert wrong, f"{name} with {damage.__name__} passed"
    assert any(re.search(said, each.why) for each in wrong), [each.why for each in wrong]


def test_inputs_are_fresh_in_each_run_and_case_and_the_same_again():
    shape = {"tokens": 3, "hidden": 136}
    norm = every_kernel()["norm"]

    def x(seed, name="norm"):
        return norm.inputs(shape, FreshDraw(rng_of(name, shape, seed)))["x"].tobytes()

    assert x(1) == x(1)
    assert len({x(1), x(2), x(1, "combine")}) == 3


def test_verification_meets_what_requests_can_be():
    # Ragged: the longest as asked, an empty one, pages in any order, and NaN wherever no request has a token.
    shape = {"requests": 4, "heads": 2, "cached": 200}
    inputs = every_kernel()["mla-decode"].inputs(shape, FreshDraw(np.random.default_rng(0)))
    lengths, table, cache = inputs["cached_tokens"], inputs["page_table"], from_bf16_bits(inputs["cache"])
    assert (lengths[0], lengths[1]) == (200, 0)
    owned = [table[request, : -(-length // 64)] for request, length in enumerate(lengths)]
    assert sorted(np.concatenate(owned)) == list(range(len(cache) - 1))
    assert np.isnan(cache[-1]).all()
    assert np.isnan(cache[owned[0][-1], 200 % 64 :]).all()
    assert np.isfinite(cache[owned[0][-1], : 200 % 64]).all()
    assert (table[1] == len(cache) - 1).all()


def test_every_kernel_has_odd_sizes_to_verify():
    assert sorted(VERIFICATION_CASES) == NAMES
    for name in ("quantise", "combine", "norm", "copy"):
        assert any(size % 128 for shape in VERIFICATION_CASES[name] for size in shape.values()), name


def test_the_guard_is_larger_than_a_warp_can_write():
    assert GUARD_BYTES >= 32 * 16


# What cuBLASLt's documentation says of FP8: rows of A, B and D are whole 16 bytes; scales by blocks need m to be a
# multiple of 4.
@pytest.mark.parametrize(
    ("operands", "m", "n", "k"),
    [
        (GemmFormat.FP8, 4, 20, 64),
        (GemmFormat.FP8, 4, 32, 72),
        (GemmFormat.FP8_BLOCK, 5, 128, 128),
    ],
)
def test_a_product_without_a_library_kernel_is_named(bench, operands, m, n, k):
    library, workspace = bench.products
    with pytest.raises(NoLibraryKernel, match="rp_gemm_create: the functionality requested is not supported"):
        library.plan(operands, m=m, n=n, k=k, workspace=workspace)


def test_a_product_of_no_rows_is_refused(bench):
    library, workspace = bench.products
    with pytest.raises(CudaError, match="rp_gemm_create: invalid value"):
        library.plan(GemmFormat.BF16, m=0, n=8, k=8, workspace=workspace)
