"""No network: one node by itself."""

from typing import Literal

import networkx as nx
from pydantic import Field

from simulator.units import FieldError, Spec
from topologies.counts import NetworkCounts
from topologies.node import NodeSpec, add_node
from topologies.schema import ClusterGraph


class NoNetwork(Spec):
    """One node, whose NICs are left out because they lead nowhere."""

    kind: Literal["none"] = Field(description="one node by itself")

    def check(self, node: NodeSpec, num_nodes: int) -> None:  # noqa: ARG002 -- as every topology is checked
        """Raise FieldError, its path starting at the cluster, unless there is one node."""
        if num_nodes != 1:
            msg = (
                f"topology {{kind: none}} joins no nodes, so that nodes must be 1, not {num_nodes:,}; "
                "choose another kind of topology for more"
            )
            raise FieldError("nodes", msg)

    def counts(self, node: NodeSpec, num_nodes: int) -> NetworkCounts:
        """Return the counts of the network, which is none; raise FieldError like `check`."""
        self.check(node, num_nodes)
        return NetworkCounts(0, 0, 0, 0)

    def build(self, node: NodeSpec, num_nodes: int) -> ClusterGraph:
        """Return the cluster's graph; raise FieldError like `check`."""
        self.check(node, num_nodes)
        return single_node(node)


def single_node(node: NodeSpec) -> ClusterGraph:
    """Return a cluster of one node without NICs; `topologies.node.add_node` draws it."""
    graph: ClusterGraph = nx.MultiDiGraph(family="none", num_nodes=1, gpus_per_node=node.gpus, planes=0)
    add_node(graph, node, 0, ())
    return graph
