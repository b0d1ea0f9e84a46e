"""What kernels lose beside communication in training, fitted to a published trace.

The trace (deepseek-ai/profile-data, train.json) has two MoE layers of one overlapped forward-and-backward pair on an
H800: expert parallel 64, 4,096 tokens a GPU, communication kernels on 20 of 132 SMs throughout. It sets one slowdown
for each kind of kernel and nothing else; what a kernel takes alone comes from the cost table.

Which call a kernel of the trace is follows from its place in the layer, its grid and the model's dimensions. Kernels
of which that is not sure (casts and transposes fused in several ways, copies, rotary embeddings, SwiGLU's gradient,
which may write the activation anew) are left out, and so are weight gradients of experts, which share the SMs with
one another on two streams.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.calibration.published_gemms import H800, published
from simulator.costs import CostTable
from simulator.figures import Slowdown
from simulator.kernel_times import KernelTimes
from workloads.kernel_call import KernelCall
from workloads.kernels import Attention, Gemm
from workloads.streaming_kernels import Activation, Norm, Pack, Reduce

FloatArray = NDArray[np.float64]

SOURCE: Final = "deepseek-ai/profile-data, train.json: H800, 20 of 132 SMs held by communication"
COMMUNICATION_SMS: Final = 20
TOKENS: Final = 4096
EXPERTS: Final = 4  # on each GPU: 256 over 64


class _Received(NamedTuple):
    """What a GPU got from dispatch, read off the grids of the layer's kernels.

    rows: of the experts' GEMMs, each expert's padded to 128; tokens: received, each once; forward and backward
    """

    rows: int
    tokens: int
    rows_backward: int
    tokens_backward: int


RECEIVED: Final = {"0": _Received(31104, 28984, 34688, 32120), "1": _Received(30976, 28856, 32512, 30048)}


class TraceKernel(NamedTuple):
    """A kernel of the trace, the call that it is, and what it took in seconds."""

    layer: str
    stage: str
    name: str
    call: KernelCall
    seconds: float


def _dense(columns: int, depth: int) -> KernelCall:
    return Gemm(rows=TOKENS, columns=columns, depth=depth, format="fp8")


def _grouped(rows: int, columns: int, depth: int) -> KernelCall:
    return Gemm(rows=rows, columns=columns, depth=depth, groups=EXPERTS, format="fp8")


def _weight_gradient(columns: int, depth: int) -> KernelCall:
    """Return the gradient of a weight matrix [columns, depth]."""
    return Gemm(rows=columns, columns=depth, depth=TOKENS, format="fp8", accumulate=True)


def _attention(*, backward: bool) -> KernelCall:
    return Attention(
        requests=1,
        query_tokens=TOKENS,
        cached_tokens=TOKENS,
        heads=128,
        kv_heads=128,
        key_width=192,
        value_width=128,
        backward=backward,
    )


# Stage, class and place in the class -> the call. Dimensions are DeepSeek-V3's: hidden 7168, latents 1536 and 512,
# rotary 64, 128 heads of 192 and 128, experts' intermediate 2048.
_CALLS: Final[Mapping[tuple[str, str, int], Callable[[_Received], KernelCall]]] = {
    ("attn(F)", "norm", 0): lambda _: Norm(rows=TOKENS, width=7168),
    ("attn(F)", "gemm_fp8_dense", 0): lambda _: _dense(1536, 7168),
    ("attn(F)", "gemm_fp8_dense", 1): lambda _: _dense(576, 7168),
    ("attn(F)", "gemm_fp8_dense", 2): lambda _: _dense(24576, 1536),
    ("attn(F)", "gemm_fp8_dense", 3): lambda _: _dense(32768, 512),
    ("attn(F)", "attn_core_fwd", 0): lambda _: _attention(backward=False),
    ("attn(F)", "gemm_fp8_dense", 4): lambda _: _dense(7168, 16384),
    ("attn(F)", "norm", 3): lambda _: Norm(rows=TOKENS, width=7168),
    ("attn(F)", "gemm_bf16_gate", 0): lambda _: Gemm(rows=TOKENS, columns=256, depth=7168, format="bf16"),
    ("mlp(F)", "gemm_fp8_dense", 0): lambda _: _dense(4096, 7168),
    ("mlp(F)", "moe_permute", 2): lambda got: Pack(
        tokens=got.tokens, rows=got.rows, width=7168, from_format="fp8"
    ),
    ("mlp(F)", "gemm_fp8_grouped", 0): lambda got: _grouped(got.rows, 4096, 7168),
    ("mlp(F)", "swiglu", 0): lambda got: Activation(rows=got.rows, width=2048),
    ("mlp(F)", "gemm_fp8_grouped", 1): lambda got: _grouped(got.rows, 7168, 2048),
    ("mlp(F)", "moe_permute", 3): lambda got: Reduce(tokens=got.tokens, rows=got.rows, width=7168),
    ("mlp(F)", "gemm_fp8_dense", 1): lambda _: _dense(7168, 2048),
    ("mlp(B)", "gemm_fp8_dense", 0): lambda _: _dense(2048, 7168),
    ("mlp(B)", "moe_permute", 0): lambda got: Pack(
        tokens=got.tokens_backward, rows=got.rows_backward, width=7168, from_format="fp8"
    ),
    ("mlp(B)", "gemm_fp8_grouped", 0): lambda got: _grouped(got.rows_backward, 2048, 7168),
    ("mlp(B)", "gemm_fp8_grouped", 1): lambda got: _grouped(got.rows_backward, 7168, 4096),
    ("mlp(B)", "moe_permute", 1): lambda got: Reduce(
        tokens=got.tokens_backward, rows=got.rows_backward, width=7168
    ),
    ("mlp(B)", "gemm_fp8_dense", 1): lambda _: _dense(7168, 4096),
    ("mlp(W)", "gemm_fp8_wgrad", 0): lambda _: _weight_gradient(7168, 2048),
    ("mlp(W)", "gemm_fp8_wgrad", 9): lambda _: _weight_gradient(4096, 7168),
    ("attn(B)", "gemm_bf16_gate", 1): lambda _: Gemm(rows=TOKENS, columns=7168, depth=256, format="bf16"),
    ("attn(B)", "gemm_fp8_dense", 0): lambda _: _dense(16384, 7168),
    ("attn(B)", "gemm_fp8_dense", 1): lambda _: _dense(24576, 1536),
    ("attn(B)", "gemm_fp8_dense", 2): lambda _: _dense(32768, 512),
    ("attn(B)", "attn_core_bwd", 0): lambda _: _attention(backward=True),
    ("attn(B)", "gemm_fp8_dense", 3): lambda _: _dense(1536, 24576),
    ("attn(B)", "gemm_fp8_dense", 4): lambda _: _dense(512, 32768),
    ("attn(B)", "gemm_fp8_dense", 5): lambda _: _dense(7168, 576),
    ("attn(B)", "gemm_fp8_dense", 6): lambda _: _dense(7168, 1536),
    ("attn(W)", "gemm_fp8_wgrad", 0): lambda _: _weight_gradient(7168, 16384),
    ("attn(W)", "gemm_fp8_wgrad", 1): lambda _: _weight_gradient(32768, 512),
    ("attn(W)", "gemm_fp8_wgrad", 2): lambda _: _weight_gradient(24576, 1536),
    ("attn(W)", "gemm_fp8_wgrad", 3): lambda _: _weight_gradient(576, 7168),
    ("attn(W)", "gemm_fp8_wgrad", 4): lambda _: _weight_gradient(1536, 7168),
}


def trace_kernels() -> tuple[TraceKernel, ...]:
    """Return the kernels of the trace whose calls are sure, in the trace's order."""
    found = []
    for row in published("h800_train_main_kernels.csv"):
        key = (row["stage"], row["kernel_class"], int(row["ordinal_in_class"]))
        if key in _CALLS:
            call = _CALLS[key](RECEIVED[row["layer"]])
            name = f"{row['kernel_class']} {row['ordinal_in_class']}"
            found.append(TraceKernel(row["layer"], row["stage"], name, call, float(row["dur_us"]) * 1e-6))
    return tuple(found)


