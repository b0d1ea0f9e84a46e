"""Lists of kernel calls of every kind."""

from typing import Any

from hypothesis import strategies as st

from fuzz.strategies_text import some_of

_FEW = st.integers(1, 64)
_SIZES = st.sampled_from([1, 7, 64, 128, 1000, 4096])
_FORMATS = st.sampled_from(["fp8", "bf16", "logfmt10"])
_ATTENTION = {
    "requests": _FEW,
    "cached_tokens": st.sampled_from([8, 100.5, 4096]),
    "heads": st.just(8),
}
_ATTENTION_MORE = {"query_tokens": st.integers(1, 8), "causal": st.booleans()}

# kind -> the fields that it must have, and those that it may have
CALLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gemm": (
        {"rows": _SIZES, "columns": _SIZES, "depth": _SIZES, "format": st.sampled_from(["fp8", "bf16"])},
        {"groups": st.integers(1, 8), "accumulate": st.booleans()},
    ),
    "latent-attention": (
        _ATTENTION,
        {**_ATTENTION_MORE, "latent": st.just(128), "rotary": st.sampled_from([0, 32])},
    ),
    "attention": (
        {
            **_ATTENTION,
            "kv_heads": st.sampled_from([1, 4, 8]),
            "key_width": _SIZES,
            "value_width": _SIZES,
            "backward": st.sampled_from([True, False]),
        },
        _ATTENTION_MORE,
    ),
    "quantise": ({"rows": _SIZES, "width": _SIZES}, {"from_format": _FORMATS, "to_format": _FORMATS}),
    "norm": ({"rows": _SIZES, "width": _SIZES}, {}),
    "pack": (
        {"tokens": _SIZES, "rows": _SIZES, "width": _SIZES},
        {"from_format": _FORMATS, "to_format": _FORMATS},
    ),
    "reduce": ({"tokens": _SIZES, "rows": _SIZES, "width": _SIZES}, {}),
    "gate": ({"tokens": _SIZES, "experts": st.just(64), "chosen": st.integers(1, 64)}, {}),
    "embedding": ({"tokens": _SIZES, "width": _SIZES}, {}),
    "rotary": ({"rows": _SIZES, "width": _SIZES}, {}),
    "activation": ({"rows": _SIZES, "width": _SIZES}, {"to_format": _FORMATS, "backward": st.booleans()}),
    "copy": ({"size_bytes": st.integers(1, 10**9)}, {}),
    "optimizer": ({"parameters": st.integers(1, 10**9)}, {}),
}

_KINDS = st.sampled_from(sorted(CALLS))


@st.composite
def kernel_calls(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a call of one kernel."""
    kind = draw(_KINDS)
    needed, more = CALLS[kind]
    return {"kind": kind, **draw(st.fixed_dictionaries(needed)), **draw(some_of(more, 2))}
