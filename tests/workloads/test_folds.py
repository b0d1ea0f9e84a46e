"""Folded and unfolded runs agree: `both` runs a graph as it is and with a task of its own for every rank."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.engine import execute
from simulator.fault_clock import NO_FAULTS, Death, Faults, Slowdown
from simulator.network import LinkCosts
from simulator.pricing import Pricing
from simulator.rerouting import FaultError
from support.clusters import network
from workloads.folds import unfolded
from workloads.tasks import Collective, CommunicationKernel, Stream, Task, TaskGraph, Transfer, Transfers

COMPUTE, COMMUNICATION = Stream.COMPUTE, Stream.COMMUNICATION
LEADERS = np.array([0, 0, 0, 0, 4, 4, 4, 4])
COSTS = {name: LinkCosts(0.9, 3e-6, 1e-6) for name in ("nvlink", "pcie", "infiniband")}
KERNEL = CommunicationKernel("normal", 7000)
PRICE = Pricing(2e-6, {"infiniband": 1e-7}, 7000.0, 1.25)


def all_to_all(first: int, seed: int, *, reduce: bool = False) -> Transfers:
    """Return transfers among the four ranks from `first`, on two nodes: relayed, of several sizes and weights."""
    random = np.random.default_rng(seed)
    rows = []
    for source in range(first, first + 4):
        far = [rank for rank in range(first, first + 4) if rank // 2 != source // 2]
        relay = next(rank for rank in far if rank % 2 == source % 2)
        size = float(random.integers(1, 9)) * 1e6
        parts = tuple((rank, 0.75) for rank in far)
        rows += [
            Transfer(source, (relay,), parts, size, weight=size / 4e6, reduce=reduce),
            Transfer(source, (), ((source ^ 1, 1.0),), size / 2, delay_s=2e-5, rounds=2),
        ]
    return Transfers.from_rows(rows)


def graph() -> TaskGraph:
    """Return two folds of four: dispatches and combines beside kernels, and sends between folds that meet them."""
    here = np.arange(4)
    sends = [
        Transfers.point_to_point(here, here + 4, np.full(4, 5e6)),
        Transfers.point_to_point(here + 4, here, np.full(4, 3e6)),
    ]
    dispatch, combine = (
        [all_to_all(first, seed, reduce=seed > 2) for first, seed in ((0, seed), (4, seed + 1))]
        for seed in (1, 3)
    )
    tasks, collectives = [], []

    def task(name, rank, stream, after=(), duration_s=0.0, collective=None):
        tasks.append(Task(name, rank, stream, tuple(after), duration_s, collective))
        return len(tasks) - 1

    def join(name, ranks, stream, after, transfers, kernel=None):
        collectives.append(Collective(name, transfers, kernel))
        return [task(name, rank, stream, after, 0.0, len(collectives) - 1) for rank in ranks]

    came = {0: [], 4: []}
    for layer in range(4):
        for fold, rank in enumerate((0, 4)):
            began = task("attention", rank, COMPUTE, came[rank], 4e-5 * (1 + layer % 2 + fold))
            came[rank] = []
            dispatched = join("dispatch", [rank], COMMUNICATION, [began], dispatch[fold], KERNEL)
            task("shared", rank, COMPUTE, (), 3e-4)
            ended = join("combine", [rank], COMMUNICATION, dispatched, combine[fold], KERNEL)
            barrier = task("barrier", rank, None, ended)
            other = 4 - rank
            came[other] += join("send", (rank, other), None, [barrier], sends[fold])
            # beside the next layer's dispatch, on the other stream
            join("overlapped", [rank], COMPUTE, [began], dispatch[fold])
    return TaskGraph(8, tuple(tasks), tuple(collectives), LEADERS)


def cluster():
    return network(4, gpus=2, planes=2, switch_ports=4, costs=COSTS)


def run(tasks: TaskGraph, *, faults: Faults = NO_FAULTS, reuse: bool = True):
    compiled, layout = cluster()
    return execute(
        tasks, compiled, layout.endpoint_of_rank, faults=faults, reuse=reuse, price=lambda _: PRICE
    )


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("slow", [(), (Slowdown(6, 1.7, 1e-4, 4e-3), Slowdown(5, 3.0, 0.0, 1e-3))])
def test_folded_and_unfolded_agree(slow, reuse):
    folded, faults = graph(), Faults(slowdowns=slow)
    one, each = run(folded, faults=faults, reuse=reuse), run(unfolded(folded), faults=faults, reuse=reuse)
    barriers = np.cumsum([len(folded.fold_of(task.rank)) + 1 for task in folded.tasks]) - 1
    first = barriers - [len(folded.fold_of(task.rank)) for task in folded.tasks]
    assert each.times.end_s[barriers] == pytest.approx(one.times.end_s, rel=1e-9)
    assert each.times.start_s[first] == pytest.approx(one.times.start_s, rel=1e-9)
    for ours, theirs in zip(one.transfers, each.transfers, strict=True):
        assert ours.start_s == pytest.approx(theirs.start_s, rel=1e-9)
        assert ours.end_s == pytest.approx(theirs.end_s, rel=1e-9)
    assert one.meter.bytes == pytest.approx(each.meter.bytes, rel=1e-9)
    assert one.meter.saturated_s == pytest.approx(each.meter.saturated_s, rel=1e-9)
    # What the case is for is in it: folds that meet, links that are full, and, if some GPU is slow, that it tells.
    whole = run(folded)
    assert (one.times.step_time_s > 1.01 * whole.times.step_time_s) == bool(slow)
    assert one.meter.saturated_s.max() > 0.1 * one.times.step_time_s


def test_a_graph_without_folds_gets_a_barrier_a_task():
    plain = replace(graph(), leader_of_rank=None)
    plain = replace(plain, tasks=plain.tasks[:1], collectives=())
    assert [(task.rank, task.after) for task in unfolded(plain).tasks] == [(0, ()), (0, (0,))]


def test_dependencies_may_lead_forward():
    tasks = (Task("late", 0, None, (1,)), Task("early", 4, COMPUTE, duration_s=1.0))
    made = unfolded(TaskGraph(8, tasks, (), LEADERS))
    assert [task.name for task in made.tasks] == ["late"] * 4 + ["barrier"] + ["early"] * 4 + ["barrier"]
    assert made.tasks[0].after == (9,)
    assert run(made).times.step_time_s == 1.0


def test_a_fold_waits_for_its_slowest_gpu():
    # 2 s of work, 1.5 times as long on rank 6: 3 s for its fold, and what follows on it.
    tasks = (
        Task("a", 4, COMPUTE, duration_s=2.0),
        Task("b", 4, COMPUTE, duration_s=1.0),
        Task("other", 0, COMPUTE, duration_s=2.0),
    )
    slow = Faults(slowdowns=(Slowdown(6, 1.5, 0.0, 3.0),))
    assert run(TaskGraph(8, tasks, (), LEADERS), faults=slow).times.end_s.tolist() == [3.0, 4.0, 2.0]


def test_a_gpu_that_dies_in_a_fold_is_named():
    # Rank 6 is the first GPU of the fourth node; its three fellows wait, and the other fold for the send.
    tasks = (
        Task("work", 4, COMPUTE, duration_s=2.0),
        Task("after", 0, COMPUTE, (0,), 1.0),
    )
    died = Faults(deaths=(Death(6, 1.0),))
    with pytest.raises(
        FaultError,
        match=r"dies at 1 s with tasks to end \(1, first work\); other ranks wait .*\(7\): 0, 1, 2, 3, 4, 5, 7",
    ):
        run(TaskGraph(8, tasks, (), LEADERS), faults=died)
    in_time = (Task("work", 4, COMPUTE, duration_s=0.5),)
    assert run(TaskGraph(8, in_time, (), LEADERS), faults=died).times.step_time_s == 0.5
