import numpy as np
import pytest

from simulator.engine import StalledError, execute
from support.clusters import network, run
from workloads.tasks import Collective, Stream, Task, TaskGraph, Transfer, Transfers, run_in_turn

COMPUTE, COMMUNICATION = Stream.COMPUTE, Stream.COMMUNICATION


@pytest.fixture
def cluster():
    """One node of 4 GPUs whose NVLink ports carry 10 bytes/s each way."""
    return network(1, kind="none", gpus=4, rates={"nvlink": "10 B/s"})


def log(cluster, tasks, *collectives: list[Transfer]):
    """Return [(name, rank, start, end), ...] of a run, in the order of the graph."""
    compiled, layout = cluster
    named = tuple(Collective(f"c{i}", Transfers.from_rows(rows)) for i, rows in enumerate(collectives))
    times = execute(TaskGraph(4, tuple(tasks), named), compiled, layout.endpoint_of_rank).times
    return [
        (task.name, task.rank, float(start), float(end))
        for task, start, end in zip(tasks, times.start_s, times.end_s, strict=True)
    ]


def part(rank: int, collective: int = 0, after: tuple[int, ...] = ()) -> Task:
    return Task(f"c{collective}", rank, COMMUNICATION, after, collective=collective)


def to(source: int, destination: int, size: float, **fields) -> Transfer:
    return Transfer(source, (), ((destination, 1.0),), size, **fields)


def test_a_stream_runs_its_tasks_in_order(cluster):
    tasks = [Task("a", 0, COMPUTE, duration_s=2.0), Task("b", 0, COMPUTE, duration_s=3.0)]
    assert log(cluster, tasks) == [("a", 0, 0.0, 2.0), ("b", 0, 2.0, 5.0)]


def test_streams_run_side_by_side_and_dependencies_hold(cluster):
    # "c" is free to start on rank 1 at once, but waits for both "a" and "b".
    tasks = [
        Task("a", 0, COMPUTE, duration_s=2.0),
        Task("b", 0, COMMUNICATION, duration_s=3.0),
        Task("c", 1, COMPUTE, after=(0, 1), duration_s=1.0),
    ]
    assert log(cluster, tasks) == [("a", 0, 0.0, 2.0), ("b", 0, 0.0, 3.0), ("c", 1, 3.0, 4.0)]


def test_a_task_on_no_stream_waits_for_its_dependencies_alone(cluster):
    tasks = [
        Task("a", 0, COMPUTE, duration_s=2.0),
        Task("barrier", 0, None, after=(0,)),
        Task("free", 0, None),
        Task("b", 1, COMPUTE, after=(1,), duration_s=1.0),
    ]
    assert [(start, end) for *_, start, end in log(cluster, tasks)] == [(0, 2), (2, 2), (0, 0), (2, 3)]


def test_bytes_overlap_compute(cluster):
    # Rank 0 computes 1 s, then again; its transfer of 30 bytes to rank 1 takes 3 s beside that.
    tasks = [Task("a", 0, COMPUTE, duration_s=1.0), part(0), part(1), Task("b", 0, COMPUTE, duration_s=4.0)]
    found = log(cluster, tasks, [to(0, 1, 30.0)])
    assert found == [("a", 0, 0.0, 1.0), ("c0", 0, 0.0, 3.0), ("c0", 1, 0.0, 3.0), ("b", 0, 1.0, 5.0)]


def test_a_transfer_waits_for_its_sender_and_its_receiver_for_it(cluster):
    # Rank 0 joins after 2 s of work; rank 1, there from the start, waits for the 10 bytes until 3 s.
    tasks = [Task("work", 0, COMPUTE, duration_s=2.0), part(0, after=(0,)), part(1)]
    assert log(cluster, tasks, [to(0, 1, 10.0)])[1:] == [("c0", 0, 2.0, 3.0), ("c0", 1, 0.0, 3.0)]


