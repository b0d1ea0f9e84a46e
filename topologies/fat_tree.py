r"""Two-layer fat-trees: what a leaf and its spines may hold, and how they are wired.

    spine0     spine1    ...     every leaf reaches every spine
       |  \   /  |
       |   \ /   |
       |   / \   |
    leaf0      leaf1     ...     a leaf has floor(k / 2) ports down and as many up
    / | \      / | \
     NICs, in node order

With switches of k ports a tree has at most k leaves, since a spine must reach each of them, and so holds
floor(k / 2) x k endpoints: 2,048 with k = 64. All uplinks are wired, also in a partly filled tree; it has the
fewest spines whose ports hold them.

References: C. E. Leiserson, "Fat-trees: universal networks for hardware-efficient supercomputing", IEEE
Transactions on Computers C-34 (1985); M. Al-Fares, A. Loukissas and A. Vahdat, "A scalable, commodity data center
network architecture", SIGCOMM 2008 (fat-trees of equal switches).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field

from simulator.units import FieldError, Spec
from topologies.cables import CableType, add_cable
from topologies.schema import ClusterGraph

MAX_PORTS: Final = 1024


class TwoLayerTree(Spec):
    """What all two-layer fat-trees may choose; a family adds its `kind`."""

    layers: Literal[2] = Field(default=2, description="layers of switches: leaves and spines")
    switch_ports: int = Field(default=64, ge=2, le=MAX_PORTS, description="number of ports of every switch")
    endpoints_per_leaf: int | None = Field(
        default=None,
        ge=1,
        description="number of NICs under a full leaf, at most and by default half of switch_ports",
    )
    spines: int | None = Field(
        default=None,
        ge=1,
        description="number of spines of each tree, at most half of switch_ports; by default the fewest whose "
        "ports hold all uplinks",
    )
    link_profile: Literal["infiniband", "roce"] = Field(
        default="infiniband",
        description="row of the cost table that gives the cables' efficiency and latency",
    )


@dataclass(frozen=True, slots=True)
class TreePlan:
    """Counts of one tree: endpoints and uplinks are per leaf."""

    leaves: int
    spines: int
    endpoints: int
    uplinks: int

    @property
    def switches(self) -> int:
        """Return the number of switches."""
        return self.leaves + self.spines

    @property
    def cables(self) -> int:
        """Return the number of cables between switches."""
        return self.leaves * self.uplinks


def endpoints_per_leaf(spec: TwoLayerTree) -> int:
    """Return how many endpoints a full leaf has; raise FieldError if they need more than its ports down."""
    half = spec.switch_ports // 2
    if spec.endpoints_per_leaf is None:
        return half
    if spec.endpoints_per_leaf > half:
        msg = (
            f"a leaf of {spec.switch_ports} ports has {half} of them down and as many up; endpoints_per_leaf "
            f"must be at most {half}, or switch_ports at least {2 * spec.endpoints_per_leaf}"
        )
        raise FieldError("topology.endpoints_per_leaf", msg)
    return spec.endpoints_per_leaf


def check_num_nodes(
    spec: TwoLayerTree, num_nodes: int, place: str, most_nodes: Callable[[TwoLayerTree], int]
) -> None:
    """Raise FieldError unless `num_nodes` nodes fit, saying how many would and which switches would do.

    place: what they should fit into, for the message; most_nodes: how many nodes fit with that spec.
    """
    if num_nodes < 1:
        msg = f"a cluster has at least 1 node, not {num_nodes:,}"
        raise FieldError("nodes", msg)
    most = most_nodes(spec)
    if num_nodes <= most:
        return
    larger = (
        ports
        for ports in range(spec.switch_ports + 1, MAX_PORTS + 1)
        if most_nodes(spec.model_copy(update={"switch_ports": ports})) >= num_nodes
    )
    least_ports = next(larger, None)
    remedy = (
        f"no switch of up to {MAX_PORTS:,} ports would hold {num_nodes:,}"
        if least_ports is None
        else f"{num_nodes:,} would need switch_ports: {least_ports}"
    )
    held = f"at most {most:,}" if most else "not even one"
    msg = f"{place} of {spec.switch_ports}-port switches holds {held} of these nodes; {remedy}"
    raise FieldError("nodes" if most else "topology.switch_ports", msg)


def plan_tree(spec: TwoLayerTree, num_leaves: int) -> TreePlan:
    """Return the counts of a tree with `num_leaves` leaves, at most `switch_ports`.

    Raises FieldError if `spines` is given and cannot hold all uplinks, or is more than a leaf can reach.
    """
    uplinks = spec.switch_ports // 2
    fewest = -(-num_leaves * uplinks // spec.switch_ports)
    spines = fewest if spec.spines is None else spec.spines
    if spines > uplinks:
        msg = (
            f"a leaf of {spec.switch_ports} ports has {uplinks} uplinks, so that it reaches at most {uplinks} "
            f"spines, not {spines:,}"
        )
        raise FieldError("topology.spines", msg)
    if spines < fewest:
        msg = (
            f"{num_leaves:,} leaves with {uplinks} uplinks each need {num_leaves * uplinks:,} ports on spines, and "
            f"{spines:,} spines of {spec.switch_ports} ports have {spines * spec.switch_ports:,}; "
            f"spines must be at least {fewest:,}"
        )
        raise FieldError("topology.spines", msg)
    return TreePlan(num_leaves, spines, endpoints_per_leaf(spec), uplinks)


def add_switches(
    graph: ClusterGraph, names: Iterable[str], layer: str, ports: int, *, plane: int = 0, rail: int = -1
) -> None:
    """Add the switches of one layer, of one plane and rail, numbered in the order of `names`."""
    for index, name in enumerate(names):
        graph.add_node(name, kind="switch", layer=layer, plane=plane, rail=rail, index=index, ports=ports)


def add_endpoints(
    graph: ClusterGraph, nics: Sequence[str], leaves: Sequence[str], per_leaf: int, cable: CableType
) -> None:
    """Cable `nics` to `leaves`, filling one leaf after the other."""
    for endpoint, nic in enumerate(nics):
        add_cable(graph, nic, leaves[endpoint // per_leaf], cable)


def add_uplinks(
    graph: ClusterGraph, leaves: Sequence[str], spines: Sequence[str], uplinks: int, cable: CableType
) -> None:
    """Cable every leaf to every spine: uplink j of leaf l goes to spine (l x uplinks + j) mod spines.

    Dealing all uplinks out in turn keeps both sides even: the cables of two spines, and those from one leaf to
    two spines, differ by at most one.
    """
    for number, leaf in enumerate(leaves):
        for uplink in range(uplinks):
            spine = spines[(number * uplinks + uplink) % len(spines)]
            add_cable(graph, leaf, spine, cable, key=uplink // len(spines))
