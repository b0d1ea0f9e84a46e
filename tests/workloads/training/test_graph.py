"""The task graph of a step: every piece of work once, sends where stages meet, and phases as soon as they can be."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from support.training_steps import build, model, play
from workloads.kernels import BF16_BYTES
from workloads.schedules import SCHEDULES, Kind, Schedule
from workloads.schedules.ideal import ideal_times
from workloads.tasks import Stream, Task, TaskGraph, TaskPhase
from workloads.training.graph import GATHER_WEIGHTS, OPTIMIZER, REDUCE_GRADIENTS
from workloads.training.step import TrainingStep

SENDS = {"send activations", "send gradients"}


def of_schedule(
    name: str, num_ranks: int, chunks: int = 1, groups: int = 2, rounds: int = 1, **more
) -> TrainingStep:
    """A small step: two stages more or less alike, groups of 2 ranks, and few micro-batches."""
    micro_batches = {"dualpipe": 2 * num_ranks, "dualpipe-v": 2 * num_ranks, "interleaved-1f1b": num_ranks}
    each = micro_batches.get(name, num_ranks + 1) * rounds
    stages = num_ranks * {"dualpipe-v": 2, "interleaved-1f1b": chunks}.get(name, 1)
    return build(
        num_ranks * groups * 2,
        of=model(num_layers=stages + 1, num_dense_layers=1),
        pipeline_parallel=num_ranks,
        schedule=name,
        chunks=chunks,
        sequences_per_step=each * groups * 2,
        **more,
    )


CASES = [
    *(("dualpipe", num_ranks, 1) for num_ranks in (2, 4, 6, 8)),
    *((name, num_ranks, 1) for name in ("gpipe", "1f1b", "zb1p", "dualpipe-v") for num_ranks in (2, 3, 5, 8)),
    *(("interleaved-1f1b", num_ranks, chunks) for num_ranks, chunks in ((2, 2), (3, 3), (4, 2), (8, 2))),
    *((name, 1, 1) for name in ("gpipe", "1f1b", "zb1p", "dualpipe-v")),
    ("interleaved-1f1b", 1, 2),
]


def test_every_schedule_has_a_case():
    assert {name for name, _, _ in CASES} == set(SCHEDULES)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def step(request) -> TrainingStep:
    return of_schedule(*request.param)


def places(step: TrainingStep) -> dict[int, tuple[int, int]]:
    """Leader -> (pipeline rank, number of its group)."""
    layout = step.plan.layout
    return {
        int(layout.group(pipeline_rank, number).min()): (pipeline_rank, number)
        for pipeline_rank in range(len(layout.ranks))
        for number in range(layout.num_groups)
    }


def of_the_schedule(graph: TaskGraph) -> list[TaskPhase]:
    return [phase for phase in graph.phases if phase.kind in set(Kind)]


def tasks_of(graph: TaskGraph, phase: TaskPhase) -> tuple[Task, ...]:
    return graph.tasks[phase.first_task : phase.end_task]


def test_groups_of_ranks_are_folds(step):
    graph, layout = step.graph, step.plan.layout
    assert {task.rank for task in graph.tasks if task.stream} == set(places(step))
    for leader, (pipeline_rank, number) in places(step).items():
        assert graph.fold_of(leader).tolist() == sorted(layout.group(pipeline_rank, number).tolist())


def test_phases_are_those_of_the_schedule_on_every_group(step):
    found: dict[int, list[tuple]] = {leader: [] for leader in places(step)}
    for phase in of_the_schedule(step.graph):
        found[phase.rank].append((phase.kind, phase.forward, phase.backward))
    for leader, (pipeline_rank, _) in places(step).items():
        assert found[leader] == [tuple(phase) for phase in step.plan.schedule.phases[pipeline_rank]]


def test_each_layer_of_each_micro_batch_is_computed_once(step):
    # Work of a cell, by name of the kernel: each of its layers' attention and feed-forward part, F, B and W once.
    schedule, of, num_groups = step.plan.schedule, step.plan.model, step.plan.layout.num_groups
    found: Counter[tuple] = Counter()
    for phase in of_the_schedule(step.graph):
        for task in tasks_of(step.graph, phase):
            cell = phase.forward if task.name.endswith("F") else phase.backward
            found[places(step)[phase.rank][1], cell, task.name] += 1
    expected: Counter[tuple] = Counter()
    for pipeline in range(schedule.num_pipelines):
        for stage, held in enumerate(step.plan.stages):
            dense = held.dense_layers
            moe = held.moe_layers + held.mtp_layers
            names = Counter({"attention": dense + moe, "dense": dense, "experts": moe})
            names |= Counter({"head": held.has_head, "head and MTP input": held.mtp_layers})
            for micro_batch in schedule.micro_batches_of(pipeline):
                for number in range(num_groups):
                    where = number, (pipeline, stage, micro_batch)
                    for direction in "FBW":
                        for name, count in names.items():
                            expected[*where, f"{name} {direction}"] = count
                    # what has no gradient of inputs, and what is exchanged: there and back, forward and backward
                    expected[*where, "embedding F"] = expected[*where, "embedding W"] = held.has_embedding
                    for exchange in ("dispatch F", "combine F", "combine B", "dispatch B"):
                        expected[*where, exchange] = moe
    assert +found == +expected
    assert of.num_mtp_layers == 1  # which the last stage has beside its own layers


def test_there_are_two_dispatches_and_two_combines_of_a_layer(step):
    plan, collectives = step.plan, step.graph.collectives
    moe_layers = sum(plan.model.is_moe_layer(layer) for layer in range(plan.model.num_layers + 1))
    names = Counter(collective.name for collective in collectives if collective.kernel)
    each = moe_layers * plan.num_micro_batches * plan.layout.num_groups
    assert names == {"dispatch F": each, "combine F": each, "combine B": each, "dispatch B": each}


def test_a_send_crosses_each_boundary_between_ranks_once(step):
    # (pipeline, boundary, micro-batch, direction) where stages s and s + 1 are on different ranks; none elsewhere:
    # where DualPipeV turns, and where a rank is alone
    schedule, layout = step.plan.schedule, step.plan.layout
    expected: Counter[tuple] = Counter()
    for pipeline, ranks in enumerate(schedule.rank_of_stage):
        for here, there in pairwise(ranks):
            batches = len(schedule.micro_batches_of(pipeline))
            if here != there:
                expected["send activations", here, there] += batches
                expected["send gradients", there, here] += batches
    found: Counter[tuple] = Counter()
    size_bytes = float(BF16_BYTES * 8 * 40)  # 8 tokens of 40 values
    for task in step.graph.tasks:
        if task.name in SENDS:
            assert task.stream is None
            transfers = step.graph.collectives[task.collective].transfers
            source, number = places(step)[task.rank]
            ends = np.isin(layout.ranks, transfers.destination_ranks).any(axis=1)
            (destination,) = np.flatnonzero(ends).tolist()
            # member i to member i of the same group
            assert transfers.source_rank.tolist() == layout.group(source, number).tolist()
            assert transfers.destination_ranks.tolist() == layout.group(destination, number).tolist()
            assert transfers.size_bytes.tolist() == [size_bytes] * 2
            found[task.name, source, destination, number] += 1
    assert found == {
        (*where, number): count for where, count in expected.items() for number in range(layout.num_groups)
    }
    assert all(collective.kernel is None for collective in step.graph.collectives if collective.name in SENDS)


def seconds_of(
    graph: TaskGraph, forward: int, backward_input: int, weight: int, send: int = 0
) -> list[Fraction]:
    """Seconds of each task so that each part of a phase takes these, divided evenly over its kernels."""
    seconds = [Fraction(send if task.name in SENDS else 0) for task in graph.tasks]
    for phase in of_the_schedule(graph):
        for ending, whole in (("F", forward), ("B", backward_input), ("W", weight)):
            kernels = [
                number
                for number in range(phase.first_task, phase.end_task)
                if graph.tasks[number].kernel and graph.tasks[number].name.endswith(ending)
            ]
            for number in kernels:
                seconds[number] = Fraction(whole, len(kernels))
    return seconds


def spans(step: TrainingStep, seconds: list[Fraction]) -> dict[int, list[tuple]]:
    """Leader -> when each of its phases starts and ends."""
    durations = iter(seconds)
    by_task = {id(task): next(durations) for task in step.graph.tasks}
    start, end = play(step.graph, lambda task: by_task[id(task)])
    found: dict[int, list[tuple]] = {leader: [] for leader in places(step)}
    for phase in of_the_schedule(step.graph):
        tasks = slice(phase.first_task, phase.end_task)
        found[phase.rank].append((min(start[tasks]), max(end[tasks])))
    return found


def ideal(schedule: Schedule, forward: int, backward_input: int, weight: int, send: int) -> tuple:
    # kernels take turns, and exchanges that take no time leave nothing for them to hide
    pair = forward + backward_input + weight
    return ideal_times(schedule, forward, backward_input, weight, pair, send)


@pytest.mark.parametrize("seconds", [(10, 10, 10, 0), (7, 13, 5, 0), (4, 9, 11, 3), (20, 6, 1, 8)], ids=str)
def test_phases_run_when_an_ideal_network_lets_them(step, seconds):
    # Exchanges take no time, so that phases take what their kernels do, and wait for each other alone. These ideal
    # times have the published bubbles: tests/theory/test_schedules.py.
    expected = ideal(step.plan.schedule, *seconds)
    for leader, found in spans(step, seconds_of(step.graph, *seconds)).items():
        assert found == [tuple(span) for span in expected[places(step)[leader][0]]]


def test_exchanges_hold_up_their_own_phase_alone():
    # Forward alone: attention 1, dispatch 2, experts 1, combine 2 seconds a layer, nothing beside another. One stage
    # of two layers with experts, no module, so that a forward is 2 x 6, and 1 for the head. Backward: the head 1, and
    # of each layer combine 2, experts B 1, dispatch 2 (experts W beside it), attention B 1 (attention W beside the
    # next combine, but for the last).
    step = build(
        2,
        of=model(num_layers=2, num_dense_layers=0, num_mtp_layers=0),
        pipeline_parallel=1,
        sequences_per_step=2,
    )

    def seconds(task: Task) -> int:
        if task.collective is not None:
            return 2 if step.graph.collectives[task.collective].kernel else 0
        return 1 if task.name[-2:] in {" F", " B", " W"} and "embedding" not in task.name else 0

    start, end = play(step.graph, seconds)
    forward, backward = of_the_schedule(step.graph)
    assert end[forward.end_task - 1] == 2 * 6 + 1
    last = max(end[backward.first_task : backward.end_task])
    # head B ends 1, combine 3, experts B 4, dispatch 6, attention B 7, combine 9, experts B 10, dispatch 12,
    # attention B 13, attention W 14
    assert last - start[backward.first_task] == 14


@pytest.mark.parametrize("slow", ["combine F", "dispatch B", "attention W"])
def test_a_phase_ends_on_both_streams(step, slow):
    # whichever of them ends last, the next phase of the group and what this one sends start no sooner
    start, end = play(step.graph, lambda task: 100 if task.name == slow else 1)
    ended = dict.fromkeys(places(step), 0)
    starts = {phase.first_task: phase for phase in of_the_schedule(step.graph)}
    for number, task in enumerate(step.graph.tasks):
        if number in starts:
            phase = starts[number]
            tasks = slice(phase.first_task, phase.end_task)
            assert min(start[tasks]) >= ended[task.rank]
            ended[task.rank] = max(end[tasks])
        if task.name in SENDS:
            assert start[number] == ended[task.rank]


def test_the_optimizer_waits_for_all_gradients_and_weights_follow_it(step):
    graph = step.graph
    kinds = [phase.kind for phase in graph.phases if phase.kind not in set(Kind)]
    order = {REDUCE_GRADIENTS: 0, OPTIMIZER: 1, GATHER_WEIGHTS: 2}
    assert [order[kind] for kind in kinds] == sorted(order[kind] for kind in kinds)
    assert kinds.count(OPTIMIZER) == len(places(step))
    (barrier,) = (number for number, task in enumerate(graph.tasks) if task.name == "norm of all gradients")
    ancestors = reached_from(graph, barrier)
    for number, task in enumerate(graph.tasks[:barrier]):
        # all but what nothing waits for: no kernel, exchange or reduction is left out
        assert number in ancestors or task.name in SENDS
    for phase in graph.phases:
        if phase.kind == OPTIMIZER:
            (task,) = tasks_of(graph, phase)
            assert task.after == (barrier,)
            assert task.stream is Stream.COMPUTE
            assert task.kernel.communication_sms == 0
        if phase.kind == GATHER_WEIGHTS:
            (task,) = tasks_of(graph, phase)
            assert {graph.tasks[before].rank for before in task.after} == {task.rank}


def reached_from(graph: TaskGraph, last: int) -> set[int]:
    """All that a task waits for, directly or not, by dependencies and streams."""
    before: dict[tuple, int] = {}
    direct: list[tuple[int, ...]] = []
    for number, task in enumerate(graph.tasks[: last + 1]):
        stream = (task.rank, task.stream)
        direct.append((*task.after, *([before[stream]] if task.stream and stream in before else [])))
        before[stream] = number
    reached, waiting = set(), list(direct[last])
    while waiting:
        number = waiting.pop()
        if number not in reached:
            reached.add(number)
            waiting += direct[number]
    return reached


def test_everything_that_is_sent_is_waited_for(step):
    # a forward waits for the activations of the stage before, a backward for the gradients of the one after, so that
    # no send runs on behind the step
    after = {before for task in step.graph.tasks for before in task.after}
    sends = {number for number, task in enumerate(step.graph.tasks) if task.name in SENDS}
    assert sends <= after


def test_forward_and_backward_of_a_micro_batch_go_through_the_same_experts():
    # loads of their own for each layer and micro-batch: all four exchanges of a layer carry the same tokens, one
    # after the other there and back, and no other layer's or micro-batch's
    gate = {"kind": "lognormal", "sigma": 1.0}
    step = of_schedule("dualpipe", 2, load_changes="per-micro-batch", gate=gate, sequence_length=256)
    places_of = places(step)
    tokens: dict[tuple, set[tuple[float, ...]]] = {}
    for phase in of_the_schedule(step.graph):
        layer = Counter[str]()
        for task in tasks_of(step.graph, phase):
            if task.collective is None or not step.graph.collectives[task.collective].kernel:
                continue
            collective = step.graph.collectives[task.collective]
            cell = phase.forward if task.name.endswith("F") else phase.backward
            held = step.plan.stages[cell.stage]
            moe = [each for each in (*held.layers, *held.mtp_modules(step.plan.model)) if each > 0]
            order = moe if task.name.endswith("F") else moe[::-1]
            where = order[layer[task.name]], cell.micro_batch, places_of[phase.rank][1]
            layer[task.name] += 1
            transfers = collective.transfers  # one from each of two ranks to the other
            sizes = transfers.size_bytes * transfers.fractions / collective.kernel.message_bytes
            tokens.setdefault(where, set()).add(tuple(np.rint(sizes).tolist()))
    # layers 1, 2 and 3, the module, have experts; 4 micro-batches; 2 groups alike
    assert {len(each) for each in tokens.values()} == {1}
    by_place = {where[:2]: each for where, each in tokens.items()}
    assert len(by_place) == 3 * 4
    for (layer, micro_batch, _), each in tokens.items():
        assert each == by_place[layer, micro_batch]
    assert len({next(iter(each)) for each in by_place.values()}) > 9  # drawn anew: hardly two alike


def test_phases_with_the_same_work_share_their_kernels_and_transfers():
    # so that pricing and the network see each once: with loads that never change, a kernel for each direction of
    # each part of each stage, and transfers for each group, there and back
    few, many = (of_schedule("1f1b", 2, rounds=rounds) for rounds in (1, 3))
    assert len(many.graph.tasks) > 2 * len(few.graph.tasks)
    for kinds in (
        lambda graph: {id(task.kernel) for task in graph.tasks if task.kernel},
        lambda graph: {id(collective.transfers) for collective in graph.collectives},
    ):
        assert len(kinds(few.graph)) == len(kinds(many.graph))


def test_node_order_moves_ranks_and_nothing_else():
    plain = of_schedule("1f1b", 2, groups=2)
    moved = of_schedule("1f1b", 2, groups=2, node_order=[3, 1, 0, 2])
    new = np.array([6, 7, 2, 3, 0, 1, 4, 5])  # on nodes of 2: places 0, 1 on node 3, ...
    assert [new[task.rank] for task in plain.graph.tasks if task.stream] == [
        task.rank for task in moved.graph.tasks if task.stream
    ]
    for one, other in zip(plain.graph.collectives, moved.graph.collectives, strict=True):
        assert (one.name, one.kernel) == (other.name, other.kernel)
        if one.name in SENDS or one.kernel:
            assert new[one.transfers.source_rank].tolist() == other.transfers.source_rank.tolist()
            assert new[one.transfers.destination_ranks].tolist() == other.transfers.destination_ranks.tolist()
