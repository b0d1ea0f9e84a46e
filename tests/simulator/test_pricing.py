"""What communication kernels cost beside their bytes: charges of ports, start-ups, and ways around NVLink."""

import numpy as np
import pytest

from simulator.engine import execute
from simulator.network import LinkCosts
from simulator.pricing import FREE, Pricing
from simulator.routing import NoPathError
from support.clusters import network
from workloads.tasks import Collective, CommunicationKernel, Transfer, Transfers, run_in_turn

KERNEL = CommunicationKernel("some", message_bytes=1000)
COSTS = {
    "nvlink": LinkCosts(0.8, 2e-6, 0.0),
    "pcie": LinkCosts(1.0, 0.0, 0.0),
    "infiniband": LinkCosts(0.9, 3e-6, 1e-6),
}


def run_priced(compiled, layout, pricing, *rows):
    graph = run_in_turn(
        (Collective("c", Transfers.from_rows(rows), KERNEL),), range(layout.num_ranks), layout.num_ranks
    )
    return execute(graph, compiled, layout.endpoint_of_rank, price=lambda _: pricing)


def passed_by_kind(compiled, recording):
    passed = compiled.per_cable(recording.meter.bytes)
    return {kind: float(passed[compiled.cables.kind == kind].sum()) for kind in set(compiled.cables.kind)}


def test_half_of_the_bandwidth_is_reached_where_the_gap_is_as_long_as_the_bytes_take():
    # gap g, capacity C: s = g C bytes take g, so that the port is busy for 2 g
    pricing = Pricing(per_message_s={"nvlink": 1e-8}, message_bytes=1e-8 * 160e9)
    assert pricing.charge("nvlink", 160e9) == pytest.approx(2.0)
    assert pricing.charge("infiniband", 50e9) == 1.0
    assert Pricing(slowdown=1.5, per_message_s={"nvlink": 1e-8}, message_bytes=1600).charge(
        "nvlink", 160e9
    ) == pytest.approx(3.0)


def test_a_transfer_takes_its_start_up_latency_gaps_and_bytes():
    # 50 messages of 1000 bytes over NVLink at 0.8 x 200 GB/s: 7 us + 2 us + 50 x (10 ns + 6.25 ns)
    compiled, layout = network(1, kind="none", costs=COSTS)
    pricing = Pricing(start_up_s=7e-6, per_message_s={"nvlink": 1e-8}, message_bytes=1000)
    recording = run_priced(compiled, layout, pricing, Transfer(0, (), ((1, 1.0),), 50_000.0))
    assert recording.times.step_time_s == pytest.approx(9e-6 + 50 * (1e-8 + 1000 / 160e9), rel=1e-12)
    # what is told as bytes is what passed: two NVLink ports, 50,000 bytes each
    assert passed_by_kind(compiled, recording)["nvlink"] == pytest.approx(100_000.0, rel=1e-12)


def test_the_gap_counts_on_the_port_that_binds_alone():
    # Over the network: the NIC at 45 GB/s binds, whatever NVLink's gap is; the gap of its own makes it slower.
    compiled, layout = network(2, kind="multi-rail-fat-tree", costs=COSTS)
    row = Transfer(0, (8,), ((9, 1.0),), 1e6)
    free_s = run_priced(compiled, layout, FREE, row).times.step_time_s
    assert free_s == pytest.approx(5e-6 + 1e6 / 45e9, rel=1e-9)
    small = Pricing(per_message_s={"nvlink": 1e-9}, message_bytes=1000)
    assert run_priced(compiled, layout, small, row).times.step_time_s == pytest.approx(free_s, rel=1e-12)
    own = Pricing(per_message_s={"infiniband": 1e-9}, message_bytes=1000)
    assert run_priced(compiled, layout, own, row).times.step_time_s == pytest.approx(free_s + 1000 * 1e-9)


