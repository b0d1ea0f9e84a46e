"""The idealised limit of decoding: bytes of dispatch and combine over bandwidth, and nothing else.

"Insights into DeepSeek-V3" (arXiv 2505.09343), section 2.3.2. A GPU has so many tokens in an exchange; each goes to
its routed experts and the shared one; dispatch takes 1 byte and combine 2 bytes a value; the hidden size is rounded
to whole thousands, 7,000 for DeepSeek-V3's 7,168, as the paper's figures have it. Two micro-batches take turns, so
that a layer has two exchanges; every layer of the model counts, those without experts too. Computation, latency,
start-ups and copies that stay on their GPU or node are left out.

    exchange = tokens * experts * hidden size * (1 + 2) bytes / bandwidth
    step     = layers * micro-batches * exchange

The bandwidth is a NIC's, or NVLink's where a group lies on one node, as datasheets have it.
"""

from typing import Final

from workloads.models import Model
from workloads.tasks import GpuLimits, Stream, Task, TaskGraph

_DISPATCH_BYTES: Final = 1
_COMBINE_BYTES: Final = 2
_ROUNDED_TO: Final = 1_000

LIMIT_ASSUMPTIONS: Final = (
    "The limit of arXiv 2505.09343, section 2.3.2: bytes of dispatch and combine over datasheet bandwidth; no "
    "computation, no latency, no contention, no copy that stays near; the hidden size in whole thousands.",
)


def exchange_s(model: Model, tokens: float, bandwidth_bytes_per_s: float) -> float:
    """Return the seconds of a dispatch and a combine of so many tokens of a GPU."""
    assert model.moe is not None
    experts = model.moe.experts_per_token + model.moe.num_shared_experts
    hidden = model.hidden_size // _ROUNDED_TO * _ROUNDED_TO or model.hidden_size
    return tokens * experts * hidden * (_DISPATCH_BYTES + _COMBINE_BYTES) / bandwidth_bytes_per_s


def bandwidth_bytes_per_s(gpu: GpuLimits, group_size: int, gpus_per_node: int) -> float:
    """Return the bandwidth that an exchange of a group has."""
    return gpu.nvlink_bytes_per_s if group_size <= gpus_per_node else gpu.nic_bytes_per_s


def limit_graph(model: Model, num_ranks: int, micro_batches: int, one_exchange_s: float) -> TaskGraph:
    """Return a step of nothing but exchanges, on rank 0: the others do the same."""
    tasks = [
        Task("exchange", 0, Stream.COMMUNICATION, duration_s=one_exchange_s)
        for _ in range(model.num_layers * micro_batches)
    ]
    return TaskGraph(num_ranks, tuple(tasks), ())
