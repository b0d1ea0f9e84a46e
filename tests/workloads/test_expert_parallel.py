"""The workload `expert-parallel`: its metrics counted independently, and every fault of its fields named."""

from pathlib import Path

import numpy as np
import pytest

from simulator.layout import RankLayout
from simulator.units import FieldError
from workloads.expert_parallel import ExpertParallelSpec
from workloads.gate import sample_experts
from workloads.models import load_model
from workloads.tasks import Setting, TaskTimes

FOLDER = Path()
DEEPSEEK_V3 = load_model("deepseek-v3", FOLDER)


def setting(num_ranks, gpus_per_node=8, model=DEEPSEEK_V3):
    return Setting(model, num_ranks, gpus_per_node, FOLDER)


def spec(**fields):
    return ExpertParallelSpec(
        kind="expert-parallel", **({"tokens_per_rank": 32, "expert_parallel": 16} | fields)
    )


def build(num_nodes, seed=1, **fields):
    case = setting(8 * num_nodes)
    spec(**fields).check(case)
    return spec(**fields).build(case, RankLayout.in_order(num_nodes, 8), np.random.default_rng(seed))


def summarise(workload, dispatch_s, combine_s):
    """The summary of a run in which every rank takes so long."""
    end_s = [
        {0: dispatch_s, None: dispatch_s, 1: dispatch_s + combine_s}[task.collective]
        for task in workload.graph.tasks
    ]
    return workload.summarise(TaskTimes(np.zeros(len(end_s)), np.array(end_s)))