def test_a_receiver_that_comes_late_finds_its_bytes(cluster):
    tasks = [Task("work", 1, COMPUTE, duration_s=5.0), part(0), part(1, after=(0,))]
    assert log(cluster, tasks, [to(0, 1, 10.0)])[1:] == [("c0", 0, 0.0, 1.0), ("c0", 1, 5.0, 5.0)]


def test_a_rank_ends_with_its_own_transfers_not_with_the_collective(cluster):
    # 0 -> 1 takes 1 s, 2 -> 3 takes 4 s; rank 3's next task need not wait for ranks 0 and 1, nor they for it.
    tasks = [*(part(rank) for rank in range(4)), Task("next", 1, COMPUTE, after=(1,), duration_s=1.0)]
    found = log(cluster, tasks, [to(0, 1, 10.0), to(2, 3, 40.0)])
    assert [end for *_, end in found] == [1.0, 1.0, 4.0, 4.0, 2.0]


def test_a_rank_without_transfers_passes_at_once(cluster):
    assert log(cluster, [part(0), part(1), part(2)], [to(0, 1, 10.0)])[2] == ("c0", 2, 0.0, 0.0)


def test_a_collective_without_transfers_takes_no_time(cluster):
    assert log(cluster, [part(0), part(1)], []) == [("c0", 0, 0.0, 0.0), ("c0", 1, 0.0, 0.0)]


def test_a_reduction_starts_when_all_its_senders_are_there(cluster):
    # Ranks 1 and 2 each send 10 bytes to rank 0, which takes 20 in: 2 s, from when rank 2 has come at 3 s.
    gather = Transfer(0, (), ((1, 1.0), (2, 1.0)), 10.0, reduce=True)
    tasks = [part(0), part(1), Task("work", 2, COMPUTE, duration_s=3.0), part(2, after=(2,))]
    assert [end for *_, end in log(cluster, tasks, [gather])] == [5.0, 5.0, 3.0, 5.0]


def test_a_rank_that_a_reduction_names_twice_joins_once(cluster):
    # Rank 1 sends two parts of 10 bytes, rank 2 one, from 3 s on: 30 bytes into rank 0's port, 3 s.
    gather = Transfer(0, (), ((1, 1.0), (1, 1.0), (2, 1.0)), 10.0, reduce=True)
    tasks = [part(0), part(1), Task("work", 2, COMPUTE, duration_s=3.0), part(2, after=(2,))]
    assert [end for *_, end in log(cluster, tasks, [gather])] == [6.0, 6.0, 3.0, 6.0]


def test_a_rank_that_a_transfer_names_twice_waits_for_it_once(cluster):
    # Rank 1 gets two copies of 10 bytes: 2 s.
    twice = Transfer(0, (), ((1, 1.0), (1, 1.0)), 10.0)
    assert [end for *_, end in log(cluster, [part(0), part(1)], [twice])] == [2.0, 2.0]


def test_a_transfer_whose_sender_never_comes_has_no_end(cluster):
    # Ranks 0 and 1, which nothing is asked of, never join; rank 2 does, and has no part in what they exchange.
    compiled, layout = cluster
    collective = Collective("c0", Transfers.from_rows([to(0, 1, 10.0)]))
    recording = execute(TaskGraph(4, (part(2),), (collective,)), compiled, layout.endpoint_of_rank)
    assert np.isnan(recording.transfers[0].end_s).all()
    assert (recording.collectives_solved, recording.collectives_reused) == (0, 0)


def test_collectives_at_once_share_links(cluster):
    # Both send 20 bytes out of rank 0's port (10 bytes/s): 4 s together; they are on different streams.
    tasks = [
        part(0, 0),
        Task("c1", 0, COMPUTE, collective=1),
        part(1, 0),
        part(2, 1),
    ]
    found = log(cluster, tasks, [to(0, 1, 20.0)], [to(0, 2, 20.0)])
    assert [end for *_, end in found] == [4.0, 4.0, 4.0, 4.0]


def test_a_delay_is_kept(cluster):
    assert log(cluster, [part(0), part(1)], [to(0, 1, 10.0, delay_s=2.5)])[1] == ("c0", 1, 0.0, 3.5)


