"""Makes the plans of `decode-step` and `prefill-step`, checking everything that can be wrong with their fields."""

from dataclasses import replace

from simulator.units import FieldError
from workloads.inference.memory import (
    InferenceLayout,
    InferenceMemory,
    inference_memory,
    largest_batch,
)
from workloads.inference.plan import (
    InferencePlan,
    check_context,
    check_loads,
    check_parallel,
    decode_batch,
    prefill_batch,
)
from workloads.inference.settings import DecodeSettings, InferenceSettings, PrefillSettings, check_cached
from workloads.memory_parts import check_memory
from workloads.models import Model
from workloads.tasks import Setting


def plan_decode(settings: DecodeSettings, setting: Setting) -> InferencePlan:
    """Return what a decode step comes to on a cluster; FieldError where fields, model and cluster do not fit."""
    model = _model(settings, setting)
    if settings.mtp_acceptance is not None and not model.num_mtp_layers:
        msg = f"{model.name} has no MTP module to draft with; leave mtp_acceptance out"
        raise FieldError("mtp_acceptance", msg)
    _check_cached(settings, model)
    if settings.limit:
        return _plan_limit(settings, setting, model)
    _check_nics(settings, setting)
    layout = _layout(settings, setting, model, settings.mtp_modules)
    mean_held = settings.mean_cached(model.max_context - settings.query_tokens) + settings.query_tokens
    batch_per_gpu, most = _batch(settings, setting, layout, mean_held)
    batch = decode_batch(settings, batch_per_gpu)
    if model.moe is not None:
        check_loads(settings, setting, model, batch.own_tokens)
    memory = inference_memory(layout, batch_per_gpu, settings.query_tokens, mean_held)
    _check_fits(settings, setting, memory, most)
    layers = tuple(layout.layers)
    return InferencePlan(settings, setting, model, batch, layers, batch_per_gpu, memory, most)


def plan_prefill(settings: PrefillSettings, setting: Setting) -> InferencePlan:
    """Return what a prefill step comes to on a cluster; FieldError where fields, model and cluster do not fit."""
    model = _model(settings, setting)
    check_context(model, settings.prompt_tokens, "prompt_tokens")
    batch = prefill_batch(settings)
    if model.moe is not None:
        check_loads(settings, setting, model, batch.own_tokens)
    layout = _layout(settings, setting, model, 0)
    prompts = settings.tokens_per_gpu / settings.prompt_tokens
    memory = inference_memory(layout, prompts, settings.prompt_tokens, settings.prompt_tokens)
    _check_fits(settings, setting, memory, None)
    return InferencePlan(settings, setting, model, batch, tuple(layout.layers), prompts, memory, None)


def _model(settings: InferenceSettings, setting: Setting) -> Model:
    """Return the model, with as many experts per token as asked for; groups, which move tokens only, put aside."""
    model = setting.model
    assert model is not None, "a scenario without a model is refused before"
    check_parallel(settings, setting, model)
    if model.moe is None:
        return model
    check_loads(settings, setting, model, own_tokens=1)  # of more once the batch is known
    if settings.experts_per_token is None:
        return model
    moe = replace(model.moe, experts_per_token=settings.experts_per_token, num_groups=1, groups_kept=1)
    return replace(model, moe=moe)


def _check_cached(settings: DecodeSettings, model: Model) -> None:
    """Raise FieldError where requests would go beyond the model's context."""
    cached, most = settings.cached_tokens, model.max_context - settings.query_tokens
    if isinstance(cached, int):
        check_cached(cached, most, "cached_tokens")
        return
    try:
        cached.check(most)
    except FieldError as error:
        raise FieldError(f"cached_tokens.{error.field}", str(error)) from error


def _plan_limit(settings: DecodeSettings, setting: Setting, model: Model) -> InferencePlan:
    """Return the plan of the idealised limit, for which memory and loads do not matter."""
    if model.moe is None:
        msg = f"the limit is of dispatch and combine, and {model.name} has no experts"
        raise FieldError("limit", msg)
    if settings.expert_parallel == 1:
        msg = "the limit is of dispatch and combine between ranks; write over how many ranks experts are divided"
        raise FieldError("expert_parallel", msg)
    if not isinstance(settings.batch_per_gpu, int):
        msg = "the limit does not look at memory; write how many requests a GPU has"
        raise FieldError("batch_per_gpu", msg)
    batch = decode_batch(settings, settings.batch_per_gpu)
    layers = tuple(range(model.num_layers))
    return InferencePlan(settings, setting, model, batch, layers, settings.batch_per_gpu, None, None)


def _check_nics(settings: DecodeSettings, setting: Setting) -> None:
    if settings.intra_node == "rdma" and not setting.nics_meet:
        msg = "intra_node: rdma needs a network on which every NIC reaches every other; write nvlink"
        raise FieldError("intra_node", msg)


def _layout(settings: InferenceSettings, setting: Setting, model: Model, mtp_modules: int) -> InferenceLayout:
    experts = 0
    if model.moe is not None:
        experts = settings.experts(setting).num_physical // settings.expert_parallel
    decodes = isinstance(settings, DecodeSettings)
    return InferenceLayout(
        model=model,
        tensor_parallel=settings.tensor_parallel,
        experts=experts,
        holds_shared=settings.shared_experts == "local",
        expert_parallel=settings.expert_parallel,
        kernel="low-latency" if decodes else "normal",
        communication_sms=settings.communication_sms if isinstance(settings, PrefillSettings) else 0,
        gpus_per_node=setting.gpus_per_node,
        number_format=settings.number_format,
        cache_format=settings.cache_format,
        decoding=decodes,
        mtp_modules=mtp_modules,
        micro_batches=settings.micro_batches,
    )


def _batch(
    settings: DecodeSettings, setting: Setting, layout: InferenceLayout, mean_held: float
) -> tuple[int, int | None]:
    """Return the requests of a GPU, and the most that fit; None where the GPU is not known."""
    most = None
    if setting.gpu is not None:
        most = largest_batch(layout, settings.query_tokens, mean_held, setting.gpu.memory_bytes)
    if isinstance(settings.batch_per_gpu, int):
        return settings.batch_per_gpu, most
    assert most is not None, "only a cluster's GPU says what fits"
    return max(most, settings.micro_batches), most


def _check_fits(
    settings: InferenceSettings, setting: Setting, memory: InferenceMemory, most: int | None
) -> None:
    if settings.ignore_memory or setting.gpu is None:
        return
    field, remedy = "batch_per_gpu", f"at most {most} requests fit"
    if isinstance(settings, PrefillSettings):
        field, remedy = "tokens_per_gpu", "use fewer tokens, or divide the model over more ranks"
    elif not most:
        remedy = "not one request a micro-batch fits: divide the model over more ranks"
    check_memory(memory, setting.gpu.memory_bytes, "a GPU", remedy, field)
