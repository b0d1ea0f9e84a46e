"""What the fields of `training-step` come to on a cluster, once everything that can be wrong with them is checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from workloads.memory_parts import check_memory
from workloads.models import Model
from workloads.schedules import Schedule, make_schedule
from workloads.schedules.checks import in_flight
from workloads.stage_layers import StageLayers
from workloads.tasks import Setting
from workloads.training.outline import TrainingOutline
from workloads.training.parallel_layout import ParallelLayout
from workloads.training.settings import TrainingSettings
from workloads.training.synchronise import stages_held
from workloads.training_memory import MemoryParts, TrainingRanks, worst_memory


@dataclass(frozen=True, slots=True)
class TrainingPlan(TrainingOutline):
    """A step that can run: its outline, and what takes as much as there are micro-batches.

    memory: [pipeline_parallel] what a rank of each needs when it needs most
    """

    schedule: Schedule
    layout: ParallelLayout
    ranks: TrainingRanks
    memory: tuple[MemoryParts, ...]

    @classmethod
    @lru_cache(maxsize=4)  # a scenario asks for it when it is checked, and when it is built
    def of(cls, settings: TrainingSettings, setting: Setting) -> Self:
        """Return what a step comes to on a cluster; FieldError where fields, model and cluster do not fit."""
        outline = TrainingOutline.of(settings, setting)
        schedule = make_schedule(
            settings.schedule, settings.pipeline_parallel, outline.num_micro_batches, settings.chunks
        )
        layout = ParallelLayout.of(
            setting,
            settings.pipeline_parallel,
            settings.group_size,
            settings.rank_order,
            settings.node_order,
        )
        ranks = TrainingRanks(
            outline.num_members,
            settings.expert_parallel,
            settings.tensor_parallel,
            schedule.num_pipelines,
            setting.gpus_per_node,
            settings.communication_sms,
        )
        memory = tuple(_memory(settings, outline.model, schedule, outline.stages, ranks))
        _check_fits(settings, setting, memory)
        return cls(
            settings,
            setting,
            outline.model,
            outline.latent,
            outline.num_members,
            outline.num_micro_batches,
            outline.stages,
            schedule,
            layout,
            ranks,
            memory,
        )


def _memory(
    settings: TrainingSettings,
    model: Model,
    schedule: Schedule,
    stages: tuple[StageLayers, ...],
    ranks: TrainingRanks,
) -> Iterator[MemoryParts]:
    """Yield what a rank of each pipeline rank needs at the moment at which that is most."""
    for pipeline_rank in range(schedule.num_ranks):
        whole = in_flight(schedule, pipeline_rank)
        started = in_flight(schedule, pipeline_rank, until_weights=False)
        held = stages_held(schedule, stages, pipeline_rank)
        moments = []
        for flying, without_weights in zip(whole, started, strict=True):
            by_stage = dict.fromkeys(sorted({stage for _, stage in flying}), (0, 0))
            for place, count in flying.items():
                before, waiting = by_stage[place[1]]
                by_stage[place[1]] = (before + count, waiting + count - without_weights[place])
            moments.append((tuple(n for n, _ in by_stage.values()), tuple(n for _, n in by_stage.values())))
        yield worst_memory(model, held, ranks, moments, settings.tokens_per_micro_batch, settings.memory)


def _check_fits(settings: TrainingSettings, setting: Setting, memory: tuple[MemoryParts, ...]) -> None:
    if settings.ignore_memory or setting.gpu is None:
        return
    worst = max(range(len(memory)), key=lambda pipeline_rank: memory[pipeline_rank].total)
    check_memory(memory[worst], setting.gpu.memory_bytes, f"a GPU of pipeline rank {worst}")
