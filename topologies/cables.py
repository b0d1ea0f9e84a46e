"""Cables: how the two directions of one enter a graph, and how many a graph may have."""

from typing import Final, NamedTuple

from simulator.units import FieldError
from topologies.counts import NetworkCounts
from topologies.schema import ClusterGraph

# A cable and its share of the devices take about 1.3 kB in networkx (measured on the eight-plane tree of 16,384
# GPUs), so this many take some 5 GB: what a laptop or a workstation has. Chosen, not published.
MAX_CABLES: Final = 4_000_000

# NVLink, PCIe, and those from the GPU's PCIe switch to the host and to the NIC.
_CABLES_PER_GPU: Final = 4


class CableType(NamedTuple):
    """What all cables of a kind have in common; capacity is the datasheet's, of one direction."""

    kind: str
    profile: str
    capacity_bytes_per_s: float


def add_cable(graph: ClusterGraph, one: str, other: str, cable: CableType, key: int = 0) -> None:
    """Add both directions of a cable; `key` tells parallel cables apart."""
    kind, profile, capacity_bytes_per_s = cable
    for source, target in ((one, other), (other, one)):
        graph.add_edge(
            source, target, key, kind=kind, profile=profile, capacity_bytes_per_s=capacity_bytes_per_s
        )


def check_num_cables(counts: NetworkCounts) -> None:
    """Raise FieldError for a cluster that is too large for any machine that would build its graph.

    counts: of the network, with one NIC for each GPU of the cluster.
    """
    num_cables = _CABLES_PER_GPU * counts.endpoints + counts.endpoint_links + counts.links
    if num_cables > MAX_CABLES:
        msg = (
            f"the cluster would have {num_cables:,} cables, more than the {MAX_CABLES:,} that fit into the memory "
            "of a workstation; ask for fewer nodes"
        )
        raise FieldError("nodes", msg)
