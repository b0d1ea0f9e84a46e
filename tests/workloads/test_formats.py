"""Number formats: the bytes of a token's values and scales, and formats that do not exist."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from workloads.formats import FormatName, NumberFormat

FORMATS = ["fp8", "bf16", *(f"logfmt{bits}" for bits in range(2, 17))]
UNKNOWN = [
    "fp4",
    "FP8",
    "fp16",
    "logfmt",
    "logfmt1",
    "logfmt17",
    "logfmt08",
    "logfmt-8",
    "logfmt8 ",
    "logfmt8\n",
    "",
]


@pytest.mark.parametrize(
    ("name", "hidden_size", "expected"),
    [
        # 7,168 values are 56 tiles of 128. FP8 has a byte a value and 4 of scale a tile: 7,168 + 56 x 4.
        ("fp8", 7168, 7392),
        ("bf16", 7168, 14336),
        # LogFMT has 8 bytes a tile: 56 x 8 = 448. 7,168 x 10 bits are 8,960 bytes, x 8 bits 7,168, x 16 bits 14,336.
        ("logfmt10", 7168, 9408),
        ("logfmt8", 7168, 7616),
        ("logfmt16", 7168, 14784),
        # 130 values are a tile and two values of another, which has a scale too: 130 + 2 x 4 and 2 x 130.
        ("fp8", 130, 138),
        ("bf16", 130, 260),
        # 130 x 10 bits are 162.5 bytes, so 163, + 2 x 8; 130 x 3 bits are 48.75, so 49, + 16.
        ("logfmt10", 130, 179),
        ("logfmt3", 130, 65),
        # 1 value: a tile. 2 bits are a byte.
        ("fp8", 1, 5),
        ("bf16", 1, 2),
        ("logfmt2", 1, 9),
        # 128 values fill a tile, 129 begin the next: 1,408 bits = 176 + 8, and 1,419 bits, so 178, + 16.
        ("logfmt11", 128, 184),
        ("logfmt11", 129, 194),
    ],
)
def test_bytes_of_a_token(name, hidden_size, expected):
    assert NumberFormat.named(name).payload_bytes(hidden_size) == expected


@given(st.sampled_from(FORMATS), st.integers(1, 2000))
def test_bytes_agree_with_packed_bits_and_counted_tiles(name, hidden_size):
    bits = {"fp8": 8, "bf16": 16}.get(name) or int(name.removeprefix("logfmt"))
    tile_bytes = {"fp8": 4, "bf16": 0}.get(name, 8)
    values = np.packbits(np.ones(hidden_size * bits, np.bool_)).size
    tiles = len(range(0, hidden_size, 128))
    assert NumberFormat.named(name).payload_bytes(hidden_size) == values + tiles * tile_bytes


@pytest.mark.parametrize("name", FORMATS)
def test_only_logarithmic_formats_need_a_codec(name):
    assert NumberFormat.named(name).codec == ("logfmt" if name.startswith("logfmt") else "")
    assert NumberFormat.named(name).name == name
    assert TypeAdapter(FormatName).validate_python(name) == name


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_formats_are_refused(name):
    message = "unknown format .*; known are fp8, bf16, and logfmt2 to logfmt16"
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(FormatName).validate_python(name)
    with pytest.raises(ValueError, match=message):
        NumberFormat.named(name)
