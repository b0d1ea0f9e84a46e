"""What stages compute: who holds which parts, and FLOPs held to those that `workloads.flops` has of the model."""

from dataclasses import replace
from pathlib import Path

import pytest

from support.training_steps import build, model, plan
from workloads.flops import describe
from workloads.models import Model, MultiHeadLatentAttention, load_model
from workloads.schedules import SCHEDULES
from workloads.stage_layers import split_layers
from workloads.training.plan import TrainingPlan
from workloads.training.stage_work import StageWork

DEEPSEEK_V3 = load_model("deepseek-v3", Path())


def parts_of(work: StageWork) -> list[str | None]:
    """Names of a stage's parts by layer, (entry, attention, feed-forward), and of its head."""
    names: list[str | None] = []
    for layer in work.layers:
        names += [layer.entry and layer.entry.name, layer.attention.name, layer.feed_forward.name]
    return [*names, work.head and work.head.name]


def works(case: TrainingPlan, num_stages: int) -> list[StageWork]:
    tokens = case.tokens(received=16, rows=16)
    kernels = case.kernels(lambda _: tokens)
    return [kernels.of(stage) for stage in split_layers(case.model, num_stages)]


def test_the_ends_of_the_model_are_where_they_belong():
    # a dense layer and three with experts; the module's head is the last stage's, the model's stands before it
    case = plan(of=model(num_layers=4, num_dense_layers=1, num_mtp_layers=1), layers_per_stage=(2, 2))
    tokens = case.tokens(received=16, rows=16)
    first, last = (case.kernels(lambda _: tokens).of(stage) for stage in case.stages)
    assert parts_of(first) == ["embedding", "attention", "dense", None, "attention", "experts", None]
    layer = [None, "attention", "experts"]
    assert parts_of(last) == [*layer, *layer, "head and MTP input", "attention", "experts", "head"]
    assert [layer.layer for layer in (*first.layers, *last.layers)] == [0, 1, 2, 3, 4]
    assert [layer.exchanges for layer in (*first.layers, *last.layers)] == [False, True, True, True, True]


def test_without_a_module_the_head_follows_the_last_layer():
    case = plan(of=model(num_layers=2, num_mtp_layers=0), pipeline_parallel=1)
    (only,) = works(case, 1)
    assert parts_of(only) == ["embedding", "attention", "dense", None, "attention", "experts", "head"]


def test_two_modules_have_three_heads():
    case = plan(of=model(num_layers=2, num_mtp_layers=2), pipeline_parallel=1)
    (only,) = works(case, 1)
    joint = "head and MTP input"
    layer = ["attention", "experts"]
    assert parts_of(only)[6:] == [joint, *layer, joint, *layer, "head"]


def test_only_the_embedding_has_no_gradient_of_inputs():
    for work in works(plan(), 2):
        parts = [part for layer in work.layers for part in (layer.entry, layer.attention, layer.feed_forward)]
        for part in (*parts, work.head):
            if part is not None:
                assert part.forward is not None
                assert part.weight is not None
                assert (part.backward is None) == (part.name == "embedding")


def test_kernels_leave_sms_to_communication_and_name_their_direction():
    case = plan(communication_sms=12)
    tokens = case.tokens(received=16, rows=16)
    kernels = list(case.kernels(lambda _: tokens).kernels(case.stages))
    assert {kernel.communication_sms for kernel in kernels} == {12}
    assert {kernel.call.label[-2:] for kernel in kernels} == {" F", " B", " W"}
    # embedding F and W, four layers and a module of 2 parts x 3, two heads of which one joins the module, x 3
    assert len(kernels) == 2 + 5 * 2 * 3 + 2 * 3


def test_layers_may_have_loads_of_their_own():
    case = plan(of=model(num_layers=3, num_dense_layers=1, num_mtp_layers=0), pipeline_parallel=1)
    tokens = {1: case.tokens(received=8, rows=8), 2: case.tokens(received=8, rows=24)}
    (stage,) = case.stages
    _, fewer, more = case.kernels(lambda layer: tokens.get(layer, tokens[1])).of(stage).layers
    # the routed experts' products grow in proportion to rows: 2 x 3 x 40 x 32 FLOPs a row
    grown = more.feed_forward.forward.call.flops - fewer.feed_forward.forward.call.flops
    assert grown == (24 - 8) * 2 * 3 * 40 * 32
    assert more.attention == fewer.attention


def not_multiplied(of: Model, layer: int) -> int:
    """Parameters that `workloads.flops` counts as activated and no product has: norms, and the gate's biases."""
    latent = of.attention
    assert isinstance(latent, MultiHeadLatentAttention)
    norms = 2 * of.hidden_size + latent.kv_lora_rank + (latent.q_lora_rank or 0)
    has_bias = of.is_moe_layer(layer) and of.moe is not None and of.moe.router_bias
    return norms + (of.moe.num_routed_experts if has_bias else 0)


