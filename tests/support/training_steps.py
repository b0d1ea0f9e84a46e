"""Small training steps: a model like DeepSeek-V3 in few dimensions, and when tasks run without a network."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from simulator.layout import RankLayout
from workloads.models import Model, MultiHeadLatentAttention, load_model
from workloads.tasks import GpuLimits, Setting, Stream, Task, TaskGraph
from workloads.training import TrainingStepSpec
from workloads.training.plan import TrainingPlan
from workloads.training.step import TrainingStep

_DEEPSEEK_V3 = load_model("deepseek-v3", Path())
_LATENT = MultiHeadLatentAttention(
    q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6
)
H800 = GpuLimits(84_943_110_144, 989.4e12, nvlink_bytes_per_s=200e9, nic_bytes_per_s=50e9)


def model(num_layers: int = 4, num_dense_layers: int = 1, num_mtp_layers: int = 1, **more: Any) -> Model:
    """Return a model with 8 experts of which a token uses 2, and all other parts that DeepSeek-V3 has."""
    assert _DEEPSEEK_V3.moe is not None
    moe = replace(
        _DEEPSEEK_V3.moe,
        num_routed_experts=8,
        experts_per_token=2,
        num_groups=1,
        groups_kept=1,
        intermediate_size=32,
        num_dense_layers=num_dense_layers,
    )
    small = replace(
        _DEEPSEEK_V3,
        name="small",
        num_layers=num_layers,
        hidden_size=40,
        vocab_size=160,
        num_heads=2,
        attention=_LATENT,
        intermediate_size=96,
        moe=moe,
        num_mtp_layers=num_mtp_layers,
    )
    return replace(small, **more)


def setting(num_ranks: int, gpus_per_node: int = 2, of: Model | None = None) -> Setting:
    """Return a cluster of H800 GPUs."""
    return Setting(of or model(), num_ranks, gpus_per_node, Path(), gpu=H800)


def spec(**fields: Any) -> TrainingStepSpec:
    """Return 2 pipeline ranks and groups of 2, one sequence of 8 tokens at a time, but for the fields given."""
    defaults = {
        "kind": "training-step",
        "pipeline_parallel": 2,
        "expert_parallel": 2,
        "schedule": "1f1b",
        "sequences_per_step": 8,
        "sequence_length": 8,
        "gate": {"kind": "balanced"},
    }
    return TrainingStepSpec.model_validate(defaults | fields)


def plan(num_ranks: int = 4, gpus_per_node: int = 2, of: Model | None = None, **fields: Any) -> TrainingPlan:
    """Return what such a spec comes to; FieldError where it does not fit."""
    return TrainingPlan.of(spec(**fields), setting(num_ranks, gpus_per_node, of))


def build(
    num_ranks: int = 4, gpus_per_node: int = 2, of: Model | None = None, seed: int = 1, **fields: Any
) -> TrainingStep:
    """Return the step of such a spec, through the checks that a scenario makes."""
    cluster, step = setting(num_ranks, gpus_per_node, of), spec(**fields)
    step.check(cluster)
    layout = RankLayout.in_order(num_ranks // gpus_per_node, gpus_per_node)
    return step.build(cluster, layout, np.random.default_rng(seed))


def play(graph: TaskGraph, seconds: Callable[[Task], Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return when each task starts and ends if nothing shares a link, in the numbers that `seconds` returns.

    A task starts when those that it waits for and the one before it on its stream have ended. All tasks of a
    collective, which the graph lists one after the other, end together, `seconds` of one after the last has started.
    """
    start: list[Any] = []
    end: list[Any] = []
    last: dict[tuple[int, Stream], int] = {}
    joined: dict[int, list[int]] = {}
    for number, task in enumerate(graph.tasks):
        before = list(task.after)
        if task.stream is not None:
            before += [last[task.rank, task.stream]] if (task.rank, task.stream) in last else []
            last[task.rank, task.stream] = number
        start.append(max((end[each] for each in before), default=0))
        end.append(start[number] + seconds(task))
        if task.collective is not None:
            members = joined.setdefault(task.collective, [])
            members.append(number)
            for member in members:
                end[member] = max(start[each] for each in members) + seconds(task)
    return start, end
