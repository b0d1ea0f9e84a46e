"""What ranks waited for, on traffic of which that is known."""

import numpy as np
import pytest

from simulator.engine import execute
from simulator.pricing import FREE, Pricing
from simulator.transfer_times import TransferTimes
from simulator.waits import NOTHING, explain
from support.clusters import network
from workloads.tasks import (
    Collective,
    CommunicationKernel,
    Stream,
    Task,
    TaskGraph,
    TaskTimes,
    Transfer,
    Transfers,
    run_in_turn,
)

KERNEL = CommunicationKernel("some", message_bytes=1000)


def waits_of(compiled, layout, *collectives, price=lambda _: FREE, routes_known=True):
    graph = run_in_turn(collectives, range(layout.num_ranks), layout.num_ranks)
    recording = execute(graph, compiled, layout.endpoint_of_rank, price=price)
    found = explain(
        graph,
        recording.times,
        recording.transfers,
        compiled,
        layout.endpoint_of_rank,
        price,
        routes_known=routes_known,
    )
    of_rank = {
        (task.collective, task.rank): (int(found.transfer[index]), int(found.cable[index]))
        for index, task in enumerate(graph.tasks)
        if task.collective is not None
    }
    return found, of_rank


def incast():
    """Ranks 0 and 1 send 1 and 3 MB to rank 2, which is on another node, in two planes; rank 3 has nothing to do."""
    compiled, layout = network(2, gpus=2, planes=2, rates={"nic": "10 GB/s"})
    rows = [Transfer(0, (), ((2, 1.0),), 1e6), Transfer(1, (), ((2, 1.0),), 3e6)]
    return compiled, layout, Collective("c", Transfers.from_rows(rows))


def test_each_rank_names_the_last_of_its_own_transfers():
    compiled, layout, collective = incast()
    found, of_rank = waits_of(compiled, layout, collective)
    # Both go through the NIC of rank 2's plane: rank 1's first to rank 0 over NVLink; there the two share the NIC.
    assert [of_rank[0, rank][0] for rank in range(4)] == [0, 1, 1, NOTHING]
    cable = of_rank[0, 2][1]
    assert compiled.cables.kind[cable] == "nic"
    assert of_rank[0, 3] == (NOTHING, NOTHING)
    (last,) = found.of_collective
    assert (last["slowest_sender"], last["slowest_receiver"]) == ("node0/gpu1", "node1/gpu0")
    assert last["slowest_link_kind"] == "nic"
    assert last["slowest_link"] == f"{compiled.cables.source[cable]} -> {compiled.cables.target[cable]}"
    # 4 MB at 10 GB/s, and nothing else: the link is busy throughout
    assert last["seconds"] == pytest.approx(4e-4)
    assert last["slowest_link_busy_fraction"] == pytest.approx(1.0)
    # rank 0 ends at 2e-4 (two equal shares), ranks 1 and 2 at 4e-4, rank 3 at once
    assert last["mean_wait_s"] == pytest.approx((2e-4 + 0 + 0 + 4e-4) / 4)


def test_a_start_up_is_no_link_s_doing():
    compiled, layout, collective = incast()
    priced = Collective("c", collective.transfers, KERNEL)
    found, _ = waits_of(compiled, layout, priced, price=lambda _: Pricing(start_up_s=4e-4))
    assert found.of_collective[0]["slowest_link_busy_fraction"] == pytest.approx(0.5)


def test_charges_count_as_busy():
    compiled, layout, collective = incast()
    priced = Collective("c", collective.transfers, KERNEL)
    found, _ = waits_of(compiled, layout, priced, price=lambda _: Pricing(slowdown=2.0))
    assert found.of_collective[0]["seconds"] == pytest.approx(8e-4)
    assert found.of_collective[0]["slowest_link_busy_fraction"] == pytest.approx(1.0)


def test_of_a_reduction_the_sender_is_at_the_far_end():
    compiled, layout = network(2, gpus=2, planes=2, rates={"nic": "10 GB/s"})
    tree = Transfers.from_rows([Transfer(0, (2,), ((2, 1.0), (3, 1.0)), 1e6, reduce=True)])
    found, of_rank = waits_of(compiled, layout, Collective("combine", tree))
    assert found.of_collective[0]["slowest_sender"] == "2 GPUs of node1"
    assert found.of_collective[0]["slowest_receiver"] == "node0/gpu0"
    assert [of_rank[0, rank][0] for rank in range(4)] == [0, NOTHING, 0, 0]


def test_of_equal_names_the_longest_is_told():
    compiled, layout, collective = incast()
    short = Collective("c", Transfers.from_rows([Transfer(3, (), ((0, 1.0),), 1e6)]))
    other = Collective("d", Transfers.from_rows([Transfer(3, (), ((2, 1.0),), 1e6)]))
    found, _ = waits_of(compiled, layout, short, collective, other)
    assert [row["collective"] for row in found.of_collective] == ["c", "d"]
    assert found.of_collective[0]["slowest_sender"] == "node0/gpu1"
    assert found.of_collective[1]["slowest_link_kind"] == "nvlink"


