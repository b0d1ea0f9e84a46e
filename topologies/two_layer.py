"""The two-layer fat-tree: one tree for all NICs."""

from typing import Literal

from pydantic import Field

from topologies.cables import check_num_cables
from topologies.counts import NetworkCounts
from topologies.fat_tree import TreePlan, TwoLayerTree, add_uplinks, check_num_nodes, leaf_ports, plan_tree
from topologies.node import NodeSpec
from topologies.schema import ClusterGraph
from topologies.wiring import (
    add_endpoints,
    add_switches,
    all_nics,
    check_one_port,
    network_cable,
    nodes_without_network,
)


class TwoLayerFatTree(TwoLayerTree):
    """All NICs are under the leaves of one tree, those of a node side by side."""

    kind: Literal["two-layer-fat-tree"] = Field(description="one fat-tree of leaves and spines")

    def check(self, node: NodeSpec, num_nodes: int) -> None:
        """Raise FieldError, its path starting at the cluster, unless such a network of nodes can be built."""
        check_num_cables(self.counts(node, num_nodes))

    def counts(self, node: NodeSpec, num_nodes: int) -> NetworkCounts:
        """Return the counts of the network, cheap at any size; raise FieldError if the nodes do not fit."""
        tree, nics = plan_two_layers(node, num_nodes, self), node.gpus * num_nodes
        return NetworkCounts(nics, tree.switches, tree.cables, nics)

    def build(self, node: NodeSpec, num_nodes: int) -> ClusterGraph:
        """Return the cluster's graph; raise FieldError like `check`."""
        self.check(node, num_nodes)
        return two_layer_fat_tree(node, num_nodes, self)


def plan_two_layers(node: NodeSpec, num_nodes: int, spec: TwoLayerFatTree) -> TreePlan:
    """Return the counts of the tree; raise FieldError if the nodes do not fit. Cheap at any size."""
    check_one_port(node, spec.kind)

    def most_nodes(tree: TwoLayerTree) -> int:
        return leaf_ports(tree)[0] * tree.switch_ports // node.gpus

    check_num_nodes(spec, num_nodes, "a tree (two layers)", most_nodes)
    return plan_tree(spec, -(-num_nodes * node.gpus // leaf_ports(spec)[0]))


def two_layer_fat_tree(node: NodeSpec, num_nodes: int, spec: TwoLayerFatTree) -> ClusterGraph:
    r"""Return a cluster under one two-layer fat-tree.

             spine0                 spine1        ...
               |   \______________ /   |
               |   /              \    |
             leaf0                   leaf1        ...
             |                       |
             +-- NIC 0 of node 0     +-- NIC 0 of node 4
             +-- NIC 1 of node 0     +-- NIC 1 of node 4
             ...                     ...

    Definition: the NICs fill the leaves in the order of nodes, and within a node of NICs; leaves and spines are
    wired as `topologies.fat_tree` says. With 64-port switches a tree holds 2,048 NICs.

    node, num_nodes: the cluster's nodes, all alike; spec: the shape of the tree. All cables of the network run at
    the NIC's rate. Switches are `leaf0` and `spine0`. Raises FieldError if the nodes do not fit.

    Reference: Zhao et al., "Insights into DeepSeek-V3", arXiv 2505.09343, Table 3, where it is FT2.
    """
    tree = plan_two_layers(node, num_nodes, spec)
    graph = nodes_without_network(spec.kind, node, num_nodes, [0] * node.gpus)
    leaves = [f"leaf{index}" for index in range(tree.leaves)]
    spines = [f"spine{index}" for index in range(tree.spines)]
    add_switches(graph, leaves, "leaf", spec.switch_ports)
    add_switches(graph, spines, "spine", spec.switch_ports)
    add_endpoints(graph, all_nics(node, num_nodes), leaves, tree.endpoints, network_cable("nic", spec, node))
    add_uplinks(graph, leaves, spines, tree.uplinks, network_cable("leaf_spine", spec, node))
    return graph
