"""The workload `training-step`: its spec, checked against a cluster and made a step that can run."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import ClassVar

import numpy as np

from workloads.formats import NumberFormat
from workloads.group_traffic import GroupLoad, draw_loads, in_each_group, place_draws, tensor_rings
from workloads.kernels import BF16_BYTES
from workloads.layer_kernels import Tokens
from workloads.messages import Phase, token_bytes
from workloads.size import WorkSize
from workloads.streaming_kernels import Optimizer
from workloads.tasks import CommunicationKernel, ComputeKernel, IntArray, Layout, Setting, Transfers
from workloads.training.assumptions import assumptions
from workloads.training.graph import Exchanges, StepParts, build_graph
from workloads.training.outline import TrainingOutline
from workloads.training.plan import TrainingPlan
from workloads.training.settings import TrainingSettings
from workloads.training.size import training_size
from workloads.training.stage_work import StageWork
from workloads.training.step import TrainingStep
from workloads.training.synchronise import Synchronisation, stages_held, synchronisation
from workloads.training.tensor_parallel import TENSOR_ASSUMPTIONS, undivided_gradients
from workloads.training_memory import held_parameters


class TrainingStepSpec(TrainingSettings):
    """One optimizer step on all ranks of a cluster."""

    needs_model: ClassVar[bool] = True

    def check(self, setting: Setting) -> None:
        """Raise FieldError where the model, the cluster and the fields do not fit each other."""
        TrainingPlan.of(self, setting)

    def communication_kernels(self, setting: Setting) -> tuple[CommunicationKernel, ...]:
        """Return the kernels of dispatch and combine, alone and beside computation."""
        return tuple(
            self.exchange_kernel(setting, gathers, beside)
            for gathers in (False, True)
            for beside in (False, True)
        )

    def compute_kernels(self, setting: Setting) -> tuple[ComputeKernel, ...]:
        """Return all kernels of a step whose experts get equally many tokens and whose first rank updates all it has.

        What is drawn, and how the optimizer's work is divided, changes sizes alone.
        """
        plan = TrainingPlan.of(self, setting)
        pairs = self.local_tokens * self.experts(setting).experts_per_token
        tokens = plan.tokens(pairs, pairs)
        held = held_parameters(plan.model, stages_held(plan.schedule, plan.stages, 0), plan.ranks)
        optimizer = ComputeKernel(Optimizer(parameters=held.total))
        return (*plan.kernels(lambda _: tokens).kernels(plan.stages), optimizer)

    def work_size(self, setting: Setting) -> WorkSize:
        """Return how much the step holds, before its schedule is made; FieldError where fields do not fit."""
        return training_size(TrainingOutline.of(self, setting))

    def build(self, setting: Setting, layout: Layout, rng: np.random.Generator) -> TrainingStep:
        """Return the step: experts of one group's tokens are drawn by `rng`, layer after layer if at all anew."""
        plan = TrainingPlan.of(self, setting)
        load_of = self.loads(plan, rng)
        parts = StepParts(
            schedule=plan.schedule,
            layout=plan.layout,
            work=_work(plan, load_of, changes=self.load_changes == "per-micro-batch"),
            exchanges=Exchanges(
                load_of, cache(lambda gathers, beside: self.exchange_kernel(setting, gathers, beside))
            ),
            send_bytes=float(BF16_BYTES * self.local_tokens * plan.model.hidden_size),
            ending=_ending(plan, layout),
            rings=self._rings(layout),
        )
        assumed = assumptions(plan) + (TENSOR_ASSUMPTIONS if self.tensor_parallel > 1 else ())
        return TrainingStep(build_graph(parts), plan, assumed)

    def _rings(self, layout: Layout) -> Callable[[IntArray, float], Transfers] | None:
        """Return how a group's tensor-parallel ranks gather or scatter bytes; None where there are none."""
        if self.tensor_parallel == 1:
            return None
        return lambda ranks, size_bytes: tensor_rings(ranks, self.tensor_parallel, layout, size_bytes)

    def loads(self, plan: TrainingPlan, rng: np.random.Generator) -> Callable[[int, int], GroupLoad]:
        """Return (layer, micro-batch) -> the draw that holds there; drawn by layer, then micro-batch."""
        messages = (
            self._message_bytes(plan.setting, "dispatch"),
            self._message_bytes(plan.setting, "combine"),
        )
        num_groups = self.group_size // self.expert_parallel
        drawn = (
            load._replace(
                scatter=in_each_group(load.scatter, self.expert_parallel, num_groups),
                gather=in_each_group(load.gather, self.expert_parallel, num_groups),
            )
            for load in draw_loads(self, plan.setting, self.local_tokens, messages, rng)
        )
        return place_draws(drawn, self.load_changes, plan.model.moe_layers(), plan.num_micro_batches)

    def _message_bytes(self, setting: Setting, phase: Phase) -> int:
        """Return the bytes of a token on its way to experts, or back."""
        assert setting.model is not None
        number_format = self._format(phase)
        top_k = self.experts(setting).experts_per_token
        return token_bytes("normal", phase, number_format, setting.model.hidden_size, top_k).message

    def exchange_kernel(self, setting: Setting, gathers: bool, beside_compute: bool) -> CommunicationKernel:
        """Return the kernel of a dispatch, or of a combine if it gathers."""
        phase: Phase = "combine" if gathers else "dispatch"
        return CommunicationKernel(
            name="normal",
            message_bytes=self._message_bytes(setting, phase),
            codec=self._format(phase).codec,
            combines=gathers,
            beside_compute=beside_compute,
            num_sms=self.communication_sms,
        )

    def _format(self, phase: Phase) -> NumberFormat:
        return NumberFormat.named(self.dispatch_format if phase == "dispatch" else self.combine_format)


def _ending(plan: TrainingPlan, layout: Layout) -> Synchronisation:
    """Return how the step ends; what tensor-parallel ranks have of the same gradients is summed first."""
    memory = plan.settings.memory
    ending = synchronisation(plan.model, plan.schedule, plan.stages, plan.layout, plan.ranks, memory, layout)
    undivided = undivided_gradients(
        plan.schedule, plan.stages, plan.model, plan.layout, plan.ranks.tensor_parallel, memory, layout
    )
    return replace(ending, reductions=(*undivided, *ending.reductions))


def _work(
    plan: TrainingPlan, load_of: Callable[[int, int], GroupLoad], *, changes: bool
) -> Callable[[int, int], StageWork]:
    """Return (stage, micro-batch) -> what a GPU computes, one object for all that are alike."""

    @cache
    def of(stage: int, micro_batch: int) -> StageWork:
        def tokens_of(layer: int) -> Tokens:
            is_moe = plan.model.is_moe_layer(layer)
            load = load_of(layer, micro_batch) if is_moe else None
            return plan.tokens(load.received if load else 0, load.rows if load else 0)

        return plan.kernels(tokens_of).of(plan.stages[stage])

    return of if changes else lambda stage, _: of(stage, 0)
