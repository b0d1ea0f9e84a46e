"""Kernel calls: what a GPU is asked to compute, and the FLOPs and bytes that it takes at the least.

A call knows its sizes and what follows from them alone. How long it takes on a device is the business of
`simulator.kernel_times` and of a cost table, which finds a call's entry by the first of `cost_names` that it has.
A multiply-add is 2 FLOPs; an operand crosses the memory bus once.
"""

from collections.abc import Hashable
from typing import ClassVar, Final, Literal

from pydantic import Field, model_validator

from simulator.units import Spec
from workloads.formats import FP32_BYTES, VALUES_PER_TILE
from workloads.kernel_call import Arithmetic

BF16_BYTES: Final = 2
MOST: Final = 2**40  # of any size, so that products stay finite


class CallSpec(Spec):
    """A kernel call with its sizes: see `workloads.kernel_call.KernelCall`; `kind` names it."""

    size_names: ClassVar[tuple[str, ...]]

    @property
    def cost_names(self) -> tuple[str, ...]:
        """Return under which names a cost table may list the call, the closest first."""
        raise NotImplementedError

    @property
    def arithmetic(self) -> Arithmetic | None:
        """Return None: a kernel that only moves bytes."""
        return None

    @property
    def flops(self) -> float:
        """Return 0: a kernel that only moves bytes."""
        return 0.0

    @property
    def moved_bytes(self) -> float:
        """Return the bytes that it reads from and writes to the GPU's memory, each operand once."""
        raise NotImplementedError

    @property
    def sizes(self) -> tuple[float, ...]:
        """Return the fields that `size_names` names; time never falls as one of them grows."""
        return tuple(getattr(self, name) for name in self.size_names)

    @property
    def variant(self) -> Hashable:
        """Return all other fields."""
        return tuple(
            getattr(self, name) for name in sorted(type(self).model_fields) if name not in self.size_names
        )

    @property
    def label(self) -> str:
        """Return the closest name and the sizes."""
        return f"{self.cost_names[0]} {'x'.join(f'{size:g}' for size in self.sizes)}"

    def padded_flops(self, tile_rows: int, ramp_depth: float) -> float:  # noqa: ARG002
        """Return the FLOPs that multiprocessors spend: tiles at least `tile_rows` high, `ramp_depth` deeper."""
        return self.flops


class Gemm(CallSpec):
    """D[rows, columns] = A[rows, depth] B[columns, depth]^T, or `groups` of them with a B each, in one call.

    In FP8 A carries a scale per 1x128 values and B one per 128x128; partial sums are promoted to FP32. D is BF16, or
    FP32 to which the product is added if `accumulate`.
    """

    size_names: ClassVar = ("groups", "rows", "columns", "depth")

    kind: Literal["gemm"] = Field(default="gemm", description="a matrix product, dense or grouped")
    rows: int = Field(ge=1, le=MOST, description="rows of A and D, those of all groups together (no default)")
    columns: int = Field(ge=1, le=MOST, description="columns of D: the layer's outputs (no default)")
    depth: int = Field(ge=1, le=MOST, description="values that each product adds up (no default)")
    groups: int = Field(default=1, ge=1, le=MOST, description="experts with a weight matrix each (default 1)")
    format: Arithmetic = Field(description="of A and B: fp8 or bf16 (no default)")
    accumulate: bool = Field(
        default=False, description="add to an FP32 result, as weight gradients do (default false)"
    )

    @property
    def cost_names(self) -> tuple[str, ...]:
        """Return the names of weight gradients first where it is one."""
        name = f"gemm-{self.format}"
        return (f"weight-gradient-{self.format}", name) if self.accumulate else (name,)

    @property
    def arithmetic(self) -> Arithmetic:
        """Return the operands' format."""
        return self.format

    @property
    def flops(self) -> float:
        """Return 2 rows columns depth."""
        return 2.0 * self.rows * self.columns * self.depth

    @property
    def moved_bytes(self) -> float:
        """Return the bytes of A, of all groups' B, and of D; scales included."""
        a, b = float(self.rows) * self.depth, float(self.groups) * self.columns * self.depth
        if self.format == "fp8":
            operands = a * (1 + FP32_BYTES / VALUES_PER_TILE) + b * (1 + FP32_BYTES / VALUES_PER_TILE**2)
        else:
            operands = BF16_BYTES * (a + b)
        result = 2 * FP32_BYTES if self.accumulate else BF16_BYTES
        return operands + result * float(self.rows) * self.columns

    def padded_flops(self, tile_rows: int, ramp_depth: float) -> float:
        """Return the FLOPs with each group at least `tile_rows` high and all `ramp_depth` deeper."""
        rows = self.groups * max(self.rows / self.groups, tile_rows)
        return 2.0 * rows * self.columns * (self.depth + ramp_depth)


