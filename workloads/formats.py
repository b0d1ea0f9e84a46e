"""Number formats in which tokens travel, and the bytes that a token takes in each.

FP8 and the logarithmic formats go by tiles of 128 values along the hidden dimension (DeepSeek-V3 technical report,
section 3.3.2; arXiv 2505.09343, section 3.2). LogFMT of n bits keeps of each value its sign and the logarithm of its
magnitude in n - 1 bits, in equal steps between the least and the largest of its tile; those two are kept with the
tile. Its kernels encode and decode, which costs them time; see the cost table's `codec`.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field

VALUES_PER_TILE: Final = 128
_BITS_PER_BYTE: Final = 8
FP32_BYTES: Final = 4
_LOGFMT_TILE_BYTES: Final = 2 * FP32_BYTES  # least logarithm and step of a tile, FP32 each
_LOGFMT: Final = re.compile(r"logfmt([2-9]|1[0-6])")
_PATTERN: Final = rf"^(fp8|bf16|{_LOGFMT.pattern})$"


def _known(name: str) -> str:
    if name not in {"fp8", "bf16"} and not _LOGFMT.fullmatch(name):
        msg = f"unknown format {name!r}; known are fp8, bf16, and logfmt2 to logfmt16 (LogFMT of that many bits)"
        raise ValueError(msg)
    return name


FormatName = Annotated[
    str, Field(max_length=16, json_schema_extra={"pattern": _PATTERN}), AfterValidator(_known)
]


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """How values are kept: `bits` each, and `tile_bytes` for each 128 of them.

    codec: of the cost table, "" where the kernel moves values as they are
    """

    name: str
    bits: int
    tile_bytes: int
    codec: str

    @classmethod
    def named(cls, name: str) -> Self:
        """Return the format of a `FormatName`."""
        if name == "fp8":
            return cls(name, 8, FP32_BYTES, "")  # one FP32 scale a tile
        if name == "bf16":
            return cls(name, 16, 0, "")
        bits = int(_known(name).removeprefix("logfmt"))
        return cls(name, bits, _LOGFMT_TILE_BYTES, "logfmt")

    def payload_bytes(self, hidden_size: int) -> int:
        """Return the bytes of a token's values and scales: 7,392 of 7,168 values in FP8, 14,336 in BF16."""
        tiles = -(-hidden_size // VALUES_PER_TILE)
        return -(-hidden_size * self.bits // _BITS_PER_BYTE) + tiles * self.tile_bytes
