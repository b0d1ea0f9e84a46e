"""The workloads `decode-step` and `prefill-step`: specs, checked against a cluster and made passes that can run."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import ClassVar, Final

import numpy as np

from simulator.units import FieldError
from workloads.formats import NumberFormat
from workloads.group_traffic import GroupLoad, draw_loads, in_each_group, place_draws
from workloads.inference.assumptions import decode_assumptions, prefill_assumptions
from workloads.inference.graph import PassParts, pass_graph
from workloads.inference.kernels import InferenceKernels
from workloads.inference.layer_work import LayerWorks
from workloads.inference.limit import LIMIT_ASSUMPTIONS, limit_graph
from workloads.inference.order import Item, LayerWork, pass_items
from workloads.inference.plan import InferencePlan
from workloads.inference.planning import plan_decode, plan_prefill
from workloads.inference.settings import DecodeSettings, InferenceSettings, PrefillSettings
from workloads.inference.size import pass_size
from workloads.inference.step import InferenceStep
from workloads.messages import Kernel, Phase, token_bytes
from workloads.size import TransferCount, WorkSize
from workloads.tasks import CommunicationKernel, ComputeKernel, Layout, Setting, TaskGraph

_MOST_OWN_TASKS: Final = 100_000  # of ranks at their own pace


class DecodeStepSpec(DecodeSettings):
    """A token for each request of a batch."""

    needs_model: ClassVar[bool] = True

    def check(self, setting: Setting) -> None:
        """Raise FieldError where the model, the cluster and the fields do not fit each other."""
        plan = plan_decode(self, setting)
        if not self.limit:
            _check_pace(plan)

    def communication_kernels(self, setting: Setting) -> tuple[CommunicationKernel, ...]:
        """Return the kernels of dispatch and combine; none without experts, or of the limit."""
        if self.limit or self.expert_parallel == 1:
            return ()
        return tuple(
            _exchange_kernel(self, setting, "low-latency", gathers, False) for gathers in (False, True)
        )

    def compute_kernels(self, setting: Setting) -> tuple[ComputeKernel, ...]:
        """Return all kernels of a step whose experts get equally many tokens; none of the limit."""
        return () if self.limit else _nominal_kernels(plan_decode(self, setting))

    def work_size(self, setting: Setting) -> WorkSize:
        """Return how much the step holds; FieldError where the model, the cluster and the fields do not fit."""
        plan = plan_decode(self, setting)
        if self.limit:
            tasks = plan.model.num_layers * self.micro_batches
            return WorkSize(tasks, 0, TransferCount(), TransferCount(), 0, 0, "kind", "use fewer layers")
        return pass_size(plan, _nominal_items(plan), relayed=False)

    def build(self, setting: Setting, layout: Layout, rng: np.random.Generator) -> InferenceStep:
        """Return the step: tokens' experts and cached tokens of one group are drawn by `rng`."""
        plan = plan_decode(self, setting)
        if self.limit:
            return InferenceStep(_limit_graph(plan), plan, LIMIT_ASSUMPTIONS)
        cached = plan.cached_tokens(rng)
        graph = _build(plan, layout, rng, cached, "low-latency")
        return InferenceStep(graph, plan, decode_assumptions(plan))


class PrefillStepSpec(PrefillSettings):
    """The prompts of new requests."""

    needs_model: ClassVar[bool] = True

    def check(self, setting: Setting) -> None:
        """Raise FieldError where the model, the cluster and the fields do not fit each other."""
        _check_pace(plan_prefill(self, setting))

    def communication_kernels(self, setting: Setting) -> tuple[CommunicationKernel, ...]:
        """Return the kernels of dispatch and combine, alone and beside computation; none without experts."""
        if self.expert_parallel == 1:
            return ()
        return tuple(
            _exchange_kernel(self, setting, "normal", gathers, beside)
            for gathers in (False, True)
            for beside in (False, True)
        )

    def compute_kernels(self, setting: Setting) -> tuple[ComputeKernel, ...]:
        """Return all kernels of a step whose experts get equally many tokens."""
        return _nominal_kernels(plan_prefill(self, setting))

    def work_size(self, setting: Setting) -> WorkSize:
        """Return how much the step holds; FieldError where the model, the cluster and the fields do not fit."""
        plan = plan_prefill(self, setting)
        return pass_size(plan, _nominal_items(plan), relayed=True)

    def build(self, setting: Setting, layout: Layout, rng: np.random.Generator) -> InferenceStep:
        """Return the step: tokens' experts of one group are drawn by `rng`."""
        plan = plan_prefill(self, setting)
        graph = _build(plan, layout, rng, float(self.prompt_tokens), "normal")
        return InferenceStep(graph, plan, prefill_assumptions(plan))


