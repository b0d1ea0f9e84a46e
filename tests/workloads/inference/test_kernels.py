"""Kernels of inference: what they multiply and read, against the model's own sums and by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.units import FieldError
from support.properties import tried_on
from workloads.flops import describe
from workloads.inference.cache import Fp8Attention, Fp8LatentAttention, cached_bytes
from workloads.inference.kernels import InferenceKernels, Work
from workloads.inference.memory import InferenceLayout, inference_memory
from workloads.kernels import Attention, Gemm, LatentAttention
from workloads.models import MultiHeadLatentAttention, load_model
from workloads.streaming_kernels import (
    Activation,
    Copy,
    Embedding,
    Gate,
    Norm,
    Pack,
    Quantise,
    Reduce,
    Rotary,
)

DEEPSEEK = load_model("deepseek-v3", Path())
V2 = load_model("deepseek-v2", Path())
QWEN = load_model("qwen-2.5-72b", Path())
LLAMA = load_model("llama-3.1-405b", Path())
# no compressed queries: they are projected from the activations
PLAIN_QUERIES = replace(DEEPSEEK, attention=replace(DEEPSEEK.attention, q_lora_rank=None))
MODELS = [DEEPSEEK, V2, QWEN, LLAMA, PLAIN_QUERIES]


def kernels(model=DEEPSEEK, work=None, tensor_parallel=1, number_format="fp8", absorbed=True, **changes):
    work = work or Work(requests=64, query_tokens=2, cached_tokens=4097.5)
    return InferenceKernels(model, work, tensor_parallel, number_format, absorbed, **changes)


def balanced(model, requests, query_tokens, cached_tokens, experts=2):
    """Work of a GPU that gets as many rows as its own tokens send."""
    rows = requests * query_tokens * model.moe.experts_per_token if model.moe else 0
    return Work(requests, query_tokens, cached_tokens, rows, rows, experts)


def model_calls(of):
    """All calls of a model's forward pass: every layer and the ends."""
    calls = [*of.embedding(), *of.head()]
    for layer in range(of.model.num_layers):
        calls += of.attention(layer)
        if of.model.is_moe_layer(layer):
            calls += [*of.experts(), *of.shared()]
        else:
            calls += of.dense()
    return calls


def flops(calls):
    return sum(call.flops for call in calls)


def products(calls):
    return [
        (call.groups, call.rows, call.columns, call.depth, call.format)
        for call in calls
        if isinstance(call, Gemm)
    ]


def kinds(calls):
    return [call.kind for call in calls]


def multiplied(model):
    """Activated parameters that a product multiplies with: no norms, biases of neither gate nor projections."""
    activated = sum(part.activated_parameters for part in describe(model).parts if part.part != "norms")
    if model.moe is not None and model.moe.router_bias:
        activated -= model.num_moe_layers * model.moe.num_routed_experts
    if getattr(model.attention, "qkv_bias", False):
        heads = model.num_heads + 2 * model.attention.num_kv_heads
        activated -= model.num_layers * heads * model.attention.head_dim
    return activated


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("number_format", ["fp8", "bf16"])
def test_a_decoded_token_costs_two_flops_a_parameter_and_attention(model, number_format):
    # 8 requests with 1,000 cached tokens. Absorbing replaces the up-projection of the one cached token, 512 x (128 +
    # 128) a head, by 128 x 512 of the query and 512 x 128 of the result: as many. A pair of a token and a key costs
    # 512 + 64 multiply-adds for its score and 512 for the sum, in each head; grouped queries 2 x the width of a head.
    attention = model.attention
    if isinstance(attention, MultiHeadLatentAttention):
        width = 2 * attention.kv_lora_rank + attention.qk_rope_head_dim
        assert width == 1088
    else:
        width = 2 * attention.head_dim
    pairs = model.num_layers * model.num_heads * 1000
    work = balanced(model, 8, 1, 1000)
    total = flops(model_calls(kernels(model, work, number_format=number_format)))
    assert total == 8 * 2 * (multiplied(model) + pairs * width)


