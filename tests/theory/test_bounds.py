"""Cases whose answer is arithmetic: the engine, the network and the fluid model together must give it."""

import numpy as np
import pytest

from support.clusters import all_pairs, network, run
from workloads.tasks import Transfers

NIC = 50e9  # 400 Gbit/s in bytes/s, the slowest link on the way between nodes of one GPU
NVLINK = 200e9
MESSAGE = 1e6


def uniform(num_ranks: int, **fields) -> Transfers:
    source, destination = all_pairs(num_ranks)
    return Transfers.point_to_point(source, destination, np.full(len(source), MESSAGE), **fields)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("multi-plane-fat-tree", {"planes": 1}),
        ("multi-rail-fat-tree", {}),
        ("multi-plane-fat-tree", {"planes": 1, "switch_ports": 8}),  # 3 leaves and spines between them
        ("multi-rail-fat-tree", {"switch_ports": 8}),
    ],
)
def test_a_uniform_all_to_all_runs_at_line_rate(kind, fields):
    # n = 9 ranks, each with one NIC: n - 1 messages leave each, all ports are full all the time: (n - 1) m / B.
    compiled, layout = network(9, gpus=1, kind=kind, **fields)
    recording = run(compiled, layout, uniform(9))
    assert recording.times.step_time_s == pytest.approx(8 * MESSAGE / NIC, rel=1e-9)
    saturated = recording.meter.saturated_s[compiled.link_of_cable[compiled.cables.kind == "nic"]]
    assert saturated == pytest.approx(8 * MESSAGE / NIC, rel=1e-9)


def test_a_uniform_all_to_all_on_nvlink():
    compiled, layout = network(1, kind="none", gpus=8)
    assert run(compiled, layout, uniform(8)).times.step_time_s == pytest.approx(
        7 * MESSAGE / NVLINK, rel=1e-9
    )


def test_a_uniform_all_to_all_with_relays_is_bound_by_the_nics():
    # 4 nodes of 8, NCCL's way: 8 GPUs of a node send 3 x 8 messages to each rail's NIC, so that each NIC carries
    # 8 x 3 messages out; NVLink carries 7 x 3 relayed and 7 local messages out of each GPU, at four times the rate.
    compiled, layout = network(4)
    source, destination = all_pairs(32)
    relay = layout.rank_at[layout.node_of_rank[source], layout.gpu_of_rank[destination]]
    recording = run(compiled, layout, uniform(32, relay_rank=relay))
    assert recording.times.step_time_s == pytest.approx(24 * MESSAGE / NIC, rel=1e-9)
    carried = compiled.per_cable(recording.meter.bytes)
    assert carried[compiled.cables.kind == "nvlink"] == pytest.approx(28 * MESSAGE, rel=1e-9)


def test_incast():
    # 7 senders, one receiver, unequal sizes 1 .. 7 m: the receiver's NIC is full until the last byte: 28 m / B.
    # The smallest ends when all seven have had m each: 7 m / B; the next has m more at B/6: 7 m / B + 6 m / B.
    compiled, layout = network(8, gpus=1, planes=1)
    size = MESSAGE * np.arange(1, 8)
    recording = run(compiled, layout, Transfers.point_to_point(np.arange(1, 8), np.zeros(7, int), size))
    ends = recording.transfers[0].end_s * NIC / MESSAGE
    assert ends == pytest.approx(np.cumsum([7, 6, 5, 4, 3, 2, 1]), rel=1e-9)


def test_parking_lot():
    # a: 0 -> 2 (1 m), b: 0 -> 1 (3 m), c: 1 -> 2 (3 m). Out of 0: a + b <= B; into 2: a + c <= B; so B/2 each.
    # When a has ended at 2 m/B, b and c have 2 m left and get B each: they end at 4 m/B.
    compiled, layout = network(3, gpus=1, planes=1)
    transfers = Transfers.point_to_point(
        np.array([0, 0, 1]), np.array([2, 1, 2]), MESSAGE * np.array([1.0, 3, 3])
    )
    ends = run(compiled, layout, transfers).transfers[0].end_s * NIC / MESSAGE
    assert ends == pytest.approx([2, 4, 4], rel=1e-9)


def test_ecmp_collisions_cost_what_the_busiest_cable_says():
    # 4 flows between two leaves of 4 endpoints over 4 uplinks. Each flow's NICs are its own, so that only flows
    # that the hash sends over one cable share: all of a cable's k flows run at B/k, whatever k the seed gives.
    source, target = np.arange(4), np.arange(4, 8)
    for seed in range(5):
        compiled, layout = network(8, gpus=1, planes=1, switch_ports=8, policy="ecmp", seed=seed)
        transfers = Transfers.point_to_point(source, target, np.full(4, MESSAGE))
        numbers = np.arange(4)
        bills, _ = compiled.bills(transfers, layout.endpoint_of_rank, numbers, lambda: np.zeros(0))
        shared = np.bincount(bills.links, minlength=compiled.num_links)
        worst = [shared[bills.links[bills.offsets[f] : bills.offsets[f + 1]]].max() for f in numbers]
        ends = run(compiled, layout, transfers).transfers[0].end_s * NIC / MESSAGE
        assert ends.max() == pytest.approx(max(worst), rel=1e-9)
    compiled, layout = network(8, gpus=1, planes=1, switch_ports=8)
    adaptive = run(compiled, layout, Transfers.point_to_point(source, target, np.full(4, MESSAGE)))
    assert adaptive.transfers[0].end_s * NIC / MESSAGE == pytest.approx(1, rel=1e-9)
