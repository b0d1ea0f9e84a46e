"""The three-layer fat-tree: pods of leaves and spines, joined by cores."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from topologies.cables import check_num_cables
from topologies.counts import NetworkCounts
from topologies.fat_tree import FatTree, add_uplinks, check_num_nodes, divide_ports, leaf_ports
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


class ThreeLayerFatTree(FatTree):
    """All NICs are under the leaves of pods, each a two-layer tree; cores join the spines of the pods."""

    kind: Literal["three-layer-fat-tree"] = Field(description="one fat-tree of leaves, spines and cores")
    leaves_per_pod: int | None = Field(
        default=None,
        ge=1,
        description="number of leaves of a full pod, each with a cable to every spine of the pod; by default half of "
        "switch_ports, or what uplinks_per_spine leaves if that is less",
    )
    uplinks_per_spine: int | None = Field(
        default=None,
        ge=1,
        description="number of cables from a spine to cores; by default half of switch_ports, or what leaves_per_pod "
        "leaves if that is less",
    )

    def check(self, node: NodeSpec, num_nodes: int) -> None:
        """Raise FieldError, its path starting at the cluster, unless such a network of nodes can be built."""
        check_num_cables(self.counts(node, num_nodes))

    def counts(self, node: NodeSpec, num_nodes: int) -> NetworkCounts:
        """Return the counts of the network, cheap at any size; raise FieldError if the nodes do not fit."""
        tree, nics = plan_three_layers(node, num_nodes, self), node.gpus * num_nodes
        return NetworkCounts(nics, tree.switches, tree.cables, nics)

    def build(self, node: NodeSpec, num_nodes: int) -> ClusterGraph:
        """Return the cluster's graph; raise FieldError like `check`."""
        self.check(node, num_nodes)
        return three_layer_fat_tree(node, num_nodes, self)


@dataclass(frozen=True, slots=True)
class ThreeLayerPlan:
    """Counts of a three-layer tree.

    pods, leaves: in all; endpoints, uplinks: of a leaf, so that a pod has as many spines as a leaf has uplinks, and
    the tree as many groups of cores; leaves_per_pod: of a full pod; spine_uplinks: of a spine; cores_per_group
    """

    pods: int
    leaves: int
    endpoints: int
    uplinks: int
    leaves_per_pod: int
    spine_uplinks: int
    cores_per_group: int

    @property
    def spines(self) -> int:
        """Return the number of spines of all pods."""
        return self.pods * self.uplinks

    @property
    def cores(self) -> int:
        """Return the number of cores of all groups."""
        return self.uplinks * self.cores_per_group

    @property
    def switches(self) -> int:
        """Return the number of switches."""
        return self.leaves + self.spines + self.cores

    @property
    def cables(self) -> int:
        """Return the number of cables between switches."""
        return self.leaves * self.uplinks + self.spines * self.spine_uplinks


