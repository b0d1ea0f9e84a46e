"""Small steps of inference: the model of `support.training_steps`, and what its fields come to without a network."""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from simulator.layout import RankLayout
from support.training_steps import H800, model
from workloads.inference import DecodeStepSpec, PrefillStepSpec
from workloads.inference.plan import InferencePlan
from workloads.inference.planning import plan_decode, plan_prefill
from workloads.inference.step import InferenceStep
from workloads.models import GroupedQueryAttention, Model
from workloads.tasks import Setting

_SPEC: TypeAdapter[Any] = TypeAdapter(DecodeStepSpec | PrefillStepSpec)
_DEFAULTS: dict[str, dict[str, Any]] = {
    "decode-step": {"batch_per_gpu": 8, "cached_tokens": 20},
    "prefill-step": {"prompt_tokens": 8, "tokens_per_gpu": 32},
}


def dense_model(**more: Any) -> Model:
    """Return a model without experts whose 4 query heads share 2 key heads."""
    attention = GroupedQueryAttention(num_kv_heads=2, head_dim=10, qkv_bias=False)
    return model(num_mtp_layers=0, moe=None, num_heads=4, attention=attention, **more)


def setting(num_ranks: int = 4, gpus_per_node: int = 2, of: Model | None = None) -> Setting:
    """Return a cluster of H800 GPUs."""
    return Setting(of or model(), num_ranks, gpus_per_node, Path(), gpu=H800)


def spec(kind: str = "decode-step", **fields: Any) -> Any:
    """Return a step on groups of 4 in BF16, of 8 requests with 20 tokens in the cache or of 4 prompts of 8 tokens."""
    common = {"kind": kind, "expert_parallel": 4, "number_format": "bf16", "gate": {"kind": "balanced"}}
    return _SPEC.validate_python(common | _DEFAULTS[kind] | fields)


def plan(num_ranks: int = 4, gpus_per_node: int = 2, of: Model | None = None, **fields: Any) -> InferencePlan:
    """Return what such a spec comes to; FieldError where it does not fit."""
    settings, cluster = spec(**fields), setting(num_ranks, gpus_per_node, of)
    if isinstance(settings, DecodeStepSpec):
        return plan_decode(settings, cluster)
    return plan_prefill(settings, cluster)


def build(
    num_ranks: int = 4, gpus_per_node: int = 2, of: Model | None = None, seed: int = 1, **fields: Any
) -> InferenceStep:
    """Return the step of such a spec, through the checks that a scenario makes."""
    cluster, step = setting(num_ranks, gpus_per_node, of), spec(**fields)
    step.check(cluster)
    layout = RankLayout.in_order(num_ranks // gpus_per_node, gpus_per_node)
    return step.build(cluster, layout, np.random.default_rng(seed))
