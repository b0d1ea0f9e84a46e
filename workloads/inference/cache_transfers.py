"""Caches of new requests that come in while a step decodes: out of the host's memory, or from GPUs that prefill.

As many bytes come beside each layer, one layer's after the other's. They share links with dispatch and combine:
from the host the GPU's PCIe port, which its NIC uses too ("Insights into DeepSeek-V3", arXiv 2505.09343); from
other GPUs the NICs as well.
"""

import numpy as np

from workloads.inference.settings import CacheTransfers, PrefillTransfers
from workloads.tasks import IntArray, Transfers

CACHE_TRANSFER = "cache transfer"


def layer_transfers(settings: CacheTransfers, group: IntArray, num_ranks: int, num_layers: int) -> Transfers:
    """Return what comes to each rank of a group beside one of so many layers.

    num_ranks: of the cluster. From the host a rank's bytes have itself as their source.
    """
    size_bytes = np.full(len(group), settings.size_per_step / num_layers)
    source = group
    if isinstance(settings, PrefillTransfers):
        source = num_ranks - settings.gpus + group % settings.gpus
    weight = np.full(len(group), settings.weight)
    return Transfers.point_to_point(source, group, size_bytes, weight=weight)
