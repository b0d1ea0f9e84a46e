import pytest
from pydantic import TypeAdapter, ValidationError

from workloads.kernel_calls import KERNEL_NAMES, AnyKernelCall
from workloads.kernels import Attention, Gemm, LatentAttention
from workloads.streaming_kernels import (
    Activation,
    Copy,
    Embedding,
    Gate,
    Norm,
    Optimizer,
    Pack,
    Quantise,
    Reduce,
    Rotary,
)

CALL = TypeAdapter(AnyKernelCall)


def test_a_product_counts_two_flops_a_multiply_add_and_each_operand_once():
    # 2 x 4096 x 7168 x 16384 = 962,072,674,304. FP8: a byte a value; an FP32 scale for 128 of A, for 128 x 128 of B.
    call = Gemm(rows=4096, columns=7168, depth=16384, format="fp8")
    a, b, d = 4096 * 16384, 7168 * 16384, 4096 * 7168
    assert call.flops == 962_072_674_304
    assert call.moved_bytes == a + a / 32 + b + b / 4096 + 2 * d
    assert Gemm(rows=4096, columns=7168, depth=16384, format="bf16").moved_bytes == 2 * (a + b + d)


def test_a_weight_gradient_reads_and_writes_its_fp32_result():
    plain, gradient = (
        Gemm(rows=64, columns=32, depth=128, format="bf16", accumulate=on) for on in (False, True)
    )
    assert gradient.moved_bytes - plain.moved_bytes == 64 * 32 * (2 * 4 - 2)
    assert gradient.cost_names == ("weight-gradient-bf16", "gemm-bf16")


def test_groups_have_weights_each_and_are_padded_each():
    one, four = (Gemm(rows=64, columns=256, depth=128, groups=groups, format="bf16") for groups in (1, 4))
    assert four.moved_bytes - one.moved_bytes == 3 * 2 * 256 * 128
    assert one.flops == four.flops
    # 64 rows fill a tile; 16 of each of four groups take a tile each. 22 more of depth: 150 / 128.
    assert one.padded_flops(64, 0.0) == one.flops
    assert four.padded_flops(64, 22.0) == 4 * one.flops * 150 / 128


def test_absorbed_attention_reads_the_cache_once_for_all_heads():
    # A query of 128 heads on 4,096 tokens: 2 x 128 x 4096 x (576 + 512) FLOPs over 4096 x 576 x 2 bytes of cache is
    # 242 FLOPs per byte of it (arXiv 2505.09343 has decoding's intensity from the same sizes).
    call = LatentAttention(requests=1, cached_tokens=4096, heads=128)
    cache, queries = 4096 * 576 * 2, 128 * (576 + 512) * 2
    assert call.flops == 2 * 128 * 4096 * 1088
    assert call.moved_bytes == cache + queries
    assert call.flops / cache == pytest.approx(242, abs=0.3)


def test_absorbed_heads_share_a_tile():
    few = LatentAttention(requests=3, cached_tokens=100, heads=16)
    assert few.padded_flops(64, 0.0) == 4 * few.flops
    # 4 x 16 rows fill a tile, whose last rows see all 100 tokens: what is hidden from the first costs all the same
    drafted = LatentAttention(requests=3, cached_tokens=100, query_tokens=4, heads=16)
    assert drafted.padded_flops(64, 0.0) == 3 * 100 * 64 * 2 * 1088
    many = LatentAttention(requests=3, cached_tokens=100, query_tokens=8, heads=16)
    assert many.padded_flops(64, 0.0) == many.flops


@pytest.mark.parametrize("kind", ["attention", "latent-attention"])
def test_causal_attention_counts_pairs_by_hand(kind: str):
    # the last 3 of 5 tokens: they see 3, 4 and 5 tokens
    more = {"kv_heads": 1, "key_width": 8, "value_width": 8} if kind == "attention" else {}
    values = {"kind": kind, "requests": 2, "query_tokens": 3, "cached_tokens": 5.0, "heads": 1, **more}
    assert CALL.validate_python(values).pairs == 2 * (3 + 4 + 5)
    assert CALL.validate_python({**values, "causal": False}).pairs == 2 * 15