def tokens_on_targets(seed, num_ranks, num_tokens, degree, experts_per_target):
    """(copies, copies that leave home): distinct targets of each token, counted with sets."""
    rng = np.random.default_rng(seed)
    copies = leaving = 0
    for rank in range(num_ranks):
        home = rank % degree * (256 // degree) // experts_per_target
        for token in sample_experts(rng, num_tokens, 256, 8, 8, 4).tolist():
            targets = {expert // experts_per_target for expert in token}
            copies += len(targets)
            leaving += len(targets - {home})
    return copies, leaving


def test_bandwidths_between_nodes():
    # Two groups of 16 ranks on 4 nodes: a node holds 128 of the 256 experts of its group. Logical bandwidth counts
    # distinct nodes at 7,392 and 14,336 bytes, wire bandwidth nodes but the own at 7,472 and 14,384.
    summary = summarise(build(4), dispatch_s=2e-3, combine_s=5e-3)
    copies, leaving = tokens_on_targets(1, 32, 32, 16, 128)
    assert summary.breakdown_s == {"dispatch": 2e-3, "combine": pytest.approx(5e-3)}
    metrics = summary.metrics
    assert metrics["dispatch_s"] == 2e-3
    assert metrics["combine_s"] == pytest.approx(5e-3)
    assert metrics["dispatch_logical_bytes_per_s"] == pytest.approx(copies * 7392 / 32 / 2e-3)
    assert metrics["dispatch_wire_bytes_per_s"] == pytest.approx(leaving * 7472 / 32 / 2e-3)
    assert metrics["combine_logical_bytes_per_s"] == pytest.approx(copies * 14336 / 32 / 5e-3)
    assert metrics["combine_wire_bytes_per_s"] == pytest.approx(leaving * 14384 / 32 / 5e-3)


def test_bandwidths_within_a_node():
    # Groups of 4 ranks, two on each node: a GPU holds 64 experts. Logical bandwidth counts distinct GPUs, the own
    # included, wire bandwidth the others: what crosses NVLink.
    summary = summarise(build(2, expert_parallel=4), dispatch_s=2e-3, combine_s=5e-3)
    copies, leaving = tokens_on_targets(1, 16, 32, 4, 64)
    metrics = summary.metrics
    assert metrics["dispatch_logical_bytes_per_s"] == pytest.approx(copies * 7392 / 16 / 2e-3)
    assert metrics["dispatch_wire_bytes_per_s"] == pytest.approx(leaving * 7472 / 16 / 2e-3)
    assert metrics["combine_wire_bytes_per_s"] == pytest.approx(leaving * 14384 / 16 / 5e-3)


def test_wire_bytes_are_those_of_the_relayed_transfers():
    workload = build(4)
    for collective, message_bytes in zip(workload.graph.collectives, (7472, 14384), strict=True):
        transfers = collective.transfers
        relayed = np.diff(transfers.relay_offsets) > 0
        assert transfers.size_bytes[relayed].sum() == workload.traffic.to_other_nodes() * message_bytes


def test_nothing_moves_where_each_rank_holds_all_experts():
    workload = build(1, expert_parallel=1)
    assert [len(collective.transfers) for collective in workload.graph.collectives] == [0, 0]
    metrics = summarise(workload, 0.0, 0.0).metrics
    assert metrics["dispatch_logical_bytes_per_s"] == metrics["combine_wire_bytes_per_s"] == 0.0


def test_expert_load_is_the_most_loaded_over_the_mean():
    workload = build(2)
    chosen = np.zeros(256)
    rng = np.random.default_rng(1)
    for _ in range(16):
        np.add.at(chosen, sample_experts(rng, 32, 256, 8, 8, 4), 1)
    # 16 ranks x 32 tokens x 8 experts over 256 experts: 16 on average.
    assert summarise(workload, 1.0, 1.0).metrics["expert_load_max_over_mean"] == chosen.max() / 16


def test_overrides_take_the_place_of_the_model_s():
    # One expert per token: one copy each, so that copies are the tokens: 16 ranks x 32.
    assert build(2, experts_per_token=1).traffic.tokens_to_rank.sum() == 16 * 32
    # A node's 128 experts form one of two groups; with one kept every token goes to one node.
    assert build(2, groups=2, groups_kept=1).traffic.tokens_to_node.sum() == 16 * 32
    # The model keeps 4 groups; where only one is left the gate keeps that: no limit, so that most of the 512 tokens
    # have experts on both nodes, all eight being on one node with probability 2 x C(128,8)/C(256,8) < 1%.
    assert build(2, groups=1).traffic.tokens_to_node.sum() > 1.9 * 16 * 32


def test_a_group_needs_its_degree_of_ranks():
    assert spec(expert_parallel=64).needed_ranks() == 64


def test_assumptions_name_the_bytes_of_a_token():
    told = " ".join(build(2).assumptions)
    assert "7,472 bytes in dispatch" in told
    assert "14,384 in combine" in told


@pytest.mark.parametrize(
    ("fields", "num_ranks", "field", "message"),
    [
        ({"expert_parallel": 64}, 32, "expert_parallel", r"needs 64 ranks, and the cluster has 32; .* 16, 32$"),
        ({"expert_parallel": 48}, 96, "expert_parallel", r"does not divide the 256 experts, .* 1, 2, 4, 8, 16, 32$"),
        ({"expert_parallel": 64}, 96, "expert_parallel", r"does not divide the 96 ranks into groups; .* 32$"),
        ({"groups": 7}, 32, "groups", "256 experts cannot form 7 groups of equal size"),
        ({"groups_kept": 9}, 32, "groups_kept", "cannot keep 9 of 8 groups; keep at most 8"),
        ({"groups": 2, "groups_kept": 3}, 32, "groups_kept", "cannot keep 3 of 2 groups"),
        ({"experts_per_token": 129}, 32, "experts_per_token", "needs 129 experts, .* hold 128"),
        ({"groups": 128, "groups_kept": 1}, 32, "groups_kept", "needs 8 experts, .* hold 2"),
        ({"groups": 256}, 32, "groups", "needs 8 experts, .* hold 4"),
        ({"tokens_per_rank": 2**20}, 512, "tokens_per_rank", r"137,438,953,472 affinities, .*; use at most 524,288"),
        (
            {"tokens_per_rank": 2**20, "experts_per_token": 65, "groups": 1},
            32,
            "tokens_per_rank",
            "with 65 experts per token a rank can have at most 1,032,444 tokens",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(fields, num_ranks, field, message):
    with pytest.raises(FieldError, match=message) as caught:
        spec(**fields).check(setting(num_ranks))
    assert caught.value.field == field


def test_a_degree_that_straddles_nodes_is_refused():
    # Groups of 8 are two nodes of 4 GPUs or half a node of 16, but a node of 12 would hold one and a half.
    spec(expert_parallel=8).check(setting(16, gpus_per_node=4))
    spec(expert_parallel=8).check(setting(16, gpus_per_node=16))
    with pytest.raises(
        FieldError, match="neither divides a node of 12 GPUs nor is a multiple of it"
    ) as caught:
        spec(expert_parallel=8).check(setting(48, gpus_per_node=12))
    assert caught.value.field == "expert_parallel"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "needs a mixture-of-experts model and no model is named"),
        (load_model("llama-3.1-405b", FOLDER), "llama-3.1-405b has no experts"),
    ],
)
def test_a_model_without_experts_is_refused(model, message):
    with pytest.raises(FieldError, match=message) as caught:
        spec().check(setting(16, model=model))
    assert caught.value.field == "kind"


@pytest.mark.parametrize(
    "fields",
    [
        {"tokens_per_rank": 0},
        {"tokens_per_rank": 2**20 + 1},
        {"tokens_per_rank": 4096.0},
        {"tokens_per_rank": True},
        {"expert_parallel": -1},
        {"expert_parallel": 65537},
        {"kernel": "fast"},
        {"gate": {"kind": "zipf"}},
        {"experts_per_token": 0},
        {"groups": 0},
        {"token_per_rank": 1},
    ],
)
def test_values_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        spec(**fields)
