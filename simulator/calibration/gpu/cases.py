"""What is verified and what is timed: shapes by kernel, the most telling first.

A shape is a mapping from the names that the kernel's class gives its sizes to whole numbers.
"""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Final

Shape = dict[str, int]
Cases = Mapping[str, tuple[Shape, ...]]

# Kernels in the order in which they are timed: what others are compared with first, then what the issue of speed
# rests on, then what a cost table needs beside it.
ORDER: Final = (
    "copy",
    "gemm-bf16",
    "mla-decode",
    "quantise",
    "combine",
    "norm",
    "gemm-fp8-block",
    "gemm-fp8",
    "grouped-gemm-fp8-block",
    "grouped-gemm-bf16",
    "grouped-gemm-fp8",
)

COPY_BYTES: Final = tuple(2**power for power in range(31, 19, -1))
TOKENS: Final = (16384, 4096, 1024, 128, 16, 1)
HIDDEN_SIZES: Final = (7168, 2048)
COPIES: Final = 8
HEADS: Final = (16, 128)
REQUESTS: Final = (128, 32, 256, 64, 8, 1)
CACHED_TOKENS: Final = (4096, 1024, 16384, 8192, 512)
# DeepSeek-V3's projections: (n, k) of D[m, n] = A[m, k] B[n, k]^T.
PROJECTIONS: Final = ((4096, 7168), (7168, 2048), (7168, 16384), (24576, 1536), (2112, 7168), (32768, 512))
ROWS: Final = (4096, 1024, 128, 64, 256, 16, 1)
EXPERT_PROJECTIONS: Final = PROJECTIONS[:2]
GROUPS: Final = (4, 8, 1, 2)
GROUP_ROWS: Final = (4096, 1024, 128, 64, 256, 16)
# cuBLASLt takes FP8 with scales by blocks only where m is a multiple of 4.
LEAST_ROWS_BY_BLOCKS: Final = 4


def _shapes(names: str, rows: Iterable[tuple[int, ...]]) -> tuple[Shape, ...]:
    return tuple(dict(zip(names.split(), row, strict=True)) for row in rows)


def timing_cases() -> Cases:
    """Return all shapes to time."""
    products = _shapes("m n k", ((m, *nk) for m, nk in product(ROWS, PROJECTIONS)))
    by_blocks = tuple(shape for shape in products if shape["m"] >= LEAST_ROWS_BY_BLOCKS)
    grouped = _shapes(
        "groups m n k", ((g, m, *nk) for m, g, nk in product(GROUP_ROWS, GROUPS, EXPERT_PROJECTIONS))
    )
    packed = _shapes(
        "tokens copies hidden", ((tokens, COPIES, hidden) for hidden in HIDDEN_SIZES for tokens in TOKENS)
    )
    attention = _shapes(
        "requests heads cached", ((r, h, c) for r, c, h in product(REQUESTS, CACHED_TOKENS, HEADS))
    )
    return {
        "copy": _shapes("bytes", ((size,) for size in COPY_BYTES)),
        "quantise": packed,
        "combine": packed,
        "norm": _shapes("tokens hidden", ((tokens, hidden) for hidden in HIDDEN_SIZES for tokens in TOKENS)),
        "mla-decode": attention,
        "gemm-bf16": products,
        "gemm-fp8": products,
        "gemm-fp8-block": by_blocks,
        "grouped-gemm-bf16": grouped,
        "grouped-gemm-fp8": grouped,
        "grouped-gemm-fp8-block": grouped,
    }


def quick_timing_cases() -> Cases:
    """Return the few shapes that the targets rest on, and one more of each kernel."""
    every = timing_cases()
    attention = [
        shape
        for shape in every["mla-decode"]
        if (shape["requests"], shape["cached"]) in {(128, 4096), (1, 512)}
    ]
    return {name: tuple(attention) if name == "mla-decode" else shapes[:2] for name, shapes in every.items()}


# Sizes that no tile, vector or warp divides where the kernel allows them, and a few of the model's own.
VERIFICATION_CASES: Final[Cases] = {
    "copy": _shapes("bytes", ((size,) for size in (1, 15, 16, 4099, 2**16 + 16, 2**22 + 7))),
    "quantise": _shapes(
        "tokens copies hidden", ((1, 1, 8), (3, 2, 136), (7, 3, 1000), (33, 8, 2048), (130, 8, 7168))
    ),
    "combine": _shapes(
        "tokens copies hidden", ((1, 1, 8), (3, 2, 136), (7, 3, 1000), (33, 8, 2048), (130, 8, 7168))
    ),
    "norm": _shapes("tokens hidden", ((1, 8), (3, 136), (7, 1000), (33, 2048), (130, 7168), (5, 20000))),
    "mla-decode": _shapes(
        "requests heads cached splits",
        (
            (1, 1, 1, 1),
            (3, 3, 63, 2),
            (4, 16, 200, 1),
            (5, 16, 1000, 5),
            (3, 20, 65, 3),
            (4, 64, 500, 2),
            (2, 100, 129, 4),
            (3, 128, 700, 3),
            (9, 128, 320, 1),
        ),
    ),
    "gemm-bf16": _shapes("m n k", ((1, 8, 8), (3, 136, 72), (37, 200, 1000), (130, 2112, 1536))),
    "gemm-fp8": _shapes("m n k", ((1, 16, 16), (3, 144, 80), (37, 208, 1008), (130, 2112, 1536))),
    # Tiles of 128 along k are whole, as in the model; blocks along n are not, as in its 2112 columns.
    "gemm-fp8-block": _shapes("m n k", ((4, 128, 128), (36, 320, 640), (132, 2112, 1536))),
    "grouped-gemm-bf16": _shapes("groups m n k", ((3, 5, 136, 200),)),
    "grouped-gemm-fp8": _shapes("groups m n k", ((3, 5, 144, 208),)),
    "grouped-gemm-fp8-block": _shapes("groups m n k", ((3, 12, 320, 640),)),
}

# The names of a kernel's sizes; verification may set how a cache is split, too.
SIZES: Final[Mapping[str, tuple[str, ...]]] = {
    name: tuple(shapes[0]) for name, shapes in timing_cases().items()
}
SIZES_OF_VERIFICATION: Final[Mapping[str, tuple[str, ...]]] = {
    **SIZES,
    "mla-decode": (*SIZES["mla-decode"], "splits"),
}
