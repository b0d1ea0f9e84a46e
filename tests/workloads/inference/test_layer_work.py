"""What a GPU does in each layer: chains of kernels, and rings around what tensor-parallel ranks divide."""

from dataclasses import replace
from pathlib import Path

import pytest

from support.inference_steps import dense_model
from support.training_steps import model
from workloads.inference.kernels import InferenceKernels, Work
from workloads.inference.layer_work import LayerWorks
from workloads.kernel_call import CallSequence
from workloads.models import load_model

DEEPSEEK = load_model("deepseek-v3", Path())
WORK = Work(requests=6, query_tokens=2, cached_tokens=40.0, rows=24, experts=2)
TOKENS = 12
DENSE_LAYER, EXPERT_LAYER, MTP_LAYER = 0, 1, 4  # of the small model


def kernels(of=None, tensor_parallel=1, number_format="bf16", absorbed=True, work=WORK):
    return InferenceKernels(of or model(), work, tensor_parallel, number_format, absorbed, packed=True)


def works(of=None, tensor_parallel=1, sms=0, stay=True, dispatched=True, **more):
    return LayerWorks(kernels(of, tensor_parallel, **more), sms, stay, dispatched)


def calls(chain):
    return [call for step in chain if step.kernel is not None for call in step.kernel.call.calls]


def shape(chain):
    """The names of a chain's steps, rings with their bytes."""
    return [step.name if step.kernel is not None else (step.name, step.ring_bytes) for step in chain]


@pytest.mark.parametrize("number_format", ["bf16", "fp8"])
@pytest.mark.parametrize("absorbed", [True, False])
def test_one_rank_has_each_part_in_one_go(number_format, absorbed):
    made = works(number_format=number_format, absorbed=absorbed)
    ours = kernels(number_format=number_format, absorbed=absorbed)
    dense, sparse = made.of(DENSE_LAYER), made.of(EXPERT_LAYER)
    assert [shape(part) for part in (dense.before, dense.attention, dense.shared, dense.feed_forward)] == [
        ["ends"],
        ["attention"],
        [],
        ["dense"],
    ]
    assert [
        shape(part) for part in (sparse.before, sparse.attention, sparse.shared, sparse.feed_forward)
    ] == [
        [],
        ["attention"],
        ["shared experts"],
        ["experts"],
    ]
    assert calls(dense.before) == list(ours.embedding())
    assert calls(dense.attention) == list(ours.attention(DENSE_LAYER))
    assert calls(dense.feed_forward) == list(ours.dense())
    assert calls(sparse.attention) == list(ours.attention(EXPERT_LAYER)) != list(ours.attention(DENSE_LAYER))
    assert calls(sparse.shared) == list(ours.shared())
    assert calls(sparse.feed_forward) == list(ours.experts())
    assert not dense.exchanges
    assert sparse.exchanges


def test_shared_experts_that_are_dispatched_are_not_run_beside():
    made = works(stay=False).of(EXPERT_LAYER)
    assert made.shared == ()
    assert calls(made.feed_forward) == list(kernels().experts())


def test_experts_of_one_rank_need_no_exchange():
    assert not works(dispatched=False).of(EXPERT_LAYER).exchanges
    assert works(dispatched=False).of(EXPERT_LAYER).shared


def test_experts_that_get_no_token_run_nothing():
    idle = replace(WORK, rows=0)
    assert works(work=idle).of(EXPERT_LAYER).feed_forward == ()


def test_all_kernels_run_beside_what_communication_holds():
    made = works(sms=24)
    work = made.of(EXPERT_LAYER)
    chains = (*made.of(DENSE_LAYER).before, *work.attention, *work.shared, *work.feed_forward, *made.head())
    assert {step.kernel.communication_sms for step in chains} == {24}
    assert all(isinstance(step.kernel.call, CallSequence) for step in chains)


def test_an_mtp_module_comes_behind_the_head():
    # the token that the model itself gives is what the module's embedding looks up
    work, ours = works().of(MTP_LAYER), kernels()
    assert shape(work.before) == ["ends", "ends", "ends"]
    assert calls(work.before) == [*ours.head(), *ours.embedding(), *ours.mtp_input()]
    # each of two ranks looks up the words that it has, for the tokens of both: 12 of 2 bytes a value
    divided = works(tensor_parallel=2).of(MTP_LAYER).before
    assert [step.name for step in divided] == ["gather", "ends", "ends", "scatter", "ends"]
    assert divided[3].ring_bytes == 2 * TOKENS * model().hidden_size
    assert work.exchanges
    assert calls(work.attention) == list(ours.attention(MTP_LAYER))


def test_in_prefill_the_last_token_of_each_request_needs_logits():
    prompts = Work(requests=6, query_tokens=8, cached_tokens=8.0)
    assert calls(works(absorbed=False, work=prompts).head()) == list(
        kernels(absorbed=False, work=prompts).head(6)
    )
    assert calls(works(work=prompts).head()) == list(kernels(work=prompts).head(48))


def test_rings_of_latent_attention_by_hand():
    # 12 tokens of 2 ranks in BF16. Gathered: 24 values of a query's latent, 16 + 4 of key and value; scattered: sums
    # of 40 values; around dense parts and shared experts 40 values both ways; embedding and head once each.
    gathered, hidden = 2 * TOKENS * (24 + 16 + 4), 2 * TOKENS * 40
    made = works(tensor_parallel=2)
    work = made.of(EXPERT_LAYER)
    assert shape(work.attention) == [
        "attention",
        ("gather", gathered),
        "attention",
        ("scatter", hidden),
        "attention",
    ]
    assert shape(work.shared) == [("gather", hidden), "shared experts", ("scatter", hidden)]
    assert shape(work.feed_forward) == ["experts"]
    assert shape(made.of(DENSE_LAYER).feed_forward) == [("gather", hidden), "dense", ("scatter", hidden)]
    assert shape(made.of(DENSE_LAYER).before) == ["ends", ("scatter", hidden)]
    assert shape(made.head()) == [("gather", hidden), "ends"]
    assert calls(work.attention) == list(kernels(tensor_parallel=2).attention(EXPERT_LAYER))


def test_rings_carry_inputs_in_the_format_of_products():
    # 7,168 values and 56 scales of 4 bytes a token in FP8; DeepSeek-V3's latents: 1,536 values and 12 scales, and 576
    # values in BF16; sums of what ranks divide are BF16
    made = works(DEEPSEEK, 4, number_format="fp8")
    work = made.of(3)
    assert work.attention[1].ring_bytes == TOKENS * (1536 + 12 * 4 + 2 * 576)
    assert work.attention[3].ring_bytes == TOKENS * 2 * 7168
    assert work.shared[0].ring_bytes == TOKENS * (7168 + 56 * 4)
    assert work.shared[2].ring_bytes == TOKENS * 2 * 7168


def test_grouped_query_attention_gathers_activations():
    # 40 values a token: keys and values are projected on the rank that has their heads
    made = works(dense_model(), tensor_parallel=2, dispatched=False)
    hidden = 2 * TOKENS * 40
    assert shape(made.of(2).attention) == [
        "attention",
        ("gather", hidden),
        "attention",
        ("scatter", hidden),
        "attention",
    ]
    assert shape(made.of(2).feed_forward) == [("gather", hidden), "dense", ("scatter", hidden)]


def test_prefill_gathers_the_last_token_of_each_prompt():
    prompts = Work(requests=6, query_tokens=8, cached_tokens=8.0)
    ring = works(tensor_parallel=2, absorbed=False, work=prompts).head()[0]
    assert (ring.name, ring.ring_bytes) == ("gather", 2 * 6 * 40)
