"""What a step says of its run: a run written out by hand, and the published bubbles."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import tried_on
from support.training_steps import H800, build, model, plan, play
from workloads.flops import describe
from workloads.schedules import Kind
from workloads.tasks import Collective, Stream, Task, TaskGraph, TaskPhase, TaskTimes, Transfers
from workloads.training.graph import GATHER_WEIGHTS, OPTIMIZER, REDUCE_GRADIENTS
from workloads.training.step import TrainingStep, group_times

CELL = (0, 0, 0)
NOTHING = Transfers.from_rows([])
PLAN = plan(2, gpus_per_node=1, expert_parallel=1, sequences_per_step=8)

# (rank, kind, [(stream, start, end)]) of each phase; both join the reduction, which begins when rank 0 does
PHASES = [
    (0, Kind.FORWARD, [("compute", 0, 4), ("communication", 4, 6)]),
    (1, Kind.FORWARD_BACKWARD, [("communication", 0, 8), ("compute", 1, 9)]),
    (0, Kind.BACKWARD, [("compute", 10, 15), ("communication", 12, 17)]),
    (1, Kind.BACKWARD_INPUT, [("compute", 9, 12), ("communication", 12, 12.5), ("compute", 12.5, 13)]),
    (0, Kind.WEIGHT, [("compute", 17, 20)]),
    (0, REDUCE_GRADIENTS, [("joint", 20, 23)]),
    (1, REDUCE_GRADIENTS, [("joint", 13, 23)]),
    (0, OPTIMIZER, [("compute", 23, 25)]),
    (1, OPTIMIZER, [("compute", 23, 24)]),
    (0, GATHER_WEIGHTS, [("communication", 25, 26)]),
    (1, GATHER_WEIGHTS, [("communication", 24, 27)]),
]


def by_hand(phases=PHASES) -> tuple[TaskGraph, TaskTimes]:
    tasks, times, listed = [], [], []
    for rank, kind, pieces in phases:
        first = len(tasks)
        for stream, start, end in pieces:
            joint = stream == "joint"
            tasks.append(
                Task(
                    "piece",
                    rank,
                    Stream("communication" if joint else stream),
                    collective=0 if joint else None,
                )
            )
            times.append((start, end))
        listed.append(TaskPhase(rank, kind, CELL, CELL, first, len(tasks)))
    graph = TaskGraph(2, tuple(tasks), (Collective("joint", NOTHING),), phases=tuple(listed))
    return graph, TaskTimes(*np.array(times, float).T)


def test_parts_of_a_step_by_hand():
    # Rank 0: forward 0 to 6, backward 10 to 17, weight 17 to 20, so 16 of the 20 seconds before the reduction begins.
    # Rank 1: the pair 0 to 9, backward of inputs 9 to 13; from 13 to 20 it waits for rank 0. The step ends at 27.
    found = group_times(*by_hand())
    assert found.leaders == (0, 1)
    assert {part: values.tolist() for part, values in found.parts.items()} == {
        "forward": [6, 0],
        "backward": [7, 4],
        "weight": [3, 0],
        "forward_backward": [0, 9],
        "bubble": [20 - 16, 20 - 13],
        "optimizer": [7, 7],
    }


def test_communication_is_exposed_where_no_kernel_runs():
    # rank 0: 4 to 6 and 15 to 17; rank 1: 0 to 1 and 12 to 12.5; what follows the last phase is not counted
    assert group_times(*by_hand()).exposed_s.tolist() == [2 + 2, 1 + 0.5]


def test_without_a_reduction_the_end_begins_with_the_optimizer():
    # which waits for all gradients: the wait from 20 and 13 to 23 is a bubble
    phases = [phase for phase in PHASES if phase[1] not in {REDUCE_GRADIENTS, GATHER_WEIGHTS}]
    parts = group_times(*by_hand(phases)).parts
    assert parts["bubble"].tolist() == [23 - 16, 23 - 13]
    assert parts["optimizer"].tolist() == [2, 2]


def test_the_summary_by_hand():
    graph, times = by_hand()
    summary = TrainingStep(graph, PLAN, ()).summarise(times)
    assert summary.breakdown_s == {
        "forward": 3,
        "bubble": 5.5,
        "backward": 5.5,
        "weight": 1.5,
        "forward_backward": 4.5,
        "optimizer": 7,
    }
    # 8 sequences of 8 tokens in 27 s on 2 GPUs
    causal, whole = (describe(PLAN.model, 8, causal=on).training_flops_per_token for on in (True, False))
    metrics = summary.metrics
    assert metrics["tokens_per_step"] == 64
    assert metrics["tokens_per_day"] == pytest.approx(64 / 27 * 86400, rel=1e-15)
    assert metrics["training_flops_per_token_causal"] == causal
    assert metrics["training_flops_per_token_non_causal"] == whole > causal
    assert metrics["flops_per_s_per_gpu_causal"] == pytest.approx(64 * causal / 27 / 2, rel=1e-15)
    assert metrics["mfu_causal"] == pytest.approx(64 * causal / 27 / 2 / 989.4e12, rel=1e-15)
    assert metrics["mfu_non_causal"] == pytest.approx(
        64 * whole / 27 / 2 / H800.peak_bf16_flops_per_s, rel=1e-15
    )
    assert metrics["exposed_communication_s"] == (4 + 1.5) / 2
    assert metrics["memory_bytes_per_gpu"] == max(parts.total for parts in PLAN.memory)
    # 8 sequences, one data-parallel rank
    assert metrics["micro_batches_per_rank"] == 8


def test_tables_of_the_summary_by_hand():
    graph, times = by_hand()
    tables = TrainingStep(graph, PLAN, ()).summarise(times).tables
    first, second = tables["pipeline_ranks"]
    assert first == {
        "pipeline_rank": 0,
        "stages": "0",
        "forward_s": 6,
        "bubble_s": 4,
        "backward_s": 7,
        "weight_s": 3,
        "forward_backward_s": 0,
        "optimizer_s": 7,
        "exposed_communication_s": 4,
    }
    assert (second["pipeline_rank"], second["stages"], second["bubble_s"]) == (1, "1", 7)
    for row, parts in zip(tables["memory"], PLAN.memory, strict=True):
        assert row["total_bytes"] == parts.total == sum(row[f"{part}_bytes"] for part, _ in parts.items())
        assert list(row)[1:-1] == [f"{part}_bytes" for part, _ in parts.items()]
    assert [row["pipeline_rank"] for row in tables["memory"]] == [0, 1]


def test_a_rank_of_two_stages_names_both_and_groups_are_averaged():
    # two groups on each pipeline rank, one of which is twice as slow in all that it does
    step = build(4, gpus_per_node=1, expert_parallel=1, schedule="dualpipe", sequences_per_step=8)
    slow = {leader for leader in {task.rank for task in step.graph.tasks} if leader % 2}
    start, end = play(
        step.graph,
        lambda task: 0.0 if task.kernel is None or task.name == "optimizer" else 1.0 + (task.rank in slow),
    )
    times = TaskTimes(np.array(start, float), np.array(end, float))
    rows = step.summarise(times).tables["pipeline_ranks"]
    assert [row["stages"] for row in rows] == ["0, 1", "0, 1"]
    found = group_times(step.graph, times)
    place = {leader: index for index, leader in enumerate(found.leaders)}
    for row, ranks in zip(rows, step.plan.layout.ranks.tolist(), strict=True):
        one, other = (found.parts["forward"][place[rank]] for rank in ranks)
        assert {one / other} <= {2.0, 0.5}
        assert row["forward_s"] == (one + other) / 2


def test_a_step_that_takes_no_time_has_no_rates():
    graph, _ = by_hand()
    nothing = np.zeros(len(graph.tasks))
    summary = TrainingStep(graph, PLAN, ()).summarise(TaskTimes(nothing, nothing))
    assert set(summary.breakdown_s.values()) == {0}
    assert summary.metrics["tokens_per_day"] == summary.metrics["mfu_causal"] == 0


STEPS = [
    build(8, pipeline_parallel=2, schedule=schedule, chunks=chunks, sequences_per_step=16)
    for schedule, chunks in (
        ("gpipe", 1),
        ("1f1b", 1),
        ("interleaved-1f1b", 2),
        ("zb1p", 1),
        ("dualpipe", 1),
        ("dualpipe-v", 1),
    )
]


@tried_on(40)
@given(st.sampled_from(STEPS), st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1.0, 1e4]))
def test_parts_add_up_to_the_step_whatever_tasks_take(step, seed, scale):
    drawn = dict(
        zip(map(id, step.graph.tasks), np.random.default_rng(seed).exponential(scale, 10**4), strict=False)
    )
    start, end = play(step.graph, lambda task: drawn[id(task)])
    times = TaskTimes(np.array(start), np.array(end))
    found = group_times(step.graph, times)
    total = sum(found.parts.values())
    assert total == pytest.approx(np.full(len(total), times.step_time_s), rel=1e-12)
    for values in (*found.parts.values(), found.exposed_s):
        assert values.min() >= -1e-9 * times.step_time_s
    # no rank hides more than it exchanges, and exposes no more than its phases last
    phases = sum(found.parts[part] for part in ("forward", "backward", "weight", "forward_backward"))
    assert (found.exposed_s <= phases * (1 + 1e-12)).all()
    summary = step.summarise(times)
    assert sum(summary.breakdown_s.values()) == pytest.approx(times.step_time_s, rel=1e-12)
    # 16 sequences of 8 tokens on 8 GPUs, of which every second leads the other
    flops = 16 * 8 * describe(step.plan.model, 8).training_flops_per_token
    rate = summary.metrics["flops_per_s_per_gpu_causal"]
    assert rate * 8 * times.step_time_s == pytest.approx(flops, rel=1e-12)


def bubble_by_rank(
    schedule: str, num_ranks: int, forward: int, backward_input: int, weight: int, **more
) -> list:
    """Bubbles of pipeline ranks where each part of a phase takes these, divided over its kernels."""
    stages = num_ranks * more.get("chunks", 2 if schedule == "dualpipe-v" else 1)
    step = build(
        num_ranks,
        gpus_per_node=1,
        of=model(num_layers=stages),
        pipeline_parallel=num_ranks,
        expert_parallel=1,
        schedule=schedule,
        sequences_per_step=4 * num_ranks,
        **more,
    )
    of_task = {}
    for phase in step.graph.phases:
        tasks = step.graph.tasks[phase.first_task : phase.end_task]
        for ending, whole in ((" F", forward), (" B", backward_input), (" W", weight)):
            kernels = [task for task in tasks if task.kernel and task.name.endswith(ending)]
            of_task |= {id(task): Fraction(whole, len(kernels)) for task in kernels}
    start, end = play(step.graph, lambda task: of_task.get(id(task), 0))
    times = TaskTimes(np.array(start, float), np.array(end, float))
    bubble = group_times(step.graph, times).parts["bubble"]
    return bubble.tolist()


@pytest.mark.parametrize("num_ranks", [2, 4, 6])
def test_bubbles_are_the_published_ones(num_ranks):
    # docs/schedules.md; F = I = 10, W = 6, B = 16. One rank has each stage, so that nothing is reduced and the
    # optimizer, which waits for all, ends the bubbles of all ranks together.
    f, i, w = 10, 10, 6
    b, p = i + w, num_ranks
    expected = {"gpipe": (p - 1) * (f + b), "1f1b": (p - 1) * (f + b), "zb1p": (p - 1) * (f + b - 2 * w)}
    for schedule, bubble in expected.items():
        assert bubble_by_rank(schedule, p, f, i, w) == pytest.approx([bubble] * p, rel=1e-12)
    # chunks divide the model: a rank's share still takes F and B, each chunk half
    found = bubble_by_rank("interleaved-1f1b", p, f // 2, i // 2, w // 2, chunks=2)
    assert found == pytest.approx([(p - 1) * (f + b) / 2] * p, rel=1e-12)
    # A pair, which hides nothing here, takes F + B. Ranks r and P-1-r reduce what both hold as soon as they have
    # ended, which ends their bubbles: I - W earlier for each rank further in, since it runs a weight part where its
    # outer neighbour still runs a backward.
    bubble = (p // 2 - 1) * (f + b + b - 3 * w)
    ended = [min(rank, p - 1 - rank) * (i - w) for rank in range(p)]
    found = bubble_by_rank("dualpipe", p, f, i, w)
    assert found == pytest.approx([bubble - earlier for earlier in ended], rel=1e-12, abs=1e-9)
