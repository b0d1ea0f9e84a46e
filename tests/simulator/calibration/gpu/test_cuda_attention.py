"""The attention kernel, compiled for the CPU, against its truth.

Whatever a kernel may not read is NaN: pages of nobody, rows past a request's end, the workspace, shared memory that
nobody wrote. Outputs are poisoned and followed by guard bytes; threads of a block start in either order.
"""

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import numpy as np
import pytest

from simulator.calibration.gpu.cuda_library import CudaError
from simulator.calibration.gpu.truth_attention import (
    LATENT,
    PAGE_TOKENS,
    ROW,
    absorbed_attention,
    attention_bound,
)
from simulator.calibration.gpu.truth_formats import from_bf16_bits, to_bf16_bits
from support.emulated import MISSING_COMPILER, emulated_library, has_compiler, reverse_order

pytestmark = pytest.mark.skipif(not has_compiler(), reason=MISSING_COMPILER)

LENGTHS = (0, 1, 63, 64, 65, 200)
HEADS = (1, 3, 16, 20, 64, 100, 128)
SCALE = 192**-0.5
POISON = 0xFF  # NaN in bf16 and float32
GUARD_BYTES = 64
NO_PAGE = -(2**30)  # past a request's end: whoever follows it reads what is not the process's


@dataclass(frozen=True)
class Case:
    """What a kernel reads, as bits of bf16, and how it is launched."""

    query: np.ndarray
    cache: np.ndarray
    page_table: np.ndarray
    cached_tokens: np.ndarray
    scale: float

    @property
    def meant(self):
        """The arguments of the truth."""
        query, cache = (from_bf16_bits(bits).astype(np.float64) for bits in (self.query, self.cache))
        return query, cache, self.page_table, self.cached_tokens, self.scale


