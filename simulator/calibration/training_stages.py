"""The stages of the training trace beside the kernels that a layer is taken to run: see `training_trace`.

Kernels that only move bytes are fused and cut up in ways that the trace does not tell, and some of its classes are
many small ones. What a class of them takes in all stages that compute, together, sets the slowdown of the kind that
stands for it; the stages as wholes show how much of a layer the list of kernels misses.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from simulator.calibration.published_gemms import published
from simulator.calibration.training_trace import COMMUNICATION_SMS, EXPERTS, RECEIVED, TOKENS, with_slowdowns
from simulator.costs import CostTable
from simulator.kernel_times import KernelTimes
from workloads.kernel_call import KernelCall
from workloads.layer_kernels import LayerKernels, Tokens
from workloads.models import MultiHeadLatentAttention, load_model

# Kinds of kernel calls, and the trace's classes that they stand for.
CLASSES_OF: Final[Mapping[tuple[str, ...], tuple[str, ...]]] = {
    ("quantise",): ("quant_cast_transpose",),
    ("norm",): ("norm",),
    ("pack", "reduce"): ("moe_permute",),
    ("activation",): ("swiglu",),
    ("rotary",): ("rotary",),
    ("gate",): ("router_topk",),
    ("copy",): ("memset_copy", "elementwise_other", "attn_core_bwd_aux"),
}
LAYERS: Final = tuple(RECEIVED)
Calls = tuple[KernelCall, ...]


class Stage(NamedTuple):
    """A stage of a layer of the trace: the calls that it is taken as, and for how long it computed, in seconds."""

    layer: str
    name: str
    calls: Calls
    busy_s: float


@cache
def stages() -> tuple[Stage, ...]:
    """Return the stages of the trace's layers, in its order.

    Weight gradients of experts run on two streams: their stage counts from its start to its end.
    """
    found = []
    for row in published("h800_train_stage_spans.csv"):
        calls = calls_of_stages(row["layer"])
        if row["stage"] in calls:
            on_two = float(row["busy_stream23_us"]) > 0.0
            busy_us = row["span_us"] if on_two else row["busy_compute_stream7_us"]
            found.append(Stage(row["layer"], row["stage"], calls[row["stage"]], float(busy_us) * 1e-6))
    return tuple(found)


@cache
def calls_of_stages(layer: str) -> Mapping[str, Calls]:
    """Return the calls of each stage that computes, of a layer of the trace."""
    model, got = load_model("deepseek-v3", Path()), RECEIVED[layer]
    latent = model.attention
    if not isinstance(latent, MultiHeadLatentAttention):
        msg = "deepseek-v3 has latent attention"
        raise TypeError(msg)
    there, back = (
        LayerKernels(model, latent, Tokens(TOKENS, TOKENS, received, rows, EXPERTS), model.num_heads, "fp8")
        for received, rows in ((got.tokens, got.rows), (got.tokens_backward, got.rows_backward))
    )
    return {
        "attn(F)": tuple(there.attention_forward()),
        "mlp(F)": tuple(there.experts_forward()),
        "mlp(B)": tuple(back.experts_backward()),
        "mlp(W)": tuple(back.experts_weight()),
        "attn(B)": tuple(back.attention_backward()),
        "attn(W)": tuple(back.attention_weight()),
    }


def measured_s(classes: tuple[str, ...]) -> float:
    """Return what classes of kernels took in the stages that compute, of all layers together: seconds."""
    computing = {stage.name for stage in stages()}
    return 1e-6 * sum(
        float(row[f"layer{layer}_us"])
        for row in published("h800_train_stage_kernelclass.csv")
        for layer in LAYERS
        if row["stage"] in computing and row["kernel_class"] in classes
    )


def predicted_s(kinds: tuple[str, ...], times: KernelTimes) -> float:
    """Return what the calls of some kinds take in those stages: seconds."""
    return sum(
        times.cost(call, COMMUNICATION_SMS).seconds
        for stage in stages()
        for call in stage.calls
        if call.cost_names[0] in kinds
    )


def fit_classes(table: CostTable) -> dict[str, float]:
    """Return by kind the slowdown with which its calls take what the trace's classes took, at least 1."""
    names = [*dict.fromkeys(call.cost_names[-1] for stage in stages() for call in stage.calls)]
    found: dict[str, float] = {}
    for kinds, classes in CLASSES_OF.items():
        once_s, twice_s = (
            predicted_s(kinds, with_slowdowns(table, dict.fromkeys([*names, *kinds], value)))
            for value in (1.0, 2.0)
        )
        slowdown = 1.0 + (measured_s(classes) - once_s) / (twice_s - once_s)
        found |= dict.fromkeys(kinds, max(1.0, slowdown))
    return found
