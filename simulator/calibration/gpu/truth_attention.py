"""What attention over a paged latent cache should give, in float64, and how far a right kernel may be from it.

Multi-head latent attention leaves behind, for each token, one row for all heads: 512 numbers of latent and 64 of
rotary key. Decoding attends to the rows in absorbed form: with the up-projection of keys multiplied into the query,
the latent is key and value at once. `expanded_attention` is the model's own form (DeepSeek-V3 technical report,
section 2.1.1, equations 2, 4, 5 and 10): each head's keys and values come out of the latent first.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.integer[Any]]

LATENT: Final = 512
ROW: Final = 576
PAGE_TOKENS: Final = 64

# Rounding to BF16, 8 significant bits, errs by at most this of the value.
BF16_HALF_ULP: Final = 2.0**-8

# Tensor cores add 16 products and the running sum in one step. Assumed of any that adds "in FP32": they align the 17
# to the largest and cut off what falls below its 24 significant bits, up to 2^-23 of the largest from each.
STEP_CUT: Final = 17 * 2.0**-23
STEP_PRODUCTS: Final = 16

# FP32 operations that a kernel does to a score, or to a weight, beside: partial sums, scales, differences, powers.
FP32_OPERATIONS: Final = 32
FP32_HALF_ULP: Final = 2.0**-24


class Bound(NamedTuple):
    """How far a right kernel's output may be from the truth.

    element: [requests, heads, 512] of each element, absolute
    norm: of ||out - truth|| / ||truth||
    """

    element: Array
    norm: float


def absorbed_attention(
    query: Array, cache: Array, page_table: Indices, cached_tokens: Indices, scale: float
) -> Array:
    """Return what each head reads from its request's cache: [requests, heads, 512], zeros without a cached token.

    query: [requests, heads, 576] absorbed latent query, then the rotary one
    cache: [pages, 64, 576] rows of tokens
    page_table: [requests, max_pages] a request's pages, in the order of its tokens; read as far as it has tokens
    cached_tokens: [requests] how many there are
    scale: by which scores are multiplied
    """
    out = np.zeros((*query.shape[:2], LATENT))
    for request, rows in _cached_rows(cache, page_table, cached_tokens):
        out[request] = softmax(scale * (query[request] @ rows.T)) @ rows[:, :LATENT]
    return out


def expanded_attention(
    query: Array,
    rotary_query: Array,
    cache: Array,
    page_table: Indices,
    cached_tokens: Indices,
    scale: float,
    key_projection: Array,
    value_projection: Array,
) -> Array:
    """Return each head's output in the model's own form: [requests, heads, head size of values].

    query: [requests, heads, head size of keys]; rotary_query: [requests, heads, 64]
    cache, page_table, cached_tokens, scale: as of `absorbed_attention`
    key_projection: [heads, head size of keys, 512]; value_projection: [heads, head size of values, 512]
    """
    num_requests, num_heads = query.shape[:2]
    out = np.zeros((num_requests, num_heads, value_projection.shape[1]))
    for request, rows in _cached_rows(cache, page_table, cached_tokens):
        for head in range(num_heads):
            keys = np.array([key_projection[head] @ row[:LATENT] for row in rows])
            values = np.array([value_projection[head] @ row[:LATENT] for row in rows])
            whole_keys = np.concatenate([keys, rows[:, LATENT:]], axis=1)
            whole_query = np.concatenate([query[request, head], rotary_query[request, head]])
            powers = np.exp(scale * (whole_keys @ whole_query))
            out[request, head] = sum(power * value for power, value in zip(powers, values, strict=True))
            out[request, head] /= powers.sum()
    return out


def absorbed_query(query: Array, rotary_query: Array, key_projection: Array) -> Array:
    """Return the queries of `expanded_attention` as `absorbed_attention` takes them: [requests, heads, 576]."""
    return np.concatenate([np.einsum("rhk,hkl->rhl", query, key_projection), rotary_query], axis=-1)


def attention_bound(
    query: Array, cache: Array, page_table: Indices, cached_tokens: Indices, scale: float
) -> Bound:
    """Return how far from `absorbed_attention` a right kernel may be; arguments as there, exact in BF16.

    Such a kernel takes exact products of BF16 numbers, adds in FP32, rounds weights to BF16 before it multiplies them
    with the rows, divides by the sum of the weights before that rounding, and rounds what comes out to BF16. With p
    the true weights and v the rows, out = sum(p v):

    - A score errs by at most `d`, the cuts of its 36 steps and some FP32 operations, in proportion to scale times the
      sum of |query key|. Its weight then errs by a factor within exp(+-d), above and below the fraction.
    - Weights rounded to BF16 err by 2^-8 above the fraction only: together at most sum(p |v| (2^-8 + d)), and
      |out| sum(p d) from below.
    - The sum over n tokens in steps of 16 loses n / 16 cuts of sum(p |v|).
    - The result, rounded, errs by 2^-8 |out|.

    That is to first order in d; exp(d) - 1 in its place, and the whole once more by the largest, make it hold where d
    is not small. By the norm, 2^-8 twice, for weights and result, and a few units in the last place of the largest
    sum of magnitudes: cuts are so many and so mixed that their worst, d, is far from what comes about.
    """
    element = np.zeros((*query.shape[:2], LATENT))
    largest = 0.0
    for request, rows in _cached_rows(cache, page_table, cached_tokens):
        magnitudes = abs(scale) * (np.abs(query[request]) @ np.abs(rows).T)
        largest = max(largest, float(magnitudes.max()))
        cuts = ROW / STEP_PRODUCTS * STEP_CUT + FP32_OPERATIONS * FP32_HALF_ULP
        factor = np.expm1(cuts * magnitudes + FP32_OPERATIONS * FP32_HALF_ULP)
        weights = softmax(scale * (query[request] @ rows.T))
        values = rows[:, :LATENT]
        out = np.abs(weights @ values)
        steps = -(-len(rows) // STEP_PRODUCTS)
        above = (weights * (BF16_HALF_ULP + factor + steps * STEP_CUT)) @ np.abs(values)
        below = out * (weights * factor).sum(axis=1, keepdims=True)
        element[request] = (above + below) * (1 + BF16_HALF_ULP + factor.max()) + BF16_HALF_ULP * out
    return Bound(element, 2 * BF16_HALF_ULP + 4 * 2 * FP32_HALF_ULP * largest)


def softmax(scores: Array) -> Array:
    """Return the weights of scores along the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float64)


def _cached_rows(cache: Array, page_table: Indices, cached_tokens: Indices) -> Iterator[tuple[int, Array]]:
    """Yield each request that has cached tokens and their rows: [tokens, 576]."""
    num_pages, max_pages = len(cache), page_table.shape[1]
    for request, tokens in enumerate(map(int, cached_tokens)):
        if not 0 <= tokens <= max_pages * PAGE_TOKENS:
            raise ValueError(
                f"request {request} has {tokens} cached tokens; its {max_pages} pages of {PAGE_TOKENS} hold "
                f"0 to {max_pages * PAGE_TOKENS}"
            )
        if tokens == 0:
            continue
        pages = page_table[request, : -(-tokens // PAGE_TOKENS)]
        if pages.min() < 0 or pages.max() >= num_pages:
            raise ValueError(
                f"request {request} has page {pages.min()} to {pages.max()}; the cache has 0 to {num_pages - 1}"
            )
        yield request, np.asarray(cache[pages].reshape(-1, ROW)[:tokens], np.float64)
