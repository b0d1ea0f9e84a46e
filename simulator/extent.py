"""How far apart a network's endpoints are, and what it carries from one half to the other, without building it.

Diameter: the cables from switch to switch between the switches of two endpoints, along the shortest way, for the
two endpoints of a plane that are farthest apart. Cables to endpoints do not count, so that a single switch has 0.

Bisection: the nodes are cut in two halves (of an odd number the middle one is left out) in the worst way, all NICs of
a node on one side, since planes meet only within nodes; the bisection is the most that one half can then send to
the other at once, in datasheet bytes per second one way: the least cut between them.
"""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from simulator.graph_extent import diameter_of_pairs, graph_bisection, graph_diameter
from topologies import (
    CustomNetwork,
    Dragonfly,
    MultiPlaneFatTree,
    MultiRailFatTree,
    NodeSpec,
    NoNetwork,
    SlimFly,
    ThreeLayerFatTree,
    Topology,
    TwoLayerFatTree,
)
from topologies.dragonfly import DragonflyPlan, global_cables, plan_dragonfly
from topologies.fat_tree import TreePlan
from topologies.galois import prime_power
from topologies.multi_plane import plan_planes
from topologies.multi_rail import plan_rails
from topologies.slim_fly import plan_slim_fly, router_pairs
from topologies.three_layer import ThreeLayerPlan, plan_three_layers
from topologies.two_layer import plan_two_layers

_MOST_ROUTERS: Final = 20_000  # of a network whose distances are walked, which takes a second; chosen

How = Literal["exact", "lower bound", "upper bound", "estimate"]


class Figure(NamedTuple):
    """A figure of a network, how it stands to the true one, and in a sentence how it was come by."""

    value: float
    how: How
    rule: str


def extent(topology: Topology, node: NodeSpec, num_nodes: int) -> tuple[Figure, Figure]:
    """Return diameter in cables and bisection in bytes per second; raise FieldError if the nodes do not fit."""
    match topology:
        case NoNetwork():
            nothing = Figure(0, "exact", "there is no network")
            return nothing, nothing
        case CustomNetwork():
            return _of_graph(topology, node, num_nodes)
        case ThreeLayerFatTree():
            return _of_three_layers(plan_three_layers(node, num_nodes, topology), node, num_nodes)
        case SlimFly():
            return _of_slim_fly(topology, node, num_nodes)
        case Dragonfly():
            return _of_dragonfly(plan_dragonfly(node, num_nodes, topology), node, num_nodes)
    plans, leaves_are_left = _two_layers(topology, node, num_nodes)
    return _of_trees(plans, leaves_are_left, node, num_nodes)


def half_bytes_per_s(node: NodeSpec, num_nodes: int) -> float:
    """Return what the NICs of half of the nodes send, which no bisection is above: full bisection."""
    return num_nodes // 2 * node.gpus * node.nic


def _two_layers(
    topology: TwoLayerFatTree | MultiRailFatTree | MultiPlaneFatTree, node: NodeSpec, num_nodes: int
) -> tuple[tuple[TreePlan, ...], bool]:
    """Return the tree of each plane, and whether a half of the nodes must cross spines to reach the other."""
    if isinstance(topology, MultiPlaneFatTree):
        planes = plan_planes(node, num_nodes, topology)
        return planes, any(plan.leaves > 1 for plan in planes)
    if isinstance(topology, MultiRailFatTree):
        rails = plan_rails(node, num_nodes, topology)
        return (rails,), rails.leaves > node.gpus  # with one leaf a rail, halves reach each other below it
    plan = plan_two_layers(node, num_nodes, topology)
    return (plan,), plan.leaves > 1


def _of_trees(
    plans: tuple[TreePlan, ...], leaves_are_left: bool, node: NodeSpec, num_nodes: int
) -> tuple[Figure, Figure]:
    """Return diameter and bisection of two-layer trees, one a plane, that share the nodes' ports evenly.

    leaves_are_left: whether a half of the nodes must cross spines to reach the other.
    """
    one_leaf = all(plan.leaves == 1 for plan in plans)
    diameter = Figure(
        0 if one_leaf else 2, "exact", "one leaf holds all" if one_leaf else "leaf, spine, leaf"
    )
    endpoints, uplinks = plans[0].endpoints, plans[0].uplinks
    share = min(1.0, uplinks / endpoints) if leaves_are_left else 1.0
    even = all(plan.uplinks % plan.spines == 0 for plan in plans)
    whole = num_nodes // 2 * node.gpus * node.nic_ports // len(plans) % endpoints == 0 and num_nodes % 2 == 0
    rule = "what the NICs of half of the nodes send" + (
        f", times {uplinks} uplinks over {endpoints} NICs of a leaf" if share < 1.0 else ""
    )
    how: How = "exact" if not leaves_are_left or (even and (share == 1.0 or whole)) else "lower bound"
    if leaves_are_left and not even:
        how, rule = "estimate", f"{rule}, as if each leaf had as many cables to every spine"
    return diameter, Figure(share * half_bytes_per_s(node, num_nodes), how, rule)


