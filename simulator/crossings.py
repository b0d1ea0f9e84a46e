"""How many links a flow crosses, at most, by formula: nothing is built."""

from typing import Final, NamedTuple

from topologies import (
    CustomNetwork,
    Dragonfly,
    MultiPlaneFatTree,
    MultiRailFatTree,
    NetworkCounts,
    NodeSpec,
    NoNetwork,
    SlimFly,
    ThreeLayerFatTree,
    Topology,
    TwoLayerFatTree,
)
from topologies.multi_plane import plan_planes
from topologies.multi_rail import plan_rails
from topologies.three_layer import plan_three_layers
from topologies.two_layer import plan_two_layers

# NVLink out of a GPU and into another.
LINKS_WITHIN_NODE: Final = 2
# PCIe from a GPU to its switch and to the NIC, and likewise where it arrives.
_PCIE_LINKS: Final = 4
# Of each port, its cable and that of the port it reaches.
_PORT_LINKS: Final = 2
_CABLES_PER_GPU: Final = 3  # NVLink, PCIe, and those from the PCIe switch to the host; one more with a NIC


class Crossing(NamedTuple):
    """The links of a network, one for each way, and those that a flow between two nodes charges, NVLink left out."""

    links: int
    charged: int


def num_edges(node: NodeSpec, num_nodes: int, counts: NetworkCounts) -> int:
    """Return the edges of a cluster's graph: both ways of each cable."""
    within = _CABLES_PER_GPU * node.gpus * num_nodes + counts.endpoints
    return 2 * (within + counts.endpoint_links + counts.links)


def crossing(
    topology: Topology, node: NodeSpec, num_nodes: int, counts: NetworkCounts, routing: str, *, bundle: bool
) -> Crossing:
    """Return what flows cross under a policy of `routing.POLICIES`: at most, or, sprayed over routers, on average.

    bundle: as of `simulator.network.Network`
    """
    links, between = num_edges(node, num_nodes, counts), _LONGEST_PATH[type(topology)]
    if routing == "adaptive":
        is_regular, sprayed = _sprayed(topology, node, num_nodes, counts)
        if bundle and is_regular:
            # a leaf's cables up are one link, and those down another; so are those of a pod
            links = min(links, links - 2 * counts.links + 2 * counts.switches)
        else:
            between = sprayed
    return Crossing(links, _PCIE_LINKS + node.nic_ports * (_PORT_LINKS + between))


# Cables between switches: up and down a tree; of Slim Fly and Dragonfly under `valiant`, over a third place.
_LONGEST_PATH: Final[dict[type, int]] = {
    NoNetwork: 0,
    TwoLayerFatTree: 2,
    MultiRailFatTree: 2,
    MultiPlaneFatTree: 2,
    ThreeLayerFatTree: 4,
    SlimFly: 4,
    Dragonfly: 6,
    CustomNetwork: 6,
}
# Shortest paths between two routers of Slim Fly and Dragonfly are few; of a Dragonfly several may enter a group.
_SPRAYED_OVER_ROUTERS: Final = 12


def _sprayed(topology: Topology, node: NodeSpec, num_nodes: int, counts: NetworkCounts) -> tuple[bool, int]:
    """Return whether cables of a layer carry equal load, and the cables of all equally good paths of two switches."""
    match topology:
        case NoNetwork():
            return True, 0
        case SlimFly() | Dragonfly():
            return False, _SPRAYED_OVER_ROUTERS
        case CustomNetwork():
            return False, 4 * -(
                -counts.links // max(1, counts.switches)
            )  # those of two switches of mean degree
        case ThreeLayerFatTree():
            three = plan_three_layers(node, num_nodes, topology)
            of_leaf = three.uplinks * (1 + three.spine_uplinks if three.pods > 1 else 1)
            return three.spine_uplinks % three.cores_per_group == 0, 2 * of_leaf
        case MultiPlaneFatTree():
            trees = plan_planes(node, num_nodes, topology)
        case MultiRailFatTree():
            trees = (plan_rails(node, num_nodes, topology),)
        case TwoLayerFatTree():
            trees = (plan_two_layers(node, num_nodes, topology),)
    return all(tree.uplinks % tree.spines == 0 for tree in trees), 2 * max(tree.uplinks for tree in trees)
