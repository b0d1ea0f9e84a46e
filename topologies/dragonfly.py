"""The Dragonfly: groups of fully meshed routers, and cables between all groups."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from pydantic import Field

from simulator.units import FieldError
from topologies.cables import add_cable, check_num_cables
from topologies.counts import NetworkCounts
from topologies.node import NodeSpec
from topologies.schema import ClusterGraph
from topologies.wiring import (
    SwitchedNetwork,
    add_endpoints,
    add_switches,
    all_nics,
    check_at_least_one_node,
    check_one_port,
    network_cable,
    nodes_without_network,
)


class Dragonfly(SwitchedNetwork):
    """Routers in fully meshed groups, any two groups joined by at least one cable."""

    kind: Literal["dragonfly"] = Field(description="groups of meshed routers, all joined to each other")
    endpoints_per_router: int | None = Field(
        default=None,
        ge=1,
        description="number p of NICs of a full router; by default a quarter of switch_ports, "
        "floor((switch_ports + 1) / 4)",
    )
    routers_per_group: int | None = Field(
        default=None, ge=1, description="number a of routers of a group; by default twice the quarter"
    )
    global_ports: int | None = Field(
        default=None,
        ge=1,
        description="number h of ports of a router for cables to other groups; by default the quarter",
    )
    groups: int | None = Field(
        default=None,
        ge=1,
        description="number of groups, at most a x h + 1; by default the fewest whose routers hold the nodes",
    )

    def check(self, node: NodeSpec, num_nodes: int) -> None:
        """Raise FieldError, its path starting at the cluster, unless such a network of nodes can be built."""
        check_num_cables(self.counts(node, num_nodes))

    def counts(self, node: NodeSpec, num_nodes: int) -> NetworkCounts:
        """Return the counts of the network, cheap at any size; raise FieldError if the nodes do not fit."""
        plan, nics = plan_dragonfly(node, num_nodes, self), node.gpus * num_nodes
        return NetworkCounts(nics, plan.routers, plan.local_cables + plan.global_cables, nics)

    def build(self, node: NodeSpec, num_nodes: int) -> ClusterGraph:
        """Return the cluster's graph; raise FieldError like `check`."""
        self.check(node, num_nodes)
        return dragonfly(node, num_nodes, self)


@dataclass(frozen=True, slots=True)
class DragonflyPlan:
    """The size of a Dragonfly, in the letters of the literature: p, a, h and g."""

    endpoints_per_router: int
    routers_per_group: int
    global_ports: int
    groups: int

    @property
    def ports(self) -> int:
        """Return how many ports a router needs."""
        return self.endpoints_per_router + self.routers_per_group - 1 + self.global_ports

    @property
    def ports_per_group(self) -> int:
        """Return the number of ports of a group for cables to others."""
        return self.routers_per_group * self.global_ports

    @property
    def routers(self) -> int:
        """Return the number of routers."""
        return self.groups * self.routers_per_group

    @property
    def endpoints(self) -> int:
        """Return the number of NICs that the routers hold."""
        return self.routers * self.endpoints_per_router

    @property
    def local_cables(self) -> int:
        """Return the number of cables within groups."""
        return self.routers * (self.routers_per_group - 1) // 2

    @property
    def rounds(self) -> int:
        """Return how many cables join any two groups before spare ports are joined."""
        return self.ports_per_group // (self.groups - 1) if self.groups > 1 else 0

    @property
    def spare_ports(self) -> int:
        """Return how many ports of a group are joined beyond those rounds.

        Ports are joined alike in all groups, so that one stays empty where groups and what is left are both odd.
        """
        if self.groups == 1:
            return 0
        left = self.ports_per_group - self.rounds * (self.groups - 1)
        return left - left % 2 * self.groups % 2

    @property
    def global_cables(self) -> int:
        """Return the number of cables between groups."""
        return self.groups * (self.rounds * (self.groups - 1) + self.spare_ports) // 2


