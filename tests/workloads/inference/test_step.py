"""What a pass says of its run, by hand."""

import numpy as np
import pytest

from support.inference_steps import build, dense_model
from support.training_steps import play
from workloads.tasks import Stream, TaskTimes

# seconds by name; the small model has a dense layer and 3 with experts
SECONDS = {
    "attention": 5.0,
    "dense": 7.0,
    "experts": 3.0,
    "shared experts": 1.0,
    "ends": 0.5,
    "dispatch": 2.0,
    "combine": 4.0,
    "gather": 0.25,
    "scatter": 0.25,
    "framework overhead": 10.0,
    "exchange": 6.0,
}


def times(step, seconds=SECONDS):
    start_s, end_s = play(step.graph, lambda task: seconds[task.name])
    return TaskTimes(np.array(start_s, float), np.array(end_s, float))


def test_parts_of_a_decode_step_by_hand():
    # One micro-batch: 4 layers of attention, embedding and head; the three with experts wait for a dispatch of 2 s,
    # 1 of which the shared expert runs, and for a combine of 4.
    step = build(micro_batches=1)
    summary = step.summarise(times(step))
    assert summary.breakdown_s == {
        "attention": 4 * 5.0,
        "experts": 3 * (3.0 + 1.0),
        "dense": 7.0,
        "ends": 2 * 0.5,
        "framework_overhead": 0.0,
        "exposed_communication": 3 * (2.0 - 1.0 + 4.0),
    }
    assert summary.metrics["dispatch_s"] == 2.0
    assert summary.metrics["combine_s"] == 4.0


def test_two_micro_batches_hide_exchanges():
    # Kernels of both take 2 x 40 s; exchanges no longer than what runs beside them, 5 and 3 and 1, are hidden but for
    # the last combine, beside which the head of the other runs.
    step = build()
    shorter = SECONDS | {"dispatch": 2.0, "combine": 4.0}
    summary = step.summarise(times(step, shorter))
    kernels = 2 * (4 * 5.0 + 3 * 4.0 + 7.0 + 1.0)
    assert (
        sum(summary.breakdown_s.values()) - kernels
        == summary.breakdown_s["exposed_communication"]
        == 4.0 - 0.5
    )


def test_the_framework_overhead_is_a_part_of_its_own():
    step = build(framework_overhead="10 s", micro_batches=1)
    without = build(micro_batches=1)
    ours, theirs = step.summarise(times(step)), without.summarise(times(without))
    assert ours.breakdown_s == theirs.breakdown_s | {"framework_overhead": 10.0}
    assert ours.metrics["tpot_s"] == theirs.metrics["tpot_s"] + 10.0


def test_means_are_over_groups():
    # two groups, one of which is slower by half in its kernels
    step = build(8)
    graph = step.graph

    def seconds(task):
        slow = 1.5 if task.rank >= 4 and task.stream is Stream.COMPUTE else 1.0
        return slow * SECONDS[task.name]

    start_s, end_s = play(graph, seconds)
    summary = step.summarise(TaskTimes(np.array(start_s, float), np.array(end_s, float)))
    assert summary.breakdown_s["attention"] == 1.25 * 2 * 4 * 5.0
    assert sum(summary.breakdown_s.values()) == max(end_s)


@pytest.mark.parametrize(("acceptance", "tokens"), [(None, 1.0), (0.0, 1.0), (0.8, 1.8), (1.0, 2.0)])
def test_throughput_by_hand(acceptance, tokens):
    # 8 requests a GPU, 2 GPUs a node
    step = build(mtp_acceptance=acceptance)
    run = times(step)
    seconds, metrics = run.step_time_s, step.summarise(run).metrics
    assert metrics["tpot_s"] == pytest.approx(seconds / tokens, rel=1e-15)
    assert metrics["tokens_per_step_and_request"] == tokens
    assert metrics["tokens_per_s_per_request"] == pytest.approx(tokens / seconds, rel=1e-15)
    assert metrics["tokens_per_s_per_gpu"] == pytest.approx(8 * tokens / seconds, rel=1e-15)
    assert metrics["tokens_per_s_per_node"] == pytest.approx(16 * tokens / seconds, rel=1e-15)
    assert metrics["batch_per_gpu"] == 8


def test_throughput_of_prefill_by_hand():
    # 32 tokens a GPU and step
    step = build(kind="prefill-step")
    run = times(step)
    metrics = step.summarise(run).metrics
    assert metrics["tokens_per_s_per_gpu"] == pytest.approx(32 / run.step_time_s, rel=1e-15)
    assert metrics["tokens_per_s_per_node"] == pytest.approx(64 / run.step_time_s, rel=1e-15)
    assert "tpot_s" not in metrics


def test_a_step_that_takes_no_time_has_no_throughput():
    step = build()
    metrics = step.summarise(times(step, dict.fromkeys(SECONDS, 0.0))).metrics
    assert metrics["tpot_s"] == metrics["tokens_per_s_per_request"] == metrics["tokens_per_s_per_gpu"] == 0.0


def test_memory_is_a_table_and_its_total_a_metric():
    step = build()
    summary = step.summarise(times(step))
    rows = summary.tables["memory"]
    assert [row["part"] for row in rows] == [part.replace("_", " ") for part, _ in step.plan.memory.items()]
    assert sum(row["size_bytes"] for row in rows) == summary.metrics["memory_bytes_per_gpu"]
    assert summary.metrics["largest_batch_per_gpu"] == step.plan.most_requests > 8


def test_a_model_without_experts_has_no_exchanges():
    step = build(of=dense_model(), expert_parallel=1)
    summary = step.summarise(times(step))
    assert not {"dispatch_s", "combine_s", "limit_tpot_s"} & set(summary.metrics)
    assert summary.breakdown_s["experts"] == summary.breakdown_s["exposed_communication"] == 0.0
    assert summary.breakdown_s["dense"] == 2 * 4 * 7.0


def test_rings_that_wait_are_exposed():
    # of 2 tensor-parallel ranks, one micro-batch: each of 4 layers gathers and scatters twice, the embedding
    # scatters and the head gathers: 18 rings of 0.25 s
    step = build(of=dense_model(), expert_parallel=1, tensor_parallel=2, micro_batches=1)
    summary = step.summarise(times(step))
    assert summary.breakdown_s["exposed_communication"] == pytest.approx(18 * 0.25, rel=1e-12)


def test_the_limit_is_exchanges_alone():
    # 4 layers, two exchanges each
    step = build(limit=True)
    summary = step.summarise(times(step))
    assert summary.breakdown_s["exposed_communication"] == sum(summary.breakdown_s.values()) == 8 * 6.0
    assert summary.tables == {}
    assert step.before_balancing == ()


def test_a_simulated_step_shows_the_limit_beside_it():
    # 4 requests a micro-batch, 2 routed experts and a shared one, 40 values of 3 bytes, 50 GB/s; 2 exchanges in each
    # of 4 layers; with a draft more tokens for the same bytes
    limit_s = 4 * 2 * (4 * 3 * 40 * 3 / 50e9)
    for acceptance, tokens in ((None, 1.0), (0.8, 1.8)):
        step = build(mtp_acceptance=acceptance)
        metrics = step.summarise(times(step)).metrics
        assert metrics["limit_tpot_s"] == pytest.approx(limit_s / tokens, rel=1e-12)
