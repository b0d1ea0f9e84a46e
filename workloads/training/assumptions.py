"""What a training step takes for granted, one sentence each."""

from typing import Final

from workloads.training.plan import TrainingPlan
from workloads.training_memory import MEMORY_ASSUMPTIONS

_ALWAYS: Final = (
    "Kernels go through their tokens in order, so that what a rank has for its peers advances alike.",
    "Chunks are pipelined: the wire and NVLink behind it carry a transfer at one rate.",
    "All expert-parallel groups have the same traffic; the ranks of a group start every kernel and exchange "
    "together, and compute as the one that receives most.",
    "Kernels of an overlapped pair alternate, layer by layer, in the order of DeepSeek's published trace; the phases "
    "of a rank follow one another, and a phase starts when all that it needs has come.",
    "Sends between stages leave when the phase that makes them has ended; they hold up no kernel, and cost nothing "
    "beside their links' time.",
    "An exchange waits for its peers, and is slowed, where its GPU has a kernel to run meanwhile.",
    "Gradients are summed and weights gathered by NCCL's rings, dense before experts', when all ranks of a group "
    "have ended their last phase; clipping makes every rank wait for all gradients before the optimizer, whose "
    "exchange of one number is free.",
    "Loading data, saving checkpoints and moving averages of weights take no time.",
)


def assumptions(plan: TrainingPlan) -> tuple[str, ...]:
    """Return what a step takes for granted."""
    settings, setting = plan.settings, plan.setting
    return (
        *settings.assumptions_of_experts(settings.experts(setting)),
        *_ALWAYS,
        f"On each GPU {settings.communication_sms} SMs are set aside for communication throughout.",
        *MEMORY_ASSUMPTIONS,
        *(("GPUs may have too little memory: it is not looked at.",) if settings.ignore_memory else ()),
    )