def slowdown_name(call: KernelCall) -> str:
    """Return under which name a call's slowdown stands: its own, but one for all that only move bytes."""
    return call.cost_names[-1] if call.arithmetic is None else call.cost_names[0]


def with_slowdowns(table: CostTable, slowdown_by_name: Mapping[str, float]) -> KernelTimes:
    """Return the table's kernels on an H800, with these slowdowns beside communication in place of its own."""
    told = {name: fitted_slowdown(value) for name, value in slowdown_by_name.items()}
    return KernelTimes(table.kernels, told, table.device, H800)


def fitted_slowdown(value: float, largest_residual: float | None = None) -> Slowdown:
    """Return a slowdown that the trace sets."""
    return Slowdown(value=value, how="fitted", source=SOURCE, largest_residual=largest_residual)


def fit_slowdowns(table: CostTable, kernels: Sequence[TraceKernel]) -> dict[str, float]:
    """Return by name the slowdown with which a kind's kernels together take what they took, at least 1.

    The table's own slowdowns are not used. Time beyond the launch is proportional to the slowdown.
    """
    names = dict.fromkeys(slowdown_name(kernel.call) for kernel in kernels)
    once, twice = (with_slowdowns(table, dict.fromkeys(names, value)) for value in (1.0, 2.0))
    found = {}
    for name in names:
        of_kind = [kernel for kernel in kernels if slowdown_name(kernel.call) == name]
        measured_s = sum(kernel.seconds for kernel in of_kind)
        once_s, twice_s = (
            sum(times.cost(kernel.call, COMMUNICATION_SMS).seconds for kernel in of_kind)
            for times in (once, twice)
        )
        found[name] = max(1.0, 1.0 + (measured_s - once_s) / (twice_s - once_s))
    return found


def misses(times: KernelTimes, kernels: Sequence[TraceKernel]) -> FloatArray:
    """Return what each kernel is predicted to take over what it took, less 1: [num_kernels]."""
    predicted_s = [times.cost(kernel.call, COMMUNICATION_SMS).seconds for kernel in kernels]
    missed: FloatArray = np.array(predicted_s) / np.array([kernel.seconds for kernel in kernels]) - 1.0
    return missed
