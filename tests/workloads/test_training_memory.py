"""Memory of training ranks: DeepSeek-V3 on 2,048 GPUs by hand, and what each choice changes."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.units import FieldError
from support.properties import tried_on
from workloads.flops import describe
from workloads.memory_parts import check_memory
from workloads.models import load_model
from workloads.stage_layers import split_layers
from workloads.training_memory import (
    MemoryParts,
    MemorySettings,
    TrainingRanks,
    held_parameters,
    training_memory,
    worst_memory,
)

DEEPSEEK = load_model("deepseek-v3", Path())
LLAMA = load_model("llama-3.1-405b", Path())
STAGES = split_layers(DEEPSEEK, 16)
# 2,048 GPUs: 16 pipeline ranks of 128 ranks, 2 groups of 64 expert-parallel ranks; DualPipe has two pipelines
DUALPIPE = TrainingRanks(128, 64, 1, pipelines=2, gpus_per_node=8, communication_sms=20)
ONE_WAY = replace(DUALPIPE, pipelines=1)
DEFAULT = MemorySettings()
H800_BYTES = 84_943_110_144
# a layer with experts: attention, 256 experts over 64 ranks, the shared one, gate and norms
ATTENTION = 7168 * 1536 + 1536 * 24576 + 7168 * 576 + 512 * 32768 + 16384 * 7168
EXPERT = 3 * 7168 * 2048
DENSE_OF_MOE_LAYER = ATTENTION + EXPERT + 256 * 7169 + 2 * 7168 + 1536 + 512
VOCABULARY = 129280 * 7168


def need(stages, in_flight, waiting=None, ranks=DUALPIPE, model=DEEPSEEK, memory=DEFAULT):
    """Return the parts for micro-batches of 4,096 tokens, none waiting unless said."""
    waiting = [0] * len(stages) if waiting is None else waiting
    return training_memory(model, stages, ranks, in_flight, 4096, memory, awaiting_weights=waiting)


def test_a_middle_rank_of_dualpipe_by_hand():
    # Ranks 1 and 14 hold stages 1 and 14: 8 layers with experts.
    dense, experts = 8 * DENSE_OF_MOE_LAYER, 8 * 4 * EXPERT
    parts = need((STAGES[1], STAGES[14]), (15, 2))
    assert parts.weights == 2 * (dense + experts)
    assert parts.gradients == 4 * (dense + experts)
    # FP32 master weights and two BF16 moments: 8 bytes, over 256 ranks and over 4. 1,863,976,960 dense parameters
    # are 7,281,160 for each of 256 ranks.
    assert parts.optimizer == 8 * (-(-dense // 256) + experts // 4)
    # 17 micro-batches in flight, 4 layers each, 156,736 bytes a token and layer
    assert parts.activations == 17 * 4 * 4096 * 156_736
    # three times the widest tensors of a layer, 9 rows of 3 x 2048 + 7168 values in BF16
    assert parts.working == 3 * 2 * 4096 * 9 * (3 * 2048 + 7168)
    # a slot: 7168 values in BF16, source 8, 128 x (8 + 4 + 4); 10 channels of 8 peers with 288 slots, of 8 nodes with
    # 140 to send and 140 to receive. Both stages have neighbours on both sides: 4 ends, activation and gradient each
    slot = 2 * 7168 + 8 + 128 * 16
    exchange = 10 * (8 * 288 * slot + 8 * 2 * 140 * (slot + 16))
    assert parts.communication_buffers == exchange + 4 * 2 * 4096 * 2 * 7168
    assert parts.total == sum(row["size_bytes"] for row in parts.rows())
    assert [row["part"] for row in parts.rows()][-1] == "communication buffers"


def test_the_first_rank_of_dualpipe_holds_embedding_and_head_once():
    # Stage 0 (embedding, 3 dense layers, one with experts) and stage 15 (a layer, head, MTP): the module finds its
    # embedding and its head there. The dense layers have 3 x 7168 x 18432 instead of experts, shared expert and gate.
    layers = 3 * DENSE_OF_MOE_LAYER
    dense_layers = 3 * (ATTENTION + 3 * 7168 * 18432 + 2 * 7168 + 1536 + 512)
    module = 2 * 7168**2 + 3 * 7168
    held = held_parameters(DEEPSEEK, (STAGES[0], STAGES[15]), DUALPIPE)
    assert held.borrowed == 0
    assert held.dense == layers + dense_layers + module + 2 * VOCABULARY + 7168
    assert held.experts == 3 * 4 * EXPERT
    # in flight: 16 of stage 0, and one of stage 15, which keeps logits and norm's input twice, and an embedding
    kept = 16 * (3 * 96_512 + 156_736) + 2 * 156_736 + 2 * (2 * 129280 + 2 * 7168) + 2 * 7168
    assert need((STAGES[0], STAGES[15]), (16, 1)).activations == 4096 * kept


def test_the_shipped_layout_fits_an_h800():
    # DualPipe's rank r has at most 16 - r micro-batches of stage r in flight with r + 1 of stage 15 - r. In bytes of
    # a parameter: 2 + 4, and 8 / 256 or 8 / 4; 3.27e9 parameters and 17 x 4 x 642 MB of activations are some 71 GB.
    totals = [need((STAGES[rank], STAGES[15 - rank]), (16 - rank, rank + 1)).total for rank in range(16)]
    for rank, total in enumerate(totals):
        assert total == totals[15 - rank]
        assert total < 0.85 * H800_BYTES
    assert max(totals) == totals[1] == pytest.approx(70.3e9, rel=0.002)
    # with BF16 for FP8 and nothing computed again it would not fit
    plain = MemorySettings(
        linear_inputs="bf16",
        attention_outputs="bf16",
        recompute_norms=False,
        recompute_up_projections=False,
        recompute_swiglu=False,
    )
    assert need((STAGES[1], STAGES[14]), (15, 2), memory=plain).total > H800_BYTES


@pytest.mark.parametrize("model", [DEEPSEEK, LLAMA, replace(LLAMA, tie_word_embeddings=True)])
@pytest.mark.parametrize("num_stages", [1, 5, 16])
def test_all_ranks_together_hold_the_model_once(model, num_stages):
    # with one stage a rank, dense parameters and 64 times its experts, over all stages, are the model
    held = [held_parameters(model, [stage], ONE_WAY) for stage in split_layers(model, num_stages)]
    expected = describe(model).parameters + describe(model).mtp_parameters
    assert sum(part.dense + 64 * part.experts for part in held) == expected


def test_a_last_stage_by_itself_borrows_the_embedding():
    # its MTP module looks tokens up; weights and gradients, and no optimizer's part
    held = held_parameters(DEEPSEEK, [STAGES[15]], ONE_WAY)
    assert held.borrowed == VOCABULARY
    with_module, without = need([STAGES[15]], [1], ranks=ONE_WAY), replace(STAGES[15], mtp_layers=0)
    alone = need([without], [1], ranks=ONE_WAY)
    module = DENSE_OF_MOE_LAYER + 2 * 7168**2 + 3 * 7168
    assert with_module.weights - alone.weights == 2 * (module + 4 * EXPERT + VOCABULARY)
    # 1 pipeline: 128 ranks have the same dense parameters, 2 the same experts
    dense = DENSE_OF_MOE_LAYER + VOCABULARY + 7168
    assert alone.optimizer == 8 * (-(-dense // 128) + 4 * EXPERT // 2)
    assert with_module.optimizer == 8 * (-(-(dense + module) // 128) + 2 * 4 * EXPERT // 2)
    # not divided, each rank updates all that it holds, the copy too
    whole = need([STAGES[15]], [1], ranks=ONE_WAY, memory=MemorySettings(shard_optimizer=False))
    assert whole.optimizer == 8 * held.total == 4 * whole.weights


def test_a_tied_head_borrows_the_embedding_unless_it_is_there():
    tied = replace(LLAMA, tie_word_embeddings=True)
    ranks = TrainingRanks(8, 1, 8, pipelines=1, gpus_per_node=8, communication_sms=0)
    first, *_, last = split_layers(tied, 4)
    # 128256 x 16384 over 8 ranks
    assert held_parameters(tied, [last], ranks).borrowed == 128256 * 16384 // 8
    assert held_parameters(tied, [first, last], ranks).borrowed == 0
    assert held_parameters(LLAMA, [last], ranks).borrowed == 0


@pytest.mark.parametrize(
    ("changes", "part", "bytes_per_parameter"),
    [
        ({"weights": "fp32"}, "weights", 4),
        ({"gradients": "bf16"}, "gradients", 2),
        ({"master_weights": "none", "shard_optimizer": False}, "optimizer", 4),
        ({"moments": "fp32", "shard_optimizer": False}, "optimizer", 12),
        ({"shard_optimizer": False}, "optimizer", 8),
    ],
)
def test_each_format_changes_its_part_alone(changes, part, bytes_per_parameter):
    stages = (STAGES[1], STAGES[14])
    default, changed = need(stages, (15, 2)), need(stages, (15, 2), memory=MemorySettings(**changes))
    assert (
        dict(changed.items())[part] == bytes_per_parameter * held_parameters(DEEPSEEK, stages, DUALPIPE).total
    )
    assert {name for (name, size) in changed.items() if size != dict(default.items())[name]} == {part}


def test_gradients_that_wait_are_kept_beside_activations():
    # a token of a layer with experts: 1536, 24576, 32768, 7168 and 8 x (2 x 2048 + 7168) + 2 x 2048 + 7168 values and
    # a scale per 128; the 576 of the down-projection with 5 scales; 256 affinities in FP32
    values = 1536 + 24576 + 32768 + 7168 + 8 * (2 * 2048 + 7168) + 2 * 2048 + 7168
    gradients = values + values // 32 + 576 + 5 * 4 + 256 * 4
    none, one = need([STAGES[1]], [3]), need([STAGES[1]], [3], [1])
    assert one.activations - none.activations == 4096 * 4 * gradients


@tried_on(50)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=6))
def test_the_worst_moment_is_the_one_that_needs_most(moments):
    stages = (STAGES[0], STAGES[15])
    cases = [((first, last), (first // 2, last // 2)) for first, last in moments]
    expected = max(need(stages, *case).total for case in cases)
    assert worst_memory(DEEPSEEK, stages, DUALPIPE, cases, 4096, DEFAULT).total == expected
    # activations of several micro-batches are those of one, times how many
    first, last = (need(stages, case).activations for case in ((1, 0), (0, 1)))
    assert need(stages, moments[0]).activations == moments[0][0] * first + moments[0][1] * last


def test_tensor_parallel_ranks_divide_tokens_and_matrices():
    # LLaMA on 8 x 8 ranks. Activations, working tensors and what goes between stages are an eighth; norms are whole:
    # of a layer's parameters 2 x 16384 stay, the others divide by 8.
    stages = split_layers(LLAMA, 9)  # 14 layers each
    alone = TrainingRanks(64, 1, 1, pipelines=1, gpus_per_node=8, communication_sms=0)
    divided = replace(alone, tensor_parallel=8)
    whole, eighth = (need([stages[4]], [5], ranks=ranks, model=LLAMA) for ranks in (alone, divided))
    for part in ("activations", "working", "communication_buffers"):
        assert getattr(whole, part) == 8 * getattr(eighth, part) > 0
    norms = stages[4].num_layers * 2 * 16384
    assert whole.weights - 2 * norms == 8 * (eighth.weights - 2 * norms)
    # the same parameters are on 64 ranks, or on 8
    assert whole.optimizer == 8 * -(-whole.weights // 2 // 64)
    assert eighth.optimizer == 8 * -(-eighth.weights // 2 // 8)


def test_buffers_follow_the_group():
    def buffers(**changes):
        ranks = replace(DUALPIPE, **changes)
        return need([STAGES[1]], [1], ranks=ranks).communication_buffers - between_stages

    # two ends, activation and gradient, 4,096 tokens of 7168 values in BF16
    between_stages = 2 * 2 * 4096 * 7168 * 2
    slot = 2 * 7168 + 8 + 128 * 16
    assert buffers(expert_parallel=1) == 0
    # one node has no buffer for the network; half a node has 4 peers
    assert buffers(expert_parallel=8) == 10 * 8 * 256 * slot
    assert buffers(expert_parallel=4) == 10 * 4 * 256 * slot
    assert buffers(expert_parallel=16) == 10 * (8 * 288 * slot + 2 * 2 * 140 * (slot + 16))
    assert buffers(expert_parallel=128) == 10 * (8 * 560 * slot + 16 * 2 * 140 * (slot + 16))
    assert buffers(expert_parallel=128, communication_sms=10) == buffers(expert_parallel=128) // 2
    # 256 ranks of which each pipeline rank has as many
    wide = replace(DUALPIPE, ranks_per_pipeline_rank=256, expert_parallel=256)
    assert need([STAGES[1]], [1], ranks=wide).communication_buffers - between_stages == 10 * (
        8 * 720 * slot + 32 * 2 * 140 * (slot + 16)
    )
    # dense layers exchange nothing
    dense = replace(STAGES[0], moe_layers=0, has_embedding=False)
    assert need([dense], [1]).communication_buffers == between_stages
    # and a model on one stage has no neighbours
    whole = split_layers(LLAMA, 1)
    alone = TrainingRanks(8, 1, 1, pipelines=1, gpus_per_node=8, communication_sms=20)
    assert need(whole, [1], ranks=alone, model=LLAMA).communication_buffers == 0


def test_what_does_not_fit_is_refused_with_the_amounts():
    gigabyte = 10**9
    parts = MemoryParts(6 * gigabyte, 12 * gigabyte, 2 * gigabyte, 60 * gigabyte, 3 * gigabyte, gigabyte)
    check_memory(parts, 84 * gigabyte)
    with pytest.raises(FieldError) as caught:
        check_memory(parts, 84 * gigabyte - 1, "a GPU of pipeline rank 3")
    assert caught.value.field == "ignore_memory"
    message = str(caught.value)
    assert message.startswith(
        "a GPU of pipeline rank 3 needs 84 GB and has 84 GB: weights 6 GB, gradients 12 GB, "
    )
    assert "optimizer 2 GB, activations 60 GB, working 3 GB, communication buffers 1 GB;" in message
    assert message.endswith("or write ignore_memory: true")


@pytest.mark.parametrize(
    ("expert", "tensor", "field"),
    [(48, 1, "expert_parallel"), (0, 1, "expert_parallel"), (64, 3, "tensor_parallel")],
)
def test_degrees_divide_the_ranks(expert, tensor, field):
    with pytest.raises(FieldError, match="does not divide the 128 ranks") as caught:
        TrainingRanks(128, expert, tensor, pipelines=1, gpus_per_node=8, communication_sms=20)
    assert caught.value.field == field


def test_a_model_that_does_not_divide_is_refused():
    ranks = TrainingRanks(512, 512, 1, pipelines=1, gpus_per_node=8, communication_sms=20)
    with pytest.raises(FieldError, match="256 experts do not divide over 512"):
        need([STAGES[1]], [1], ranks=ranks)
