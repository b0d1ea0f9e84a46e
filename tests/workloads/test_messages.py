"""Messages of DeepEP's kernels: the bytes of a token by kernel, phase and format."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.formats import NumberFormat
from workloads.messages import token_bytes


def sizes(kernel, phase, number_format, hidden_size, top_k):
    token = token_bytes(kernel, phase, NumberFormat.named(number_format), hidden_size, top_k)
    assert token.number_format == NumberFormat.named(number_format)
    return token.message, token.logical


@pytest.mark.parametrize(
    ("phase", "number_format", "hidden_size", "top_k", "expected"),
    [
        # DeepSeek-V3: 7,392 of values and scales + 8 of source + 8 indices and 8 weights of 4 bytes = 7,464, up to a
        # multiple of 16: 7,472. BF16: 14,336 + 8 + 64 = 14,408, up to 14,416.
        ("dispatch", "fp8", 7168, 8, (7472, 7392)),
        ("dispatch", "bf16", 7168, 8, (14416, 14336)),
        # On the way back weights alone: 14,336 + 8 + 32 = 14,376, up to 14,384. LogFMT of 10 bits: 8,960 + 448 of
        # tiles = 9,408, + 40 = 9,448, up to 9,456.
        ("combine", "bf16", 7168, 8, (14384, 14336)),
        ("combine", "logfmt10", 7168, 8, (9456, 9408)),
        # With a shared expert that is dispatched nine: 7,392 + 8 + 72 = 7,472 fits without a byte to spare.
        ("dispatch", "fp8", 7168, 9, (7472, 7392)),
        # 130 values: FP8 138 + 8 + 4 + 4 = 154, up to 160; LogFMT of 10 bits 179 + 8 + 4 = 191, up to 192.
        ("dispatch", "fp8", 130, 1, (160, 138)),
        ("combine", "logfmt10", 130, 1, (192, 179)),
        # 129 values: LogFMT of 11 bits 194 + 8 + 8 = 210, up to 224.
        ("dispatch", "logfmt11", 129, 1, (224, 194)),
    ],
)
def test_a_normal_kernel_sends_source_and_routing_and_rounds_up(
    phase, number_format, hidden_size, top_k, expected
):
    assert sizes("normal", phase, number_format, hidden_size, top_k) == expected


@pytest.mark.parametrize(
    ("phase", "number_format", "hidden_size", "expected"),
    [
        # 16 bytes of metadata there, none back, nothing rounded: 7,392 + 16, 9,408 + 16, 14,336.
        ("dispatch", "fp8", 7168, 7408),
        ("dispatch", "bf16", 7168, 14352),
        ("dispatch", "logfmt10", 7168, 9424),
        ("combine", "bf16", 7168, 14336),
        ("combine", "logfmt10", 7168, 9408),
        ("combine", "fp8", 7168, 7392),
        ("dispatch", "logfmt10", 130, 195),
        ("combine", "logfmt10", 130, 179),
    ],
)
@pytest.mark.parametrize("top_k", [1, 8])
def test_a_low_latency_message_is_one_expert_s(phase, number_format, hidden_size, expected, top_k):
    # A message goes to one expert, so that the number of experts of a token does not matter; all of it is counted.
    assert sizes("low-latency", phase, number_format, hidden_size, top_k) == (expected, expected)


@given(
    st.sampled_from(["dispatch", "combine"]),
    st.sampled_from(["fp8", "bf16", "logfmt7", "logfmt10"]),
    st.integers(1, 20_000),
    st.integers(1, 300),
)
def test_rounding_up_adds_less_than_16_bytes(phase, number_format, hidden_size, top_k):
    message, logical = sizes("normal", phase, number_format, hidden_size, top_k)
    metadata = 8 + top_k * (8 if phase == "dispatch" else 4)
    assert message % 16 == 0
    assert 0 <= message - logical - metadata < 16
    assert logical == sizes("low-latency", "combine", number_format, hidden_size, top_k)[1]