def test_expanded_attention_of_a_sequence_and_its_backward_pass():
    # DeepSeek-V3: 192-wide keys, 128-wide values. Forward 2 products; backward 5: scores again, and four gradients.
    sizes = {
        "requests": 1,
        "query_tokens": 4096,
        "cached_tokens": 4096,
        "heads": 128,
        "kv_heads": 128,
        "key_width": 192,
        "value_width": 128,
    }
    forward, backward = (Attention(**sizes, backward=on) for on in (False, True))
    pairs = 4096 * 4097 / 2
    assert forward.flops == 2 * pairs * 128 * (192 + 128)
    assert backward.flops == 2 * pairs * 128 * (3 * 192 + 2 * 128)
    assert forward.moved_bytes == 2 * 4096 * 128 * (192 + 192 + 128 + 128)
    assert backward.moved_bytes == 2 * forward.moved_bytes


def test_grouped_queries_read_fewer_keys():
    # LLaMA-3.1-405B decodes: 128 query heads, 8 key heads of 128
    call = Attention(requests=4, cached_tokens=1000, heads=128, kv_heads=8, key_width=128, value_width=128)
    assert call.moved_bytes == 2 * 4 * (128 * 256 + 1000 * 8 * 256)
    assert (
        call.padded_flops(64, 0.0) == 4 * call.flops
    )  # 16 query heads share a key head, a tile holds 64 rows


@pytest.mark.parametrize(
    ("call", "moved_bytes"),
    [
        (Quantise(rows=10, width=256), 10 * (512 + 256 + 2 * 4)),
        (Quantise(rows=10, width=256, from_format="fp8"), 2 * 10 * (256 + 2 * 4)),
        (Norm(rows=10, width=256), 4 * 10 * 512 + 512),
        (Pack(tokens=10, rows=80, width=256), 10 * 512 + 80 * (256 + 8 + 4)),
        (Reduce(tokens=10, rows=80, width=256), 80 * (512 + 4 + 4) + 10 * 512),
        (Gate(tokens=10, experts=256, chosen=8), 10 * (1024 + 8 * 8)),
        (Embedding(tokens=10, width=256), 10 * (4 + 1024)),
        (Rotary(rows=10, width=64), 10 * 256),
        (Activation(rows=10, width=256), 10 * (2 * 512 + 256 + 8)),
        (Activation(rows=10, width=256, backward=True), 10 * 5 * 512),
        (Copy(size_bytes=100), 200),
        (Optimizer(parameters=10), 10 * (4 + 2 * 8 + 2)),
    ],
    ids=lambda value: value.label if isinstance(value, Quantise) or hasattr(value, "label") else None,
)
def test_streaming_kernels_move_each_byte_once(call, moved_bytes: int):
    assert call.moved_bytes == moved_bytes
    assert call.arithmetic is None
    assert call.flops == 0.0
    assert call.cost_names == (call.kind, "streaming")
    assert set(call.cost_names) <= set(KERNEL_NAMES)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            {"kind": "gemm", "rows": 0, "columns": 1, "depth": 1, "format": "fp8"},
            "greater than or equal to 1",
        ),
        ({"kind": "gemm", "rows": 1, "columns": 1, "depth": 1, "format": "fp4"}, "'fp8' or 'bf16'"),
        ({"kind": "latent-attention", "requests": 1, "cached_tokens": float("nan"), "heads": 1}, "finite"),
        ({"kind": "latent-attention", "requests": 1, "cached_tokens": float("inf"), "heads": 1}, "finite"),
        (
            {"kind": "latent-attention", "requests": 1, "cached_tokens": 2.0, "query_tokens": 3, "heads": 1},
            "exceed",
        ),
        (
            {
                "kind": "attention",
                "requests": 1,
                "cached_tokens": 2.0,
                "heads": 6,
                "kv_heads": 4,
                "key_width": 1,
                "value_width": 1,
            },
            "kv_heads 4 must divide heads 6",
        ),
        ({"kind": "gate", "tokens": 1, "experts": 8, "chosen": 9}, "chosen 9 must be at most experts 8"),
        ({"kind": "softmax"}, "does not match any of the expected tags"),
        ({"kind": "norm", "rows": 1.5, "width": 2}, "valid integer"),
    ],
)
def test_what_is_no_call_is_refused(call: dict[str, object], match: str):
    with pytest.raises(ValidationError, match=match):
        CALL.validate_python(call)
