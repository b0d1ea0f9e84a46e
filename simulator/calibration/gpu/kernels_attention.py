"""MLA decoding: one token of each request attends to its paged latent cache, in absorbed form."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from simulator.calibration.gpu.cases import Shape
from simulator.calibration.gpu.draws import Draw
from simulator.calibration.gpu.kernel import BF16, Bench, Call, Comparison, DeviceArrays, HostArrays, Output
from simulator.calibration.gpu.truth_attention import (
    LATENT,
    PAGE_TOKENS,
    ROW,
    absorbed_attention,
    attention_bound,
)
from simulator.calibration.gpu.truth_formats import from_bf16_bits

# DeepSeek-V3's: scores are those of heads of 128 and 64 values before absorption.
SOFTMAX_SCALE: Final = float(np.float32(192**-0.5))
NAN_BITS: Final = 0xFFFF
# A page that no request owns, and that tables name beyond a request's end: NaN, which shows if it is read.
SPARE_PAGES: Final = 1
LEAST_WORKSPACE_BYTES: Final = 16


class MlaDecode:
    """Absorbed attention over pages of 64 tokens; `splits` in a shape sets into how many parts each cache is split.

    flops: of each head and cached token, 2 x 576 for the score and 2 x 512 for the weighted sum. bytes: the cached
    rows of 576, their pages' numbers and the queries of 576 read once, the results of 512 written once; what parts of
    a split cache leave for one another is not counted.
    """

    name = "mla-decode"

    def note(self, _: Shape) -> str:
        """Return nothing: a call is the kernel and, where the cache is split, the one that joins the parts."""
        return ""

    def inputs(self, shape: Shape, draw: Draw) -> HostArrays:
        """Return queries, cache, page table and lengths; the cache is NaN wherever no request has a token."""
        lengths = draw.lengths(shape["requests"], shape["cached"])
        num_pages = -(-lengths // PAGE_TOKENS)
        spare = int(num_pages.sum())
        cache = draw.bf16(spare + SPARE_PAGES, PAGE_TOKENS, ROW)
        cache[spare:] = NAN_BITS
        order = draw.order(spare)
        table = np.full((shape["requests"], _max_pages(shape)), spare, np.int32)
        first = 0
        for request, (pages, length) in enumerate(zip(num_pages, lengths, strict=True)):
            table[request, :pages] = order[first : first + pages]
            if length % PAGE_TOKENS:
                cache[table[request, pages - 1], length % PAGE_TOKENS :] = NAN_BITS
            first += pages
        query = draw.bf16(shape["requests"], shape["heads"], ROW)
        return {"query": query, "cache": cache, "page_table": table, "cached_tokens": lengths}

    def outputs(self, shape: Shape) -> dict[str, Output]:
        """Return what each head reads."""
        return {"out": Output((shape["requests"], shape["heads"], LATENT), BF16)}

    @contextmanager
    def bound_call(self, bench: Bench, shape: Shape, arrays: DeviceArrays) -> Iterator[Call]:
        """Yield a call that attends, with a workspace that starts as NaN."""
        library, requests, heads = bench.cuda, shape["requests"], shape["heads"]
        splits = shape.get("splits") or library.mla_decode_splits(
            requests=requests, heads=heads, max_cached_tokens=shape["cached"], sms=bench.sms
        )
        size_bytes = library.mla_decode_workspace_bytes(requests=requests, heads=heads, splits=splits)
        # One part needs no workspace; CUDA's memory of no bytes cannot be filled.
        with library.allocate(max(size_bytes, LEAST_WORKSPACE_BYTES)) as workspace:
            workspace.fill(0xFF)
            yield lambda: library.mla_decode(
                arrays["query"],
                arrays["cache"],
                arrays["page_table"],
                arrays["cached_tokens"],
                arrays["out"],
                workspace,
                requests=requests,
                heads=heads,
                max_pages=_max_pages(shape),
                splits=splits,
                softmax_scale=SOFTMAX_SCALE,
            )

    def compare(self, _: Shape, inputs: HostArrays, found: HostArrays) -> Iterator[Comparison]:
        """Yield what each head read beside absorbed attention in float64."""
        query = from_bf16_bits(inputs["query"]).astype(float)
        cache = from_bf16_bits(inputs["cache"]).astype(float)
        given = (query, cache, inputs["page_table"], inputs["cached_tokens"], SOFTMAX_SCALE)
        bound = attention_bound(*given)
        out = from_bf16_bits(found["out"]).astype(float)
        yield Comparison("out", out, absorbed_attention(*given), bound.element, bound.norm)

    def flops(self, shape: Shape) -> int:
        """Return 2 (576 + 512) of each request, head and cached token."""
        return 2 * (ROW + LATENT) * shape["requests"] * shape["heads"] * shape["cached"]

    def bytes(self, shape: Shape) -> int:
        """Return the bytes of cached rows, pages' numbers, queries and results."""
        of_cache = 2 * ROW * shape["cached"] + 4 * _max_pages(shape)
        return shape["requests"] * (of_cache + 2 * (ROW + LATENT) * shape["heads"])


def _max_pages(shape: Shape) -> int:
    return -(-shape["cached"] // PAGE_TOKENS)
