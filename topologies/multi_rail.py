"""The multi-rail fat-tree: a leaf for each rail of a group of nodes, and spines common to all."""

from typing import Literal

from pydantic import Field

from topologies.cables import check_num_cables
from topologies.counts import NetworkCounts
from topologies.fat_tree import TreePlan, TwoLayerTree, add_uplinks, check_num_nodes, leaf_ports, plan_tree
from topologies.node import NodeSpec, nic_name
from topologies.schema import ClusterGraph
from topologies.wiring import (
    add_endpoints,
    add_switches,
    check_one_port,
    network_cable,
    nodes_without_network,
)


class MultiRailFatTree(TwoLayerTree):
    """The NICs with index i of a group of nodes are under one leaf; all leaves hang under common spines."""

    kind: Literal["multi-rail-fat-tree"] = Field(
        description="a leaf for each rail of a group of nodes, under spines common to all"
    )

    def check(self, node: NodeSpec, num_nodes: int) -> None:
        """Raise FieldError, its path starting at the cluster, unless such a network of nodes can be built."""
        check_num_cables(self.counts(node, num_nodes))

    def counts(self, node: NodeSpec, num_nodes: int) -> NetworkCounts:
        """Return the counts of the network, cheap at any size; raise FieldError if the nodes do not fit."""
        tree, nics = plan_rails(node, num_nodes, self), node.gpus * num_nodes
        return NetworkCounts(nics, tree.switches, tree.cables, nics)

    def build(self, node: NodeSpec, num_nodes: int) -> ClusterGraph:
        """Return the cluster's graph; raise FieldError like `check`."""
        self.check(node, num_nodes)
        return multi_rail_fat_tree(node, num_nodes, self)


def plan_rails(node: NodeSpec, num_nodes: int, spec: MultiRailFatTree) -> TreePlan:
    """Return the counts of the tree; raise FieldError if the nodes do not fit. Cheap at any size."""
    check_one_port(node, spec.kind)

    def most_nodes(tree: TwoLayerTree) -> int:
        # A leaf holds one NIC of each node of its group, and a group takes as many leaves as a node has NICs.
        return tree.switch_ports // node.gpus * leaf_ports(tree)[0]

    check_num_nodes(spec, num_nodes, f"a tree (two layers, {node.gpus} rails)", most_nodes)
    groups = -(-num_nodes // leaf_ports(spec)[0])
    return plan_tree(spec, groups * node.gpus)


def multi_rail_fat_tree(node: NodeSpec, num_nodes: int, spec: MultiRailFatTree) -> ClusterGraph:
    r"""Return a cluster whose rails share the spines of one two-layer fat-tree.

             spine0                 spine1        ...        any NIC reaches any NIC
               |   \______________ /   |
               |   /              \    |
        rail0/leaf0                rail1/leaf0        ...    leaf0 is for the first group of nodes,
        |                          |                         leaf1 for the next
        +-- NIC 0 of node 0        +-- NIC 1 of node 0
        +-- NIC 0 of node 1        +-- NIC 1 of node 1
        ...                        ...

    Definition: nodes are grouped in their order, as many to a group as a leaf has endpoints; the NICs with index i
    of a group (rail i) are under one leaf, and all leaves hang under common spines, wired as `topologies.fat_tree`
    says. A tree of k-port switches has at most k leaves: eight groups of 32 eight-GPU nodes with 64 ports.

    node, num_nodes: the cluster's nodes, all alike; spec: the shape of the tree. All cables of the network run at
    the NIC's rate. Switches are `rail3/leaf0` and `spine0`. Raises FieldError if the nodes do not fit.

    Reference: Zhao et al., "Insights into DeepSeek-V3", arXiv 2505.09343, section 5.1, which compares the
    multi-plane network with this one.
    """
    tree = plan_rails(node, num_nodes, spec)
    graph = nodes_without_network(spec.kind, node, num_nodes, [0] * node.gpus)
    down, up = (network_cable(kind, spec, node) for kind in ("nic", "leaf_spine"))
    groups = range(tree.leaves // node.gpus)
    spines = [f"spine{index}" for index in range(tree.spines)]
    for rail in range(node.gpus):
        leaves = [f"rail{rail}/leaf{group}" for group in groups]
        add_switches(graph, leaves, "leaf", spec.switch_ports, rail=rail)
        nics = [nic_name(number, rail) for number in range(num_nodes)]
        add_endpoints(graph, nics, leaves, tree.endpoints, down)
    add_switches(graph, spines, "spine", spec.switch_ports)
    all_leaves = [f"rail{rail}/leaf{group}" for group in groups for rail in range(node.gpus)]
    add_uplinks(graph, all_leaves, spines, tree.uplinks, up)
    return graph