def plan_three_layers(node: NodeSpec, num_nodes: int, spec: ThreeLayerFatTree) -> ThreeLayerPlan:
    """Return the counts of the tree; raise FieldError if the nodes do not fit. Cheap at any size."""
    check_one_port(node, spec.kind)

    def most_nodes(tree: ThreeLayerFatTree) -> int:
        # A core reaches every pod, so that there are at most as many pods as it has ports.
        return leaf_ports(tree)[0] * _spine_ports(tree)[0] * tree.switch_ports // node.gpus

    check_num_nodes(spec, num_nodes, "a tree (three layers)", most_nodes)
    endpoints, uplinks = leaf_ports(spec)
    leaves_per_pod, spine_uplinks = _spine_ports(spec)
    leaves = -(-num_nodes * node.gpus // endpoints)
    pods = -(-leaves // leaves_per_pod)
    cores_per_group = -(-pods * spine_uplinks // spec.switch_ports)
    return ThreeLayerPlan(pods, leaves, endpoints, uplinks, leaves_per_pod, spine_uplinks, cores_per_group)


def three_layer_fat_tree(node: NodeSpec, num_nodes: int, spec: ThreeLayerFatTree) -> ClusterGraph:
    r"""Return a cluster under one three-layer fat-tree.

        group 0 of cores: core0, core1        group 1 of cores: core2, core3        ...
             /               \                     /               \
        pod0/spine0    pod1/spine2            pod0/spine1    pod1/spine3            group j joins spine j of every pod

        within a pod, each leaf reaches every spine:

        pod0/spine0  pod0/spine1        pod1/spine2  pod1/spine3
              |  \  /  |                      |  \  /  |
              |  /  \  |                      |  /  \  |
        pod0/leaf0   pod0/leaf1         pod1/leaf2   pod1/leaf3
          / | \        / | \              / | \        / | \
          NICs, in node order

    Definition: with k-port switches a pod has floor(k / 2) leaves and as many spines, and each leaf a cable to every
    spine of its pod; spine j of every pod is joined to all cores of group j, of which there are as many as a spine
    has uplinks in a full tree of k pods. So a tree of even k holds k^3 / 4 endpoints with 5 k^2 / 4 switches: 65,536
    with k = 64. The NICs fill the leaves, and the leaves the pods, in the order of nodes and within a node of NICs.
    A partly filled tree has as many pods and leaves as it needs, each pod with all its spines; of cores it has the
    fewest whose ports hold all uplinks, which are dealt out in turn as in `topologies.fat_tree`.

    node, num_nodes: the cluster's nodes, all alike; spec: the shape of the tree, over-subscribed where a leaf has
    more NICs than uplinks, or a spine more leaves. All cables of the network run at the NIC's rate. Switches are
    `pod0/leaf1`, `pod0/spine2` and `core3`, each layer numbered throughout. Raises FieldError if the nodes do not
    fit.

    References: M. Al-Fares, A. Loukissas and A. Vahdat, "A scalable, commodity data center network architecture",
    SIGCOMM 2008; Zhao et al., "Insights into DeepSeek-V3", arXiv 2505.09343, Table 3, where it is FT3.
    """
    tree = plan_three_layers(node, num_nodes, spec)
    graph = nodes_without_network(spec.kind, node, num_nodes, [0] * node.gpus)
    leaves = [f"pod{index // tree.leaves_per_pod}/leaf{index}" for index in range(tree.leaves)]
    spines = [f"pod{index // tree.uplinks}/spine{index}" for index in range(tree.spines)]
    cores = [f"core{index}" for index in range(tree.cores)]
    for pod in range(tree.pods):
        first, ports = pod * tree.leaves_per_pod, spec.switch_ports
        own = leaves[first : first + tree.leaves_per_pod]
        add_switches(graph, own, "leaf", ports, group=pod, first_index=first)
    for pod in range(tree.pods):
        first = pod * tree.uplinks
        own = spines[first : first + tree.uplinks]
        add_switches(graph, own, "spine", spec.switch_ports, group=pod, first_index=first)
    add_switches(graph, cores, "core", spec.switch_ports)
    add_endpoints(graph, all_nics(node, num_nodes), leaves, tree.endpoints, network_cable("nic", spec, node))
    for pod in range(tree.pods):
        below = leaves[pod * tree.leaves_per_pod : (pod + 1) * tree.leaves_per_pod]
        above = spines[pod * tree.uplinks : (pod + 1) * tree.uplinks]
        add_uplinks(graph, below, above, tree.uplinks, network_cable("leaf_spine", spec, node))
    for group in range(tree.uplinks):
        above = cores[group * tree.cores_per_group : (group + 1) * tree.cores_per_group]
        cable = network_cable("spine_core", spec, node)
        add_uplinks(graph, spines[group :: tree.uplinks], above, tree.spine_uplinks, cable)
    return graph


def _spine_ports(spec: ThreeLayerFatTree) -> tuple[int, int]:
    """Return how many leaves a full spine has, and how many uplinks; raise FieldError if they need more ports."""
    return divide_ports(
        spec.switch_ports, spec.leaves_per_pod, spec.uplinks_per_spine, "leaves_per_pod", "uplinks_per_spine"
    )