def case(heads, lengths, *, seed=0, gain=1.0, in_order=False, scale=SCALE):
    """Requests of these lengths, each with a page to spare, in a cache with three pages of nobody."""
    rng = np.random.default_rng(seed)
    max_pages = -(-max(lengths) // PAGE_TOKENS) + 1
    num_pages = len(lengths) * max_pages + 3
    order = np.arange(num_pages) if in_order else rng.permutation(num_pages)
    page_table = order[: len(lengths) * max_pages].reshape(-1, max_pages).astype(np.int32)
    cache = np.full((num_pages, PAGE_TOKENS, ROW), 0xFFFF, np.uint16)
    for pages, tokens in zip(page_table, lengths, strict=True):
        rows = np.full((max_pages * PAGE_TOKENS, ROW), 0xFFFF, np.uint16)
        rows[:tokens] = to_bf16_bits(rng.standard_normal((tokens, ROW)))
        cache[pages] = rows.reshape(max_pages, PAGE_TOKENS, ROW)
        pages[-(-tokens // PAGE_TOKENS) :] = NO_PAGE
    query = to_bf16_bits(gain * rng.standard_normal((len(lengths), heads, ROW)))
    return Case(query, cache, page_table, np.array(lengths, np.int32), scale)


@pytest.fixture(scope="module")
def library():
    return emulated_library()


@pytest.fixture(params=["first-to-last", "last-to-first"])
def thread_order(request):
    with reverse_order() if request.param == "last-to-first" else nullcontext():
        yield


def attended(library, case, splits):
    """What the kernel makes of the case: [requests, heads, 512] float64. Nothing past its arrays has changed."""
    requests, heads, _ = case.query.shape
    workspace_bytes = library.mla_decode_workspace_bytes(requests=requests, heads=heads, splits=splits)
    out_bytes = requests * heads * LATENT * 2
    with ExitStack() as held:
        inputs = (case.query, case.cache, case.page_table, case.cached_tokens)
        arrays = [held.enter_context(library.allocate(array)) for array in inputs]
        for size_bytes in (out_bytes, workspace_bytes):
            arrays.append(held.enter_context(library.allocate(size_bytes + GUARD_BYTES)))
            arrays[-1].fill(POISON)
        sizes = {
            "requests": requests,
            "heads": heads,
            "max_pages": case.page_table.shape[1],
            "splits": splits,
        }
        library.mla_decode(*arrays, **sizes, softmax_scale=case.scale)
        for size_bytes, array in ((out_bytes, arrays[4]), (workspace_bytes, arrays[5])):
            assert (array.to_host(size_bytes + GUARD_BYTES, np.uint8)[size_bytes:] == POISON).all()
        return from_bf16_bits(arrays[4].to_host((requests, heads, LATENT), np.uint16)).astype(np.float64)


def assert_right(found, case):
    truth, bound = absorbed_attention(*case.meant), attention_bound(*case.meant)
    assert (np.abs(found - truth) <= bound.element).all()
    assert np.linalg.norm(found - truth) <= bound.norm * np.linalg.norm(truth)


@pytest.mark.parametrize("splits", range(1, 6))
@pytest.mark.parametrize("heads", HEADS)
def test_requests_of_many_lengths(library, heads, splits):
    drawn = case(heads, LENGTHS, seed=100 * heads + splits)
    found = attended(library, drawn, splits)
    assert_right(found, drawn)
    assert not found[0].any()


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("heads", [16, 32, 64])
def test_threads_in_either_order(library, thread_order, heads, splits):
    drawn = case(heads, [333, 40], seed=heads)
    assert_right(attended(library, drawn, splits), drawn)


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("heads", [5, 40])
def test_pages_in_order_and_not(library, heads, in_order):
    drawn = case(heads, [64, 300, 129], in_order=in_order)
    assert_right(attended(library, drawn, 2), drawn)


@pytest.mark.parametrize("heads", [16, 32, 64])
def test_scores_far_apart(library, heads):
    # Scores are spread by gain x sqrt(576 / 192): 35, so that the largest of 400 are beyond 60 either way.
    drawn = case(heads, [400, 65], gain=20)
    query, cache, *_ = drawn.meant
    scores = SCALE * query[0] @ cache[drawn.page_table[0, 0]].T
    assert scores.max() > 60
    assert scores.min() < -60
    assert_right(attended(library, drawn, 3), drawn)


@pytest.mark.parametrize("heads", [16, 32, 64])
def test_scores_that_rise_and_fall_over_the_tokens(library, heads):
    """A reference must follow a rise, tile by tile, and stay through a fall; each head has its own."""
    drawn = case(heads, [320])
    rows = np.zeros((320, ROW), np.float32)
    rows[:, :LATENT] = np.random.default_rng(8).standard_normal((320, LATENT))
    rows[:, LATENT] = np.linspace(-60, 60, 320)
    query = np.zeros((1, heads, ROW), np.float32)
    query[..., LATENT] = np.linspace(-1, 1, heads)
    drawn.cache[drawn.page_table[0, :5]] = to_bf16_bits(rows.reshape(5, PAGE_TOKENS, ROW))
    drawn = Case(to_bf16_bits(query), drawn.cache, drawn.page_table, drawn.cached_tokens, 1.0)
    assert_right(attended(library, drawn, 1), drawn)


@pytest.mark.parametrize("heads", [16, 64])
def test_a_negative_scale(library, heads):
    drawn = case(heads, [130], gain=10, scale=-SCALE)
    assert_right(attended(library, drawn, 1), drawn)


def test_splits_agree_to_what_rounding_leaves(library):
    drawn = case(20, [200, 64])
    whole, split = (attended(library, drawn, splits) for splits in (1, 4))
    assert np.linalg.norm(whole - split) <= 2**-7 * np.linalg.norm(whole)


@pytest.mark.parametrize("heads", [16, 64])
def test_nan_among_a_requests_own_tokens_is_not_hidden(library, heads):
    drawn = case(heads, [70, 70])
    drawn.cache[drawn.page_table[0, 1], 3, 9] = 0x7FFF
    found = attended(library, drawn, 2)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def chosen_splits(library, requests, heads, tokens, sms=132):
    return library.mla_decode_splits(requests=requests, heads=heads, max_cached_tokens=tokens, sms=sms)


def test_splits_fill_the_device(library):
    # 128 heads: 256 blocks of 64 heads are two waves of 132 SMs, nearly full.
    assert chosen_splits(library, 128, 128, 4096) == 1
    # 16 heads: two blocks an SM, and 128 requests would leave half of the 264 places empty.
    assert chosen_splits(library, 128, 16, 4096) == 2
    # One request: many splits, none without a tile of 32 or 64 tokens.
    assert 8 <= chosen_splits(library, 1, 16, 4096) <= 128
    assert 8 <= chosen_splits(library, 1, 128, 4096) <= 64
    # Nothing to split.
    assert chosen_splits(library, 1, 128, 64) == chosen_splits(library, 1, 16, 32) == 1
    assert chosen_splits(library, 1, 16, 0) == 1


@pytest.mark.parametrize("heads", [16, 32, 128])
@pytest.mark.parametrize("requests", [1, 7, 100, 5000])
def test_splits_are_at_least_one_and_at_most_a_tile_each(library, requests, heads):
    tile = 64 if heads > 32 else 32
    for tokens in (1, 100, 1000, 20000):
        assert 1 <= chosen_splits(library, requests, heads, tokens) <= -(-tokens // tile)


def test_one_split_needs_no_workspace_and_more_hold_all_partial_results(library):
    size_bytes = library.mla_decode_workspace_bytes
    assert size_bytes(requests=3, heads=5, splits=1) == 0
    assert size_bytes(requests=3, heads=5, splits=2) == 3 * 5 * 2 * (LATENT + 2) * 4


@pytest.mark.parametrize("size", ["requests", "heads", "max_pages", "splits"])
def test_sizes_below_one_are_refused(library, size):
    sizes = {"requests": 1, "heads": 1, "max_pages": 1, "splits": 1} | {size: 0}
    with library.allocate(16) as nothing, pytest.raises(CudaError, match="rp_mla_decode"):
        library.mla_decode(*[nothing] * 6, **sizes, softmax_scale=1.0)
