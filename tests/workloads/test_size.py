"""What specs say of their steps' sizes, over ranges of sizes; every kind's cases are in the contract test."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from simulator import load_scenario
from support.sizes import built, check_work_size
from support.tiny_scenarios import CASES, tiny_scenario
from support.training_steps import H800
from support.training_steps import model as small_model
from workloads import WorkloadSpec
from workloads.schedules import SCHEDULES, make_schedule, stages_per_rank
from workloads.size import TransferCount, counted_numbers, exchange_count
from workloads.tasks import Setting

ADAPTER = TypeAdapter(WorkloadSpec)
SCENARIOS = Path(__file__).parent.parent.parent / "scenarios"
# those that take more than some seconds to build
LARGE = {"decode_ep128", "decode_ep320", "training_2048_multi_plane", "training_2048_multi_rail"}
SMALL = small_model(num_layers=8)


def check(fields, num_nodes, gpus_per_node, model=SMALL):
    spec = ADAPTER.validate_python(fields)
    setting = Setting(model, num_nodes * gpus_per_node, gpus_per_node, Path(), gpu=H800)
    check_work_size(spec.work_size(setting), built(spec, setting))


@pytest.mark.parametrize("kind", CASES)
def test_tiny_runs(kind, tmp_path):
    check_loaded(tiny_scenario(kind, tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=pytest.mark.slow if path.stem in LARGE else ())
        for path in sorted(SCENARIOS.glob("*.yaml"))
    ],
)
def test_shipped_scenarios(name):
    check_loaded(load_scenario(SCENARIOS / f"{name}.yaml", any_size=True))


def check_loaded(loaded):
    spec, setting = loaded.scenario.workload, loaded.setting
    check_work_size(spec.work_size(setting), built(spec, setting, loaded.scenario.seed))


@given(
    operation=st.sampled_from(["all-to-all", "all-gather", "reduce-scatter", "all-reduce"]),
    gpus_per_node=st.sampled_from([2, 4, 8]),
    num_nodes=st.integers(1, 12),
    stride=st.sampled_from([1, 2, 4, 8]),
    groups=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=40, deadline=None)
def test_collectives(operation, gpus_per_node, num_nodes, stride, groups):
    # strides and groups that leave each group equally many ranks on each of its nodes
    num_ranks = num_nodes * gpus_per_node
    stride = min(stride, gpus_per_node)
    rows = num_ranks // stride
    group_size = rows if groups > 1 and rows > 1 else num_ranks
    check(
        {
            "kind": "collective",
            "operation": operation,
            "size": "1 MB",
            "stride": stride,
            "group_size": group_size,
        },
        num_nodes,
        gpus_per_node,
    )


@given(
    kernel=st.sampled_from(["normal", "low-latency"]),
    degree=st.sampled_from([2, 4, 8, 16, 24]),
    groups=st.integers(1, 3),
    layers=st.integers(1, 4),
    changes=st.sampled_from(["never", "per-layer"]),
    balance=st.sampled_from(["none", "eplb"]),
)
@settings(max_examples=10, deadline=None)
def test_exchanges(kernel, degree, groups, layers, changes, balance):
    nodes = max(1, degree // 4)
    check(
        {
            "kind": "expert-parallel",
            "kernel": kernel,
            "expert_parallel": degree,
            "tokens_per_rank": 256,
            "layers": layers,
            "load_changes": changes,
            "balance": balance,
        },
        nodes * groups,
        4,
    )


@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    pipeline=st.sampled_from([2, 4]),
    degree=st.sampled_from([1, 2, 4]),
    tensor=st.sampled_from([1, 2]),
    rounds=st.integers(2, 4),
    changes=st.sampled_from(["never", "per-layer", "per-micro-batch"]),
    shard=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_training_steps(schedule, pipeline, degree, tensor, rounds, changes, shard):
    members = 4
    check(
        {
            "kind": "training-step",
            "schedule": schedule,
            "chunks": 2 if SCHEDULES[schedule].takes_chunks else 1,
            "pipeline_parallel": pipeline,
            "expert_parallel": degree,
            "tensor_parallel": tensor,
            # as many micro-batches as two directions of a pipeline need
            "sequences_per_step": rounds * pipeline * members // tensor,
            "sequence_length": 64,
            "load_changes": changes,
            "ignore_memory": True,
            "memory": {"shard_optimizer": shard},
        },
        pipeline * members // 2,
        2,
    )


@given(
    kind=st.sampled_from(["decode-step", "prefill-step"]),
    degree=st.sampled_from([2, 4, 8]),
    tensor=st.sampled_from([1, 2]),
    groups=st.integers(1, 3),
    micro_batches=st.sampled_from([1, 2]),
    changes=st.sampled_from(["never", "per-layer", "per-micro-batch"]),
    pace=st.sampled_from(["lockstep", "own"]),
)
@settings(max_examples=15, deadline=None)
def test_passes(kind, degree, tensor, groups, micro_batches, changes, pace):
    batch = (
        {"batch_per_gpu": 64, "cached_tokens": 16}
        if kind == "decode-step"
        else {"prompt_tokens": 16, "tokens_per_gpu": 128}
    )
    check(
        {
            "kind": kind,
            "expert_parallel": degree,
            "tensor_parallel": tensor,
            "micro_batches": micro_batches,
            "load_changes": changes,
            "pace": pace,
            "ignore_memory": True,
            **batch,
        },
        max(1, degree // 2) * groups,
        2,
    )


def test_what_an_exchange_has_at_most():
    # 16 ranks on 2 nodes: 15 others each; on nodes, the own and one more, to which a relay leads
    assert exchange_count(16, 2, 10_000, relayed=False) == TransferCount(16 * 15, 16 * 15)
    assert exchange_count(16, 2, 10_000, relayed=True) == TransferCount(16 * 2, 16 * (15 + 1))
    # one expert a rank leads to one rank at most
    assert exchange_count(16, 2, 1, relayed=False) == TransferCount(16, 16)
    assert exchange_count(16, 2, 1, relayed=True) == TransferCount(16, 16 * 2)
    # with one rank a node there is nobody to send to on one's own
    assert exchange_count(4, 4, 10_000, relayed=True) == TransferCount(4 * 3, 4 * (3 + 3))
    assert exchange_count(1, 1, 10_000, relayed=True) == TransferCount(0, 0)
    assert counted_numbers(16, 2) == 16 + 16 + 2


@pytest.mark.parametrize("name", SCHEDULES)
def test_stages_and_pipelines_of_a_schedule_are_known_before_it_is_made(name):
    recipe = SCHEDULES[name]
    chunks = 3 if recipe.takes_chunks else 1
    schedule = make_schedule(name, 4, 16, chunks)
    assert schedule.num_stages == 4 * stages_per_rank(name, chunks)
    assert schedule.num_pipelines == recipe.pipelines
