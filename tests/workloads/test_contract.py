"""What every workload kind promises, whichever it is."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pydantic import TypeAdapter

from simulator.layout import RankLayout
from support.inference_steps import dense_model
from support.sizes import check_work_size
from support.tiny_scenarios import nccl_text
from support.training_steps import H800, play
from support.training_steps import model as small_model
from workloads import WorkloadSpec
from workloads.kernel_call import calls_of
from workloads.models import Model, load_model
from workloads.schedules import SCHEDULES
from workloads.tasks import Setting, TaskTimes

ADAPTER = TypeAdapter(WorkloadSpec)
KINDS = {
    get_args(spec.model_fields["kind"].annotation)[0]: spec for spec in get_args(get_args(WorkloadSpec)[0])
}

DEEPSEEK_V3, SMALL = load_model("deepseek-v3", Path()), small_model()
FLOWS = "source,destination,size_bytes,start_s\n0,3,1e6,0\nnode1/gpu1,2,5e5,1e-3\n3,0,0,0\n"


@dataclass(frozen=True)
class Case:
    num_nodes: int
    gpus_per_node: int
    fields: dict[str, object]  # of the workload section
    model: Model = DEEPSEEK_V3


# 2 pipeline ranks of 2 groups of 2 ranks, on nodes of 2
TRAINING = {
    "kind": "training-step",
    "pipeline_parallel": 2,
    "expert_parallel": 2,
    "sequences_per_step": 16,
    "sequence_length": 4,
    "ignore_memory": True,
}
TRAINED = {
    "gpipe": {"load_changes": "per-layer"},
    "1f1b": {"rank_order": "data-outermost"},
    "interleaved-1f1b": {"chunks": 2},
    "zb1p": {"node_order": [3, 1, 0, 2]},
    "dualpipe": {"load_changes": "per-micro-batch"},
    "dualpipe-v": {"tensor_parallel": 2},
}
UNDIVIDED = {"shard_optimizer": False}
# 2 groups of 4 ranks on 2 nodes each
DECODING = {
    "kind": "decode-step",
    "expert_parallel": 4,
    "batch_per_gpu": 8,
    "cached_tokens": {"kind": "uniform", "least": 0, "most": 50},
}
PREFILLING = {"kind": "prefill-step", "expert_parallel": 4, "prompt_tokens": 4, "tokens_per_gpu": 16}
DRAFTED = {"mtp_acceptance": 0.85, "micro_batches": 1, "framework_overhead": "1 ms"}
ALONE = {"expert_parallel": 1, "tensor_parallel": 2}

CASES = [
    Case(4, 8, {"kind": "expert-parallel", "tokens_per_rank": 16, "expert_parallel": 16}),
    Case(2, 8, {"kind": "expert-parallel", "tokens_per_rank": 16, "expert_parallel": 4, "groups": 1}),
    Case(1, 4, {"kind": "expert-parallel", "tokens_per_rank": 1, "expert_parallel": 1}),
    *(
        Case(3, 2, {"kind": "collective", "operation": operation, "size": "1 MiB"} | more)
        for operation in ("all-to-all", "all-gather", "reduce-scatter", "all-reduce")
        for more in ({}, {"group_size": 2}, {"ranks": [5, 0, 1]})
    ),
    Case(2, 2, {"kind": "flows", "path": "flows.csv"}),
    *(
        Case(2, 2, {"kind": "nccl-tests", "path": f"{program}.txt"})
        for program in ("all_reduce_perf", "sendrecv_perf", "alltoall_perf")
    ),
    Case(1, 2, {"kind": "kernels", "calls": [{"kind": "copy", "size_bytes": 8}] * 2}),
    *(Case(4, 2, TRAINING | {"schedule": name} | more, SMALL) for name, more in TRAINED.items()),
    Case(2, 2, TRAINING | {"schedule": "1f1b", "expert_parallel": 1, "memory": UNDIVIDED}, SMALL),
    Case(4, 2, DECODING, SMALL),
    Case(4, 2, DECODING | DRAFTED, SMALL),
    Case(
        4, 2, DECODING | {"tensor_parallel": 2, "shared_experts": "dispatched", "cache_format": "fp8"}, SMALL
    ),
    Case(4, 2, DECODING | {"load_changes": "per-micro-batch", "number_format": "bf16"}, SMALL),
    Case(4, 2, DECODING | ALONE | {"batch_per_gpu": "largest", "cached_tokens": 163_839}, dense_model()),
    Case(2, 2, DECODING | {"limit": True}, SMALL),
    Case(4, 2, PREFILLING, SMALL),
    Case(4, 2, PREFILLING | {"tensor_parallel": 2, "micro_batches": 1}, SMALL),
    Case(4, 2, PREFILLING | {"expert_parallel": 1, "load_changes": "per-layer"}, SMALL),
    Case(2, 2, PREFILLING | ALONE | {"cache_format": "fp8"}, dense_model()),
]


def case_name(case):
    return " ".join(str(value) for value in case.fields.values())


@pytest.fixture(params=CASES, ids=case_name)
def case(request):
    return request.param


def spec_and_setting(case, folder):
    spec = ADAPTER.validate_python(case.fields)
    model = case.model if spec.needs_model else None
    num_ranks = case.num_nodes * case.gpus_per_node
    return spec, Setting(model, num_ranks, case.gpus_per_node, folder, gpu=H800)


@pytest.fixture
def build(case, tmp_path):
    """Builds the case's workload with a seed, through the checks that a scenario makes."""
    (tmp_path / "flows.csv").write_text(FLOWS)
    for program in ("all_reduce_perf", "sendrecv_perf", "alltoall_perf"):
        (tmp_path / f"{program}.txt").write_text(nccl_text(4, program))

    def built(seed=1):
        spec, setting = spec_and_setting(case, tmp_path)
        spec.check(setting)
        layout = RankLayout.in_order(case.num_nodes, case.gpus_per_node)
        return spec.build(setting, layout, np.random.default_rng(seed))

    return built


