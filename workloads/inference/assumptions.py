"""What inference steps take for granted, one sentence each."""

from typing import Final

from workloads.inference.memory import INFERENCE_MEMORY_ASSUMPTIONS
from workloads.inference.plan import InferencePlan
from workloads.inference.settings import DecodeSettings

_ALWAYS: Final = (
    "Groups of ranks have the same traffic.",
    "Kernels go through their tokens in order, so that what a rank has for its peers advances alike.",
    "Attention of one micro-batch and experts of the other run beside each exchange, layer by layer.",
    "Rings of tensor-parallel ranks start at no cost, and run beside dispatch and combine.",
)
_PACE: Final = {
    "lockstep": "The ranks of a group start every kernel and exchange together, and compute as the one that has most "
    "to do.",
    "own": "A rank waits for others where tokens from them are to come, and for its own to have gone.",
}
_DECODING: Final = (
    "Low-latency kernels hold no SM, and neither slow kernels down nor are slowed by them.",
    "Packing, unpacking and summing are part of their start-up.",
)
_PREFILL: Final = (
    "Chunks are pipelined: the wire and NVLink behind it carry a transfer at one rate.",
    "An exchange waits for its peers, and is slowed, where its GPU has a kernel to run meanwhile.",
    "Prompts have no tokens in the cache; the last token of each needs logits.",
)


def decode_assumptions(plan: InferencePlan) -> tuple[str, ...]:
    """Return what a decode step takes for granted."""
    settings = plan.settings
    assert isinstance(settings, DecodeSettings)
    drafted: tuple[str, ...] = ()
    if settings.mtp_acceptance is not None:
        drafted = (
            f"Of drafted tokens {settings.mtp_acceptance:.0%} hold; a step computes each request's token and its "
            "draft, and the MTP module for both.",
        )
    return (
        *_of_experts(plan),
        *_ALWAYS,
        _PACE[settings.pace],
        *_DECODING,
        *drafted,
        *_overhead(plan),
        *INFERENCE_MEMORY_ASSUMPTIONS,
    )


def prefill_assumptions(plan: InferencePlan) -> tuple[str, ...]:
    """Return what a prefill step takes for granted."""
    return (
        *_of_experts(plan),
        *_ALWAYS,
        _PACE[plan.settings.pace],
        *_PREFILL,
        *_overhead(plan),
        *INFERENCE_MEMORY_ASSUMPTIONS,
    )


def _of_experts(plan: InferencePlan) -> tuple[str, ...]:
    if plan.model.moe is None:
        return ()
    return plan.settings.assumptions_of_experts(plan.settings.experts(plan.setting))


def _overhead(plan: InferencePlan) -> tuple[str, ...]:
    if plan.settings.framework_overhead:
        return ("A step's framework overhead is what the scenario says.",)
    return ("Scheduling, sampling, launches and all else that a serving framework does take no time.",)
