"""Devices and cables: nodes, networks between them, and the graph vocabulary that they share.

A topology is one file with a spec, which checks whether nodes fit and builds their graph, and one line in
`Topology`.
"""

from typing import Annotated, TypeAlias

from pydantic import Field

from topologies.multi_plane import MultiPlaneFatTree
from topologies.multi_rail import MultiRailFatTree
from topologies.no_network import NoNetwork
from topologies.node import NODES, GpuSpec, NodeSpec
from topologies.schema import ClusterGraph, check_graph

__all__ = [
    "NODES",
    "ClusterGraph",
    "GpuSpec",
    "MultiPlaneFatTree",
    "MultiRailFatTree",
    "NoNetwork",
    "NodeSpec",
    "Topology",
    "build_cluster",
    "check_graph",
]

Topology: TypeAlias = Annotated[
    MultiPlaneFatTree | MultiRailFatTree | NoNetwork,
    Field(discriminator="kind", description="the network between the nodes"),
]


def build_cluster(node: NodeSpec, num_nodes: int, topology: Topology) -> ClusterGraph:
    """Return the checked graph of `num_nodes` equal nodes joined by `topology`.

    Raises FieldError, its path starting at the scenario's `cluster`, if the nodes do not fit.
    """
    topology.check(node, num_nodes)
    graph = topology.build(node, num_nodes)
    check_graph(graph)
    return graph
