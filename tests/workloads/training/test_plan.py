"""What fields come to on a cluster, and every fault of theirs named: the field to mend and a way out."""

from dataclasses import replace
from pathlib import Path

import pytest

from simulator.input_error import InputError
from simulator.scenario import load_scenario
from simulator.units import FieldError
from support.training_steps import H800, build, model, plan, setting, spec
from workloads.layer_kernels import Tokens
from workloads.models import GroupedQueryAttention, load_model
from workloads.schedules import SCHEDULES, Kind
from workloads.training.plan import TrainingPlan
from workloads.training_memory import training_memory

DEEPSEEK_V3 = load_model("deepseek-v3", Path())
GROUPED = replace(model(), name="grouped", attention=GroupedQueryAttention(2, 8, False))
DENSE = replace(model(), name="dense", moe=None)
# every fault below is a change of a plan that works: 16 ranks on nodes of 4, 2 pipeline ranks of 8, groups of 4
BASE = {
    "num_ranks": 16,
    "gpus_per_node": 4,
    "pipeline_parallel": 2,
    "expert_parallel": 4,
    "sequences_per_step": 32,
}

FAULTS = {
    "pipeline ranks": (
        {"pipeline_parallel": 3},
        "pipeline_parallel",
        "16 ranks do not divide into 3 pipeline ranks; 1, 2, 4 would do, or another number of nodes",
    ),
    "more pipeline ranks than ranks": (
        {"pipeline_parallel": 32},
        "pipeline_parallel",
        "16 ranks do not divide into 32 pipeline ranks; 4, 8, 16 would do",
    ),
    "odd pipeline ranks": (
        {"num_ranks": 24, "pipeline_parallel": 3, "schedule": "dualpipe"},
        "pipeline_parallel",
        "dualpipe needs an even number of pipeline ranks, not 3; 2 or 4 would do",
    ),
    "more experts' ranks than a pipeline rank has": (
        {"expert_parallel": 16},
        "expert_parallel",
        "degree 16 must divide the 8 ranks of a pipeline rank, .* these work: 1, 2, 4, 8",
    ),
    "experts' ranks that do not divide": (
        {"num_ranks": 24, "pipeline_parallel": 2, "expert_parallel": 8, "sequences_per_step": 24},
        "expert_parallel",
        "degree 8 must divide the 12 ranks of a pipeline rank, .* these work: 1, 2, 4, 12",
    ),
    "groups across nodes": (
        {"num_ranks": 12, "pipeline_parallel": 1, "expert_parallel": 6, "sequences_per_step": 12},
        "expert_parallel",
        "degree 6 must .* divide a node of 4 GPUs or be a multiple of it; these work: 1, 2, 4, 12",
    ),
    "experts that do not divide": (
        {"num_ranks": 24, "expert_parallel": 12, "sequences_per_step": 24},
        "expert_parallel",
        "8 experts do not divide over 12 ranks; use a divisor of it",
    ),
    "tensor ranks on several nodes": (
        {"tensor_parallel": 8},
        "tensor_parallel",
        "degree 8 must divide the 4 GPUs of a node and the 8 ranks of a pipeline rank",
    ),
    "tensor ranks that do not divide": (
        {"tensor_parallel": 3},
        "tensor_parallel",
        "degree 3 must divide the 4 GPUs of a node",
    ),
    "tensor ranks and experts' ranks": (
        {
            "num_ranks": 12,
            "gpus_per_node": 6,
            "pipeline_parallel": 1,
            "expert_parallel": 2,
            "tensor_parallel": 3,
            "sequences_per_step": 12,
        },
        "tensor_parallel",
        "degree 3 and expert_parallel 2 must divide one another",
    ),
    "tokens over tensor ranks": (
        {"tensor_parallel": 2, "sequence_length": 7},
        "tensor_parallel",
        "7 tokens of a micro-batch do not divide over 2 tensor-parallel ranks; use a divisor of it",
    ),
    "heads over tensor ranks": (
        {"tensor_parallel": 4},
        "tensor_parallel",
        "2 query heads do not divide over 4 tensor-parallel ranks; use a divisor of it",
    ),
    "sequences over data-parallel ranks": (
        {"sequences_per_step": 36},
        "sequences_per_step",
        "36 sequences do not divide into micro-batches of 1 on 8 data-parallel ranks; 32 or 40 would",
    ),
    "sequences over micro-batches": (
        {"sequences_per_step": 32, "sequences_per_micro_batch": 3},
        "sequences_per_step",
        "32 sequences do not divide into micro-batches of 3 on 8 data-parallel ranks; 24 or 48 would",
    ),
    "fewer sequences than ranks": (
        {"sequences_per_step": 4},
        "sequences_per_step",
        "4 sequences do not divide into micro-batches of 1 on 8 data-parallel ranks; 8 would",
    ),
    "too few micro-batches": (
        {"schedule": "dualpipe", "sequences_per_step": 16},
        "sequences_per_step",
        "needs at least 4 and a multiple of 2 micro-batches, not 2; 4 would do .*each data-parallel rank takes 8 seq",
    ),
    "micro-batches not a multiple": (
        {"schedule": "interleaved-1f1b", "chunks": 2, "sequences_per_step": 24},
        "sequences_per_step",
        "needs a multiple of 2 micro-batches, not 3; 2 or 4 would do",
    ),
    "no chunks": (
        {"schedule": "interleaved-1f1b"},
        "chunks",
        "interleaved-1f1b needs 2 or more chunks a rank, not 1; with one it is 1f1b",
    ),
    "chunks of another schedule": (
        {"chunks": 2},
        "chunks",
        "1f1b does not split a rank into 2 chunks: leave it at 1, or take interleaved-1f1b",
    ),
    "more stages than layers": (
        {"pipeline_parallel": 8, "expert_parallel": 2},
        "pipeline_parallel",
        "1f1b would have 8 stages, and the model has 4 layers; use at most 4",
    ),
    "twice as many stages as ranks": (
        {"pipeline_parallel": 4, "expert_parallel": 2, "schedule": "dualpipe-v"},
        "pipeline_parallel",
        "dualpipe-v would have 8 stages, and the model has 4 layers; use at most 2",
    ),
    "too many chunks": (
        {"schedule": "interleaved-1f1b", "chunks": 3},
        "chunks",
        "interleaved-1f1b would have 6 stages, and the model has 4 layers; use at most 2",
    ),
    "too many ranks for any chunks": (
        {"schedule": "interleaved-1f1b", "chunks": 2, "pipeline_parallel": 4, "expert_parallel": 2},
        "pipeline_parallel",
        "interleaved-1f1b would have 8 stages, and the model has 4 layers; use at most 2",
    ),
    "layers of too few stages": (
        {"layers_per_stage": (4,)},
        "layers_per_stage",
        "gives layers of 1 stages, and there are 2; give one count for each",
    ),
    "layers that do not add up": (
        {"layers_per_stage": (2, 3)},
        "layers_per_stage",
        "the stages' layers add up to 5, and the model has 4",
    ),
    "a stage without layers": (
        {"layers_per_stage": (4, 0)},
        "layers_per_stage",
        "stage 1 would have 0 layers; every stage needs at least 1",
    ),
    "a node that is not there": (
        {"node_order": (0, 1, 2, 4)},
        "node_order",
        "each of the cluster's nodes, 0 to 3, once, and there is no node 4",
    ),
    "a node left out": ({"node_order": (0, 1, 2)}, "node_order", "once, and node 3 is not named"),
    "a model without experts": (
        {"of": DENSE},
        "kind",
        "needs a mixture-of-experts model and dense has no experts; deepseek-v3 is one",
    ),
    "a model without latent attention": (
        {"of": GROUPED},
        "kind",
        "known of models with latent attention, and grouped has none; deepseek-v3 has it",
    ),
    "copies of experts": (
        {"redundant_experts": 4},
        "redundant_experts",
        "one copy of each expert in a group; write 0",
    ),
    "shared experts that are dispatched": (
        {"shared_experts": "dispatched", "redundant_experts": "auto"},
        "shared_experts",
        "shared experts on every rank; write local",
    ),
    "more experts than there are": (
        {"experts_per_token": 9},
        "experts_per_token",
        "a token needs 9 experts, and the 1 groups .* hold 8",
    ),
    "groups of experts": ({"groups": 3}, "groups", "8 experts cannot form 3 groups of equal size"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_field_and_a_way_out(fault):
    changes, field, message = FAULTS[fault]
    with pytest.raises(FieldError, match=message) as caught:
        plan(**(BASE | changes))
    assert caught.value.field == field


def test_what_the_faults_change_works():
    found = plan(**BASE)
    assert (found.num_micro_batches, found.tokens_per_step) == (4, 32 * 8)
    assert [stage.num_layers for stage in found.stages] == [3, 1]
    assert found.ranks.dense_shards == 8
    # 8 experts over the 4 ranks of a group
    assert found.tokens(5, 7) == Tokens(local=8, sequence=8, received=5, rows=7, experts=2)


def test_there_must_be_a_model():
    with pytest.raises(FieldError, match="no model is named; deepseek-v3 is one") as caught:
        TrainingPlan.of(spec(), replace(setting(4), model=None))
    assert caught.value.field == "kind"


def test_more_draws_than_there_is_time_for_are_refused_by_what_causes_them():
    # 64 ranks of 4,096 tokens and 256 experts: 2^26 affinities a draw; 59 layers and 120 micro-batches 2^38.8
    published = {
        "num_ranks": 2048,
        "gpus_per_node": 8,
        "of": DEEPSEEK_V3,
        "pipeline_parallel": 16,
        "expert_parallel": 64,
        "sequences_per_step": 15360,
        "sequence_length": 4096,
        "ignore_memory": True,
    }
    assert plan(**published, load_changes="per-layer").num_micro_batches == 120
    with pytest.raises(FieldError, match=r"drawn anew 7,080 times.* draw loads less often") as caught:
        plan(**published, load_changes="per-micro-batch")
    assert caught.value.field == "load_changes"
    # with 8 tokens there is time, and no room for 7,080 x 64 x 256 counts
    more = published | {"sequence_length": 8}
    with pytest.raises(FieldError, match=r"loads of their own, not 7,080; .*load_changes: never") as caught:
        plan(**more, load_changes="per-micro-batch")
    assert caught.value.field == "load_changes"
    # one draw of too many tokens: 2^36 / (64 x 256) is 4,194,304
    long = published | {"sequence_length": 2**20, "sequences_per_micro_batch": 8}
    with pytest.raises(FieldError, match="take minutes; use at most 4,194,304") as caught:
        plan(**long)
    assert caught.value.field == "sequence_length"


def test_a_gpu_with_too_little_memory_is_told_all_amounts():
    # what the fullest rank needs is said, part by part, and is what makes the difference
    need = max(parts.total for parts in plan(**BASE).memory)
    settings = spec(**{name: BASE[name] for name in BASE if name not in {"num_ranks", "gpus_per_node"}})

    def check(memory_bytes: float) -> None:
        gpu = H800._replace(memory_bytes=memory_bytes)
        TrainingPlan.of(settings, replace(setting(16, 4), gpu=gpu))

    check(need)
    with pytest.raises(
        FieldError, match=r"GPU of pipeline rank 0 needs .* has .*ignore_memory: true"
    ) as caught:
        check(need - 1)
    assert caught.value.field == "ignore_memory"
    for part in ("weights", "gradients", "optimizer", "activations", "working", "communication buffers"):
        assert f"{part} " in str(caught.value)
    settings = settings.model_copy(update={"ignore_memory": True})
    check(need - 1)


def test_memory_is_that_of_the_fullest_moment_of_each_pipeline_rank():
    # 1F1B with 4 micro-batches: pipeline rank 0 holds 2 at most, rank 1 one; GPipe all 4. Two stages of 2 layers with
    # experts; the last has the head beside.
    of = model(num_layers=4, num_dense_layers=0, num_mtp_layers=0)
    first, last = plan(of=of, layers_per_stage=(2, 2)).memory
    deeper, _ = plan(of=of, layers_per_stage=(2, 2), schedule="gpipe").memory
    assert deeper.activations == 2 * first.activations
    longer, _ = plan(of=of, layers_per_stage=(2, 2), sequences_per_micro_batch=2, sequences_per_step=8).memory
    assert longer.activations == 2 * first.activations
    assert last.activations < first.activations
    # DualPipe: both ranks hold both stages, and the sums are alike where stages are
    for parts in plan(of=of, layers_per_stage=(2, 2), schedule="dualpipe").memory:
        assert parts.weights == first.weights + last.weights


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_memory_is_held_to_every_moment_of_every_schedule(schedule):
    # A micro-batch is held from the start of its forward to the end of its backward; where weights are left for
    # later, its gradients wait from the end of the backward for inputs to the end of the weight part.
    chunks = 2 if SCHEDULES[schedule].takes_chunks else 1
    case = plan(
        8,
        of=model(num_layers=9),
        pipeline_parallel=4,
        schedule=schedule,
        chunks=chunks,
        sequences_per_step=16,
    )
    settings = case.settings
    for pipeline_rank, phases in enumerate(case.schedule.phases):
        places = sorted({stage for _, stage in case.schedule.stages_of(pipeline_rank)})
        flying, waiting, totals = dict.fromkeys(places, 0), dict.fromkeys(places, 0), []
        for phase in phases:
            if phase.forward is not None:
                flying[phase.forward.stage] += 1
            parts = training_memory(
                case.model,
                [case.stages[stage] for stage in places],
                case.ranks,
                tuple(flying.values()),
                settings.tokens_per_micro_batch,
                settings.memory,
                awaiting_weights=tuple(waiting.values()),
            )
            totals.append(parts.total)
            if phase.backward is not None:
                flying[phase.backward.stage] -= phase.kind is not Kind.BACKWARD_INPUT
                waiting[phase.backward.stage] += phase.kind is Kind.BACKWARD_INPUT
                waiting[phase.backward.stage] -= phase.kind is Kind.WEIGHT
        assert case.memory[pipeline_rank].total == max(totals)
        assert not any((*flying.values(), *waiting.values()))


def test_experts_per_token_are_asked_for_of_model_and_kernels_alike():
    # 4 experts of a token for 2: twice the routed experts' FLOPs in what MFU counts, and twice their rows
    usual, doubled = plan(), plan(experts_per_token=4)
    assert doubled.model.moe.experts_per_token == 2 * usual.model.moe.experts_per_token == 4
    assert replace(doubled.model, moe=usual.model.moe) == usual.model
    assert doubled.memory[0].activations > usual.memory[0].activations
    # nodes may be groups, whether or not they divide the experts: 8 over 3 nodes
    three = {"num_ranks": 6, "pipeline_parallel": 1, "expert_parallel": 2, "sequences_per_step": 6}
    assert plan(**three, groups="nodes", experts_per_token=8).model.moe.experts_per_token == 8


def test_of_several_pipelines_each_takes_its_part_of_the_micro_batches():
    found = plan(schedule="dualpipe", sequences_per_step=8, sequences_per_micro_batch=1)
    assert found.num_micro_batches == 4
    assert found.schedule.micro_batches_of(1) == range(2, 4)
    assert found.ranks.pipelines == 2


def test_auto_nodes_hold_one_group_of_each_pipeline_rank():
    assert spec(pipeline_parallel=4, expert_parallel=16).needed_ranks() == 64
    assert spec(pipeline_parallel=4, expert_parallel=2, tensor_parallel=8).needed_ranks() == 32


SCENARIO = """
name: step
cluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree, planes: 8}}
model: deepseek-v3
workload:
  kind: training-step
  pipeline_parallel: 2
  expert_parallel: 8
  schedule: 1f1b
  sequences_per_step: 16
  gate: {kind: balanced}
  ignore_memory: true
costs: h800-published
"""


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("communication_sms", "67", "hold 67 of the 132 SMs .* known for at most half, 66"),
        ("pipeline_parallel", "3", "1, 2, 4 would do"),
        ("ignore_memory", "false", "a GPU of pipeline rank 0 needs .* and has"),
        ("schedule", "zb2p", "'dualpipe' or 'dualpipe-v', not the text 'zb2p'"),
        ("memory.weights", "fp8", "'bf16' or 'fp32', not the text 'fp8'"),
        ("node_order", "[1, 1]", "nodes, 0 to 1, once, and node 0 is not named"),
        ("chunks", "2", "leave it at 1, or take interleaved-1f1b"),
        ("groups", "nodes", None),
    ],
)
def test_a_scenario_blames_the_field(tmp_path, field, value, message):
    path = tmp_path / "step.yaml"
    path.write_text(SCENARIO)
    override = [f"workload.{field}={value}"]
    if message is None:
        assert load_scenario(path, override).num_nodes == 2
        return
    with pytest.raises(InputError, match=f": workload.{field}: .*{message}"):
        load_scenario(path, override)


def test_a_check_is_all_that_a_build_needs():
    # a spec that passes its check can be built, and is built of the plan that was checked
    step = build(**BASE, schedule="zb1p")
    assert step.plan == plan(**BASE, schedule="zb1p")
