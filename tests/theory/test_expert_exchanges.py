"""Dispatch and combine of the shipped scenarios against arithmetic: what rules small batches, and what large ones."""

from pathlib import Path

import numpy as np
import pytest

from simulator import load_scenario, simulate
from simulator.costs import load_cost_table

SCENARIOS = Path(__file__).parents[2] / "scenarios"
TABLE = load_cost_table("h800-published", SCENARIOS)


def summary(kernel, *overrides):
    return simulate(load_scenario(SCENARIOS / f"expert_parallel_{kernel}.yaml", overrides)).summary


@pytest.mark.parametrize("kernel", ["normal", "low_latency"])
def test_small_batches_wait_for_the_start_up_and_large_ones_for_a_link(kernel):
    start_up_s = TABLE.communication[kernel.replace("_", "-")].start_up.value
    rates, last = [], {}
    for tokens in (1, 16, 256, 4096):
        found = summary(kernel, "workload.expert_parallel=16", f"workload.tokens_per_rank={tokens}")
        rates.append(found["metrics"]["dispatch_logical_bytes_per_s"])
        last[tokens] = next(row for row in found["waits"] if row["collective"] == "dispatch")
    assert np.all(np.diff(rates) > 0)
    assert start_up_s / last[1]["seconds"] > 0.7
    assert last[1]["slowest_link_busy_fraction"] < 0.15
    assert start_up_s / last[4096]["seconds"] < 0.05
    assert last[4096]["slowest_link_busy_fraction"] > 0.95


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("workload.dispatch_format=bf16",),
        ("workload.dispatch_format=logfmt8",),
        ("workload.beside_compute=true",),
    ],
)
def test_a_balanced_low_latency_dispatch_within_a_node_is_arithmetic(overrides):
    # Balanced loads, all 256 experts the same count: 128 tokens x 8 experts x 8 ranks / 256 = 32 messages for each
    # expert, 1,024 for each rank, of which those of its own tokens stay. Where the fullest port has n messages of s
    # bytes, the time is start-up + latency + n x slowdown x (s / 160 GB/s + gap).
    found = summary("low_latency", "workload.expert_parallel=8", "workload.gate={kind: balanced}", *overrides)
    metrics = found["metrics"]
    assert metrics["gpu_load_max_over_mean"] == 1.0
    message = {"bf16": 14336 + 16, "logfmt8": 7168 + 56 * 8 + 16}.get(
        overrides[0].partition("format=")[2] if overrides else "", 7408
    )
    assert metrics["dispatch_logical_bytes"] == 1024 * message
    costs = TABLE.communication["low-latency"]
    slowdown = TABLE.codec["logfmt"].value if "logfmt" in str(overrides) else 1.0
    slowdown *= TABLE.beside_compute.dispatch.value if "beside_compute" in str(overrides) else 1.0
    each_s = slowdown * (message / 160e9 + costs.per_message["nvlink"].value)
    fixed_s = costs.start_up.value + TABLE.link_latency["nvlink"].same_leaf
    count = (metrics["dispatch_s"] - fixed_s) / each_s
    # a whole number of messages, at most all of a rank's and at least the mean of those that leave
    assert count == pytest.approx(round(count), abs=1e-6)
    mean = metrics["dispatch_wire_bytes_per_s"] * metrics["dispatch_s"] / message
    assert mean <= round(count) <= 1024


def test_planes_hand_low_latency_messages_over_nvlink_and_rails_do_not():
    rails = summary("low_latency", "workload.expert_parallel=16")["links"]
    planes = summary(
        "low_latency",
        "workload.expert_parallel=16",
        "cluster.topology={kind: multi-plane-fat-tree, planes: 8}",
    )["links"]
    # What leaves a node crosses two NICs on both; on planes all but the eighth that keeps its index crosses NVLink
    # first, out of one GPU and into another; spines are for rails alone.
    assert rails["nic"]["bytes"] == pytest.approx(planes["nic"]["bytes"], rel=1e-9)
    handed = (planes["nvlink"]["bytes"] - rails["nvlink"]["bytes"]) / rails["nic"]["bytes"]
    assert handed == pytest.approx(7 / 8, rel=0.02)
    assert planes["leaf_spine"]["bytes"] == 0.0
    assert rails["leaf_spine"]["bytes"] > 0.0


def test_normal_kernels_cost_the_same_on_planes_and_rails():
    # They cross between equal indices alone, which are in one plane, and on one rail.
    planes = summary("normal", "workload.expert_parallel=32")["metrics"]
    rails = summary("normal", "workload.expert_parallel=32", "cluster.topology={kind: multi-rail-fat-tree}")[
        "metrics"
    ]
    assert planes == pytest.approx(rails, rel=1e-9)


def test_balancing_pays_in_seconds():
    plain, balanced = (
        summary("skewed", f"workload.balance={balance}", "workload.gate.sigma=1")
        for balance in ("none", "eplb")
    )
    assert balanced["step_time_s"] < 0.9 * plain["step_time_s"]
    # What the links would have carried without is what they carry without.
    for kind, loads in balanced["balance"].items():
        assert loads["mean_bytes_before"] * plain["links"][kind]["count"] == pytest.approx(
            plain["links"][kind]["bytes"], rel=1e-9
        )
        assert loads["mean_bytes_after"] * balanced["links"][kind]["count"] == pytest.approx(
            balanced["links"][kind]["bytes"], rel=1e-9
        )