def test_cables_between_switches_and_pcie_are_charged_what_passes():
    compiled, layout = network(
        2, kind="multi-rail-fat-tree", costs=COSTS, switch_ports=4, endpoints_per_leaf=1, gpus=2
    )
    pricing = Pricing(slowdown=2.0)
    transfers = Transfers.from_rows([Transfer(0, (), ((2, 1.0),), 1e6)])
    bills, _ = compiled.bills(
        transfers, layout.endpoint_of_rank, np.zeros(1, np.int64), lambda: np.zeros(0), pricing
    )
    kind = compiled.cables.kind[compiled.first_cable[bills.links]]
    assert bills.passing is not None
    is_port = kind == "nic"
    assert set(kind) == {"nic", "pcie", "pcie_nic", "leaf_spine"}
    assert bills.coefficients[is_port] == pytest.approx(2 * bills.passing[is_port])
    assert np.array_equal(bills.coefficients[~is_port], bills.passing[~is_port])


@pytest.mark.parametrize("policy", ["adaptive", "ecmp", "static", "least-loaded"])
def test_within_a_node_traffic_may_leave_nvlink_unused(policy):
    compiled, layout = network(1, kind="multi-rail-fat-tree", costs=COSTS, policy=policy)
    row = Transfer(0, (), ((5, 1.0),), 1e6)
    recording = run_priced(compiled, layout, Pricing(over_nics=True), row)
    passed = passed_by_kind(compiled, recording)
    assert passed["nvlink"] == 0.0
    assert passed["nic"] == pytest.approx(2e6)
    # the same pair by NVLink afterwards: routes are not mixed up
    assert passed_by_kind(compiled, run_priced(compiled, layout, FREE, row))["nic"] == 0.0


def test_nics_of_different_planes_do_not_reach_each_other_within_a_node():
    compiled, layout = network(1, costs=COSTS)
    with pytest.raises(NoPathError, match="of the same node over the network"):
        run_priced(compiled, layout, Pricing(over_nics=True), Transfer(0, (), ((5, 1.0),), 1e6))


def test_a_priced_collective_that_repeats_is_reused_and_measured_alike():
    # Five times the same: from the third on it is played back; bytes and times are five times one.
    compiled, layout = network(2, kind="multi-rail-fat-tree", costs=COSTS)
    transfers = Transfers.from_rows([Transfer(0, (8,), ((9, 1.0),), 1e6), Transfer(1, (), ((2, 1.0),), 2e6)])
    pricing = Pricing(per_message_s={"infiniband": 1e-9, "nvlink": 2e-9}, message_bytes=1000, slowdown=1.5)

    def run(times):
        graph = run_in_turn((Collective("c", transfers, KERNEL),) * times, range(16), 16)
        return execute(graph, compiled, layout.endpoint_of_rank, price=lambda _: pricing)

    one, five = run(1), run(5)
    assert five.collectives_reused > 0
    assert five.times.step_time_s == pytest.approx(5 * one.times.step_time_s, rel=1e-9)
    assert five.meter.bytes == pytest.approx(5 * one.meter.bytes, rel=1e-9)
    # the NIC is full for all but latency, though bytes alone would fill it for less than half of that
    link = compiled.link_of_cable[np.flatnonzero(compiled.cables.kind == "nic")]
    assert one.meter.saturated_s[link].max() == pytest.approx(1.5 * 1e6 * (1 / 45e9 + 1e-12), rel=1e-6)


def test_equal_charges_take_equally_long_whatever_they_are_for():
    # A slowdown of 2 without a gap charges the same as a gap as long as the bytes. Both pass what they pass.
    compiled, layout = network(1, kind="none", costs=COSTS)
    gap = Pricing(per_message_s={"nvlink": 1000 / 160e9}, message_bytes=1000)
    slow = Pricing(slowdown=2.0)
    row = Transfer(0, (), ((1, 1.0),), 50_000.0)
    one, other = (run_priced(compiled, layout, pricing, row) for pricing in (gap, slow))
    assert one.times.step_time_s == pytest.approx(other.times.step_time_s, rel=1e-12)
    assert one.meter.bytes == pytest.approx(other.meter.bytes, rel=1e-12)
