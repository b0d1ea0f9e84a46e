"""Reuse on and off give the same through the engine: `recordings` runs a graph both ways and compares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.engine import execute
from support.clusters import all_pairs, network
from support.properties import tried_on
from workloads.tasks import Collective, Stream, Task, TaskGraph, Transfer, Transfers, run_in_turn


def recordings(graph: TaskGraph, compiled, layout):
    """Return what happens with reuse, after comparing it with what does without."""
    with_reuse, without = (
        execute(graph, compiled, layout.endpoint_of_rank, reuse=reuse) for reuse in (True, False)
    )
    assert with_reuse.times.start_s == pytest.approx(without.times.start_s, rel=1e-9)
    assert with_reuse.times.end_s == pytest.approx(without.times.end_s, rel=1e-9)
    for ours, theirs in zip(with_reuse.transfers, without.transfers, strict=True):
        assert ours.start_s == pytest.approx(theirs.start_s, rel=1e-9)
        assert ours.end_s == pytest.approx(theirs.end_s, rel=1e-9)
    assert with_reuse.meter.bytes == pytest.approx(without.meter.bytes, rel=1e-9)
    assert with_reuse.meter.saturated_s == pytest.approx(without.meter.saturated_s, rel=1e-9, abs=1e-15)
    assert without.collectives_reused == 0
    total = sum(len(collective.transfers) > 0 for collective in graph.collectives)
    assert with_reuse.collectives_solved + with_reuse.collectives_reused == total
    return with_reuse, without


def uneven_all_to_all(num_ranks: int, seed: int) -> Transfers:
    source, destination = all_pairs(num_ranks)
    return Transfers.point_to_point(
        source, destination, np.random.default_rng(seed).lognormal(13.0, 1.0, len(source))
    )


@pytest.mark.parametrize("policy", ["adaptive", "ecmp", "static", "least-loaded"])
def test_layers_in_turn_are_solved_once(policy):
    # Ten layers of a dispatch and a combine, all drawn once. The first of each is solved, 2, and 18 reused;
    # where routes depend on load none is. Rounding may part or join instants here and there: solves agree to 20%.
    compiled, layout = network(4, gpus=2, planes=2, switch_ports=4, policy=policy)
    kinds = [uneven_all_to_all(8, seed) for seed in (1, 2)]
    collectives = tuple(Collective(f"c{index}", kinds[index % 2]) for index in range(20))
    graph = run_in_turn(collectives, range(8), 8)
    with_reuse, without = recordings(graph, compiled, layout)
    solved = 20 if policy == "least-loaded" else 2
    assert (with_reuse.collectives_solved, with_reuse.collectives_reused) == (solved, 20 - solved)
    assert with_reuse.solves * 20 == pytest.approx(without.solves * solved, rel=0.2)


def test_solves_do_not_grow_with_repeats():
    compiled, layout = network(2, gpus=4, planes=4)
    solves = []
    for repeats in (2, 40):
        collectives = tuple(Collective(f"c{index}", uneven_all_to_all(8, seed=3)) for index in range(repeats))
        solves.append(
            execute(run_in_turn(collectives, range(8), 8), compiled, layout.endpoint_of_rank).solves
        )
    assert solves[0] == solves[1] > 20


def chain(steps, num_ranks: int, collectives) -> TaskGraph:
    """Return a graph in which each rank runs steps in order: ("work", seconds by rank) or ("join", collective)."""
    tasks = []
    for rank in range(num_ranks):
        for what, value in steps:
            if what == "work":
                tasks.append(Task("work", rank, Stream.COMPUTE, tuple(_last(tasks, rank)), value[rank]))
            else:
                tasks.append(
                    Task("c", rank, Stream.COMMUNICATION, tuple(_last(tasks, rank)), collective=value)
                )
    return TaskGraph(num_ranks, tuple(tasks), tuple(collectives))


def _last(tasks, rank: int) -> list[int]:
    return [index for index, task in enumerate(tasks) if task.rank == rank][-1:]


def test_ranks_that_come_at_different_times_repeat_too():
    # Ranks 0 and 1 exchange 10 MB, and so do 2 and 3, which join 10 us later: two batches for each of the six
    # collectives. With reuse, six take no more solves than one does without.
    compiled, layout = network(1, kind="none", gpus=4)
    pairs = Transfers.point_to_point(np.arange(4), np.arange(4) ^ 1, np.full(4, 10e6))
    collectives = [Collective(f"c{index}", pairs) for index in range(6)]
    steps = [("work", [0.0, 0.0, 10e-6, 10e-6])]
    for index in range(6):
        steps += [("join", index), ("work", [40e-6] * 4)]
    with_reuse, without = recordings(chain(steps, 4, collectives), compiled, layout)
    assert (with_reuse.collectives_solved, with_reuse.collectives_reused) == (1, 5)
    of_one = execute(chain(steps[:3], 4, collectives[:1]), compiled, layout.endpoint_of_rank, reuse=False)
    assert with_reuse.solves <= of_one.solves < without.solves / 2


def test_a_collective_is_reused_only_if_all_of_it_is():
    # Rank 0 sends to 1, and 2 to 3, on ports of their own. In every other collective rank 2 sends more: those batches
    # are another key. c0 is new, and c1 in part; later ones are all known.
    compiled, layout = network(1, kind="none", gpus=4)
    kinds = [
        Transfers.from_rows([Transfer(0, (), ((1, 1.0),), 1e6), Transfer(2, (), ((3, 1.0),), size, delay_s=delay_s)])
        for size, delay_s in ((2e6, 0.0), (3e6, 0.0))
    ]  # fmt: skip
    collectives = [Collective(f"c{index}", kinds[index % 2]) for index in range(6)]
    late = [0.0, 0.0, 5e-6, 5e-6]  # ranks 2 and 3 join later: two batches a collective
    steps = [step for index in range(6) for step in (("work", late), ("join", index))]
    with_reuse, _ = recordings(chain(steps, 4, collectives), compiled, layout)
    assert (with_reuse.collectives_solved, with_reuse.collectives_reused) == (2, 4)


@pytest.mark.parametrize(("receiver", "reused"), [(1, 2), (5, 4)])
def test_traffic_beside_repeats(receiver, reused):
    # Five equal all-to-alls among ranks 0 to 3 of a node, and a transfer from rank 4 of the same node that comes in
    # the middle of the fourth. To rank 1 it shares that one's port, and still does when the fifth comes: these three
    # are solved, and the first. To rank 5 it shares nothing: all but the first and the transfer are reused.
    compiled, layout = network(1, kind="none", gpus=8)
    source, destination = all_pairs(4)
    transfers = Transfers.point_to_point(source, destination, np.full(12, 1e6))
    collectives = [Collective(f"c{index}", transfers) for index in range(5)]
    each_s = execute(
        run_in_turn((collectives[0],), range(4), 8), compiled, layout.endpoint_of_rank
    ).times.step_time_s
    graph = run_in_turn(tuple(collectives), range(4), 8)
    beside = Collective("beside", Transfers.from_rows([Transfer(4, (), ((receiver, 1.0),), 1e7)]))
    tasks = (
        *graph.tasks,
        Task("work", 4, Stream.COMPUTE, duration_s=3.5 * each_s),
        Task("beside", 4, Stream.COMMUNICATION, (len(graph.tasks),), collective=5),
    )
    with_reuse, _ = recordings(TaskGraph(8, tasks, (*graph.collectives, beside)), compiled, layout)
    assert with_reuse.collectives_reused == reused


@tried_on(60)
@given(st.data())
def test_random_graphs_of_repeats_give_the_same(data):
    # Ranks of two nodes run the same collectives in the same order, with work between that may differ by rank; a kind
    # of collective is random transfers, some relayed, some reducing, some delayed.
    compiled, layout = network(2, gpus=3, planes=3)
    rank = st.integers(0, 5)
    transfer = st.builds(
        lambda source, others, size, delay_s, reduce: Transfer(
            source, (), tuple((other, 1.0) for other in others), size, delay_s=delay_s, reduce=reduce
        ),
        rank,
        st.lists(rank, min_size=1, max_size=3),
        st.sampled_from([1e5, 1e6, 3e6]),
        st.sampled_from([0.0, 0.0, 1e-5]),
        st.booleans(),
    )
    kinds = [
        Transfers.from_rows(rows)
        for rows in data.draw(st.lists(st.lists(transfer, min_size=1, max_size=6), min_size=1, max_size=2))
    ]
    seconds = st.sampled_from([0.0, 1e-6, 2e-5])
    steps, collectives = [], []
    for kind in data.draw(st.lists(st.integers(0, len(kinds) - 1), min_size=1, max_size=10)):
        alike = data.draw(st.sampled_from([True, True, False]))
        pause = [data.draw(seconds)] * 6 if alike else [data.draw(seconds) for _ in range(6)]
        steps += [("work", pause), ("join", len(collectives))]
        collectives.append(Collective(f"c{len(collectives)}", kinds[kind]))
    recordings(chain(steps, 6, collectives), compiled, layout)
