"""What ranks waited for, on traffic of which that is known."""

import numpy as np
import pytest

from simulator.engine import execute
from simulator.pricing import FREE, Pricing
from simulator.waits import NOTHING, explain
from support.clusters import network
from workloads.tasks import Collective, CommunicationKernel, Transfer, Transfers, run_in_turn

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
