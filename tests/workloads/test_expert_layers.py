"""The workload `expert-parallel` of several layers, and what balancing does to its loads and its traffic."""

from dataclasses import fields

import numpy as np
import pytest

from simulator.engine import execute
from support.clusters import network
from support.expert_exchanges import build, summarise
from workloads.gate import sample_experts

SKEWED = {"kind": "lognormal", "sigma": 1.0}


def same_transfers(one, other):
    """Whether two collectives have the same name and kernel, and the same transfers to the last bit."""
    columns = [field.name for field in fields(one.transfers)]
    return (one.name, one.kernel) == (other.name, other.kernel) and all(
        np.array_equal(getattr(one.transfers, name), getattr(other.transfers, name)) for name in columns
    )


def test_layers_that_never_change_repeat_the_same_transfers():
    workload = build(2, layers=3)
    collectives = workload.graph.collectives
    assert [collective.name for collective in collectives] == ["dispatch", "combine"] * 3
    # The very same objects, by which the engine knows that it has solved them.
    for layer in (1, 2):
        assert collectives[2 * layer] is collectives[0]
        assert collectives[2 * layer + 1] is collectives[1]
        assert workload.exchanges[layer] is workload.exchanges[0]
    # And those of a single layer: what is repeated draws nothing.
    assert all(map(same_transfers, collectives, build(2).graph.collectives))


@pytest.mark.parametrize("kernel", ["normal", "low-latency"])
def test_the_engine_solves_what_repeats_once(kernel):
    # Of five layers the first dispatch and combine are solved; those that are drawn anew all are.
    for load_changes, solved in (("never", 2), ("per-layer", 10)):
        workload = build(2, layers=5, load_changes=load_changes, kernel=kernel)
        compiled, layout = network(2, planes=8)
        recording = execute(workload.graph, compiled, layout.endpoint_of_rank)
        assert (recording.collectives_solved, recording.collectives_reused) == (solved, 10 - solved)
        summary = workload.summarise(recording.times)
        assert sum(summary.breakdown_s.values()) == pytest.approx(recording.times.step_time_s, abs=1e-9)
        assert summary.metrics["dispatch_s"] == pytest.approx(summary.breakdown_s["dispatch"] / 5)


def test_layers_run_one_after_the_other():
    # Each collective's tasks, one a rank, wait for a barrier that waits for all of the collective before.
    tasks = build(2, layers=2).graph.tasks
    assert len(tasks) == 4 * 16 + 3
    for index in (1, 2, 3):
        (barrier,) = {task.after for task in tasks if task.collective == index}
        before = [tasks[number] for number in tasks[barrier[0]].after]
        assert {task.collective for task in before} == {index - 1}
        assert {task.rank for task in before} == set(range(16))


@pytest.mark.parametrize("kernel", ["normal", "low-latency"])
def test_layers_that_change_draw_anew_from_the_same_generator(kernel):
    workload = build(2, layers=3, load_changes="per-layer", kernel=kernel)
    rng = np.random.default_rng(1)
    for exchange in workload.exchanges:
        experts = np.array([sample_experts(rng, 32, 256, 8, 8, 4) for _ in range(16)])
        assert (
            exchange.traffic.expert_load[0].tolist() == np.bincount(experts.ravel(), minlength=256).tolist()
        )
    assert len({id(collective.transfers) for collective in workload.graph.collectives}) == 6


def test_popularities_are_drawn_anew_with_a_layer():
    # Layers that shared popularities of sigma 1 would have loads that are correlated; independent ones, of 256
    # experts, have a correlation of 0 give or take 1/16.
    first, second = (
        exchange.traffic.expert_load[0]
        for exchange in build(2, layers=2, load_changes="per-layer", gate=SKEWED, groups=1).exchanges
    )
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / 16
    halves = build(4, gate=SKEWED, groups=1).exchanges[0].traffic.expert_load
    assert np.corrcoef(halves)[0, 1] > 0.9