@pytest.mark.parametrize("model", MODELS)
def test_a_token_of_a_prompt_costs_two_flops_a_parameter_and_expanded_attention(model):
    # 2 prompts of 512 tokens: token i attends to i keys, 256.5 in the mean; 192 + 128 values a pair and head
    attention = model.attention
    if isinstance(attention, MultiHeadLatentAttention):
        width = attention.qk_nope_head_dim + attention.qk_rope_head_dim + attention.v_head_dim
        assert width == 320
    else:
        width = 2 * attention.head_dim
    pairs = model.num_layers * model.num_heads * 256.5
    work = balanced(model, 2, 512, 512)
    total = flops(model_calls(kernels(model, work, absorbed=False)))
    assert total == 1024 * 2 * (multiplied(model) + pairs * width)


@pytest.mark.parametrize("number_format", ["fp8", "bf16"])
@pytest.mark.parametrize(("model", "degree"), [(DEEPSEEK, 1), (DEEPSEEK, 4), (QWEN, 4), (LLAMA, 16)])
def test_a_decode_step_reads_each_weight_on_the_gpu_once(model, degree, number_format):
    # Products' second operands, over the whole pass. What memory holds besides: the embedding, which is looked up,
    # norms, the gate's biases and those of projections.
    of = kernels(model, balanced(model, 64, 1, 4096), degree, number_format)
    weight = {"bf16": 2.0, "fp8": 1 + 4 / 128**2}
    read = sum(
        call.groups * call.columns * call.depth * weight[call.format]
        for call in model_calls(of)
        if isinstance(call, Gemm)
    )
    layout = InferenceLayout(
        model, degree, 2, True, 1, "normal", 0, 8, number_format, "bf16", True, mtp_modules=0, micro_batches=1
    )
    held = inference_memory(layout, 64, 1, 4096)
    norms = next(part.parameters for part in describe(model).parts if part.part == "norms")
    gate_biases = model.num_moe_layers * 256 if model is DEEPSEEK else 0
    embedding = -(-model.vocab_size // degree) * model.hidden_size
    unread = 2 * (norms + gate_biases + embedding)
    if model is QWEN:
        unread += 80 * (16 + 2 * 2) * 128 * weight[number_format]
    weights = held.expert_weights + held.layer_weights + held.vocabulary_weights
    # each matrix's scales are rounded up to whole ones
    assert read == pytest.approx(weights - unread, abs=0 if number_format == "bf16" else 4 * 10 * 130)


def test_decoding_of_deepseek_v3_by_hand():
    # 64 requests, 2 tokens of each, 4,097.5 keys of each, 128 heads
    calls = list(kernels().attention(3))
    assert products(calls) == [
        (1, 128, 1536 + 512 + 64, 7168, "fp8"),
        (1, 128, 128 * 192, 1536, "fp8"),
        (128, 128 * 128, 512, 128, "bf16"),
        (128, 128 * 128, 128, 512, "bf16"),
        (1, 128, 7168, 128 * 128, "fp8"),
        (1, 128, 256, 7168, "bf16"),
    ]
    down = ["norm", "quantise", "gemm", "norm", "quantise", "norm"]
    attention = ["gemm", "rotary", "copy", "gemm", "latent-attention", "gemm", "quantise", "gemm"]
    assert kinds(calls) == [*down, *attention, "norm", "gemm", "gate", "quantise"]
    # rotary parts of 128 queries, and of the one key that heads share
    assert Rotary(rows=128 * 129, width=64) in calls
    [attention] = [call for call in calls if isinstance(call, LatentAttention)]
    # a request's first token sees all keys but the last
    assert attention.pairs == 64 * (2 * 4097.5 - 1)
    # the latents and rotary keys of new tokens are written to the cache, beside being read
    assert Copy(size_bytes=128 * 1152) in calls
    # a dense layer has neither gate nor dispatch
    assert kinds(kernels().attention(0)) == kinds(calls)[:-3]
    assert kinds(kernels().dense()) == ["quantise", "gemm", "activation", "gemm"]
    assert products(kernels().dense()) == [
        (1, 128, 2 * 18432, 7168, "fp8"),
        (1, 128, 7168, 18432, "fp8"),
    ]


def test_prefill_of_deepseek_v3_by_hand():
    # 2 prompts of 1,000 tokens
    calls = list(kernels(work=Work(2, 1000, 1000), absorbed=False).attention(3))
    assert products(calls) == [
        (1, 2000, 2112, 7168, "fp8"),
        (1, 2000, 128 * 192, 1536, "fp8"),
        (1, 2000, 128 * 256, 512, "fp8"),
        (1, 2000, 7168, 128 * 128, "fp8"),
        (1, 2000, 256, 7168, "bf16"),
    ]
    [attention] = [call for call in calls if isinstance(call, Attention)]
    assert (attention.kv_heads, attention.key_width, attention.value_width) == (128, 192, 128)
    # with 500 tokens cached before, their latents are expanded as well
    more = list(kernels(work=Work(2, 1000, 1500), absorbed=False).attention(3))
    assert (1, 3000, 128 * 256, 512, "fp8") in products(more)
    assert (1, 2000, 128 * 192, 1536, "fp8") in products(more)
    # each head's keys of 192 values are put together, of new and cached tokens; new ones' latents are written
    assert [call.size_bytes for call in more if isinstance(call, Copy)] == [2000 * 1152, 2 * 3000 * 128 * 192]


def test_grouped_queries_by_hand():
    # LLaMA on 16 ranks: 8 of 128 query heads, one key and one value head; 32 requests, 2 tokens of each rank's own
    of = kernels(LLAMA, Work(32, 1, 900), 16)
    calls = list(of.attention(7))
    assert products(calls) == [(1, 32, (8 + 2) * 128, 16384, "fp8"), (1, 32, 16384, 8 * 128, "fp8")]
    assert Norm(rows=2, width=16384) in calls
    attention = Attention(
        requests=32, cached_tokens=900.0, heads=8, kv_heads=1, key_width=128, value_width=128
    )
    assert attention in calls
    # a key beside 8 queries is turned; it and its value are written to the cache, in either format
    assert Rotary(rows=32 * 9, width=128) in calls
    assert Copy(size_bytes=2 * 32 * 2 * 128) in calls
    fp8 = kernels(LLAMA, Work(32, 1, 900), 16, cache_format="fp8").heads()
    assert Quantise(rows=32 * 2, width=128) in list(fp8)
    assert list(of.shared()) == list(of.experts()) == []


@pytest.mark.parametrize("absorbed", [True, False])
def test_flops_of_tensor_parallel_ranks_add_up(absorbed):
    # 64 tokens, which divide over 4 ranks: 4 times a rank's FLOPs are those of one GPU with all heads
    work = Work(8, 8, 100)

    def total(degree):
        of = kernels(work=work, tensor_parallel=degree, absorbed=absorbed)
        parts = (of.attention(3), of.shared(), of.dense(), of.embedding(), of.head(), of.mtp_input())
        return sum(flops(part) for part in parts)

    assert 4 * total(4) == total(1)


def test_what_tensor_parallel_ranks_repeat():
    # A key head on two ranks is computed on both: 16 ranks with one each, of 8. K and V of 32 tokens, 128 x 16384.
    work = Work(32, 1, 900)
    one, rank = (flops(kernels(LLAMA, work, degree).attention(0)) for degree in (1, 16))
    assert 16 * rank - one == 2 * 32 * (16 - 8) * 2 * 128 * 16384
    # 30 tokens are 8 on each of 4 ranks: down-projections and gate of 2 more; 129,281 words are 32,321 on each
    work, odd = Work(30, 1, 900), replace(DEEPSEEK, vocab_size=129_281)
    one, rank = (flops(kernels(work=work, tensor_parallel=degree).attention(3)) for degree in (1, 4))
    assert 4 * rank - one == 2 * 2 * (2112 + 256) * 7168
    one, rank = (flops(kernels(odd, Work(32, 1, 900), degree).head()) for degree in (1, 4))
    assert 4 * rank - one == 2 * 32 * 3 * 7168
    # latents are in each rank's cache whole, so that each writes those of all tokens
    for degree in (1, 4):
        assert Copy(size_bytes=30 * 1152) in list(kernels(work=work, tensor_parallel=degree).heads())


@pytest.mark.parametrize("cache_format", ["bf16", "fp8"])
@pytest.mark.parametrize(
    ("model", "degree", "queries"),
    [
        (DEEPSEEK, 1, 128 * (576 + 512)),
        (DEEPSEEK, 4, 32 * (576 + 512)),
        (QWEN, 1, 64 * 256),
        (LLAMA, 16, 8 * 256),
    ],
)
def test_attention_reads_the_cache_once(model, degree, queries, cache_format):
    # 64 requests of 2,000.5 tokens, one new; beside the cache queries and results in BF16
    of = kernels(model, Work(64, 1, 2000.5), degree, cache_format=cache_format)
    [attention] = [call for call in of.heads() if "attention" in call.kind]
    cache = 64 * 2000.5 * cached_bytes(model, cache_format, degree)
    assert attention.moved_bytes == pytest.approx(cache + 2 * 64 * queries, rel=1e-12)


def test_bytes_of_a_cached_token_by_hand():
    # FlashMLA: 512 values, 4 scales, 64 rotary values in BF16; all ranks have them whole
    for degree in (1, 4):
        assert cached_bytes(DEEPSEEK, "bf16", degree) == 1152
        assert cached_bytes(DEEPSEEK, "fp8", degree) == 656
    # keys and values of 8 heads of 128, of 2 on 4 ranks, of 1 on 8 or more
    assert cached_bytes(QWEN, "bf16") == 4096
    assert cached_bytes(QWEN, "fp8") == 2 * 8 * 132
    assert cached_bytes(QWEN, "bf16", 4) == 1024
    assert cached_bytes(LLAMA, "bf16", 8) == cached_bytes(LLAMA, "bf16", 16) == 512
    # over all layers: what `railplane model` prints
    for model in MODELS:
        assert model.num_layers * cached_bytes(model, "bf16") == describe(model).kv_cache_bytes_per_token


def test_a_cache_in_fp8_is_written_in_fp8_and_read_by_a_kernel_of_its_own():
    calls = list(kernels(work=Work(64, 1, 4096), cache_format="fp8").heads())
    assert Quantise(rows=64, width=512) in calls
    assert Copy(size_bytes=2 * 64 * 64) in calls
    [latent] = [call for call in calls if isinstance(call, LatentAttention)]
    assert isinstance(latent, Fp8LatentAttention)
    [grouped] = [
        call
        for call in kernels(QWEN, Work(64, 1, 4096), cache_format="fp8").heads()
        if isinstance(call, Attention)
    ]
    assert isinstance(grouped, Fp8Attention)
    # measured shapes of the BF16 kernels say nothing of these, but their entry serves
    for fp8, kind in ((latent, LatentAttention), (grouped, Attention)):
        fields = fp8.model_dump()
        del fields["cache_format"]
        bf16 = kind(**fields)
        assert fp8.variant != bf16.variant
        assert fp8.cost_names == bf16.cost_names
        assert fp8.flops == bf16.flops
    # prefill reads what it has just expanded, in BF16
    prefill = kernels(work=Work(2, 1000, 1000), absorbed=False, cache_format="fp8").heads()
    assert [type(call) for call in prefill if isinstance(call, Attention)] == [Attention]


def test_experts_get_rows_packed_or_pack_them():
    # normal kernels: 300 tokens for 512 rows of 9 experts; low-latency ones deliver the rows
    normal = list(kernels(work=Work(64, 1, 4096, rows=512, received=300, experts=9)).experts())
    assert kinds(normal) == ["pack", "gemm", "activation", "gemm", "reduce"]
    assert products(normal) == [(9, 512, 4096, 7168, "fp8"), (9, 512, 7168, 2048, "fp8")]
    assert normal[0] == Pack(tokens=300, rows=512, width=7168, from_format="fp8")
    assert normal[-1] == Reduce(tokens=300, rows=512, width=7168)
    low_latency = list(kernels(work=Work(64, 1, 4096, rows=512, experts=9), packed=True).experts())
    assert low_latency == normal[1:-1]


def test_experts_without_rows_cost_nothing():
    assert list(kernels(work=Work(64, 1, 4096, rows=0, received=0, experts=9)).experts()) == []
    few = kernels(work=Work(64, 1, 4096, rows=4, experts=9), packed=True).experts()
    assert [groups for groups, *_ in products(few)] == [4, 4]


def test_shared_experts_are_divided():
    # V2 has 2 of 1,536 values; on 4 ranks 768 of 3,072 each, for the tokens of all
    assert products(kernels(V2, Work(64, 1, 4096), 4).shared()) == [
        (1, 64, 2 * 768, 5120, "fp8"),
        (1, 64, 5120, 768, "fp8"),
    ]
    none = replace(DEEPSEEK, moe=replace(DEEPSEEK.moe, num_shared_experts=0))
    assert list(kernels(none).shared()) == []


def test_bf16_needs_no_quantisation():
    of = kernels(work=Work(64, 1, 4096, 512, 300, 9), number_format="bf16")
    calls = [*of.attention(3), *of.experts(), *of.shared(), *of.dense(), *of.head(), *of.mtp_input()]
    assert not any(isinstance(call, Quantise) for call in calls)
    assert {call.format for call in calls if isinstance(call, Gemm)} == {"bf16"}
    assert {call.to_format for call in calls if isinstance(call, (Activation, Pack))} == {"bf16"}


def test_the_ends_of_the_model_stay_bf16():
    of = kernels(work=Work(64, 2, 4097))
    assert products(of.head()) == [(1, 128, 129280, 7168, "bf16")]
    # in prefill the last token of each of 4 prompts
    assert products(of.head(4)) == [(1, 4, 129280, 7168, "bf16")]
    assert products(of.mtp_input()) == [(1, 128, 7168, 2 * 7168, "bf16")]
    assert kinds(of.mtp_input()) == ["norm", "norm", "gemm"]
    assert list(of.embedding()) == [Embedding(tokens=128, width=7168)]
    # each of 4 ranks looks up all tokens, and has a quarter of the words
    divided = kernels(work=Work(64, 2, 4097), tensor_parallel=4)
    assert list(divided.embedding()) == [Embedding(tokens=128, width=7168)]
    assert products(divided.head()) == [(1, 128, 32320, 7168, "bf16")]
    # an MTP module's layer has experts
    assert Gate(tokens=128, experts=256, chosen=8) in list(of.attention(61))


def test_keys_are_whole_tokens():
    assert Work(3, 1, 1.4).keys == 5
    assert Work(3, 1, 2.0).keys == 6


@tried_on(60)
@given(
    st.sampled_from([DEEPSEEK, QWEN]),
    st.booleans(),
    st.integers(1, 300),
    st.integers(1, 3),
    st.integers(0, 5000),
    st.sampled_from(["requests", "cached_tokens"]),
)
def test_more_requests_or_longer_caches_never_cost_less(model, absorbed, requests, new, old, grown):
    work = balanced(model, requests, new, new + old)
    more = replace(work, **{grown: getattr(work, grown) * 2})
    for part in (lambda of: of.attention(5), lambda of: of.dense(), lambda of: of.head()):
        less, after = (list(part(kernels(model, of_work, absorbed=absorbed))) for of_work in (work, more))
        assert len(less) == len(after)
        for before, later in zip(less, after, strict=True):
            assert later.flops >= before.flops
            assert later.moved_bytes >= before.moved_bytes


def test_ranks_that_do_not_divide_the_model_are_refused():
    with pytest.raises(FieldError, match="128 query heads do not divide over 3") as caught:
        kernels(tensor_parallel=3)
    assert caught.value.field == "tensor_parallel"
    # 12 query heads of 3, 6 key heads: 2 on each of 4 ranks, which 3 query heads cannot share evenly
    uneven = replace(LLAMA, num_heads=12, attention=replace(LLAMA.attention, num_kv_heads=6))
    with pytest.raises(FieldError, match="6 key heads do not divide over 4 tensor-parallel ranks") as caught:
        kernels(uneven, Work(4, 1, 10), 4)
    assert caught.value.field == "tensor_parallel"
