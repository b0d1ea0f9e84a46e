"""The truth of attention over a latent cache: two forms that must agree, and a bound that holds and is not idle."""

import numpy as np
import pytest

from simulator.calibration.gpu.truth_attention import (
    LATENT,
    PAGE_TOKENS,
    ROW,
    absorbed_attention,
    absorbed_query,
    attention_bound,
    expanded_attention,
    softmax,
)
from simulator.calibration.gpu.truth_formats import from_bf16_bits, to_bf16_bits

SCALE = 192**-0.5  # of a head of 128 + 64, as DeepSeek-V3 has it


def in_bf16(values):
    return from_bf16_bits(to_bf16_bits(values)).astype(np.float64)


def drawn_cache(rng, num_pages):
    return in_bf16(rng.standard_normal((num_pages, PAGE_TOKENS, ROW)))


def test_absorbed_attention_equals_the_models_own_form():
    # q . (W_uk c) = (W_uk^T q) . c, and sum p (W_uv c) = W_uv (sum p c): both forms are one number.
    rng = np.random.default_rng(1)
    heads, tokens = 3, np.array([1, 70, 128])
    key_projection, value_projection = rng.standard_normal((2, heads, 128, LATENT)) / np.sqrt(LATENT)
    query, rotary_query = rng.standard_normal((3, heads, 128)), rng.standard_normal((3, heads, 64))
    cache, pages = drawn_cache(rng, 6), rng.permutation(6).reshape(3, 2)
    expanded = expanded_attention(
        query, rotary_query, cache, pages, tokens, SCALE, key_projection, value_projection
    )
    absorbed = absorbed_attention(
        absorbed_query(query, rotary_query, key_projection), cache, pages, tokens, SCALE
    )
    assert np.allclose(np.einsum("rhl,hvl->rhv", absorbed, value_projection), expanded, rtol=0, atol=1e-12)
    assert np.linalg.norm(expanded) > 1


def test_one_token_is_its_own_latent_and_none_is_zero():
    cache = drawn_cache(np.random.default_rng(2), 1)
    query = np.ones((2, 4, ROW))
    out = absorbed_attention(query, cache, np.array([[0], [0]]), np.array([1, 0]), SCALE)
    assert np.array_equal(out[0], np.broadcast_to(cache[0, 0, :LATENT], (4, LATENT)))
    assert not out[1].any()


def test_pages_may_lie_anywhere():
    rng = np.random.default_rng(3)
    cache, order = drawn_cache(rng, 4), np.array([2, 0, 3, 1])
    query, tokens = rng.standard_normal((1, 2, ROW)), np.array([250])
    scattered = np.empty_like(cache)
    scattered[order] = cache
    in_order = absorbed_attention(query, cache, np.arange(4)[None], tokens, SCALE)
    assert np.array_equal(absorbed_attention(query, scattered, order[None], tokens, SCALE), in_order)


def test_what_lies_past_a_requests_end_does_not_matter():
    rng = np.random.default_rng(4)
    cache, query = drawn_cache(rng, 3), rng.standard_normal((1, 2, ROW))
    poisoned = cache.copy()
    poisoned[1, 6:] = np.nan
    poisoned[2] = np.nan
    before = absorbed_attention(query, cache, np.array([[0, 1, 2]]), np.array([70]), SCALE)
    after = absorbed_attention(query, poisoned, np.array([[0, 1, -9]]), np.array([70]), SCALE)
    assert np.array_equal(before, after)


def test_softmax_of_scores_beyond_the_range_of_exp():
    assert np.allclose(softmax(np.array([1e4, 1e4, -1e4])), [0.5, 0.5, 0])


def as_a_kernel_might(query, rows):
    """FP32 scores and sums, weights rounded to BF16 over sums that are not: what the bound is derived for."""
    scores = np.float32(SCALE) * (query.astype(np.float32) @ rows.T.astype(np.float32))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    rounded = from_bf16_bits(to_bf16_bits(weights))
    values = rows[:, :LATENT].astype(np.float32)
    return in_bf16(rounded @ values / weights.sum(axis=-1, keepdims=True))


# At a gain of 8 scores are spread by 14, and most tokens have no weight that could be missed.
@pytest.mark.parametrize(("gain", "is_each_token_seen"), [(0.1, True), (1.0, True), (8.0, False)])
@pytest.mark.parametrize("tokens", [1, 7, 200])
def test_a_right_kernel_is_within_the_bound_and_one_that_takes_a_token_too_many_is_not(
    gain, is_each_token_seen, tokens
):
    rng = np.random.default_rng(5)
    query, cache = in_bf16(gain * rng.standard_normal((1, 8, ROW))), drawn_cache(rng, 4)
    arguments = (query, cache, np.arange(4)[None], np.array([tokens]), SCALE)
    truth, bound = absorbed_attention(*arguments), attention_bound(*arguments)
    rows = cache.reshape(-1, ROW)[: tokens + 1]

    right = as_a_kernel_might(query[0], rows[:tokens]) - truth[0]
    assert (np.abs(right) <= bound.element[0]).all()
    assert np.linalg.norm(right) <= bound.norm * np.linalg.norm(truth)

    if is_each_token_seen:
        wrong = as_a_kernel_might(query[0], rows) - truth[0]
        assert (np.abs(wrong) > bound.element[0]).any()
        assert np.linalg.norm(wrong) > bound.norm * np.linalg.norm(truth)


def test_the_bound_is_a_small_part_of_the_result():
    # Even weights over 256 rows of unit normal numbers: the sum of p |v| is sqrt(2 / pi), and out some 1 / 16.
    # Rounded weights err by 2^-8 of the former, 0.0031, the rest by little.
    rng = np.random.default_rng(6)
    query, cache = in_bf16(0.1 * rng.standard_normal((1, 2, ROW))), drawn_cache(rng, 4)
    bound = attention_bound(query, cache, np.arange(4)[None], np.array([256]), SCALE)
    assert 0.0031 < bound.element.mean() < 0.005
    assert bound.norm == pytest.approx(2**-7, rel=0.01)


@pytest.mark.parametrize(
    ("tokens", "pages", "message"),
    [
        (129, [0, 1], "request 0 has 129 cached tokens; its 2 pages of 64 hold 0 to 128"),
        (-1, [0, 1], "request 0 has -1 cached tokens; its 2 pages of 64 hold 0 to 128"),
        (65, [0, 2], "request 0 has page 0 to 2; the cache has 0 to 1"),
        (65, [0, -1], "request 0 has page -1 to 0; the cache has 0 to 1"),
    ],
)
def test_pages_that_are_not_there_are_named(tokens, pages, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        absorbed_attention(
            np.ones((1, 1, ROW)), np.ones((2, PAGE_TOKENS, ROW)), np.array([pages]), np.array([tokens]), SCALE
        )