def plan_dragonfly(node: NodeSpec, num_nodes: int, spec: Dragonfly) -> DragonflyPlan:
    """Return the size of the network; raise FieldError if nodes or ports do not fit. Cheap at any size."""
    check_one_port(node, spec.kind)
    check_at_least_one_node(num_nodes)
    group = _one_group(spec)
    most_groups = group.ports_per_group + 1
    needed = -(-num_nodes * node.gpus // group.endpoints)
    plan = replace(group, groups=min(needed, most_groups) if spec.groups is None else spec.groups)
    if plan.groups > most_groups:
        msg = (
            f"a group of {plan.routers_per_group} routers with {plan.global_ports} global_ports each reaches "
            f"{plan.ports_per_group} others; groups must be at most {most_groups}, not {plan.groups:,}"
        )
        raise FieldError("topology.groups", msg)
    if needed > plan.groups:
        remedy = (
            f"{num_nodes:,} would need groups: {needed}"
            if needed <= most_groups
            else f"{num_nodes:,} would need {needed:,} groups, and there can be {most_groups:,}: choose more "
            "routers_per_group or global_ports"
        )
        most = plan.endpoints // node.gpus
        held = f"at most {most:,}" if most else "not even one"
        place = f"a Dragonfly with groups: {plan.groups} of {group.endpoints:,} NICs"
        msg = f"{place} holds {held} of these nodes; {remedy}"
        raise FieldError("nodes", msg)
    return plan


def _one_group(spec: Dragonfly) -> DragonflyPlan:
    """Return the size of a network of one group; raise FieldError unless its routers have ports enough."""
    quarter = max(1, (spec.switch_ports + 1) // 4)
    group = DragonflyPlan(
        spec.endpoints_per_router or quarter,
        spec.routers_per_group or 2 * quarter,
        spec.global_ports or quarter,
        groups=1,
    )
    if group.ports > spec.switch_ports:
        msg = (
            f"a router with {group.endpoints_per_router} NICs, {group.routers_per_group - 1} cables within its group "
            f"and {group.global_ports} global_ports has more cables than switch_ports: {spec.switch_ports}; it "
            f"needs {group.ports}"
        )
        raise FieldError("topology.switch_ports", msg)
    return group


def dragonfly(node: NodeSpec, num_nodes: int, spec: Dragonfly) -> ClusterGraph:
    r"""Return a cluster whose routers are meshed in groups, and whose groups are all joined.

          group 0                      group 1                      group 2           ...
        router0 --- router1          router2 --- router3          router4 --- router5
        /  |          |  \           /  |          |  \           /  |          |  \
        NICs \        |  NICs        NICs |        |  NICs        NICs |        |  NICs
              \       +-------------------+        +-------------------+        |
               +----------------------------------------------------------------+

    Definition: a router has p NICs, a cable to each of the a - 1 others of its group, and h ports for cables to
    other groups; there are at most a h + 1 groups, and any two are joined. Ports of a group are numbered, h to a
    router in turn. With g groups they are used in rounds of g - 1: in round r, port r (g - 1) + o - 1 leads to the
    group that is o further on, around the ring of groups, for o from 1 to g - 1. Of the s ports that are left,
    pairs join each group to those 1, 2, ..., floor(s / 2) further on and before; an odd one joins opposite groups,
    if g is even. So a network of 511 groups with a = 32 and h = 16 uses the 512 ports of a group for the 510
    others, and the two that are left for a ring of all groups. The routers hold the NICs in their order. The
    network is built whole, also where the nodes do not fill it.

    node, num_nodes: the cluster's nodes, all alike; spec: p, a, h and the number of groups. All cables of the
    network run at the NIC's rate. Switches are `group3/router17`, numbered throughout. Raises FieldError if the
    nodes do not fit.

    References: J. Kim, W. J. Dally, S. Scott and D. Abts, "Technology-driven, highly-scalable Dragonfly topology",
    ISCA 2008; Zhao et al., "Insights into DeepSeek-V3", arXiv 2505.09343, Table 3.
    """
    plan = plan_dragonfly(node, num_nodes, spec)
    graph = nodes_without_network(spec.kind, node, num_nodes, [0] * node.gpus)
    size = plan.routers_per_group
    routers = [f"group{index // size}/router{index}" for index in range(plan.routers)]
    for group in range(plan.groups):
        own = routers[group * size : (group + 1) * size]
        add_switches(graph, own, "router", spec.switch_ports, group=group, first_index=group * size)
    down = network_cable("nic", spec, node)
    add_endpoints(graph, all_nics(node, num_nodes), routers, plan.endpoints_per_router, down)
    within, between = (network_cable(kind, spec, node) for kind in ("router_local", "router_global"))
    for group in range(plan.groups):
        for one, other in combinations(routers[group * size : (group + 1) * size], 2):
            add_cable(graph, one, other, within)
    for (group, port), (other_group, other_port) in global_cables(plan):
        one = routers[group * size + port // plan.global_ports]
        other = routers[other_group * size + other_port // plan.global_ports]
        add_cable(graph, one, other, between, key=graph.number_of_edges(one, other))
    return graph


def global_cables(plan: DragonflyPlan) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield the (group, port) of both ends of each cable between groups, in the order that `dragonfly` defines."""
    groups = plan.groups
    for first in range(0, plan.rounds * (groups - 1), max(1, groups - 1)):
        for group, other in combinations(range(groups), 2):
            offset = other - group
            yield (group, first + offset - 1), (other, first + groups - offset - 1)
    first = plan.rounds * (groups - 1)
    for offset in range(1, plan.spare_ports // 2 + 1):
        for group in range(groups):
            port = first + 2 * (offset - 1)
            yield (group, port), ((group + offset) % groups, port + 1)
    if plan.spare_ports % 2:
        port = first + plan.spare_ports - 1
        for group in range(groups // 2):
            yield (group, port), (group + groups // 2, port)
