"""What ends a step: gradients are summed over ranks with the same parameters, and shares of them updated (ZeRO-1).

Rajbhandari et al. 2020, arXiv 1910.02054, stage 1: each of n ranks with the same parameters owns 1/n of the
optimizer's state. Gradients are reduce-scattered, so that a rank has the sums of its own share; it updates those
weights; and the new weights are all-gathered. Rings are NCCL's, as the workload `collective` has them.

Dense parameters are the same on all members of the pipeline ranks that hold the same stages (both directions of
DualPipe), but for what tensor parallelism divides; experts on the members with the same place in their
expert-parallel groups. A stage that has a copy of the embedding sends its share of the sums to the owners on the
first stage, and gets new weights from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from workloads.collectives import ring_transfers
from workloads.kept_activations import VALUE_BYTES
from workloads.models import Model
from workloads.schedules import Schedule
from workloads.stage_layers import StageLayers
from workloads.streaming_kernels import Optimizer
from workloads.tasks import Collective, ComputeKernel, IntArray, Layout, Transfers
from workloads.training.parallel_layout import ParallelLayout
from workloads.training_memory import HeldParameters, MemorySettings, TrainingRanks, held_parameters


class Joint(NamedTuple):
    """A collective that all groups of some pipeline ranks take part in."""

    pipeline_ranks: tuple[int, ...]
    collective: Collective


@dataclass(frozen=True, slots=True)
class Synchronisation:
    """How a step ends; optimizer: [pipeline_parallel] the kernel of each pipeline rank."""

    reductions: tuple[Joint, ...]
    optimizer: tuple[ComputeKernel, ...]
    gathers: tuple[Joint, ...]


def stages_held(
    schedule: Schedule, stages: Sequence[StageLayers], pipeline_rank: int
) -> tuple[StageLayers, ...]:
    """Return what a pipeline rank holds, each stage once."""
    return tuple(stages[stage] for stage in sorted({stage for _, stage in schedule.stages_of(pipeline_rank)}))


@dataclass(frozen=True, slots=True)
class _Holders:
    """The pipeline ranks that hold the same stages; dense: [tensor_parallel, n] ranks with the same parameters."""

    pipeline_ranks: tuple[int, ...]
    held: HeldParameters
    dense: IntArray
    experts: IntArray


def synchronisation(
    model: Model,
    schedule: Schedule,
    stages: Sequence[StageLayers],
    layout: ParallelLayout,
    ranks: TrainingRanks,
    settings: MemorySettings,
    cluster: Layout,
) -> Synchronisation:
    """Return how a step ends; cluster: where all ranks are."""
    holders = _holders(model, schedule, stages, layout, ranks)
    gradient_bytes, weight_bytes = VALUE_BYTES[settings.gradients], VALUE_BYTES[settings.weights]
    sharded = settings.shard_optimizer
    reductions, gathers = [], []
    for those in holders:
        dense = those.held.dense + those.held.borrowed
        for what, groups, parameters in (
            ("dense", those.dense, dense),
            ("expert", those.experts, those.held.experts),
        ):
            reduced = ring_transfers(groups, cluster, gradient_bytes * parameters, 1 if sharded else 2)
            reductions.append(_joint(those, f"{what} gradients", reduced))
            if sharded:
                gathered = ring_transfers(groups, cluster, weight_bytes * parameters, 1)
                gathers.append(_joint(those, f"{what} weights", gathered))
    first = next(
        those for those in holders if any(stages[stage].has_embedding for stage in _stages(schedule, those))
    )
    for those in holders:
        if those.held.borrowed:
            there, back = _embedding(those, first, gradient_bytes, weight_bytes, sharded=sharded)
            reductions.append(there)
            gathers[:0] = back
    kernels: dict[int, ComputeKernel] = {}
    for those in holders:
        kernels |= dict.fromkeys(those.pipeline_ranks, _optimizer(those, sharded=sharded))
    optimizer = tuple(kernels[pipeline_rank] for pipeline_rank in range(schedule.num_ranks))
    return Synchronisation(_moving(reductions), optimizer, _moving(gathers))


def _holders(
    model: Model,
    schedule: Schedule,
    stages: Sequence[StageLayers],
    layout: ParallelLayout,
    ranks: TrainingRanks,
) -> list[_Holders]:
    by_stages: dict[tuple[int, ...], list[int]] = {}
    for pipeline_rank in range(schedule.num_ranks):
        held = tuple(sorted({stage for _, stage in schedule.stages_of(pipeline_rank)}))
        by_stages.setdefault(held, []).append(pipeline_rank)
    holders = []
    for pipeline_ranks in by_stages.values():
        members = layout.ranks[pipeline_ranks].ravel()
        holders.append(
            _Holders(
                tuple(pipeline_ranks),
                held_parameters(model, stages_held(schedule, stages, pipeline_ranks[0]), ranks),
                members.reshape(-1, ranks.tensor_parallel).T,
                members.reshape(-1, ranks.expert_parallel).T,
            )
        )
    return holders


def _optimizer(those: _Holders, *, sharded: bool) -> ComputeKernel:
    """Return a rank's update: of its shares, or of all that it holds, a copy of the embedding too."""
    owned: float = those.held.total
    if sharded:
        owned = those.held.dense / those.dense.shape[1] + those.held.experts / those.experts.shape[1]
    return ComputeKernel(Optimizer(parameters=max(1, round(owned))))


def _stages(schedule: Schedule, those: _Holders) -> list[int]:
    return [stage for _, stage in schedule.stages_of(those.pipeline_ranks[0])]


def _joint(those: _Holders, name: str, transfers: Transfers) -> Joint:
    return Joint(those.pipeline_ranks, Collective(name, transfers))


def _embedding(
    last: _Holders, first: _Holders, gradient_bytes: int, weight_bytes: int, *, sharded: bool
) -> tuple[Joint, list[Joint]]:
    """Return how the sums of an embedding's copy join the first stage's, and how the copy gets new weights.

    Unless shares are owned, both exchange all that they have, and update their weights alike.
    """
    pipeline_ranks = (*first.pipeline_ranks, *last.pipeline_ranks)
    owners, copies = first.dense.ravel(), last.dense.ravel()
    shares = last.dense.shape[1] if sharded else 1
    gradients = np.full(len(copies), gradient_bytes * last.held.borrowed / shares)
    if not sharded:
        both = np.concatenate([copies, owners]), np.concatenate([owners, copies])
        transfers = Transfers.point_to_point(*both, np.concatenate([gradients, gradients]))
        return Joint(pipeline_ranks, Collective("embedding gradients", transfers)), []
    there = Transfers.point_to_point(copies, owners, gradients)
    weights = np.full(len(copies), weight_bytes * last.held.borrowed / shares)
    back = Transfers.point_to_point(owners, copies, weights)
    return (
        Joint(pipeline_ranks, Collective("embedding gradients", there)),
        [Joint(pipeline_ranks, Collective("embedding weights", back))],
    )


def _moving(joints: Sequence[Joint]) -> tuple[Joint, ...]:
    """Return the collectives that move bytes: a ring of one rank has none."""
    return tuple(
        joint
        for joint in joints
        if len(joint.collective.transfers) and joint.collective.transfers.size_bytes.any()
    )
