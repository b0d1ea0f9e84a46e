"""Every kind of kernel call, told apart by its `kind`. A new kind is one class and one line here."""

from typing import Annotated, Final, TypeAlias, get_args

from pydantic import Field

from workloads.kernels import Attention, Gemm, LatentAttention
from workloads.streaming_kernels import (
    Activation,
    Copy,
    Embedding,
    Gate,
    Norm,
    Optimizer,
    Pack,
    Quantise,
    Reduce,
    Rotary,
    StreamingCall,
)

AnyKernelCall: TypeAlias = Annotated[
    Gemm
    | LatentAttention
    | Attention
    | Quantise
    | Norm
    | Pack
    | Reduce
    | Gate
    | Embedding
    | Rotary
    | Activation
    | Copy
    | Optimizer,
    Field(discriminator="kind", description="a kernel call, by its `kind`"),
]

_CLASSES = get_args(get_args(AnyKernelCall)[0])

CALL_KINDS: Final[tuple[str, ...]] = tuple(call.model_fields["kind"].default for call in _CLASSES)
STREAMING_NAMES: Final[tuple[str, ...]] = (
    "streaming",
    *(call.model_fields["kind"].default for call in _CLASSES if issubclass(call, StreamingCall)),
)
# Under which cost tables list kernels: see `KernelCall.cost_names`.
KERNEL_NAMES: Final[tuple[str, ...]] = (
    "gemm-fp8",
    "gemm-bf16",
    "weight-gradient-fp8",
    "weight-gradient-bf16",
    "latent-attention",
    "attention",
    "attention-backward",
    *STREAMING_NAMES,
)
