"""Kernels that only move bytes: quantise, norm, pack and reduce, gate, embedding, activation, optimizer.

Each reads every input once and writes every output once; what it computes meanwhile is hidden behind the bytes.
A cost table lists them under their own name or, all alike, as `streaming`.
"""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from workloads.formats import FP32_BYTES, FormatName, NumberFormat
from workloads.kernels import BF16_BYTES, MOST, CallSpec

_INDEX_BYTES = 4  # an expert's or a token's number


def _rows_bytes(rows: int, width: int, number_format: str) -> float:
    """Return the bytes of rows in a format, scales included."""
    return float(rows) * NumberFormat.named(number_format).payload_bytes(width)


class StreamingCall(CallSpec):
    """A kernel whose time is that of its bytes."""

    kind: str

    @property
    def cost_names(self) -> tuple[str, ...]:
        """Return the kernel's own name, then `streaming`."""
        return (self.kind, "streaming")


class Quantise(StreamingCall):
    """Give each tile of 128 values its scale and write it in another format."""

    size_names: ClassVar = ("rows", "width")

    kind: Literal["quantise"] = Field(
        default="quantise", description="conversion to a format with scales per tile"
    )
    rows: int = Field(ge=1, le=MOST, description="rows, tokens mostly (no default)")
    width: int = Field(ge=1, le=MOST, description="values of a row (no default)")
    from_format: FormatName = Field(default="bf16", description="format that is read (default bf16)")
    to_format: FormatName = Field(default="fp8", description="format that is written (default fp8)")

    @property
    def moved_bytes(self) -> float:
        """Return the bytes of the rows in both formats."""
        return _rows_bytes(self.rows, self.width, self.from_format) + _rows_bytes(
            self.rows, self.width, self.to_format
        )


class Norm(StreamingCall):
    """RMS normalisation of rows, the residual added before."""

    size_names: ClassVar = ("rows", "width")

    kind: Literal["norm"] = Field(default="norm", description="RMS normalisation with a residual")
    rows: int = Field(ge=1, le=MOST, description="rows, tokens mostly (no default)")
    width: int = Field(ge=1, le=MOST, description="values of a row (no default)")

    @property
    def moved_bytes(self) -> float:
        """Return the bytes of input and residual read, of the sum and the result written, in BF16."""
        return 4.0 * BF16_BYTES * self.rows * self.width + BF16_BYTES * self.width


class Pack(StreamingCall):
    """Write tokens in the order of their experts, as dispatch sends or experts take them."""

    size_names: ClassVar = ("tokens", "rows", "width")

    kind: Literal["pack"] = Field(default="pack", description="tokens put in the order of their experts")
    tokens: int = Field(ge=1, le=MOST, description="tokens that are read (no default)")
    rows: int = Field(ge=1, le=MOST, description="copies of tokens that are written (no default)")
    width: int = Field(ge=1, le=MOST, description="values of a token (no default)")
    from_format: FormatName = Field(default="bf16", description="format that is read (default bf16)")
    to_format: FormatName = Field(default="fp8", description="format that is written (default fp8)")

    @property
    def moved_bytes(self) -> float:
        """Return the bytes of the tokens, of where each copy goes, and of the copies."""
        copies = _INDEX_BYTES * float(self.rows) + _rows_bytes(self.rows, self.width, self.to_format)
        return _rows_bytes(self.tokens, self.width, self.from_format) + copies


class Reduce(StreamingCall):
    """Add up the copies of each token, weighted, as combine does."""

    size_names: ClassVar = ("tokens", "rows", "width")

    kind: Literal["reduce"] = Field(default="reduce", description="weighted sums of tokens' copies")
    tokens: int = Field(ge=1, le=MOST, description="tokens that are written (no default)")
    rows: int = Field(ge=1, le=MOST, description="copies of tokens that are read (no default)")
    width: int = Field(ge=1, le=MOST, description="values of a token (no default)")

    @property
    def moved_bytes(self) -> float:
        """Return the bytes of the copies in BF16 with where each is and its weight, and of the sums in BF16."""
        copies = float(self.rows) * (BF16_BYTES * self.width + _INDEX_BYTES + FP32_BYTES)
        return copies + BF16_BYTES * float(self.tokens) * self.width


