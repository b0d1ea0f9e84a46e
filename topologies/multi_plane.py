"""The multi-plane fat-tree: a separate two-layer tree for each plane."""

from typing import Final, Literal

from pydantic import Field

from simulator.units import FieldError
from topologies.cables import check_num_cables
from topologies.counts import NetworkCounts
from topologies.fat_tree import (
    TreePlan,
    TwoLayerTree,
    add_uplinks,
    check_num_nodes,
    leaf_ports,
    plan_tree,
)
from topologies.node import NodeSpec, nic_name
from topologies.schema import ClusterGraph
from topologies.wiring import add_endpoints, add_switches, network_cable, nodes_without_network

MAX_PLANES: Final = 16


class MultiPlaneFatTree(TwoLayerTree):
    """The NICs of a node, or their ports, join the planes in turn; each plane is a two-layer fat-tree of its own."""

    kind: Literal["multi-plane-fat-tree"] = Field(description="a separate fat-tree for each plane")
    planes: int | None = Field(
        default=None,
        ge=1,
        le=MAX_PLANES,
        description="number of planes; by default one for each NIC of the node, or for each port of a NIC where it "
        "has several",
    )

    def nics_meet(self, node: NodeSpec) -> bool:
        """Return whether every NIC has a port in every plane, so that any reaches any other."""
        return _num_planes(node, self) == node.nic_ports

    def check(self, node: NodeSpec, num_nodes: int) -> None:
        """Raise FieldError, its path starting at the cluster, unless such a network of nodes can be built."""
        check_num_cables(self.counts(node, num_nodes))

    def counts(self, node: NodeSpec, num_nodes: int) -> NetworkCounts:
        """Return the counts of the network, cheap at any size; raise FieldError if the nodes do not fit."""
        trees = plan_planes(node, num_nodes, self)
        nics = node.gpus * num_nodes
        switches, cables = sum(tree.switches for tree in trees), sum(tree.cables for tree in trees)
        return NetworkCounts(nics, switches, cables, nics * node.nic_ports)

    def build(self, node: NodeSpec, num_nodes: int) -> ClusterGraph:
        """Return the cluster's graph; raise FieldError like `check`."""
        self.check(node, num_nodes)
        return multi_plane_fat_tree(node, num_nodes, self)


def plan_planes(node: NodeSpec, num_nodes: int, spec: MultiPlaneFatTree) -> tuple[TreePlan, ...]:
    """Return the counts of each plane's tree; raise FieldError if the nodes do not fit. Cheap at any size."""
    planes = _num_planes(node, spec)
    nics_of_plane = [len(_nics_of_plane(node, plane, planes)) for plane in range(planes)]

    def most_nodes(tree: TwoLayerTree) -> int:
        return leaf_ports(tree)[0] * tree.switch_ports // nics_of_plane[0]  # plane 0 has the most NICs

    check_num_nodes(spec, num_nodes, "a plane (two layers)", most_nodes)
    per_leaf = leaf_ports(spec)[0]
    return tuple(plan_tree(spec, -(-num_nodes * nics // per_leaf)) for nics in nics_of_plane)


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

        NICs with several ports       node0/nic0
        (nic_ports: 2, planes: 2)     |         |
                                plane 0         plane 1

    Definition: NIC i of every node joins plane i mod planes. Where each NIC has n ports (as a ConnectX-8 has four),
    port j of NIC i joins plane (i x n + j) mod planes, so that no two ports of a NIC join the same one, and a NIC
    that joins several planes is in plane -1; its rate is shared equally by its ports. The NICs of a plane fill its
    leaves in the order of nodes, and within a node of NICs. Each plane is wired as `topologies.fat_tree` says. With
    64-port switches a plane holds 2,048 NICs, so that eight planes hold 16,384 GPUs of eight-GPU nodes.

    node, num_nodes: the cluster's nodes, all alike; spec: `planes` and the shape of a plane's tree. All cables of
    the network run at the rate of a NIC's port. Switches are `plane2/leaf0` and `plane2/spine1`. Raises FieldError
    if the nodes do not fit.

    Reference: Zhao et al., "Insights into DeepSeek-V3", arXiv 2505.09343, section 5.1.
    """
    trees = plan_planes(node, num_nodes, spec)
    plane_of_nic = [nic % len(trees) if node.nic_ports == 1 else -1 for nic in range(node.gpus)]
    graph = nodes_without_network(spec.kind, node, num_nodes, plane_of_nic, len(trees))
    down, up = (network_cable(kind, spec, node) for kind in ("nic", "leaf_spine"))
    for plane, tree in enumerate(trees):
        leaves = [f"plane{plane}/leaf{index}" for index in range(tree.leaves)]
        spines = [f"plane{plane}/spine{index}" for index in range(tree.spines)]
        add_switches(graph, leaves, "leaf", spec.switch_ports, plane=plane)
        add_switches(graph, spines, "spine", spec.switch_ports, plane=plane)
        indices = _nics_of_plane(node, plane, len(trees))
        nics = [nic_name(number, index) for number in range(num_nodes) for index in indices]
        add_endpoints(graph, nics, leaves, tree.endpoints, down)
        add_uplinks(graph, leaves, spines, tree.uplinks, up)
    return graph


def _nics_of_plane(node: NodeSpec, plane: int, planes: int) -> list[int]:
    """Return the indices of a node's NICs that have a port in the plane."""
    return [port // node.nic_ports for port in range(plane, node.gpus * node.nic_ports, planes)]


def _num_planes(node: NodeSpec, spec: MultiPlaneFatTree) -> int:
    """Return the number of planes; raise FieldError unless ports and planes match.

    Every plane gets a port of each node, and no NIC has two ports in one plane.
    """
    ports = node.gpus * node.nic_ports
    planes = spec.planes
    if planes is None:
        planes = node.gpus if node.nic_ports == 1 else node.nic_ports
    if planes > MAX_PLANES:
        msg = (
            f"one plane for each of a node's {node.gpus} NICs is too many; "
            f"write planes: a number from 1 to {MAX_PLANES}"
        )
        raise FieldError("topology.planes", msg)
    if planes > ports:
        needed = "NICs" if node.nic_ports == 1 else "ports of NICs"
        msg = (
            f"{planes} planes need at least as many {needed} in each node, which has {ports}; "
            f"planes must be at most {ports}"
        )
        raise FieldError("topology.planes", msg)
    if planes < node.nic_ports:
        msg = (
            f"each of the {node.nic_ports} ports of a NIC joins another plane, and there are {planes}; planes must "
            f"be at least {node.nic_ports}, or the node's nic_ports at most {planes}"
        )
        raise FieldError("topology.planes", msg)
    return planes