def test_metrics_are_means_over_layers_and_the_breakdown_is_the_sum():
    workload = build(4, seed=2, layers=3, load_changes="per-layer")
    summary = summarise(workload, 1e-3, 10e-3, 2e-3, 20e-3, 6e-3, 30e-3)
    assert summary.breakdown_s == {"dispatch": pytest.approx(9e-3), "combine": pytest.approx(60e-3)}
    found = summary.metrics
    assert found["dispatch_s"] == pytest.approx(3e-3)
    assert found["combine_s"] == pytest.approx(20e-3)
    # Two groups of 16 of the 32 ranks, 32 tokens each: copies on distinct nodes, in all three layers.
    traffic = [exchange.traffic for exchange in workload.exchanges]
    copies = sum(int(each.tokens_to_node.sum()) for each in traffic)
    assert found["dispatch_logical_bytes"] == pytest.approx(copies * 7392 / 32 / 3)
    assert found["dispatch_logical_bytes_per_s"] == pytest.approx(copies * 7392 / 32 / 9e-3)
    assert found["combine_logical_bytes_per_s"] == pytest.approx(copies * 14336 / 32 / 60e-3)
    leaving = sum(each.to_other_nodes() for each in traffic)
    assert found["combine_wire_bytes_per_s"] == pytest.approx(leaving * 14384 / 32 / 60e-3)
    assert found["nodes_per_token"] == pytest.approx(copies / (3 * 32 * 32))
    # Loads are those of the worst layer and group, not the first one here. Of a group's 512 x 8 pairs an expert gets
    # 16 on average, a GPU 256, a node 2,048.
    for what, mean, loads in (
        ("expert", 16, [int(each.expert_load.max()) for each in traffic]),
        ("gpu", 256, [int(each.place_load().max()) for each in traffic]),
        ("node", 2048, [int(each.node_load().max()) for each in traffic]),
    ):
        assert loads[0] < max(loads)
        assert found[f"{what}_load_max_over_mean"] == max(loads) / mean


def test_layers_that_repeat_change_no_metric():
    one = summarise(build(2), 1e-3, 2e-3).metrics
    four = summarise(build(2, layers=4), *[1e-3, 2e-3] * 4).metrics
    assert four == {name: pytest.approx(value, rel=1e-12) for name, value in one.items()}


@pytest.mark.parametrize(
    ("balance", "more"),
    [
        ("eplb", {"layers": 2, "load_changes": "per-layer", "kernel": "low-latency"}),
        ("eplb-global", {"shared_experts": "dispatched", "redundant_experts": 31}),
    ],
)
def test_balancing_evens_out_loads_and_says_what_they_were(balance, more):
    # One group of 32 ranks on 4 nodes, 288 slots, 2,048 tokens: the same for both, whatever the placement.
    case = {"expert_parallel": 32, "redundant_experts": 32, "tokens_per_rank": 64, "gate": SKEWED} | more
    balanced, plain = build(4, balance=balance, **case), build(4, **case)
    after, before = summarise(balanced).metrics, summarise(plain).metrics
    for name in ("gpu_load_max_over_mean", "node_load_max_over_mean"):
        assert after[f"{name}_before_balancing"] == before[name]
        assert f"{name}_before_balancing" not in before
    assert after["expert_load_max_over_mean"] == before["expert_load_max_over_mean"]
    # The fullest GPU had nearly twice its share or more: a popular expert's load is the GPU's. With copies of it, put
    # beside unpopular ones, what is left is chance, and with `eplb` that of nodes, on which groups stay whole.
    assert before["gpu_load_max_over_mean"] > 1.8
    assert 1 <= after["gpu_load_max_over_mean"] < 1.25
    # What would be on the links is what is on them without balancing, and something else than what is.
    assert len(balanced.before_balancing) == len(plain.graph.collectives)
    assert all(map(same_transfers, balanced.before_balancing, plain.graph.collectives))
    assert not any(map(same_transfers, balanced.graph.collectives, plain.graph.collectives))
    assert plain.before_balancing == ()


def test_a_file_s_decisions_go_on_from_layer_to_layer(tmp_path):
    # 32 tokens a rank on 16 ranks: 512 rows a layer, of which the first say experts 0 to 7, the second 8 to 15.
    rows = [",".join(f"expert_{choice}" for choice in range(8))]
    rows += [",".join(map(str, range(8)))] * 512 + [",".join(map(str, range(8, 16)))] * 512
    (tmp_path / "gate.csv").write_text("\n".join(rows))
    gate = {"kind": "file", "path": str(tmp_path / "gate.csv")}
    workload = build(2, gate=gate, layers=2, load_changes="per-layer")
    loads = [np.flatnonzero(exchange.traffic.expert_load[0]).tolist() for exchange in workload.exchanges]
    assert loads == [list(range(8)), list(range(8, 16))]