def beyond_the_convention(of: Model, sequence: int) -> int:
    """FLOPs of a token and a layer that the convention leaves out.

    Up-projections of latents are computed again in the backward pass: 2 FLOPs for each of their parameters.
    Attention: a token of a sequence of s attends to (s + 1) / 2 keys on average, and the backward pass has five
    products, of which three as wide as a key k (scores again, gradients of queries and keys), two as wide as a value
    v. So forward and backward are (s + 1) h (4 k + 3 v) FLOPs, where the convention has 3 s h (k + v): h (s k + 4 k +
    3 v) more.
    """
    latent = of.attention
    assert isinstance(latent, MultiHeadLatentAttention)
    key, value = latent.qk_nope_head_dim + latent.qk_rope_head_dim, latent.v_head_dim
    keys_and_values = latent.kv_lora_rank * (latent.qk_nope_head_dim + value)
    again = 2 * of.num_heads * ((latent.q_lora_rank or of.hidden_size) * key + keys_and_values)
    return again + of.num_heads * (sequence * key + 4 * key + 3 * value)


def flops_of_a_token(of: Model, sequence: int) -> int:
    """FLOPs of a token's training, forward and backward, from those of the convention."""
    total = describe(of, sequence).training_flops_per_token - 6 * of.hidden_size  # the final norm
    for layer in range(of.num_layers):
        total += beyond_the_convention(of, sequence) - 6 * not_multiplied(of, layer)
    # A module is what one more layer with experts adds, a projection of two activations to one, and a head.
    alone = replace(of, num_mtp_layers=0)
    more = replace(alone, num_layers=of.num_layers + 1)
    module = (
        describe(more, sequence).training_flops_per_token
        - describe(alone, sequence).training_flops_per_token
        + 6 * (2 * of.hidden_size**2 + of.vocab_size * of.hidden_size)
        + beyond_the_convention(of, sequence)
        - 6 * not_multiplied(of, of.num_layers)
    )
    return total + of.num_mtp_layers * module


@pytest.mark.parametrize(
    ("of", "sequence", "num_stages"),
    [
        (model(), 8, 2),
        (model(num_layers=7, num_dense_layers=3, num_mtp_layers=2), 16, 4),
        (model(num_mtp_layers=0), 8, 1),
        (model(attention=replace(model().attention, q_lora_rank=None)), 8, 3),
        (DEEPSEEK_V3, 4096, 16),
    ],
    ids=["small", "more dense layers and modules", "no module", "queries not compressed", "deepseek-v3"],
)
def test_flops_are_those_of_the_model_and_what_the_convention_leaves_out(of, sequence, num_stages):
    # each GPU has as many rows for its experts as it has pairs of a token and an expert: a balanced gate
    case = plan(of=of, pipeline_parallel=1, sequence_length=sequence, ignore_memory=True)
    assert of.moe is not None
    local = 2 * sequence
    tokens = replace(case.tokens(local, local * of.moe.experts_per_token), local=local)
    kernels = case.kernels(lambda _: tokens).kernels(split_layers(of, num_stages))
    assert sum(kernel.call.flops for kernel in kernels) == pytest.approx(
        local * flops_of_a_token(of, sequence), rel=1e-13
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_step_computes_what_its_tokens_take_on_all_gpus(schedule):
    # 4 experts of a rank, and as many rows on each GPU as it has pairs; a task stands for all GPUs of its fold
    of = model(num_layers=5)
    chunks = 2 if SCHEDULES[schedule].takes_chunks else 1
    step = build(8, of=of, schedule=schedule, chunks=chunks, sequences_per_step=16)
    graph = step.graph
    found = sum(len(graph.fold_of(task.rank)) * task.kernel.call.flops for task in graph.tasks if task.kernel)
    assert found == pytest.approx(16 * 8 * flops_of_a_token(of, 8), rel=1e-13)


def test_parts_of_deepseek_v3_take_what_their_matrices_take():
    # Of 4,096 tokens, 2 FLOPs for each parameter: attention's matrices 187,105,280; scores and values of 4,096 x
    # 4,097 / 2 pairs, 128 heads, 192 and 128 wide; the gate 256 x 7,168. Shared and 8 routed experts, 3 x 7,168 x
    # 2,048 each. Dense 3 x 7,168 x 18,432.
    case = plan(of=DEEPSEEK_V3, pipeline_parallel=1, sequence_length=4096, ignore_memory=True)
    tokens = case.tokens(received=4096, rows=4096 * 8)
    (stage,) = case.stages
    layers = case.kernels(lambda _: tokens).of(stage).layers
    attention = 7168 * 1536 + 1536 * 24576 + 7168 * 576 + 512 * 32768 + 16384 * 7168
    assert attention == 187_105_280
    products = 4096 * 2 * attention + 2 * (4096 * 4097 // 2) * 128 * (192 + 128)
    assert layers[0].attention.forward.call.flops == products
    assert layers[3].attention.forward.call.flops == products + 4096 * 2 * 256 * 7168
    expert = 3 * 7168 * 2048
    assert layers[3].feed_forward.forward.call.flops == 4096 * 2 * 9 * expert
    assert layers[3].feed_forward.backward.call.flops == 4096 * 2 * 9 * expert
    assert layers[3].feed_forward.weight.call.flops == 4096 * 2 * 9 * expert
    assert layers[0].feed_forward.forward.call.flops == 4096 * 2 * 3 * 7168 * 18432