class Gate(StreamingCall):
    """Choose each token's experts from its scores; the scores are a GEMM of their own."""

    size_names: ClassVar = ("tokens", "experts", "chosen")

    kind: Literal["gate"] = Field(default="gate", description="choice of each token's experts")
    tokens: int = Field(ge=1, le=MOST, description="tokens (no default)")
    experts: int = Field(ge=1, le=MOST, description="experts with a score each (no default)")
    chosen: int = Field(ge=1, le=MOST, description="experts that a token goes to (no default)")

    @model_validator(mode="after")
    def _are_there(self) -> "Gate":
        if self.chosen > self.experts:
            msg = f"chosen {self.chosen} must be at most experts {self.experts}"
            raise ValueError(msg)
        return self

    @property
    def moved_bytes(self) -> float:
        """Return the bytes of the scores in FP32, and of the chosen experts and their weights."""
        return float(self.tokens) * (FP32_BYTES * self.experts + (_INDEX_BYTES + FP32_BYTES) * self.chosen)


class Embedding(StreamingCall):
    """Look up the vector of each token."""

    size_names: ClassVar = ("tokens", "width")

    kind: Literal["embedding"] = Field(default="embedding", description="look-up of tokens' vectors")
    tokens: int = Field(ge=1, le=MOST, description="tokens (no default)")
    width: int = Field(ge=1, le=MOST, description="values of a vector (no default)")

    @property
    def moved_bytes(self) -> float:
        """Return the bytes of the tokens' numbers, and of their vectors read and written in BF16."""
        return float(self.tokens) * (_INDEX_BYTES + 2 * BF16_BYTES * self.width)


class Rotary(StreamingCall):
    """Turn queries or keys by their position."""

    size_names: ClassVar = ("rows", "width")

    kind: Literal["rotary"] = Field(default="rotary", description="rotary position embedding")
    rows: int = Field(ge=1, le=MOST, description="rows: tokens times heads (no default)")
    width: int = Field(ge=1, le=MOST, description="values of a row that are read and written (no default)")

    @property
    def moved_bytes(self) -> float:
        """Return the bytes of the rows read and written in BF16."""
        return 2.0 * BF16_BYTES * self.rows * self.width


class Activation(StreamingCall):
    """SwiGLU between an expert's first and second GEMM, its result written in the second one's format."""

    size_names: ClassVar = ("rows", "width")

    kind: Literal["activation"] = Field(default="activation", description="SwiGLU between two GEMMs")
    rows: int = Field(ge=1, le=MOST, description="rows (no default)")
    width: int = Field(ge=1, le=MOST, description="values of a result's row (no default)")
    to_format: FormatName = Field(
        default="fp8", description="format of what is written forward (default fp8)"
    )
    backward: bool = Field(default=False, description="the backward pass (default false)")

    @property
    def moved_bytes(self) -> float:
        """Return gate and up read in BF16 and the result written; backward: its gradient read, theirs written."""
        both = 2.0 * BF16_BYTES * self.rows * self.width
        if self.backward:
            return 2 * both + float(BF16_BYTES) * self.rows * self.width
        return both + _rows_bytes(self.rows, self.width, self.to_format)


class Copy(StreamingCall):
    """Read bytes and write them elsewhere."""

    size_names: ClassVar = ("size_bytes",)

    kind: Literal["copy"] = Field(default="copy", description="bytes read and written elsewhere")
    size_bytes: int = Field(ge=1, le=MOST, description="bytes that are copied (no default)")

    @property
    def moved_bytes(self) -> float:
        """Return the bytes read and written."""
        return 2.0 * self.size_bytes


class Optimizer(StreamingCall):
    """AdamW over the parameters that this GPU keeps the state of (DeepSeek-V3 technical report, section 3.3.3)."""

    size_names: ClassVar = ("parameters",)

    kind: Literal["optimizer"] = Field(default="optimizer", description="the optimizer's step")
    parameters: int = Field(ge=1, le=MOST, description="parameters whose state is on this GPU (no default)")

    @property
    def moved_bytes(self) -> float:
        """Return FP32 gradients read; FP32 weights and two BF16 moments read and written; BF16 weights written."""
        read_and_written = 2 * (FP32_BYTES + 2 * BF16_BYTES)
        return float(self.parameters) * (FP32_BYTES + read_and_written + BF16_BYTES)
