"""The messages that DeepEP's kernels send: what a token takes on a link, values, scales and metadata.

Normal kernels (`get_num_bytes_per_token` and `SourceMeta` in csrc/kernels/internode.cu): the token, where it came
from, and its top-k indices and weights, weights alone on the way back, rounded up to 16 bytes. Low-latency kernels
(csrc/kernels/internode_ll.cu): the token behind 16 bytes of metadata; nothing but the values on the way back.
"""

from dataclasses import dataclass
from typing import Final, Literal

from workloads.formats import NumberFormat

Kernel = Literal["normal", "low-latency"]
Phase = Literal["dispatch", "combine"]

SOURCE_META_BYTES: Final = 8
TOP_K_INDEX_BYTES: Final = 4
TOP_K_WEIGHT_BYTES: Final = 4
MESSAGE_ALIGNMENT_BYTES: Final = 16
LOW_LATENCY_META_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """The bytes of one token in one phase.

    message: on a link; logical: as DeepEP counts bandwidth, values and scales for its normal kernels, whole messages
    for its low-latency ones
    """

    number_format: NumberFormat
    message: int
    logical: int


def token_bytes(
    kernel: Kernel, phase: Phase, number_format: NumberFormat, hidden_size: int, top_k: int
) -> TokenBytes:
    """Return the bytes of one token: for DeepSeek-V3 normal 7,472 (FP8) and 14,384 (BF16), else 7,408 and 14,336."""
    payload = number_format.payload_bytes(hidden_size)
    if kernel == "low-latency":
        message = payload + (LOW_LATENCY_META_BYTES if phase == "dispatch" else 0)
        return TokenBytes(number_format, message, message)
    routing = top_k * (TOP_K_WEIGHT_BYTES + (TOP_K_INDEX_BYTES if phase == "dispatch" else 0))
    message = payload + SOURCE_META_BYTES + routing
    aligned = -(-message // MESSAGE_ALIGNMENT_BYTES) * MESSAGE_ALIGNMENT_BYTES
    return TokenBytes(number_format, aligned, payload)