def check_offsets(offsets, num_rows, num_entries):
    assert len(offsets) == num_rows + 1
    assert offsets[0] == 0
    assert offsets[-1] == num_entries
    assert (np.diff(offsets) >= 0).all()


def check_transfers(transfers, num_ranks):
    """Columns of equal length and the declared types, ranks in range, and amounts that a network can move."""
    count = len(transfers)
    check_offsets(transfers.relay_offsets, count, len(transfers.relay_ranks))
    check_offsets(transfers.destination_offsets, count, len(transfers.destination_ranks))
    assert (np.diff(transfers.destination_offsets) >= 1).all()
    assert len(transfers.fractions) == len(transfers.destination_ranks)
    for column in ("source_rank", "relay_ranks", "destination_ranks"):
        ranks = getattr(transfers, column)
        assert ((ranks >= 0) & (ranks < num_ranks)).all()
    for column in ("source_rank", "relay_offsets", "relay_ranks", "destination_offsets", "destination_ranks"):
        assert getattr(transfers, column).dtype == np.int64
    for column in ("size_bytes", "weight", "delay_s", "rounds", "reduce"):
        assert len(getattr(transfers, column)) == count
    for column in ("fractions", "size_bytes", "weight", "delay_s"):
        assert getattr(transfers, column).dtype == np.float64
        assert np.isfinite(getattr(transfers, column)).all()
    assert ((transfers.fractions > 0) & (transfers.fractions <= 1)).all()
    assert (transfers.size_bytes >= 0).all()
    assert (transfers.weight > 0).all()
    assert (transfers.delay_s >= 0).all()
    assert (transfers.rounds >= 1).all()
    # Nothing is sent to its own rank, and a relay is not its own source.
    assert (transfers.destination_ranks != spread(transfers.source_rank, transfers.destination_offsets)).all()
    assert (transfers.relay_ranks != spread(transfers.source_rank, transfers.relay_offsets)).all()


def spread(column, offsets):
    """One value per entry of the rows that the offsets bound."""
    return np.repeat(column, np.diff(offsets))


def test_every_kind_has_a_case():
    assert {case.fields["kind"] for case in CASES} == set(KINDS)
    assert set(TRAINED) == set(SCHEDULES)


def test_the_graph_is_well_formed(build):
    graph = build().graph
    assert graph.tasks
    for index, task in enumerate(graph.tasks):
        assert 0 <= task.rank < graph.num_ranks
        assert all(0 <= before < index for before in task.after)
        assert task.duration_s >= 0
        assert task.collective is None or 0 <= task.collective < len(graph.collectives)
    tasks_of = [[] for _ in graph.collectives]
    for task in graph.tasks:
        if task.collective is not None:
            tasks_of[task.collective].append(task)
    for collective, tasks in zip(graph.collectives, tasks_of, strict=True):
        transfers = collective.transfers
        check_transfers(transfers, graph.num_ranks)
        # a task stands for all ranks of its fold
        takes_part = [rank for task in tasks for rank in graph.fold_of(task.rank).tolist()]
        assert len(set(takes_part)) == len(takes_part)
        assert set(transfers.source_rank.tolist()) <= set(takes_part)
        if any(task.stream for task in tasks) or transfers.reduce.any():
            assert set(transfers.destination_ranks.tolist()) <= set(takes_part)
        # otherwise it is a send, for which the receiver waits by its dependencies


