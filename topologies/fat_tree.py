r"""Fat-trees: how a switch divides its ports, what a two-layer tree may hold, and how layers are wired.

    spine0     spine1    ...     every leaf reaches every spine
       |  \   /  |
       |   \ /   |
       |   / \   |
    leaf0      leaf1     ...     a leaf has floor(k / 2) ports down and as many up, unless the spec says otherwise
    / | \      / | \
     NICs, in node order

With switches of k ports a tree has at most k leaves, since a spine must reach each of them, and so holds
floor(k / 2) x k endpoints: 2,048 with k = 64. A leaf with more ports down than up is over-subscribed. All uplinks
are wired, also in a partly filled tree; it has the fewest spines whose ports hold them.

References: C. E. Leiserson, "Fat-trees: universal networks for hardware-efficient supercomputing", IEEE
Transactions on Computers C-34 (1985); M. Al-Fares, A. Loukissas and A. Vahdat, "A scalable, commodity data center
network architecture", SIGCOMM 2008 (fat-trees of equal switches).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import Field

from simulator.units import FieldError
from topologies.cables import CableType, add_cable
from topologies.schema import ClusterGraph
from topologies.wiring import MAX_PORTS, SwitchedNetwork, check_at_least_one_node


class FatTree(SwitchedNetwork):
    """What all fat-trees may choose of a leaf; a family adds its `kind` and its layers."""

    endpoints_per_leaf: int | None = Field(
        default=None,
        ge=1,
        description="number of NICs under a full leaf; by default half of switch_ports, or what uplinks_per_leaf "
        "leaves if that is less",
    )
    uplinks_per_leaf: int | None = Field(
        default=None,
        ge=1,
        description="number of cables from a leaf to spines; by default half of switch_ports, or what "
        "endpoints_per_leaf leaves if that is less",
    )


class TwoLayerTree(FatTree):
    """What all two-layer fat-trees may choose; a family adds its `kind`."""

    layers: Literal[2] = Field(default=2, description="layers of switches: leaves and spines")
    spines: int | None = Field(
        default=None,
        ge=1,
        description="number of spines of each tree, at most uplinks_per_leaf; by default the fewest whose ports "
        "hold all uplinks",
    )


Tree = TypeVar("Tree", bound=FatTree)


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


def divide_ports(
    ports: int, down: int | None, up: int | None, down_field: str, up_field: str
) -> tuple[int, int]:
    """Return how many ports of a switch lead down and up; raise FieldError unless it has so many.

    down, up: as the spec's fields of these names say, None for half of the ports or, if fewer, what the other leaves.
    """
    least_down, least_up = down or 1, up or 1
    if least_down + least_up > ports:
        field = up_field if down is None else down_field
        msg = (
            f"{down_field}: {least_down} and {up_field}: {least_up} need {least_down + least_up} ports, and a switch "
            f"has {ports}; {field} must be at most {ports - (least_down if down is None else least_up)}, or "
            f"switch_ports at least {least_down + least_up}"
        )
        raise FieldError(f"topology.{field}", msg)
    half = ports // 2
    return (
        min(half, ports - least_up) if down is None else down,
        min(half, ports - least_down) if up is None else up,
    )


def leaf_ports(spec: FatTree) -> tuple[int, int]:
    """Return how many NICs a full leaf has, and how many uplinks; raise FieldError if they need more ports."""
    return divide_ports(
        spec.switch_ports,
        spec.endpoints_per_leaf,
        spec.uplinks_per_leaf,
        "endpoints_per_leaf",
        "uplinks_per_leaf",
    )


def check_num_nodes(spec: Tree, num_nodes: int, place: str, most_nodes: Callable[[Tree], int]) -> None:
    """Raise FieldError unless `num_nodes` nodes fit, saying how many would and which switches would do.

    place: what they should fit into, for the message; most_nodes: how many nodes fit with that spec.
    """
    check_at_least_one_node(num_nodes)
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
    endpoints, uplinks = leaf_ports(spec)
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
    return TreePlan(num_leaves, spines, endpoints, uplinks)


def add_uplinks(
    graph: ClusterGraph, lower: Sequence[str], upper: Sequence[str], uplinks: int, cable: CableType
) -> None:
    """Cable every lower switch to every upper one: uplink j of lower switch l goes to (l x uplinks + j) mod upper.

    Dealing all uplinks out in turn keeps both sides even: the cables of two upper switches, and those from one
    lower switch to two upper ones, differ by at most one.
    """
    for number, switch in enumerate(lower):
        for uplink in range(uplinks):
            above = upper[(number * uplinks + uplink) % len(upper)]
            add_cable(graph, switch, above, cable, key=uplink // len(upper))
