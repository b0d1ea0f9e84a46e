"""Buffers of dispatch and combine, by the arithmetic of DeepEP's csrc/config.hpp."""

import pytest

from workloads.exchange_buffers import low_latency_buffer_bytes, normal_buffer_bytes


def test_low_latency_buffers_have_a_place_for_all_that_may_come():
    # 288 experts, 128 tokens: combine's 14,336 + 4 x 56 bytes of each pair, to send and to receive, twice; counts of
    # 1,152 bytes; 128 at the end
    assert low_latency_buffer_bytes(7168, 288, 128) == 4 * 288 * 128 * 14_560 + 2 * 1152 + 128
    # one expert: its counts take 128 bytes
    assert low_latency_buffer_bytes(7168, 1, 10) == 4 * 10 * 14_560 + 2 * 128 + 128
    # 256 values: 16 + 512 of dispatch are more than 512 + 8. In all 42,176, and 42,240 is the next multiple of 128.
    assert 2 * (2 * 10 * 520 + 2 * 10 * 528 + 128) == 42_176
    assert low_latency_buffer_bytes(256, 2, 10) == 42_240


@pytest.mark.parametrize(("tokens", "experts"), [(1, 8), (64, 32), (128, 256)])
def test_low_latency_buffers_are_whole_units(tokens, experts):
    assert low_latency_buffer_bytes(5120, experts, tokens) % 128 == 0


def test_normal_buffers_by_hand():
    # 12 channels; 8 peers with 288 slots; 4 nodes with 140 slots to send and to receive
    slot = 2 * 7168 + 8 + 128 * 16
    assert normal_buffer_bytes(7168, 32, 8, 24) == 12 * (8 * 288 * slot + 4 * 2 * 140 * (slot + 16))
    # within a node nothing goes over the network
    assert normal_buffer_bytes(7168, 8, 8, 24) == 12 * 8 * 256 * slot
