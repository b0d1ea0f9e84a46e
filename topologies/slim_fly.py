"""The Slim Fly: routers of which any two are at most two cables apart, with nearly the fewest ports that allow it."""

from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field

from simulator.units import FieldError
from topologies.cables import add_cable, check_num_cables
from topologies.counts import NetworkCounts
from topologies.galois import galois_field, prime_power
from topologies.node import NodeSpec
from topologies.schema import ClusterGraph
from topologies.wiring import (
    MAX_PORTS,
    SwitchedNetwork,
    add_endpoints,
    add_switches,
    all_nics,
    check_at_least_one_node,
    check_one_port,
    network_cable,
    nodes_without_network,
)

_LEAST_Q: Final = 3  # q = 4w + d with w at least 1 and d one of -1, 0, 1


class SlimFly(SwitchedNetwork):
    """2 q^2 routers that hold the NICs, any two at most two cables apart."""

    kind: Literal["slim-fly"] = Field(description="routers at most two cables apart")
    q: int | None = Field(
        default=None,
        ge=_LEAST_Q,
        le=MAX_PORTS,
        description="size of the field that the network is made of, a power of a prime; by default the smallest "
        "whose routers hold the nodes",
    )
    endpoints_per_router: int | None = Field(
        default=None,
        ge=1,
        description="number of NICs of a full router; by default half as many as it has cables to others, or what "
        "switch_ports leaves if that is less",
    )

    def check(self, node: NodeSpec, num_nodes: int) -> None:
        """Raise FieldError, its path starting at the cluster, unless such a network of nodes can be built."""
        plan = plan_slim_fly(node, num_nodes, self)
        if prime_power(plan.q) is None:
            raise FieldError("topology.q", _no_such_size(self, plan.q))
        check_num_cables(self.counts(node, num_nodes))

    def counts(self, node: NodeSpec, num_nodes: int) -> NetworkCounts:
        """Return the counts of the network by formula, also where no network of that size can be built.

        Cheap at any size. Raises FieldError if the nodes do not fit.
        """
        plan, nics = plan_slim_fly(node, num_nodes, self), node.gpus * num_nodes
        return NetworkCounts(nics, plan.routers, plan.cables, nics)

    def build(self, node: NodeSpec, num_nodes: int) -> ClusterGraph:
        """Return the cluster's graph; raise FieldError like `check`."""
        self.check(node, num_nodes)
        return slim_fly(node, num_nodes, self)


@dataclass(frozen=True, slots=True)
class SlimFlyPlan:
    """The size of a Slim Fly: q = 4w + d with d one of -1, 0 and 1, and how many NICs a router holds."""

    q: int
    endpoints_per_router: int

    @property
    def radix(self) -> int:
        """Return the number of cables from a router to others: (3q - d) / 2."""
        d = (self.q + 1) % 4 - 1
        return (3 * self.q - d) // 2

    @property
    def routers(self) -> int:
        """Return the number of routers."""
        return 2 * self.q**2

    @property
    def cables(self) -> int:
        """Return the number of cables between routers."""
        return self.routers * self.radix // 2

    @property
    def endpoints(self) -> int:
        """Return the number of NICs that the routers hold."""
        return self.routers * self.endpoints_per_router


def plan_slim_fly(node: NodeSpec, num_nodes: int, spec: SlimFly) -> SlimFlyPlan:
    """Return the size of the network; raise FieldError if nodes or ports do not fit. Cheap at any size.

    A `q` that is no power of a prime has a size too if it has the form 4w + d.
    """
    check_one_port(node, spec.kind)
    check_at_least_one_node(num_nodes)
    sizes = _sizes(spec)
    fitting = next((plan for plan in sizes if plan.endpoints >= num_nodes * node.gpus), None)
    if spec.q is None and fitting is not None:
        return fitting
    if spec.q is None:
        plan = max(sizes, key=lambda plan: plan.endpoints, default=_plan(spec, _LEAST_Q))
    elif spec.q % 4 == 2:
        raise FieldError("topology.q", _no_such_size(spec, spec.q))
    else:
        plan = _plan(spec, spec.q)
    needed = plan.radix + plan.endpoints_per_router
    if needed > spec.switch_ports:
        msg = (
            f"a router of a Slim Fly of q = {plan.q} has {plan.radix} cables to others and "
            f"{plan.endpoints_per_router} to NICs, more than switch_ports: {spec.switch_ports}; it needs {needed}"
        )
        raise FieldError("topology.switch_ports", msg)
    most = plan.endpoints // node.gpus
    if num_nodes > most:
        remedy = (
            f"none that holds {num_nodes:,} can be built of switches of {spec.switch_ports} ports"
            if fitting is None
            else f"{num_nodes:,} would need q: {fitting.q}"
        )
        held = f"at most {most:,}" if most else "not even one"
        msg = f"a Slim Fly of q = {plan.q} holds {held} of these nodes; {remedy}"
        raise FieldError("nodes", msg)
    return plan


