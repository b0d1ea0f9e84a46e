"""The spec as a whole: what a step is built of, how often loads are drawn, and what its check lists."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.layout import RankLayout
from support.training_steps import build, model, setting, spec
from workloads.kernel_call import calls_of
from workloads.tasks import TaskTimes, Transfers
from workloads.training.step import TrainingStep

SKEWED = {"kind": "lognormal", "sigma": 1.0}


def exchanged(step: TrainingStep) -> list[Transfers]:
    """Transfers of the dispatches of the first group, each object once, in order."""
    first = step.plan.layout.group(0, 0)
    found = {
        id(collective.transfers): collective.transfers
        for collective in step.graph.collectives
        if collective.name == "dispatch F"
        and set(collective.transfers.source_rank.tolist()) <= set(first.tolist())
    }
    return list(found.values())


def sizes(transfers: Transfers) -> tuple[float, ...]:
    return tuple((transfers.size_bytes[0] * transfers.fractions).tolist())


@pytest.mark.parametrize(("changes", "draws"), [("never", 1), ("per-layer", 3), ("per-micro-batch", 3 * 2)])
def test_loads_are_drawn_as_often_as_asked_for(changes, draws):
    # one pipeline rank of 3 layers with experts, the module among them, and 2 micro-batches
    step = build(
        4,
        of=model(num_layers=3, num_dense_layers=1),
        pipeline_parallel=1,
        expert_parallel=4,
        sequences_per_step=8,
        sequence_length=64,
        gate=SKEWED,
        load_changes=changes,
    )
    found = exchanged(step)
    assert len(found) == len(set(map(sizes, found))) == draws
    # and kernels have the rows of their own layer's and micro-batch's draw: hardly two alike
    rows = {
        call.rows
        for task in step.graph.tasks
        if task.name == "experts F"
        for call in calls_of(task.kernel.call)
        if call.kind == "pack"
    }
    assert draws - 1 <= len(rows) <= draws


def test_draws_of_layers_do_not_depend_on_how_often_micro_batches_draw():
    # layer after layer: what all micro-batches of the first layer have with per-layer, is the first draw of all
    fields = {"expert_parallel": 4, "pipeline_parallel": 1, "gate": SKEWED, "sequence_length": 64}
    first = [exchanged(build(4, load_changes=changes, **fields))[0] for changes in ("never", "per-layer")]
    assert sizes(first[0]) == sizes(first[1])


def test_a_gpu_computes_as_the_one_with_most_rows():
    # The experts' forward kernels grow with the rows of the fullest GPU: pack, 2 products, activation, reduce.
    step = build(4, expert_parallel=4, pipeline_parallel=1, gate=SKEWED, sequence_length=64)
    kernel = next(task.kernel for task in step.graph.tasks if task.name == "experts F")
    rows = {call.rows for call in calls_of(kernel.call) if call.kind in {"pack", "reduce"}}
    (most,) = rows
    # 4 ranks of 64 tokens and 2 experts each: 128 rows if all were equal
    assert 128 < most <= 512
    even = build(4, expert_parallel=4, pipeline_parallel=1, sequence_length=64)
    kernel = next(task.kernel for task in even.graph.tasks if task.name == "experts F")
    assert {call.rows for call in calls_of(kernel.call) if call.kind in {"pack", "reduce"}} == {128}


def test_the_flops_of_all_gpus_are_those_of_all_tokens():
    # A kernel stands for its fold: 2 groups of 2 ranks on each of 2 pipeline ranks. Half of the sequences take half,
    # and on half of the ranks as many take as much.
    def flops(num_ranks: int, sequences: int) -> float:
        graph = build(num_ranks, sequences_per_step=sequences).graph
        return sum(
            len(graph.fold_of(task.rank)) * task.kernel.call.flops for task in graph.tasks if task.kernel
        )

    assert flops(8, 16) == 2 * flops(8, 8) == flops(4, 16) > 0


def test_messages_are_those_of_the_formats():
    # 40 values: FP8 40 bytes and a scale of 4, BF16 80; the source 8 bytes, and of 2 experts index and weight 8 each,
    # back weights alone, 4 each; rounded up to 16
    fp8, bf16 = 44 + 8 + 16, 80 + 8 + 8
    kernels = {
        (kernel.codec, kernel.message_bytes, kernel.num_sms, kernel.beside_compute)
        for kernel in spec(communication_sms=12).communication_kernels(setting(4))
    }
    there, back = -(-fp8 // 16) * 16, -(-bf16 // 16) * 16
    assert (there, back) == (80, 96)
    assert kernels == {("", size, 12, beside) for size in (there, back) for beside in (False, True)}
    coded = spec(dispatch_format="bf16", combine_format="logfmt8").communication_kernels(setting(4))
    # BF16 80 + 8 + 16; LogFMT 40 + 8 of the tile + 8 + 8
    assert {(kernel.codec, kernel.message_bytes) for kernel in coded} == {("", 112), ("logfmt", 64)}


def test_sends_carry_a_micro_batch_in_bf16():
    step = build(4, sequence_length=16, sequences_per_micro_batch=2)
    sends = [each.transfers for each in step.graph.collectives if each.name.startswith("send")]
    assert {size for transfers in sends for size in transfers.size_bytes.tolist()} == {2.0 * 2 * 16 * 40}


def test_what_is_taken_for_granted_names_what_was_chosen():
    said = " ".join(build(communication_sms=12).assumptions)
    assert "12 SMs" in said
    assert "too little memory" not in said
    assert "too little memory" in " ".join(build(ignore_memory=True).assumptions)


def test_a_cluster_without_known_limits_has_no_mfu_and_all_else():
    case = replace(setting(4), gpu=None)
    spec().check(case)
    known = build(4)
    unknown = spec().build(case, RankLayout.in_order(2, 2), np.random.default_rng(1))
    times = TaskTimes(*(np.full(len(known.graph.tasks), seconds) for seconds in (0.0, 1.0)))
    with_limits, without = (step.summarise(times).metrics for step in (known, unknown))
    assert with_limits.keys() - without.keys() == {"mfu_causal", "mfu_non_causal"}
    assert without.items() <= with_limits.items()