def _of_three_layers(plan: ThreeLayerPlan, node: NodeSpec, num_nodes: int) -> tuple[Figure, Figure]:
    hops = 4 if plan.pods > 1 else 2 if plan.leaves > 1 else 0
    way = {0: "one leaf holds all", 2: "leaf, spine, leaf", 4: "leaf, spine, core, spine, leaf"}[hops]
    diameter = Figure(hops, "exact", way)
    of_leaf = plan.uplinks / plan.endpoints if plan.leaves > 1 else 1.0
    of_pod = (
        plan.uplinks * plan.spine_uplinks / (plan.endpoints * plan.leaves_per_pod) if plan.pods > 1 else 1.0
    )
    share = min(1.0, of_leaf, of_pod)
    rule = "what the NICs of half of the nodes send" + (
        f", times the narrowest layer's over-subscription of {share:.4g}" if share < 1.0 else ""
    )
    even = plan.pods == 1 or plan.spine_uplinks % plan.cores_per_group == 0
    part = plan.endpoints * (plan.leaves_per_pod if of_pod <= of_leaf else 1)
    whole = num_nodes % 2 == 0 and num_nodes // 2 * node.gpus % part == 0
    how: How = "exact" if even and (share == 1.0 or whole) else "estimate"
    return diameter, Figure(share * half_bytes_per_s(node, num_nodes), how, rule)


def _of_slim_fly(spec: SlimFly, node: NodeSpec, num_nodes: int) -> tuple[Figure, Figure]:
    """Return diameter and bisection of a Slim Fly.

    The adjacency matrix of its routers has the eigenvalues k = (3q - d) / 2 and, next to it, k - q = (q - d) / 2, so
    that no even halving of the n = 2 q^2 routers cuts fewer than q n / 4 = q^3 / 2 cables. Half of the groups of
    either kind against the others cut just as many if q is even, and q (q^2 + 1) / 2 if it is odd: any two groups of
    different kinds are joined by q cables.
    """
    plan = plan_slim_fly(node, num_nodes, spec)
    nics = node.gpus * num_nodes
    used = -(-nics // plan.endpoints_per_router)
    if prime_power(plan.q) is None:
        diameter = Figure(2, "estimate", "that of all sizes which exist")
    elif nics == plan.endpoints:
        diameter = Figure(2, "exact", "any two routers are at most two cables apart")
    else:
        diameter = _of_routers_in_use(plan.routers, lambda: router_pairs(plan.q), used, 2)
    odd = plan.q % 2
    cut = plan.q * (plan.q**2 + odd) // 2
    how: How = "estimate" if prime_power(plan.q) is None else "upper bound" if odd else "exact"
    rule = f"{cut:,} cables between halves of the groups of either kind; no halving cuts fewer than q^3 / 2"
    return diameter, _at_most_full(cut, how, rule, nics == plan.endpoints, node, num_nodes)


def _of_dragonfly(plan: DragonflyPlan, node: NodeSpec, num_nodes: int) -> tuple[Figure, Figure]:
    """Return diameter and bisection of a Dragonfly.

    Of all ways to halve the groups (of an odd number one is halved itself, its routers in any way) the mean cut is
    known: a cable between groups is cut in g / 2 (g - 1) of them, or (g + 1) / 2g if g is odd. The least is not more.
    """
    nics = node.gpus * num_nodes
    full = nics == plan.endpoints
    size, groups = plan.routers_per_group, plan.groups
    # Between groups of which neither's every router has a cable to the other, some routers are three cables apart.
    if full and groups > 1 and plan.rounds + 2 < size:
        diameter = Figure(3, "exact", "within a group, to another, within it")
    else:
        used = -(-nics // plan.endpoints_per_router)
        diameter = _of_routers_in_use(plan.routers, lambda: _router_pairs(plan), used, 3)
    halved_group = size // 2 * (size - size // 2)
    if groups == 1:
        cut = halved_group
    elif groups % 2:
        cut = plan.global_cables * (groups + 1) // (2 * groups) + halved_group
    else:
        cut = plan.global_cables * groups // (2 * (groups - 1))
    rule = f"{cut:,} cables, the mean cut of all halvings by groups"
    return diameter, _at_most_full(cut, "upper bound", rule, full, node, num_nodes)


def _of_routers_in_use(
    routers: int, pairs: Callable[[], list[tuple[int, int]]], used: int, most: int
) -> Figure:
    """Return the diameter of the first `used` routers; `most` is that of the family. Larger ones are not walked."""
    if routers > _MOST_ROUTERS:
        return Figure(most, "upper bound", "that of the family; some routers are not in use")
    hops, _ = diameter_of_pairs(routers, pairs(), [range(used)])
    return Figure(hops, "exact", "the routers in use, all pairs")


def _router_pairs(plan: DragonflyPlan) -> list[tuple[int, int]]:
    size = plan.routers_per_group
    pairs = [
        (group * size + one, group * size + other)
        for group in range(plan.groups)
        for one in range(size)
        for other in range(one + 1, size)
    ]
    pairs += [
        (one * size + port // plan.global_ports, other * size + other_port // plan.global_ports)
        for (one, port), (other, other_port) in global_cables(plan)
    ]
    return pairs


def _at_most_full(cut: int, how: How, rule: str, is_full: bool, node: NodeSpec, num_nodes: int) -> Figure:
    """Return the bisection of a network of routers of which a halving cuts `cut` cables."""
    between, most = cut * node.nic, half_bytes_per_s(node, num_nodes)
    if not is_full:
        rule = f"the less of {rule}, and what the NICs of half of the nodes send; routers are partly filled"
        return Figure(min(between, most), "estimate", rule)
    if most <= between:
        rule = f"what the NICs of half of the nodes send, less than {rule}"
        return Figure(most, how, rule)
    return Figure(between, how, rule)


def _of_graph(spec: CustomNetwork, node: NodeSpec, num_nodes: int) -> tuple[Figure, Figure]:
    graph = spec.build(node, num_nodes)
    hops, connected = graph_diameter(graph)
    rule = "the switches that hold NICs, all pairs of a plane"
    if not connected:
        rule = f"{rule} that reach each other: some do not"
    diameter = Figure(hops, "exact", rule)
    rule = (
        "the least of some halvings of the nodes in their order, each switch on the side to which more of its "
        "capacity leads"
    )
    return diameter, Figure(graph_bisection(graph), "upper bound", rule)