def test_nothing_is_said_of_links_where_routes_are_not_known():
    compiled, layout, collective = incast()
    found, of_rank = waits_of(compiled, layout, collective, routes_known=False)
    assert found.of_collective[0]["slowest_link"] is None
    assert of_rank[0, 2] == (1, NOTHING)


def test_transfers_that_cross_nothing_and_empty_collectives_are_no_trouble():
    compiled, layout = network(1, kind="none", gpus=2)
    own = Collective("own", Transfers.from_rows([Transfer(0, (), ((0, 1.0),), 1e6)]))
    none = Collective("none", Transfers.from_rows([]))
    found, of_rank = waits_of(compiled, layout, own, none)
    assert [row["collective"] for row in found.of_collective] == ["own"]
    assert found.of_collective[0]["slowest_link"] is None
    assert np.all(found.cable == NOTHING)
    assert of_rank[0, 0] == (0, NOTHING)


def test_the_same_transfers_by_another_kernel_keep_links_busy_for_as_long_as_that_takes():
    compiled, layout, collective = incast()
    quick, slow = (CommunicationKernel(name, message_bytes=1000) for name in ("quick", "slow"))
    pricing = {"quick": Pricing(), "slow": Pricing(slowdown=4.0)}
    collectives = [Collective(kernel.name, collective.transfers, kernel) for kernel in (quick, slow)]
    found, _ = waits_of(compiled, layout, *collectives, price=lambda kernel: pricing[kernel.name])
    assert [row["slowest_link_busy_fraction"] for row in found.of_collective] == pytest.approx([1.0, 1.0])


def test_what_collectives_share_is_told_of_each_as_if_they_shared_nothing():
    """Each task's last transfer by looking at all of them, where transfers and times are shared in part."""
    rng = np.random.default_rng(3)
    compiled, layout = network(2, gpus=4, planes=2)
    shared = [
        Transfers.point_to_point(*(rng.integers(0, 8, 6) for _ in range(2)), rng.random(6)) for _ in range(2)
    ]
    ends_after = [rng.integers(1, 4, 6) / 4 for _ in range(3)]  # some end together
    which = [(0, 0), (1, 1), (0, 2), (0, 0), (1, 0), (1, 1), (0, 2)]
    collectives = tuple(Collective(f"name {used}", shared[used]) for used, _ in which)
    transfers = [
        TransferTimes(np.zeros(6), ends_after[times], float(begin_s))
        for begin_s, (_, times) in enumerate(which)
    ]
    graph = run_in_turn(collectives, range(8), 8)
    start_s = np.array([float(task.collective or 0) for task in graph.tasks])
    end_s = start_s + rng.random(len(start_s))
    found = explain(
        graph, TaskTimes(start_s, end_s), transfers, compiled, layout.endpoint_of_rank, lambda _: FREE,
        routes_known=False,
    )  # fmt: skip
    for index, task in enumerate(graph.tasks):
        if task.collective is None:
            assert found.transfer[index] == NOTHING
            continue
        own, ends = shared[which[task.collective][0]], ends_after[which[task.collective][1]]
        mine = np.flatnonzero((own.source_rank == task.rank) | (own.destination_ranks == task.rank))
        assert found.transfer[index] == (mine[np.argmax(ends[mine])] if len(mine) else NOTHING)
    took_s = {
        name: max(
            end_s[[task.collective == number for task in graph.tasks]].max() - number
            for number, collective in enumerate(collectives)
            if collective.name == name
        )
        for name in ("name 0", "name 1")
    }
    assert {row["collective"]: row["seconds"] for row in found.of_collective} == pytest.approx(took_s)


def test_a_fold_waits_for_the_last_transfer_of_any_of_its_ranks():
    # Ranks 0, 1 and 2 run in lockstep: rank 0's own transfer ends at 1 s, but rank 2's at 3 s. Rank 3 is
    # alone, and has another that ends at 4 s.
    compiled, layout = network(2, gpus=2, planes=2)
    rows = [
        Transfer(0, (), ((1, 1.0),), 1.0),
        Transfer(2, (), ((3, 1.0),), 1.0),
        Transfer(3, (), ((3, 1.0),), 1.0),
    ]
    tasks = (
        Task("c", 0, Stream.COMMUNICATION, collective=0),
        Task("c", 3, Stream.COMMUNICATION, collective=0),
    )
    graph = TaskGraph(
        4, tasks, (Collective("c", Transfers.from_rows(rows)),), leader_of_rank=np.array([0, 0, 0, 3])
    )
    found = explain(
        graph,
        TaskTimes(np.zeros(2), np.array([3.0, 4.0])),
        [TransferTimes(np.zeros(3), np.array([1.0, 3.0, 4.0]))],
        compiled,
        layout.endpoint_of_rank,
        lambda _: FREE,
        routes_known=True,
    )
    assert found.transfer.tolist() == [1, 2]
    # Three ranks end a second before the fourth.
    assert found.of_collective[0]["mean_wait_s"] == pytest.approx((3 * 1.0 + 0.0) / 4)