def slim_fly(node: NodeSpec, num_nodes: int, spec: SlimFly) -> ClusterGraph:
    r"""Return a cluster whose routers form a McKay-Miller-Siran graph.

        routers (0, x, y)                    routers (1, m, c)
        group 0    group 1   ...             group q    group q + 1   ...
        (0,0,0)    (0,1,0)                   (1,0,0)    (1,1,0)
           |          |         one cable       |          |         within a group: two routers whose numbers
        (0,0,1)    (0,1,1)   -------------   (1,0,1)    (1,1,1)      y, or c, differ by a generator
           |          |      if y = m x + c     |          |
          ...        ...                       ...        ...
         / | \      / | \                     / | \      / | \
         NICs       NICs                      NICs       NICs

    Definition: q = 4w + d is a power of a prime, d one of -1, 0 and 1, and z a primitive element of the field of q
    elements. There are 2 q^2 routers, (0, x, y) and (1, m, c) for all elements of the field. Router (0, x, y) is
    joined to (0, x, y') if y - y' is in X, (1, m, c) to (1, m, c') if c - c' is in X', and (0, x, y) to (1, m, c) if
    y = m x + c. The generators X and X' are powers of z with the exponents

        d =  1: X: 0, 2, ..., q - 3                                X': 1, 3, ..., q - 2
        d =  0: X: 0, 2, ..., q - 2                                X': 1, 3, ..., q - 1
        d = -1: X: 0, 2, ..., 2w - 2, 2w - 1, 2w + 1, ..., 4w - 3   X': 1, 3, ..., 2w - 1, 2w, 2w + 2, ..., 4w - 2

    Each router has (3q - d) / 2 cables to others, and any two are at most two cables apart. The routers with the
    same x, or the same m, are a group, of which there are 2 q; they hold the NICs in the order of groups, and within
    a group of y, or c. The network is built whole, also where the nodes do not fill it.

    node, num_nodes: the cluster's nodes, all alike; spec: `q` and the NICs of a router. All cables of the network run
    at the NIC's rate. Switches are `group3/router17`, numbered throughout. Raises FieldError if the nodes do not fit,
    or if q is no power of a prime.

    References: B. D. McKay, M. Miller and J. Siran, "A note on large graphs of diameter two and given maximum
    degree", Journal of Combinatorial Theory B 74 (1998); P. R. Hafner, "Geometric realisation of the graphs of
    McKay-Miller-Siran", Journal of Combinatorial Theory B 90 (2004); M. Besta and T. Hoefler, "Slim Fly: a cost
    effective low-diameter network topology", SC 2014.
    """
    plan = plan_slim_fly(node, num_nodes, spec)
    graph = nodes_without_network(spec.kind, node, num_nodes, [0] * node.gpus)
    routers = [f"group{index // plan.q}/router{index}" for index in range(plan.routers)]
    for group in range(2 * plan.q):
        own = routers[group * plan.q : (group + 1) * plan.q]
        add_switches(graph, own, "router", spec.switch_ports, group=group, first_index=group * plan.q)
    down = network_cable("nic", spec, node)
    add_endpoints(graph, all_nics(node, num_nodes), routers, plan.endpoints_per_router, down)
    within, between = (network_cable(kind, spec, node) for kind in ("router_local", "router_global"))
    for one, other in router_pairs(plan.q):
        add_cable(
            graph, routers[one], routers[other], within if one // plan.q == other // plan.q else between
        )
    return graph


def router_pairs(q: int) -> list[tuple[int, int]]:
    """Return the pairs of routers that are joined, the smaller number first, in ascending order.

    Router (0, x, y) has the number x q + y, router (1, m, c) the number (q + m) q + c.
    """
    field = galois_field(q)
    generators = [[field.powers[exponent % (q - 1)] for exponent in row] for row in _exponents(q)]
    pairs = [
        (group * q + one, group * q + other)
        for group in range(2 * q)
        for one in range(q)
        for other in sorted(field.add(one, generator) for generator in generators[group // q])
        if one < other
    ]
    for m in range(q):
        products = [field.multiply(m, x) for x in range(q)]
        pairs += [(x * q + field.add(products[x], c), (q + m) * q + c) for x in range(q) for c in range(q)]
    return sorted(pairs)


def _exponents(q: int) -> tuple[list[int], list[int]]:
    """Return the exponents of the generators X and X', as `slim_fly` says."""
    if q % 4 != 3:
        return list(range(0, q - 1, 2)), list(range(1, q, 2)) if q % 4 == 0 else list(range(1, q - 1, 2))
    w = (q + 1) // 4
    return (
        [*range(0, 2 * w - 1, 2), *range(2 * w - 1, 4 * w - 2, 2)],
        [*range(1, 2 * w, 2), *range(2 * w, 4 * w - 1, 2)],
    )


def _plan(spec: SlimFly, q: int) -> SlimFlyPlan:
    """Return the size for a q of the form 4w + d, whether the ports of a router suffice or not."""
    radix = SlimFlyPlan(q, 0).radix
    default = max(1, min(-(-radix // 2), spec.switch_ports - radix))
    return SlimFlyPlan(q, default if spec.endpoints_per_router is None else spec.endpoints_per_router)


def _sizes(spec: SlimFly) -> list[SlimFlyPlan]:
    """Return all sizes that can be built of such switches, in order."""
    plans = (
        _plan(spec, q)
        for q in range(_LEAST_Q, spec.switch_ports)
        if q % 4 != 2 and prime_power(q) is not None
    )
    return [plan for plan in plans if plan.radix + plan.endpoints_per_router <= spec.switch_ports]


def _no_such_size(spec: SlimFly, q: int) -> str:
    """Return the message that refuses a q that is no power of a prime, with the nearest that are."""
    sizes = _sizes(spec.model_copy(update={"endpoints_per_router": None}))
    near = [plan for plan in sizes if plan.q < q][-1:] + [plan for plan in sizes if plan.q > q][:1]
    remedy = " and ".join(
        f"q: {plan.q} with endpoints_per_router: {plan.endpoints_per_router} ({plan.endpoints:,} NICs)"
        for plan in near
    )
    return (
        f"no Slim Fly of q = {q} can be built: q must be a power of a prime, and not 2; the nearest "
        f"with {spec.switch_ports}-port switches are {remedy or 'none'}"
    )