def test_least_loaded_routes_a_delayed_transfer_when_it_starts():
    # Two leaves, two uplinks each, four nodes. 0 -> 2 is under way until 2 s. A transfer 1 -> 3 that starts at once
    # must take the other uplink; one that starts at 3 s finds both empty and takes the first, as 0 -> 2 did.
    compiled, layout = network(
        4, gpus=1, planes=1, switch_ports=4, policy="least-loaded", rates={"nic": "10 B/s"}
    )
    used = {}
    for delay_s in (0.0, 3.0):
        rows = [to(0, 2, 20.0), to(1, 3, 20.0, delay_s=delay_s)]
        recording = run(compiled, layout, Transfers.from_rows(rows))
        assert recording.transfers[0].end_s.tolist() == pytest.approx([2.0, delay_s + 2.0])
        up = compiled.cables.upward > 0
        used[delay_s] = compiled.per_cable(recording.meter.bytes)[
            up & (compiled.cables.source == "plane0/leaf0")
        ]
    assert sorted(used[0.0].tolist()) == pytest.approx([20.0, 20.0])
    assert sorted(used[3.0].tolist()) == pytest.approx([0.0, 40.0])


def test_weights_reach_the_network(cluster):
    # On rank 0's port flows of weight 4 and 1 get 8 and 2 bytes/s: 16 bytes end at 2 s; then 16 - 4 = 12 bytes
    # at 10 bytes/s end at 3.2 s.
    rows = [to(0, 1, 16.0, weight=4.0), to(0, 2, 16.0)]
    ends = [end for *_, end in log(cluster, [part(0), part(1), part(2)], rows)]
    assert ends == pytest.approx([3.2, 2.0, 3.2], rel=1e-12)


def test_a_circle_of_tasks_is_an_error_that_names_them(cluster):
    tasks = [Task("a", 0, None, after=(1,)), Task("b", 1, None, after=(0,))]
    with pytest.raises(StalledError, match="2 tasks cannot end, among them a of rank 0, b of rank 1"):
        log(cluster, tasks)


def test_a_flow_without_capacity_is_an_error(cluster):
    compiled, layout = cluster
    compiled.capacity_bytes_per_s[:] = 0.0
    with pytest.raises(StalledError, match="1 flows have bytes left but no capacity"):
        run(compiled, layout, Transfers.from_rows([to(0, 1, 1.0)]))


@pytest.mark.parametrize("policy", ["adaptive", "least-loaded"])
def test_bytes_are_conserved_through_the_engine(policy):
    # Two collectives on 6 nodes: what all GPUs' ports carried is what the transfers hold, each byte once a hop.
    compiled, layout = network(6, gpus=2, planes=2, switch_ports=4, policy=policy)
    rng = np.random.default_rng(3)
    source = rng.integers(0, 12, 60)
    destination = (source + 2 * rng.integers(1, 6, 60)) % 12  # same index, another node: no NVLink
    size = rng.lognormal(size=60)
    transfers = Transfers.point_to_point(source, destination, size)
    recording = run(compiled, layout, transfers, transfers)
    carried = compiled.per_cable(recording.meter.bytes)
    kinds = compiled.cables.kind
    assert carried[kinds == "pcie"].sum() == pytest.approx(2 * 2 * size.sum(), rel=1e-9)  # out and in, twice
    assert carried[kinds == "nic"].sum() == pytest.approx(2 * 2 * size.sum(), rel=1e-9)
    assert carried[kinds == "nvlink"].sum() == 0.0


def test_progress_rises_to_one():
    # 1,000 flows of different sizes end one by one, in more solves than the compiled loop makes at once.
    compiled, layout = network(1, kind="none", gpus=4)
    count = 1000
    source = np.arange(count) % 4
    transfers = Transfers.point_to_point(source, (source + 1) % 4, np.arange(1.0, count + 1))
    graph = run_in_turn((Collective("c", transfers),), range(4), 4)
    shares: list[float] = []
    execute(graph, compiled, layout.endpoint_of_rank, shares.append)
    assert len(shares) >= 2
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
