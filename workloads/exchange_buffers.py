"""Bytes of the buffers of dispatch and combine, which all layers share, as DeepEP sizes them (csrc/config.hpp).

*Normal kernels*, by `get_nvl_buffer_size_hint` and `get_rdma_buffer_size_hint`: with c = SMs / 2 channels,
n = min(group, GPUs of a node) peers over NVLink, m = nodes of a group,
    c x n x receive slots x slot bytes,   and over the network, if m > 1,   c x m x 2 x 140 x (slot bytes + 16),
a slot having one BF16 token, its source (8 bytes), 128 top-k indices and weights (8 + 4) and 128 scales (4). Receive
slots are those of its configurations for so many ranks (deep_ep/buffer.py).

*Low-latency kernels*, by `get_low_latency_rdma_size_hint`: whatever the gate may choose has a place, twice over, so
that a kernel sends while the one before it is received. With e physical experts of the group, t tokens at most of a
rank, a message of d = 16 + 2 hidden bytes to an expert and of k = 2 hidden + 4 hidden / 128 back,
    2 x (max(t d, e t k) + e t max(d, k) + 4 e rounded up to 128),   and up to the next multiple of 128.
With 288 experts, 128 tokens and DeepSeek-V3's 7,168 values, k = 14,560: 2.15 GB.
"""

from typing import Final

from workloads.formats import FP32_BYTES, VALUES_PER_TILE
from workloads.kernels import BF16_BYTES
from workloads.messages import LOW_LATENCY_META_BYTES, SOURCE_META_BYTES, TOP_K_WEIGHT_BYTES

# DeepEP sizes its slots for that many indices, weights and scales of a token, of 8, 4 and 4 bytes.
_SLOT_ENTRIES: Final = 128
_INDEX_BYTES: Final = 8
_RDMA_SLOT_EXTRA_BYTES: Final = 16
_RDMA_SLOTS: Final = 140  # 128, rounded up to whole chunks of 28 (dispatch, 64 ranks) or 20 (combine)
# (ranks up to, NVLink slots to receive in): deep_ep/buffer.py; the last for all larger groups
_NVLINK_SLOTS: Final = ((8, 256), (64, 288), (128, 560), (2**31, 720))
_COUNT_BYTES: Final = 4
_ALIGNMENT_BYTES: Final = 128


def normal_buffer_bytes(
    hidden_size: int, expert_parallel: int, gpus_per_node: int, communication_sms: int
) -> int:
    """Return the bytes of the normal kernels' buffers on a rank of a group of so many."""
    peers = min(expert_parallel, gpus_per_node)
    routing = _SLOT_ENTRIES * (_INDEX_BYTES + TOP_K_WEIGHT_BYTES + FP32_BYTES)
    slot = BF16_BYTES * hidden_size + SOURCE_META_BYTES + routing
    channels = communication_sms // 2
    slots = next(slots for most, slots in _NVLINK_SLOTS if expert_parallel <= most)
    nodes = expert_parallel // peers
    network = 2 * nodes * _RDMA_SLOTS * (slot + _RDMA_SLOT_EXTRA_BYTES) if nodes > 1 else 0
    return channels * (peers * slots * slot + network)


def low_latency_buffer_bytes(hidden_size: int, physical_experts: int, tokens: int) -> int:
    """Return the bytes of the low-latency kernels' buffers on a rank.

    physical_experts: of the whole group, copies included; tokens: that a rank dispatches at most, at a time
    """
    tiles = hidden_size // VALUES_PER_TILE
    dispatched = LOW_LATENCY_META_BYTES + BF16_BYTES * hidden_size
    combined = (
        BF16_BYTES * hidden_size + 2 * BF16_BYTES * tiles
    )  # the least and largest of each tile, for LogFMT
    send = max(tokens * dispatched, physical_experts * tokens * combined)
    receive = physical_experts * tokens * max(dispatched, combined)
    counts = _aligned(_COUNT_BYTES * physical_experts)
    return _aligned(2 * (send + receive + counts) + 1)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
