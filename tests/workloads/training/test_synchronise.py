"""How a step ends: bytes of gradients and weights by formula, and every parameter owned once."""

from pathlib import Path

import numpy as np
import pytest

from simulator.layout import RankLayout
from support.training_steps import model, plan
from workloads.flops import describe
from workloads.models import load_model
from workloads.stage_layers import stage_matrices
from workloads.training.plan import TrainingPlan
from workloads.training.synchronise import Joint, Synchronisation, stages_held, synchronisation

DEEPSEEK_V3 = load_model("deepseek-v3", Path())
GRADIENT, WEIGHT = 4, 2  # bytes: FP32 and BF16


def ending(case: TrainingPlan) -> Synchronisation:
    num_ranks, gpus = case.setting.num_ranks, case.setting.gpus_per_node
    layout = RankLayout.in_order(num_ranks // gpus, gpus)
    memory = case.settings.memory
    return synchronisation(case.model, case.schedule, case.stages, case.layout, case.ranks, memory, layout)


def sent(joints: tuple[Joint, ...], name: str, num_ranks: int) -> np.ndarray:
    """Bytes that each rank sends in all collectives of a name."""
    bytes_sent = np.zeros(num_ranks)
    for joint in joints:
        if joint.collective.name == name:
            transfers = joint.collective.transfers
            np.add.at(bytes_sent, transfers.source_rank, transfers.size_bytes)
    return bytes_sent


def held(case: TrainingPlan, pipeline_rank: int) -> tuple[int, int]:
    """Dense parameters of a pipeline rank, and those of its experts, of a whole expert-parallel group."""
    matrices = [
        matrix
        for stage in stages_held(case.schedule, case.stages, pipeline_rank)
        for matrix in stage_matrices(case.model, stage)
    ]
    dense = sum(matrix.parameters for matrix in matrices if not matrix.is_routed)
    return dense, sum(matrix.parameters for matrix in matrices) - dense


def names(joints: tuple[Joint, ...]) -> list[tuple[str, tuple[int, ...]]]:
    return [(joint.collective.name, joint.pipeline_ranks) for joint in joints]


@pytest.fixture(scope="module")
def published() -> TrainingPlan:
    """DeepSeek-V3 as it was trained: 2,048 ranks, 16 pipeline ranks, groups of 64, DualPipe."""
    return plan(
        2048,
        8,
        DEEPSEEK_V3,
        pipeline_parallel=16,
        expert_parallel=64,
        schedule="dualpipe",
        sequences_per_step=15360,
        sequence_length=4096,
        ignore_memory=True,
    )


def test_deepseek_v3_reduces_and_gathers_by_formula(published):
    # Pipeline ranks r and 15 - r hold stages r and 15 - r both: 2 x 128 = 256 ranks have the same dense parameters,
    # and 256 / 64 = 4 the same experts, 1/64 of all. Reduce-scatter and all-gather over n ranks: each sends
    # (n - 1) / n of the buffer.
    end = ending(published)
    for pipeline_rank in range(16):
        dense, experts = held(published, pipeline_rank)
        ranks = published.layout.ranks[pipeline_rank]
        for joints, what, size in ((end.reductions, "gradients", GRADIENT), (end.gathers, "weights", WEIGHT)):
            found = sent(joints, f"dense {what}", 2048)[ranks]
            assert found == pytest.approx(np.full(128, 255 / 256 * dense * size), rel=1e-12)
            found = sent(joints, f"expert {what}", 2048)[ranks]
            assert found == pytest.approx(np.full(128, 3 / 4 * experts / 64 * size), rel=1e-12)
    pairs = [(rank, 15 - rank) for rank in range(8)]
    assert names(end.reductions) == [
        (f"{what} gradients", pair) for pair in pairs for what in ("dense", "expert")
    ]
    assert names(end.gathers) == [(f"{what} weights", pair) for pair in pairs for what in ("dense", "expert")]


def test_each_parameter_of_deepseek_v3_is_owned_once(published):
    # The model and its module; each rank's share is rounded to a whole parameter.
    summary = describe(DEEPSEEK_V3)
    end = ending(published)
    assert {kernel.communication_sms for kernel in end.optimizer} == {0}
    owned = 128 * sum(kernel.call.parameters for kernel in end.optimizer)
    assert abs(owned - (summary.parameters + summary.mtp_parameters)) <= 2048 / 2


def rings(joint: Joint) -> list[list[int]]:
    """Ranks of each ring of a collective, sorted: what hops connect."""
    transfers = joint.collective.transfers
    following: dict[int, set[int]] = {}
    for source, destination in zip(transfers.source_rank, transfers.destination_ranks, strict=True):
        following.setdefault(int(source), set()).add(int(destination))
    found, left = [], set(following)
    while left:
        ring, waiting = set(), [min(left)]
        while waiting:
            rank = waiting.pop()
            if rank not in ring:
                ring.add(rank)
                waiting += following[rank]
        found.append(sorted(ring))
        left -= ring
    return found


def test_rings_connect_the_ranks_with_the_same_parameters():
    # 8 ranks, 2 pipeline ranks of 4 members, groups of 2. DualPipe: both pipeline ranks hold both stages. Dense: all
    # 8; experts: members 0 and 2 of both have the first half, 1 and 3 the second.
    case = plan(8, pipeline_parallel=2, schedule="dualpipe", sequences_per_step=16)
    dense, experts = ending(case).reductions
    assert rings(dense) == [list(range(8))]
    assert rings(experts) == [[0, 2, 4, 6], [1, 3, 5, 7]]
    # 1F1B: pipeline ranks apart
    case = plan(8, pipeline_parallel=2)
    first_dense, first_experts, last_dense, last_experts, _ = ending(case).reductions
    assert rings(first_dense) == [[0, 1, 2, 3]]
    assert rings(first_experts) == [[0, 2], [1, 3]]
    assert rings(last_dense) == [[4, 5, 6, 7]]
    assert rings(last_experts) == [[4, 6], [5, 7]]


CASES = {
    "gpipe": {},
    "1f1b": {},
    "interleaved-1f1b": {"chunks": 2},
    "zb1p": {},
    "dualpipe": {},
    "dualpipe-v": {},
}


@pytest.mark.parametrize("schedule", CASES)
@pytest.mark.parametrize("num_mtp_layers", [0, 1])
def test_each_parameter_is_owned_once_and_summed_over_all_who_have_it(schedule, num_mtp_layers):
    of = model(num_layers=5, num_mtp_layers=num_mtp_layers)
    case = plan(8, of=of, pipeline_parallel=2, schedule=schedule, sequences_per_step=16, **CASES[schedule])
    summary, end = describe(of), ending(case)
    owned = 4 * sum(kernel.call.parameters for kernel in end.optimizer)
    assert abs(owned - (summary.parameters + summary.mtp_parameters)) <= 8 / 2
    # the last stage has a copy of the embedding for its module, unless the rank has the first stage too
    copies = num_mtp_layers and schedule not in {"dualpipe", "dualpipe-v"}
    vocabulary = of.vocab_size * of.hidden_size
    for pipeline_rank, ranks in enumerate(case.layout.ranks):
        dense, experts = held(case, pipeline_rank)
        dense += vocabulary if copies and pipeline_rank == 1 else 0
        sharing = 8 if schedule == "dualpipe" else 4
        for joints, what, size in ((end.reductions, "gradients", GRADIENT), (end.gathers, "weights", WEIGHT)):
            found = sent(joints, f"dense {what}", 8)[ranks]
            assert found == pytest.approx(np.full(4, (sharing - 1) / sharing * dense * size))
            n = sharing // 2
            found = sent(joints, f"expert {what}", 8)[ranks]
            assert found == pytest.approx(np.full(4, (n - 1) / n * experts / 2 * size))


def point_to_point(joint: Joint) -> list[tuple[int, int, float]]:
    transfers = joint.collective.transfers
    columns = (transfers.source_rank, transfers.destination_ranks, transfers.size_bytes)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_copy_of_the_embedding_joins_the_sums_of_the_first_stage():
    # 1F1B on 2 x 4 ranks with a module: the sums of the copy, 160 x 40 values, lie in quarters on the last stage's
    # ranks 4 to 7; each sends its quarter to the rank that owns it on the first stage, 0 to 3, and gets weights back
    case = plan(8, pipeline_parallel=2)
    end = ending(case)
    quarter = 160 * 40 / 4
    there, back = end.reductions[-1], end.gathers[0]
    assert (there.collective.name, there.pipeline_ranks) == ("embedding gradients", (0, 1))
    assert point_to_point(there) == [(4 + i, i, GRADIENT * quarter) for i in range(4)]
    # before the copy is gathered over the last stage's ranks
    assert (back.collective.name, back.pipeline_ranks) == ("embedding weights", (0, 1))
    assert point_to_point(back) == [(i, 4 + i, WEIGHT * quarter) for i in range(4)]
    # a head that is the embedding needs a copy too, a model without either none
    tied = plan(8, of=model(num_mtp_layers=0, tie_word_embeddings=True), pipeline_parallel=2)
    assert names(ending(tied).reductions)[-1] == ("embedding gradients", (0, 1))
    without = plan(8, of=model(num_mtp_layers=0), pipeline_parallel=2)
    assert all("embedding" not in name for name, _ in names(ending(without).reductions))


@pytest.mark.parametrize("schedule", ["dualpipe", "1f1b"])
def test_without_shards_all_sums_go_to_all_ranks_and_no_weights_follow(schedule):
    # all-reduce: 2 (n - 1) / n of the buffer; each rank updates all that it holds, a copy of the embedding too
    case = plan(
        8,
        pipeline_parallel=2,
        schedule=schedule,
        sequences_per_step=16,
        memory={"shard_optimizer": False},
    )
    end = ending(case)
    assert end.gathers == ()
    n = 8 if schedule == "dualpipe" else 4
    vocabulary = 160 * 40
    for pipeline_rank, ranks in enumerate(case.layout.ranks):
        dense, experts = held(case, pipeline_rank)
        dense += vocabulary if (schedule, pipeline_rank) == ("1f1b", 1) else 0
        found = sent(end.reductions, "dense gradients", 8)[ranks]
        assert found == pytest.approx(np.full(4, 2 * (n - 1) / n * dense * GRADIENT))
        half = n // 2
        found = sent(end.reductions, "expert gradients", 8)[ranks]
        assert found == pytest.approx(np.full(4, 2 * (half - 1) / half * experts / 2 * GRADIENT))
        assert end.optimizer[pipeline_rank].call.parameters == dense + experts // 2
    if schedule == "1f1b":
        # both ends have their own sums whole and exchange them whole
        whole = GRADIENT * vocabulary
        pairs = [(4 + i, i, whole) for i in range(4)] + [(i, 4 + i, whole) for i in range(4)]
        assert point_to_point(end.reductions[-1]) == pairs


def test_a_single_data_parallel_rank_moves_nothing():
    # one rank for each stage: it has all there is of its parameters, and updates them
    case = plan(2, gpus_per_node=1, of=model(num_mtp_layers=0), pipeline_parallel=2, expert_parallel=1)
    end = ending(case)
    assert end.reductions == end.gathers == ()
    assert [kernel.call.parameters for kernel in end.optimizer] == [sum(held(case, rank)) for rank in (0, 1)]


def test_experts_of_one_group_are_summed_within_their_rank():
    # 2 ranks of a pipeline rank, one group of 2: each expert is on one rank, dense parameters on two
    end = ending(plan(4, of=model(num_mtp_layers=0), pipeline_parallel=2))
    assert names(end.reductions) == [("dense gradients", (0,)), ("dense gradients", (1,))]


def test_formats_set_the_bytes():
    case = plan(8, of=model(num_mtp_layers=0), pipeline_parallel=2)
    other = plan(
        8,
        of=model(num_mtp_layers=0),
        pipeline_parallel=2,
        memory={"gradients": "bf16", "weights": "fp32"},
    )
    usual, changed = ending(case), ending(other)
    for name in ("dense", "expert"):
        # BF16 for FP32: half; FP32 for BF16: twice
        halved = sent(changed.reductions, f"{name} gradients", 8)
        assert halved.tolist() == (sent(usual.reductions, f"{name} gradients", 8) / 2).tolist()
        doubled = sent(changed.gathers, f"{name} weights", 8)
        assert doubled.tolist() == (2 * sent(usual.gathers, f"{name} weights", 8)).tolist()


def test_stages_of_a_rank_are_each_held_once(published):
    found = []
    for pipeline_rank in range(16):
        stages = stages_held(published.schedule, published.stages, pipeline_rank)
        assert stages == tuple(
            published.stages[stage] for stage in sorted((pipeline_rank, 15 - pipeline_rank))
        )
        found += stages
    assert len(found) == 32
