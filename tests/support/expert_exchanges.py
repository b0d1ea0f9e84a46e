"""The workload `expert-parallel` on nodes of eight GPUs, without a scenario file and without a network."""

from pathlib import Path
from typing import Any

import numpy as np

from simulator.layout import RankLayout
from workloads.expert_parallel import ExpertParallelSpec
from workloads.expert_step import ExpertParallel
from workloads.models import load_model
from workloads.tasks import Setting, Summary, TaskTimes

_FOLDER = Path()
_DEEPSEEK_V3 = load_model("deepseek-v3", _FOLDER)


def setting(num_ranks: int, nics_meet: bool = True) -> Setting:
    """Return DeepSeek-V3 on so many ranks, eight a node."""
    return Setting(_DEEPSEEK_V3, num_ranks, 8, _FOLDER, nics_meet)


def spec(**fields: Any) -> ExpertParallelSpec:
    """Return groups of 16 ranks of 32 tokens each, but for the fields that are given."""
    defaults = {"tokens_per_rank": 32, "expert_parallel": 16}
    return ExpertParallelSpec(kind="expert-parallel", **(defaults | fields))


def build(num_nodes: int, seed: int = 1, **fields: Any) -> ExpertParallel:
    """Return the step of a spec, through the checks that a scenario makes."""
    case = setting(8 * num_nodes)
    spec(**fields).check(case)
    return spec(**fields).build(case, RankLayout.in_order(num_nodes, 8), np.random.default_rng(seed))


def summarise(workload: ExpertParallel, *lasting_s: float) -> Summary:
    """Return the summary of a run in which every rank takes so long for each collective; 1 s where none is given."""
    ends = np.cumsum(lasting_s or [1.0] * len(workload.graph.collectives))
    end_s: list[float] = []
    for task in workload.graph.tasks:
        barrier_s = max((end_s[before] for before in task.after), default=0.0)
        end_s.append(barrier_s if task.collective is None else ends[task.collective])
    return workload.summarise(TaskTimes(np.zeros(len(end_s)), np.array(end_s)))