class _AttentionCall(CallSpec):
    """What attention's kernels share: requests whose last `query_tokens` read `cached_tokens`, their own included."""

    requests: int = Field(ge=1, le=MOST, description="sequences in the batch (no default)")
    query_tokens: int = Field(
        default=1, ge=1, le=MOST, description="tokens of each sequence that attend (default 1)"
    )
    cached_tokens: float = Field(
        ge=1,
        le=MOST,
        description="tokens of each sequence that are attended to, its own included; a mean (no default)",
    )
    heads: int = Field(ge=1, le=MOST, description="query heads on this GPU (no default)")
    causal: bool = Field(
        default=True, description="a token attends to none that come after it (default true)"
    )

    @model_validator(mode="after")
    def _own_tokens_are_cached(self) -> "_AttentionCall":
        if self.query_tokens > self.cached_tokens:
            msg = f"query_tokens {self.query_tokens} exceed cached_tokens {self.cached_tokens:g}, which count them"
            raise ValueError(msg)
        return self

    @property
    def arithmetic(self) -> Arithmetic:
        """Return bf16: attention's products are BF16."""
        return "bf16"

    @property
    def pairs(self) -> float:
        """Return the pairs of a query token and a token that it attends to, per head."""
        whole = self.query_tokens * self.cached_tokens
        hidden = self.query_tokens * (self.query_tokens - 1) / 2 if self.causal else 0.0
        return self.requests * (whole - hidden)


class LatentAttention(_AttentionCall):
    """MLA with the up-projections absorbed: all heads read one latent and one rotary key per cached token."""

    size_names: ClassVar = ("requests", "query_tokens", "cached_tokens", "heads")

    kind: Literal["latent-attention"] = Field(
        default="latent-attention", description="multi-head latent attention, absorbed"
    )
    latent: int = Field(default=512, ge=1, le=MOST, description="values of the latent (default 512)")
    rotary: int = Field(default=64, ge=0, le=MOST, description="values of the shared rotary key (default 64)")

    @property
    def cost_names(self) -> tuple[str, ...]:
        """Return its own name."""
        return ("latent-attention",)

    @property
    def flops(self) -> float:
        """Return the FLOPs of scores (latent and rotary key) and of the weighted sum of latents."""
        return self.pairs * self.heads * self._flops_per_pair

    @property
    def _flops_per_pair(self) -> float:
        return 2.0 * (2 * self.latent + self.rotary)

    @property
    def moved_bytes(self) -> float:
        """Return the bytes of the cache, of the queries and of the result, in BF16."""
        width = self.latent + self.rotary
        queries = float(self.requests) * self.query_tokens * self.heads * (width + self.latent)
        return BF16_BYTES * (self.requests * self.cached_tokens * width + queries)

    def padded_flops(self, tile_rows: int, ramp_depth: float) -> float:
        """Return the FLOPs with the query rows of a request, heads by tokens, at least `tile_rows` high."""
        whole = self.requests * self.cached_tokens * tile_rows * self._flops_per_pair
        return max(self.flops, whole) * (1.0 + ramp_depth / self.cached_tokens)


class Attention(_AttentionCall):
    """Attention over keys and values with heads of their own: grouped queries, or MLA expanded (as many heads)."""

    size_names: ClassVar = (
        "requests",
        "query_tokens",
        "cached_tokens",
        "heads",
        "kv_heads",
        "key_width",
        "value_width",
    )

    kind: Literal["attention"] = Field(
        default="attention", description="attention with expanded or grouped keys"
    )
    kv_heads: int = Field(ge=1, le=MOST, description="key and value heads on this GPU (no default)")
    key_width: int = Field(ge=1, le=MOST, description="values of a head's query and key (no default)")
    value_width: int = Field(ge=1, le=MOST, description="values of a head's value (no default)")
    backward: bool = Field(default=False, description="the backward pass (default false)")

    @model_validator(mode="after")
    def _groups_are_even(self) -> "Attention":
        if self.heads % self.kv_heads:
            msg = f"kv_heads {self.kv_heads} must divide heads {self.heads}"
            raise ValueError(msg)
        return self

    @property
    def cost_names(self) -> tuple[str, ...]:
        """Return the backward pass's name first where it is one."""
        return ("attention-backward", "attention") if self.backward else ("attention",)

    @property
    def flops(self) -> float:
        """Return the FLOPs of the score and value products; backward: of all five, the scores' again included."""
        widths = (
            3 * self.key_width + 2 * self.value_width if self.backward else self.key_width + self.value_width
        )
        return 2.0 * self.pairs * self.heads * widths

    @property
    def _flops_per_pair(self) -> float:
        if self.backward:
            return 2.0 * (3 * self.key_width + 2 * self.value_width)
        return 2.0 * (self.key_width + self.value_width)

    @property
    def moved_bytes(self) -> float:
        """Return the bytes of queries, keys, values and result in BF16; backward: of these and their gradients."""
        width = self.key_width + self.value_width
        queries = float(self.requests) * self.query_tokens * self.heads * width
        keys = self.requests * self.cached_tokens * self.kv_heads * width
        return BF16_BYTES * (queries + keys) * (2 if self.backward else 1)

    def padded_flops(self, tile_rows: int, ramp_depth: float) -> float:
        """Return the FLOPs with the query rows that share a key head at least `tile_rows` high."""
        whole = self.requests * self.cached_tokens * self.kv_heads * tile_rows * self._flops_per_pair
        return max(self.flops, whole) * (1.0 + ramp_depth / self.cached_tokens)
