"""What a network holds, counted: the same numbers by formula as in the graph, at any size."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NetworkCounts:
    """How many of each part a network has.

    endpoints: NICs; switches: leaves, spines, cores and routers; links: cables between switches;
    endpoint_links: cables between NICs and switches, one for each port of a NIC
    """

    endpoints: int
    switches: int
    links: int
    endpoint_links: int
