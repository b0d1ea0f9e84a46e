"""A training step, ready to run, and what it says of its run."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from workloads.flops import describe
from workloads.schedules import Kind
from workloads.tasks import Collective, FloatArray, Stream, Summary, TaskGraph, TaskTimes
from workloads.training.graph import GATHER_WEIGHTS, OPTIMIZER, REDUCE_GRADIENTS
from workloads.training.plan import TrainingPlan

_SECONDS_OF_DAY: Final = 86_400.0
_PART_OF: Final[dict[str, str]] = {
    Kind.FORWARD: "forward",
    Kind.BACKWARD: "backward",
    Kind.BACKWARD_INPUT: "backward",
    Kind.WEIGHT: "weight",
    Kind.FORWARD_BACKWARD: "forward_backward",
}
_PARTS: Final = ("forward", "bubble", "backward", "weight", "forward_backward", "optimizer")
_AT_THE_END: Final = frozenset({REDUCE_GRADIENTS, OPTIMIZER, GATHER_WEIGHTS})


@dataclass(frozen=True, slots=True)
class GroupTimes:
    """What each group of ranks did, in seconds: arrays [num_groups]; groups: leader of each.

    parts: of the breakdown, which add up to the step; exposed_s: in phases of the schedule, without a kernel running
    """

    leaders: tuple[int, ...]
    parts: dict[str, FloatArray]
    exposed_s: FloatArray


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """A training step, ready to run."""

    graph: TaskGraph
    plan: TrainingPlan
    assumptions: tuple[str, ...]

    @property
    def before_balancing(self) -> tuple[Collective, ...]:
        """Return no collectives: what there would be without balancing is not simulated."""
        return ()

    def summarise(self, times: TaskTimes) -> Summary:
        """Return the breakdown of a step, means over ranks, and what it comes to.

        forward, backward: phases outside a pair, backward with the weight part where that is not apart; weight: those
        that are; forward_backward: pairs; optimizer: from the start of the exchange of gradients to the end of the
        step; bubble: idle before that.
        """
        groups = group_times(self.graph, times)
        breakdown_s = {part: float(groups.parts[part].mean()) for part in _PARTS}
        return Summary(
            breakdown_s,
            self._metrics(times.step_time_s, groups),
            {
                "memory": self._memory_table(),
                "pipeline_ranks": self._rank_table(groups),
            },
        )

    def _metrics(self, step_s: float, groups: GroupTimes) -> dict[str, float]:
        plan, settings = self.plan, self.plan.settings
        per_gpu_s = step_s * self.graph.num_ranks
        found = {
            "tokens_per_step": plan.tokens_per_step,
            "tokens_per_day": plan.tokens_per_step / step_s * _SECONDS_OF_DAY if step_s else 0.0,
        }
        for name, causal in (("causal", True), ("non_causal", False)):
            flops = describe(plan.model, settings.sequence_length, causal=causal).training_flops_per_token
            rate = flops * plan.tokens_per_step / per_gpu_s if step_s else 0.0
            found[f"training_flops_per_token_{name}"] = flops
            found[f"flops_per_s_per_gpu_{name}"] = rate
            if plan.setting.gpu is not None:
                found[f"mfu_{name}"] = rate / plan.setting.gpu.peak_bf16_flops_per_s
        return found | {
            "exposed_communication_s": float(groups.exposed_s.mean()),
            "memory_bytes_per_gpu": float(max(parts.total for parts in plan.memory)),
            "micro_batches_per_rank": plan.num_micro_batches,
        }

    def _memory_table(self) -> list[dict[str, Any]]:
        """Return what a GPU of each pipeline rank needs when it needs most: bytes by part."""
        return [
            {
                "pipeline_rank": pipeline_rank,
                **{f"{part}_bytes": size for part, size in parts.items()},
                "total_bytes": parts.total,
            }
            for pipeline_rank, parts in enumerate(self.plan.memory)
        ]

    def _rank_table(self, groups: GroupTimes) -> list[dict[str, Any]]:
        """Return what the ranks of each pipeline rank did: means over its groups, in seconds."""
        place = {leader: index for index, leader in enumerate(groups.leaders)}
        rows = []
        for pipeline_rank in range(len(self.plan.layout.ranks)):
            chosen = [
                place[int(self.plan.layout.group(pipeline_rank, number).min())]
                for number in range(self.plan.layout.num_groups)
            ]
            stages = sorted({stage for _, stage in self.plan.schedule.stages_of(pipeline_rank)})
            rows.append(
                {
                    "pipeline_rank": pipeline_rank,
                    "stages": ", ".join(map(str, stages)),
                    **{f"{part}_s": float(groups.parts[part][chosen].mean()) for part in _PARTS},
                    "exposed_communication_s": float(groups.exposed_s[chosen].mean()),
                }
            )
        return rows


def group_times(graph: TaskGraph, times: TaskTimes) -> GroupTimes:
    """Return what each group of a training step's graph did."""
    leaders = sorted({phase.rank for phase in graph.phases})
    place = {leader: index for index, leader in enumerate(leaders)}
    parts = {part: np.zeros(len(leaders)) for part in _PARTS}
    exposed_s = np.zeros(len(leaders))
    is_compute = np.array([task.stream is Stream.COMPUTE for task in graph.tasks])
    computing_s = np.concatenate([[0.0], np.cumsum(np.where(is_compute, times.end_s - times.start_s, 0.0))])
    ending_s = np.full(len(leaders), np.nan)
    starts_of = _joined_s(graph, times)
    for phase in graph.phases:
        group, tasks = place[phase.rank], slice(phase.first_task, phase.end_task)
        if phase.kind in _AT_THE_END:
            if np.isnan(ending_s[group]):
                ending_s[group] = starts_of[phase.first_task]
            continue
        seconds = float(times.end_s[tasks].max() - times.start_s[tasks].min())
        parts[_PART_OF[phase.kind]][group] += seconds
        exposed_s[group] += seconds - float(computing_s[phase.end_task] - computing_s[phase.first_task])
    parts["optimizer"] = times.step_time_s - ending_s
    parts["bubble"] = ending_s - sum(parts[part] for part in _PARTS if part not in ("bubble", "optimizer"))
    return GroupTimes(tuple(leaders), parts, exposed_s)


def _joined_s(graph: TaskGraph, times: TaskTimes) -> FloatArray:
    """Return when each task could begin, [num_tasks]: those of one collective when the last of them has joined."""
    last_s = np.zeros(len(graph.collectives))
    of_task = np.array([-1 if task.collective is None else task.collective for task in graph.tasks])
    takes_part = of_task >= 0
    np.maximum.at(last_s, of_task[takes_part], times.start_s[takes_part])
    begun_s = times.start_s.copy()
    begun_s[takes_part] = last_s[of_task[takes_part]]
    return begun_s