def test_how_much_it_holds_is_known_before_it_is_built(case, build, tmp_path):
    workload = build()
    spec, setting = spec_and_setting(case, tmp_path)
    check_work_size(spec.work_size(setting), workload)


def test_folds_are_led_by_the_least_of_their_ranks(build):
    graph = build().graph
    leaders = np.arange(graph.num_ranks) if graph.leader_of_rank is None else graph.leader_of_rank
    assert leaders.shape == (graph.num_ranks,)
    folds = [graph.fold_of(leader).tolist() for leader in sorted(set(leaders.tolist()))]
    assert sorted(rank for fold in folds for rank in fold) == list(range(graph.num_ranks))
    assert [fold[0] for fold in folds] == sorted(set(leaders.tolist()))
    # none has tasks of its own but the leader
    assert {task.rank for task in graph.tasks} <= {fold[0] for fold in folds}


def test_phases_are_stretches_of_one_rank(build):
    graph = build().graph
    end = 0
    for phase in graph.phases:
        assert end <= phase.first_task < phase.end_task <= len(graph.tasks)
        end = phase.end_task
        assert {task.rank for task in graph.tasks[phase.first_task : phase.end_task]} == {phase.rank}


def test_a_check_lists_all_kernels_that_run(case, build, tmp_path):
    # so that a cost table that lacks one is refused before anything runs; sizes may differ, all else not
    spec, setting = spec_and_setting(case, tmp_path)
    graph = build().graph

    def kinds(kernels):
        return {
            (call.cost_names, call.variant, kernel.communication_sms)
            for kernel in kernels
            for call in calls_of(kernel.call)
        }

    assert kinds(task.kernel for task in graph.tasks if task.kernel) <= kinds(spec.compute_kernels(setting))
    moved_by = {collective.kernel for collective in graph.collectives if collective.kernel}
    assert moved_by <= set(spec.communication_kernels(setting))


def test_a_seed_gives_the_same_step(build):
    first, second = build().graph, build().graph
    assert first.tasks == second.tasks
    for one, other in zip(first.collectives, second.collectives, strict=True):
        assert one.name == other.name
        for column in fields(one.transfers):
            left, right = getattr(one.transfers, column.name), getattr(other.transfers, column.name)
            assert np.array_equal(left, right)


def test_the_breakdown_adds_up_whatever_tasks_take(build):
    workload = build()
    graph, rng = workload.graph, np.random.default_rng(1)
    for scale_s in (0.0, 1e-6, 1.0):
        drawn = iter(rng.random(2**20) * scale_s)
        taken_s = {id(task): float(seconds) for task, seconds in zip(graph.tasks, drawn, strict=False)}
        start_s, end_s = play(graph, lambda task, taken_s=taken_s: taken_s[id(task)])
        times = TaskTimes(np.array(start_s, float), np.array(end_s, float))
        summary = workload.summarise(times)
        assert abs(sum(summary.breakdown_s.values()) - times.step_time_s) <= 1e-9
        assert min(summary.breakdown_s.values()) >= -1e-9
        assert np.isfinite(list(summary.metrics.values())).all()


def test_what_it_takes_for_granted_is_said_in_sentences(build):
    assumptions = build().assumptions
    assert assumptions
    assert all(sentence.endswith(".") and sentence[0].isupper() for sentence in assumptions)


def test_a_spec_is_read_back_from_what_it_writes(case):
    spec = ADAPTER.validate_python(case.fields)
    assert ADAPTER.validate_python(spec.model_dump(mode="json")) == spec
    assert ADAPTER.validate_json(spec.model_dump_json()) == spec
    needed = spec.needed_ranks()
    assert needed is None or 1 <= needed <= case.num_nodes * case.gpus_per_node


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described(kind):
    for name, field in KINDS[kind].model_fields.items():
        assert field.description, name
        required = "no default" in field.description
        assert required == (field.is_required() and name != "kind"), name
    assert kind in str(ADAPTER.json_schema())
