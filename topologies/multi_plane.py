"""The multi-plane fat-tree: a separate two-layer tree for each plane."""

from typing import Final, Literal

import networkx as nx
from pydantic import Field

from simulator.units import FieldError
from topologies.cables import CableType, check_num_cables
from topologies.fat_tree import (
    TreePlan,
    TwoLayerTree,
    add_endpoints,
    add_switches,
    add_uplinks,
    check_num_nodes,
    endpoints_per_leaf,
    plan_tree,
)
from topologies.node import NodeSpec, add_node
from topologies.schema import ClusterGraph

MAX_PLANES: Final = 16


class MultiPlaneFatTree(TwoLayerTree):
    """NIC i of every node joins plane i mod planes, a two-layer fat-tree of its own."""

    kind: Literal["multi-plane-fat-tree"] = Field(description="a separate fat-tree for each plane")
    planes: int | None = Field(
        default=None,
        ge=1,
        le=MAX_PLANES,
        description="number of planes, at most one a NIC of the node, which is the default",
    )

    def check(self, node: NodeSpec, num_nodes: int) -> None:
        """Raise FieldError, its path starting at the cluster, unless such a network of nodes can be built."""
        plan_planes(node, num_nodes, self)

    def build(self, node: NodeSpec, num_nodes: int) -> ClusterGraph:
        """Return the cluster's graph; raise FieldError like `check`."""
        return multi_plane_fat_tree(node, num_nodes, self)


def plan_planes(node: NodeSpec, num_nodes: int, spec: MultiPlaneFatTree) -> tuple[TreePlan, ...]:
    """Return the counts of each plane's tree; raise FieldError if the nodes do not fit. Cheap at any size."""
    planes = _num_planes(node, spec)
    nics_of_plane = [len(range(plane, node.gpus, planes)) for plane in range(planes)]

    def most_nodes(tree: TwoLayerTree) -> int:
        return endpoints_per_leaf(tree) * tree.switch_ports // nics_of_plane[0]  # plane 0 has the most NICs

    check_num_nodes(spec, num_nodes, "a plane (two layers)", most_nodes)
    per_leaf = endpoints_per_leaf(spec)
    trees = tuple(plan_tree(spec, -(-num_nodes * nics // per_leaf)) for nics in nics_of_plane)
    check_num_cables(node.gpus * num_nodes, sum(tree.cables for tree in trees))
    return trees


def multi_plane_fat_tree(node: NodeSpec, num_nodes: int, spec: MultiPlaneFatTree) -> ClusterGraph:
    r"""Return a cluster whose planes are separate two-layer fat-trees.

        plane 0                  plane 1              ...    planes share no switch
        spine0   spine1          spine0   spine1
           |  \ /  |                |  \ /  |
           |  / \  |                |  / \  |
        leaf0    leaf1           leaf0    leaf1
        |                        |
        +-- NIC 0 of node 0      +-- NIC 1 of node 0
        +-- NIC 0 of node 1      +-- NIC 1 of node 1
        ...                      ...

    Definition: NIC i of every node joins plane i mod planes. The NICs of a plane fill its leaves in the order of
    nodes, and within a node of NICs. Each plane is wired as `topologies.fat_tree` says. With 64-port switches a
    plane holds 2,048 NICs, so that eight planes hold 16,384 GPUs of eight-GPU nodes.

    node, num_nodes: the cluster's nodes, all alike; spec: `planes` and the shape of a plane's tree. All cables of
    the network run at the NIC's rate. Switches are `plane2/leaf0` and `plane2/spine1`. Raises FieldError if the
    nodes do not fit.

    Reference: Zhao et al., "Insights into DeepSeek-V3", arXiv 2505.09343, section 5.1.
    """
    trees = plan_planes(node, num_nodes, spec)
    graph: ClusterGraph = nx.MultiDiGraph(
        family=spec.kind, num_nodes=num_nodes, gpus_per_node=node.gpus, planes=len(trees)
    )
    plane_of_nic = [nic % len(trees) for nic in range(node.gpus)]
    for number in range(num_nodes):
        add_node(graph, node, number, plane_of_nic)
    down = CableType("nic", spec.link_profile, node.nic)
    up = CableType("leaf_spine", spec.link_profile, node.nic)
    for plane, tree in enumerate(trees):
        leaves = [f"plane{plane}/leaf{index}" for index in range(tree.leaves)]
        spines = [f"plane{plane}/spine{index}" for index in range(tree.spines)]
        add_switches(graph, leaves, "leaf", spec.switch_ports, plane=plane)
        add_switches(graph, spines, "spine", spec.switch_ports, plane=plane)
        nics = [
            f"node{number}/nic{index}"
            for number in range(num_nodes)
            for index in range(plane, node.gpus, len(trees))
        ]
        add_endpoints(graph, nics, leaves, tree.endpoints, down)
        add_uplinks(graph, leaves, spines, tree.uplinks, up)
    return graph


def _num_planes(node: NodeSpec, spec: MultiPlaneFatTree) -> int:
    """Return the number of planes; raise FieldError unless every plane gets a NIC of each node."""
    planes = node.gpus if spec.planes is None else spec.planes
    if planes > MAX_PLANES:
        msg = (
            f"one plane for each of a node's {node.gpus} NICs is too many; "
            f"write planes: a number from 1 to {MAX_PLANES}"
        )
        raise FieldError("topology.planes", msg)
    if planes > node.gpus:
        msg = (
            f"{planes} planes need at least as many NICs in each node, which has {node.gpus}; "
            f"planes must be at most {node.gpus}"
        )
        raise FieldError("topology.planes", msg)
    return planes