def _limit_graph(plan: InferencePlan) -> TaskGraph:
    """Return the exchanges of the idealised limit."""
    seconds = plan.limit_exchange_s
    assert seconds is not None, "refused when it was planned"
    return limit_graph(plan.model, plan.setting.num_ranks, plan.settings.micro_batches, seconds)


def _build(
    plan: InferencePlan, layout: Layout, rng: np.random.Generator, cached_tokens: float, kernel: Kernel
) -> TaskGraph:
    """Return the graph of a pass; cached_tokens: keys of a request, of the ranks that have most."""
    settings, setting = plan.settings, plan.setting
    load_of = _loads(plan, rng, kernel)
    work = _work(plan, cached_tokens, load_of)
    parts = PassParts(
        items=pass_items(plan.layers, work, _works(plan, cached_tokens, None).head(), settings.micro_batches),
        group_size=settings.group_size,
        tensor_parallel=settings.tensor_parallel,
        load=load_of,
        kernel=cache(
            lambda gathers, beside: _exchange_kernel(
                settings, setting, kernel, gathers, beside and kernel == "normal"
            )
        ),
        overhead_s=settings.framework_overhead,
        cache_transfers=settings.cache_transfers if isinstance(settings, DecodeSettings) else None,
        num_ranks=plan.num_ranks,
        own_pace=settings.pace == "own",
    )
    return pass_graph(parts, layout)


def _loads(plan: InferencePlan, rng: np.random.Generator, kernel: Kernel) -> Callable[[int, int], GroupLoad]:
    """Return (layer, micro-batch) -> the draw that holds there."""
    settings, setting, model = plan.settings, plan.setting, plan.model
    if model.moe is None:

        def no_load(_layer: int, _micro_batch: int) -> GroupLoad:
            msg = "a model without experts has no loads"
            raise AssertionError(msg)

        return no_load
    messages = (
        _message_bytes(settings, setting, kernel, "dispatch"),
        _message_bytes(settings, setting, kernel, "combine"),
    )
    degree, num_groups = settings.expert_parallel, settings.group_size // settings.expert_parallel
    drawn = (
        load._replace(
            scatter=in_each_group(load.scatter, degree, num_groups),
            gather=in_each_group(load.gather, degree, num_groups),
            of_members=load.of_members * num_groups,
        )
        for load in draw_loads(settings, setting, plan.batch.own_tokens, messages, rng, kernel)
    )
    layers = [layer for layer in plan.layers if model.is_moe_layer(layer)]
    return place_draws(drawn, settings.load_changes, layers, settings.micro_batches)


def _work(
    plan: InferencePlan, cached_tokens: float, load_of: Callable[[int, int], GroupLoad]
) -> Callable[[int, int], LayerWork]:
    """Return (layer, micro-batch) -> what a GPU does there."""

    @cache
    def experts(received: int, rows: int) -> ComputeKernel | None:
        chain = _layer_works(plan, plan.kernels_of_load(cached_tokens, received, rows)).experts()
        return chain[0].kernel if chain else None

    of_load: dict[int, tuple[ComputeKernel | None, ...] | None] = {}

    def of_ranks(load: GroupLoad) -> tuple[ComputeKernel | None, ...] | None:
        if id(load) not in of_load:
            kernels = tuple(
                experts(0 if plan.packs_rows else received, rows) for received, rows in load.of_members
            )
            of_load[id(load)] = kernels if len(set(map(id, kernels))) > 1 else None
        return of_load[id(load)]

    @cache
    def works(load: int | None, layer: int, micro_batch: int) -> LayerWorks:
        if load is None:
            return _works(plan, cached_tokens, None)
        drawn = load_of(layer, micro_batch)
        alike = _works(plan, cached_tokens, drawn)
        return replace(alike, rank_experts=of_ranks(drawn)) if plan.settings.pace == "own" else alike

    def of(layer: int, micro_batch: int) -> LayerWork:
        if not plan.model.is_moe_layer(layer):
            return works(None, 0, 0).of(layer)
        return works(id(load_of(layer, micro_batch)), layer, micro_batch).of(layer)

    return of


