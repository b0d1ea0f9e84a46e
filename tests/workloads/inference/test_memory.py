"""Memory of inference: DeepSeek-V3 on groups of 8, 128 and 320 H800s by hand, and what each choice changes."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.units import FieldError
from support.properties import tried_on
from workloads.exchange_buffers import normal_buffer_bytes
from workloads.inference.memory import InferenceLayout, inference_memory, largest_batch
from workloads.memory_parts import check_memory
from workloads.models import load_model

DEEPSEEK = load_model("deepseek-v3", Path())
QWEN = load_model("qwen-2.5-72b", Path())
LLAMA = load_model("llama-3.1-405b", Path())
H800_BYTES = 84_943_110_144


def scaled(parameters):
    """Bytes of weights in FP8 with an FP32 scale per 128 x 128; all of these divide."""
    assert parameters % 128**2 == 0
    return parameters + 4 * parameters // 128**2


EXPERT = scaled(3 * 7168 * 2048)
# down-projections, queries, output in FP8; the absorbed up-projection of 128 heads, 512 x 256, in BF16
ATTENTION = scaled(7168 * 2112) + scaled(1536 * 24576) + scaled(16384 * 7168) + 2 * 512 * 32768
NORMS = 2 * (2 * 7168 + 1536 + 512)
GATE = 2 * 256 * 7169
DENSE = scaled(3 * 7168 * 18432)
FINAL_NORM = 2 * 7168
# 58 layers with gate and shared expert, 3 without
LAYERS = 61 * (ATTENTION + NORMS) + 58 * (GATE + EXPERT) + 3 * DENSE + FINAL_NORM
VOCABULARY = 2 * 2 * 129280 * 7168

DECODE = InferenceLayout(
    model=DEEPSEEK,
    tensor_parallel=1,
    experts=32,
    holds_shared=True,
    expert_parallel=8,
    kernel="low-latency",
    communication_sms=0,
    gpus_per_node=8,
    number_format="fp8",
    cache_format="bf16",
    decoding=True,
    mtp_modules=0,
    micro_batches=2,
)
# 256 experts over 128 ranks; 320 ranks with one each, 64 of which have copies and the shared expert
EP128 = replace(DECODE, expert_parallel=128, experts=2)
EP320 = replace(DECODE, expert_parallel=320, experts=1, holds_shared=False)
PREFILL = replace(
    DECODE, expert_parallel=32, experts=9, kernel="normal", communication_sms=24, decoding=False
)


def need(layout=DECODE, requests=32, query_tokens=1, tokens_held=4097):
    return inference_memory(layout, requests, query_tokens, tokens_held)


@pytest.mark.parametrize(
    ("layout", "experts", "layers"),
    [(DECODE, 32, LAYERS), (EP128, 2, LAYERS), (EP320, 1, LAYERS - 58 * EXPERT)],
)
def test_decoding_deepseek_v3_by_hand(layout, experts, layers):
    # 128 requests, in two micro-batches of 64, each with 4,097 tokens in the cache
    parts = need(layout, 128)
    assert parts.expert_weights == 58 * experts * EXPERT
    assert parts.layer_weights == layers
    assert parts.vocabulary_weights == VOCABULARY
    # 512 + 64 values in BF16 in each of 61 layers
    assert parts.kv_cache == 128 * 4097 * 61 * 1152
    # places for 64 tokens of each rank with each expert here: 7,168 values with 56 scales in, gate and up, their
    # product, and 7,168 values out in BF16; and 2 x 7,168 values of each token
    physical = experts * layout.expert_parallel
    row = 7168 + 56 * 4 + 2 * (3 * 2048 + 7168)
    assert parts.working == 2 * (64 * 2 * 2 * 7168 + physical * 64 * row)
    # messages of 16 + 14,336 bytes, and of 14,336 + 56 x 4 back, sent and received, in two buffers of each; counts of
    # 4 bytes an expert: 1,024 for 256, 1,280 for 320, a multiple of 128 to which 128 are added
    assert parts.communication_buffers == 2 * (2 * physical * 64 * 14_560 + 4 * physical) + 128
    assert parts.total == sum(row["size_bytes"] for row in parts.rows())
    assert [row["part"] for row in parts.rows()][:2] == ["expert weights", "layer weights"]


def test_what_fits_an_h800():
    # EP8: 82 GB of experts, 16 of other layers' weights and 4 of vocabulary do not fit, empty as it may be
    assert need(DECODE, 2).total > H800_BYTES
    assert largest_batch(DECODE, 1, 4097, H800_BYTES) == 0
    # EP128 and EP320 leave 59.7 and 64.8 GB. A request takes 61 x 1,152 x 4,097 bytes of cache, its share of rows at
    # work (256 or 320 places) and of buffers: 305 and 309 MB. 196 and 210 in even numbers.
    for layout, weights, largest in ((EP128, 25.2e9, 196), (EP320, 20.1e9, 210)):
        parts = need(layout, largest)
        held = parts.expert_weights + parts.layer_weights + parts.vocabulary_weights
        assert held == pytest.approx(weights, rel=0.003)
        each = (parts.total - held) / largest
        assert largest == (H800_BYTES - held) / each // 2 * 2
        assert largest_batch(layout, 1, 4097, H800_BYTES) == largest


def test_prefill_by_hand():
    # 8 prompts of 4,096 tokens, in micro-batches of 4: 16,384 tokens
    parts = need(PREFILL, 8, 4096, 4096)
    # expanded, so that up-projections of keys and values are FP8 too
    assert parts.layer_weights == LAYERS - 61 * (2 * 512 * 32768 - scaled(512 * 32768))
    assert parts.expert_weights == 58 * 9 * EXPERT
    # 8 rows a token, as a balanced gate sends, are more than attention's 2 x 128 x 320 values
    row = 7168 + 56 * 4 + 2 * (3 * 2048 + 7168)
    assert 8 * row > 2 * 2 * 128 * 320
    assert parts.working == 2 * 16384 * (8 * row + 2 * 2 * 7168)
    assert parts.communication_buffers == normal_buffer_bytes(7168, 32, 8, 24)
    assert parts.kv_cache == 8 * 4096 * 61 * 1152


def test_a_prompt_may_be_divided_over_tensor_parallel_ranks():
    # 4 ranks with 2 prompts of 4,096 tokens, one a micro-batch: half a prompt for each GPU, 1,024 tokens at a time
    parts = need(replace(PREFILL, tensor_parallel=4), 0.5, 4096, 4096)
    assert parts.kv_cache == 2 * 4096 * 61 * 1152
    assert parts.working == 2 * 1024 * (8 * (7168 + 56 * 4 + 2 * (3 * 2048 + 7168)) + 2 * 2 * 7168)


def test_working_is_whatever_is_most():
    # one GPU without exchange, 64 tokens. Rows of 8 experts are 8 x 34,016 bytes of a token, absorbed attention 128 x
    # (192 + 576 + 512 + 128) values, logits 129,280: the last two 360,448 and 258,560 bytes.
    alone = replace(DECODE, expert_parallel=1, experts=256, micro_batches=1)
    assert need(alone, 64).working == 64 * (2 * 128 * 1408 + 2 * 2 * 7168)
    assert need(alone, 64).communication_buffers == 0
    # expanded it has 2 x 128 x 320 values, less than rows; a long vocabulary beats both, for every token
    wordy = replace(DEEPSEEK, vocab_size=1_000_000)
    assert need(replace(alone, model=wordy), 64).working == 64 * (2 * 1_000_000 + 2 * 2 * 7168)
    # in prefill for the last token of each prompt alone: 2 of 100
    prompts = replace(alone, decoding=False)
    assert need(replace(prompts, model=wordy), 2, 100).working == need(prompts, 2, 100).working
    # a wide dense layer: 18,432 values become as many as 3 x 300,000 in BF16, beside input and result
    wide = replace(DEEPSEEK, intermediate_size=300_032)
    row = 7168 + 56 * 4 + 2 * (3 * 300_032 + 7168)
    assert need(replace(alone, model=wide), 64).working == 64 * (row + 2 * 2 * 7168)


def test_attention_at_work_by_hand():
    # feed-forward parts of 128 values and 100 words, so that attention is most. Expanded, a token has 128 x (192 +
    # 192 + 128 + 128) values; Qwen 64 queries and results, 8 keys and values of 128. And 2 x hidden values in BF16.
    moe = replace(DEEPSEEK.moe, intermediate_size=128, experts_per_token=1)
    small = replace(DEEPSEEK, intermediate_size=128, vocab_size=100, moe=moe)
    alone = replace(DECODE, expert_parallel=1, experts=256, micro_batches=1, decoding=False)
    assert need(replace(alone, model=small), 2, 50).working == 100 * 2 * (128 * 640 + 2 * 7168)
    tall = replace(QWEN, hidden_size=256, intermediate_size=128, vocab_size=100)
    layout = replace(alone, model=tall, experts=0)
    assert need(layout, 2, 50).working == 100 * 2 * ((2 * 64 + 2 * 8) * 128 + 2 * 256)
    # a long vocabulary instead: logits of the last of half a prompt are those of one
    wordy = replace(tall, vocab_size=10_000_000)
    halved = replace(layout, model=wordy, tensor_parallel=4)
    assert need(halved, 0.5, 100).working == 2 * 10_000_000 + 50 * 2 * 2 * 256


def test_mtp_adds_a_layer_and_its_cache_and_nothing_to_the_vocabulary():
    plain, drafting = (need(replace(EP128, mtp_modules=count), 32, 2, 4098) for count in (0, 1))
    module = ATTENTION + NORMS + GATE + EXPERT + 2 * 2 * 7168**2 + 2 * 3 * 7168
    assert drafting.layer_weights - plain.layer_weights == module
    assert drafting.expert_weights - plain.expert_weights == 2 * EXPERT
    assert drafting.vocabulary_weights == plain.vocabulary_weights
    assert drafting.kv_cache - plain.kv_cache == 32 * 4098 * 1152
    # two tokens of each request are at work, whether a module drafts them or not
    assert drafting.working == plain.working == 2 * need(EP128, 32).working


def test_a_cache_in_fp8_has_656_bytes_a_token_of_latents():
    parts = need(replace(EP128, cache_format="fp8"), 32)
    assert parts.kv_cache == 32 * 4097 * 61 * 656
    assert replace(parts, kv_cache=0) == replace(need(EP128, 32), kv_cache=0)


def test_bf16_weights_are_two_bytes_each():
    parts = need(replace(EP128, number_format="bf16"), 32)
    assert parts.expert_weights == 58 * 2 * 2 * 3 * 7168 * 2048
    attention = 7168 * 2112 + 1536 * 24576 + 16384 * 7168 + 512 * 32768
    layers = 61 * (2 * attention + NORMS) + 58 * (GATE + 2 * 3 * 7168 * 2048) + 3 * 2 * 3 * 7168 * 18432
    assert parts.layer_weights == layers + FINAL_NORM


def test_tensor_parallel_ranks_repeat_latents_and_divide_key_heads():
    # DeepSeek-V3 on 4 ranks: each has the latents of the requests of all; a quarter of heads, dense layers, shared
    # expert and vocabulary, and down-projections, norms and gate whole
    divided = need(replace(EP128, tensor_parallel=4), 32)
    assert divided.kv_cache == 4 * need(EP128, 32).kv_cache
    assert divided.expert_weights == need(EP128, 32).expert_weights
    assert divided.vocabulary_weights == VOCABULARY // 4
    down = scaled(7168 * 2112)
    layers = 61 * (down + (ATTENTION - down) // 4 + NORMS) + 58 * (GATE + EXPERT // 4) + 3 * DENSE // 4
    assert divided.layer_weights == layers + FINAL_NORM
    # LLaMA: 8 ranks have one key head each, for the requests of all: as much cache a GPU as one would have; on 16 a
    # head is on two ranks, and there is twice as much
    dense = replace(DECODE, model=LLAMA, experts=0, expert_parallel=1, micro_batches=1)
    alone, eight, sixteen = (need(replace(dense, tensor_parallel=degree), 4) for degree in (1, 8, 16))
    assert alone.kv_cache == 4 * 4097 * 126 * 2 * 8 * 128 * 2
    assert eight.kv_cache == alone.kv_cache
    assert sixteen.kv_cache == 2 * alone.kv_cache
    assert alone.expert_weights == 0


def test_a_tied_head_is_the_embedding():
    dense = replace(DECODE, model=QWEN, experts=0, expert_parallel=1)
    tied = replace(dense, model=replace(QWEN, tie_word_embeddings=True))
    assert need(dense).vocabulary_weights == 2 * need(tied).vocabulary_weights == 2 * 2 * 152064 * 8192


@tried_on(60)
@given(
    st.sampled_from([DECODE, EP128, EP320, replace(PREFILL, micro_batches=1)]),
    st.integers(1, 3),
    st.integers(3, 200_000),
    st.floats(5e9, 3e11),
)
def test_the_largest_batch_fits_and_one_more_micro_batch_does_not(layout, query_tokens, held, memory):
    largest = largest_batch(layout, query_tokens, held, memory)
    step = layout.micro_batches
    assert largest % step == 0
    if largest:
        assert need(layout, largest, query_tokens, held).total <= memory
    assert need(layout, largest + step, query_tokens, held).total > memory


def test_what_does_not_fit_is_refused_with_the_amounts():
    parts = need(DECODE, 64)
    with pytest.raises(FieldError) as caught:
        check_memory(parts, H800_BYTES, remedy="use a larger expert_parallel")
    assert caught.value.field == "ignore_memory"
    message = str(caught.value)
    assert message.startswith("a GPU needs 121.3")
    assert "expert weights 81.7" in message
    assert message.endswith("; use a larger expert_parallel, or write ignore_memory: true")
    check_memory(need(EP128, 64), H800_BYTES)


def test_ranks_that_do_not_divide_the_model_are_refused():
    with pytest.raises(FieldError, match="query heads do not divide over 3") as caught:
        replace(DECODE, tensor_parallel=3)
    assert caught.value.field == "tensor_parallel"
