"""Devices and cables: nodes, networks between them, and the graph vocabulary that they share.

A topology is one file with a spec, which checks whether nodes fit and builds their graph, and one line in
`Topology`.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TypeAlias

from pydantic import Field

from topologies.counts import NetworkCounts
from topologies.custom import CustomNetwork
from topologies.dragonfly import Dragonfly
from topologies.graph_check import check_graph
from topologies.multi_plane import MultiPlaneFatTree
from topologies.multi_rail import MultiRailFatTree
from topologies.no_network import NoNetwork
from topologies.node import NODES, GpuSpec, NodeSpec
from topologies.schema import ClusterGraph
from topologies.slim_fly import SlimFly
from topologies.three_layer import ThreeLayerFatTree
from topologies.two_layer import TwoLayerFatTree

__all__ = [
    "NODES",
    "ClusterGraph",
    "CustomNetwork",
    "Dragonfly",
    "GpuSpec",
    "MultiPlaneFatTree",
    "MultiRailFatTree",
    "NetworkCounts",
    "NoNetwork",
    "NodeSpec",
    "SlimFly",
    "ThreeLayerFatTree",
    "Topology",
    "TwoLayerFatTree",
    "build_cluster",
    "check_graph",
]

Topology: TypeAlias = Annotated[
    TwoLayerFatTree
    | MultiPlaneFatTree
    | MultiRailFatTree
    | ThreeLayerFatTree
    | SlimFly
    | Dragonfly
    | CustomNetwork
    | NoNetwork,
    Field(discriminator="kind", description="the network between the nodes"),
]


def build_cluster(node: NodeSpec, num_nodes: int, topology: Topology) -> ClusterGraph:
    """Return the checked graph of `num_nodes` equal nodes joined by `topology`.

    Raises FieldError, its path starting at the scenario's `cluster`, if the nodes do not fit.
    """
    topology.check(node, num_nodes)
    with _without_collection():
        graph = topology.build(node, num_nodes)
        check_graph(graph)
    return graph


@contextmanager
def _without_collection() -> Iterator[None]:
    """Hold back the search for cycles of garbage.

    A graph of millions of dictionaries has none, and walking it again and again as it grows takes nearly half of
    the time of building it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