def _works(plan: InferencePlan, cached_tokens: float, load: GroupLoad | None) -> LayerWorks:
    return _layer_works(plan, plan.kernels(cached_tokens, load))


def _layer_works(plan: InferencePlan, kernels: InferenceKernels) -> LayerWorks:
    settings = plan.settings
    is_dispatched = settings.expert_parallel > 1
    sms = settings.communication_sms if isinstance(settings, PrefillSettings) and is_dispatched else 0
    return LayerWorks(kernels, sms, settings.shared_experts == "local", is_dispatched)


def _nominal_works(plan: InferencePlan) -> LayerWorks:
    """Return what a GPU does whose experts get equally many tokens; what is drawn changes sizes alone."""
    pairs = plan.batch.own_tokens
    if plan.model.moe is not None:
        pairs *= plan.settings.experts(plan.setting).experts_per_token
    return _layer_works(plan, plan.nominal_kernels(pairs))


def _nominal_items(plan: InferencePlan) -> tuple[Item, ...]:
    """Return the items of a pass whose experts get equally many tokens."""
    works = _nominal_works(plan)
    return pass_items(
        plan.layers, lambda layer, _: works.of(layer), works.head(), plan.settings.micro_batches
    )


def _check_pace(plan: InferencePlan) -> None:
    """Raise FieldError where ranks at their own pace would have more tasks than anyone waits for."""
    if plan.settings.pace == "lockstep":
        return
    items = _nominal_items(plan)
    num_tasks = plan.num_ranks * len(items)
    if num_tasks > _MOST_OWN_TASKS:
        msg = (
            f"at their own pace {plan.num_ranks:,} ranks have {num_tasks:,} tasks, too many to wait for, as hardly "
            f"an exchange repeats another; at most {_MOST_OWN_TASKS:,} are run: write lockstep, or use at most "
            f"{_MOST_OWN_TASKS // len(items):,} ranks"
        )
        raise FieldError("pace", msg)


def _nominal_kernels(plan: InferencePlan) -> tuple[ComputeKernel, ...]:
    """Return the kernels of a pass whose experts get equally many tokens."""
    works = _nominal_works(plan)
    chains = [works.head()]
    for layer in plan.layers:
        work = works.of(layer)
        chains += [work.before, work.attention, work.shared, work.feed_forward]
    kernels = [step.kernel for chain in chains for step in chain if step.kernel is not None]
    return tuple(dict.fromkeys(kernels))


def _message_bytes(settings: InferenceSettings, setting: Setting, kernel: Kernel, phase: Phase) -> int:
    """Return the bytes of a token on its way to experts, or back."""
    assert setting.model is not None
    top_k = settings.experts(setting).experts_per_token
    hidden = setting.model.hidden_size
    return token_bytes(kernel, phase, _format(settings, phase), hidden, top_k).message


def _format(settings: InferenceSettings, phase: Phase) -> NumberFormat:
    return NumberFormat.named(settings.dispatch_format if phase == "dispatch" else settings.combine_format)


def _exchange_kernel(
    settings: InferenceSettings, setting: Setting, kernel: Kernel, gathers: bool, beside_compute: bool
) -> CommunicationKernel:
    phase: Phase = "combine" if gathers else "dispatch"
    return CommunicationKernel(
        name=kernel,
        message_bytes=_message_bytes(settings, setting, kernel, phase),
        codec=_format(settings, phase).codec,
        combines=gathers,
        beside_compute=beside_compute,
        over_nics=isinstance(settings, DecodeSettings) and settings.intra_node == "rdma",
        num_sms=settings.communication_sms if isinstance(settings, PrefillSettings) else 0,
    )
