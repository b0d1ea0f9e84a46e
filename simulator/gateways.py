"""Through which GPUs of its own and of the other node traffic leaves and arrives.

A GPU's own NIC may not reach the other's: it is in another plane, or dead. NVLink then carries the bytes to a GPU of
the node whose NIC does, and on the far side from the GPU at which they arrive.
"""

from collections.abc import Iterator

# A GPU to leave by and one to arrive at, by endpoint.
Ways = list[tuple[int, int]]


def ways(source: int, target: int, gpus_per_node: int) -> Iterator[Ways]:
    """Yield the ways between GPUs of two nodes, best ones first; all of one list are equally good.

    The direct way comes first, then that over the own node's GPU of the target's index, as NCCL's PXN takes it, then
    all that cross NVLink once, at either end, then all that cross it at both ends: between GPUs of one index, and
    last between any. source, target: endpoints, numbered node after node.
    """
    own, other = source - source % gpus_per_node, target - target % gpus_per_node
    here, there = range(own, own + gpus_per_node), range(other, other + gpus_per_node)
    yield [(source, target)]
    yield [(own + target - other, target)]
    yield [*((leaving, target) for leaving in here), *((source, arriving) for arriving in there)]
    yield list(zip(here, there, strict=True))
    yield [(leaving, arriving) for leaving in here for arriving in there]
