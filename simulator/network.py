"""Compiles a cluster graph to arrays with integer ids, and turns transfers between ranks into bills on links.

Results are told per cable, a directed edge of the graph. Flows share links: a cable, or a bundle of cables that
always carry equal load (`simulator.cables`).
"""

import copy
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.cables import Cables, LinkCosts, bundle_cables
from simulator.gateways import Ways, ways
from simulator.pricing import FREE, Pricing
from simulator.route_book import NodeCables, RouteBook, legs_of, merged
from simulator.routing import POLICIES, NoPathError, Request, Route
from simulator.wiring import Port, Wiring
from topologies.schema import ClusterGraph
from workloads.tasks import Transfers

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


# What a way costs under `least-loaded`: its fullest cable, then all of them.
_Wait = tuple[float, float]

# Policies under which a flow takes all ways that are equally good at once.
_SPRAYING: Final = frozenset({"adaptive"})


class Network:
    """A cluster as links with capacities, and the routes of transfers over them.

    cables: the graph's edges; capacity_bytes_per_s: [num_links] effective; link_of_cable: [num_cables]
    endpoints are GPUs, numbered node after node
    """

    def __init__(
        self,
        graph: ClusterGraph,
        costs: Mapping[str, LinkCosts],
        policy: str = "adaptive",
        seed: int = 0,
        *,
        bundle: bool = True,
    ) -> None:
        """Compile `graph`.

        costs: by cable profile; policy: a key of `routing.POLICIES`, with `seed` for ecmp; bundle: let alike
        cables share a link where that is exact
        """
        self.cables = Cables.of_graph(graph, costs)
        self._costs = costs
        self._policy_name, self._policy, self._seed = policy, POLICIES[policy], seed
        self._wiring = Wiring.of_graph(graph, self.cables, policy)
        self._fabric = self._wiring.fabric
        self._gpus_per_node: int = int(graph.graph["gpus_per_node"])
        alike = bundle and policy == "adaptive"
        self.link_of_cable = bundle_cables(self.cables) if alike else np.arange(len(self.cables))
        capacity = np.bincount(self.link_of_cable, self.cables.effective_bytes_per_s)
        self.capacity_bytes_per_s: FloatArray = capacity.astype(np.float64)
        self.cables_of_link = np.bincount(self.link_of_cable)
        self.first_cable: IntArray = np.unique(self.link_of_cable, return_index=True)[1]  # of each link
        self._ports_of_profile = _ports(self.cables, self.link_of_cable)
        self._node_cables = NodeCables.of_graph(graph, self.cables)
        self._routes = RouteBook(self.link_of_cable, self._node_cables)
        self._sprays: dict[tuple[int, int], Route] = {}  # between two switches
        self._dead: frozenset[int] = frozenset()
        self._speed_bytes_per_s = (
            self.cables.effective_bytes_per_s
        )  # of each cable now; a dead one's when alive
        self._later: tuple[frozenset[int], ...] = ()
        self._later_networks: list[Network] | None = None
        self._whole = self

    def without(self, dead_cables: frozenset[int], later: tuple[frozenset[int], ...] = ()) -> "Network":
        """Return the network that is left when these cables carry nothing: the same links, and other routes.

        later: the cables that will be dead after each change to come. Where no way is left between two GPUs, their
        traffic waits on the way that it will have after the first change that opens one; if none does, on the way
        that it would have if all cables were alive.
        """
        left = copy.copy(self._whole)
        left._dead, left._later, left._later_networks = dead_cables, later, None
        left._fabric = self._whole._fabric.without(dead_cables)
        left._node_cables = self._whole._node_cables.parted((dead_cables, *later))
        left._routes = RouteBook(self.link_of_cable, left._node_cables)
        left._sprays = {}
        return left

    def at_shares(self, share: FloatArray) -> "Network":
        """Return the network with so much of the cables' capacity left, 0 to 1: [num_cables]; routes by load know."""
        slowed = copy.copy(self)
        whole = self.cables.effective_bytes_per_s
        slowed._speed_bytes_per_s = np.where(share > 0.0, whole * share, whole)
        return slowed

    def bills(
        self,
        transfers: Transfers,
        endpoint_of_rank: IntArray,
        flow_numbers: IntArray,
        backlog_bytes: Callable[[], FloatArray],
        pricing: Pricing = FREE,
    ) -> tuple[Bills, FloatArray]:
        """Return the bills of transfers, and the latency in seconds that each pays before its bytes move.

        flow_numbers: [num_transfers] the number by which ecmp tells flows apart
        backlog_bytes: returns [num_links] what flows under way have yet to send (asked by least-loaded only)
        pricing: what the kernel that moves them costs beside their bytes
        """
        if pricing.from_host:
            return self._bills_from_host(endpoint_of_rank[transfers.destination_ranks])
        flow, source, target, share, in_chain = legs_of(transfers, endpoint_of_rank)
        if self._policy_name in {"adaptive", "static"}:
            book, route_of_leg = self._routes, self._route_kinds(source, target, over_nics=pricing.over_nics)
        else:
            book = RouteBook(self.link_of_cable, self._node_cables)
            sent_bytes = transfers.size_bytes[flow] * share
            backlog_s = self._backlog_s(backlog_bytes)
            route_of_leg = self._route_one_by_one(
                book, source, target, flow_numbers[flow], sent_bytes, backlog_s, over_nics=pricing.over_nics
            )
        nodes = source // self._gpus_per_node, target // self._gpus_per_node
        entries, links, coefficients, latency_s = book.rows(route_of_leg, *nodes)
        charged = coefficients * np.repeat(share, entries)
        bills = merged(np.repeat(flow, entries), links, charged, len(transfers), self.num_links)
        total_s = np.zeros(len(transfers))
        np.maximum.at(total_s, flow[~in_chain], latency_s[~in_chain])
        np.add.at(total_s, flow[in_chain], latency_s[in_chain])
        return self._priced(bills, pricing), pricing.start_up_s + total_s * transfers.rounds

    def _bills_from_host(self, target: IntArray) -> tuple[Bills, FloatArray]:
        """Return the bills of copies out of the memory of hosts, one to each GPU of `target`, and their latency."""
        links = self.link_of_cable[self._wiring.from_host[target]]
        count = len(target)
        bills = Bills(2 * np.arange(count + 1), links.ravel(), np.ones(2 * count))
        return bills, np.full(count, self._costs["pcie"].latency_s)

    def _priced(self, bills: Bills, pricing: Pricing) -> Bills:
        """Return bills of what passes links with ports charged for the time that messages keep them busy."""
        if pricing.is_free:
            return bills
        charge_of_link = np.ones(self.num_links)
        for profile, ports in self._ports_of_profile.items():
            capacities, place = np.unique(self.capacity_bytes_per_s[ports], return_inverse=True)
            charges = np.array([pricing.charge(profile, capacity) for capacity in capacities.tolist()])
            charge_of_link[ports] = charges[place]
        return Bills(
            bills.offsets, bills.links, bills.coefficients * charge_of_link[bills.links], bills.coefficients
        )

    @property
    def routes_by_load(self) -> bool:
        """Whether a flow's route depends on what else is under way when it starts."""
        return self._policy_name == "least-loaded"

    @property
    def sprays(self) -> bool:
        """Whether flows take all equally good paths at once, by a rule that knows of nothing but the paths."""
        return self._policy_name in _SPRAYING

    def gpu_name(self, endpoint: int) -> str:
        """Return the name of a GPU in the cluster graph."""
        node, index = divmod(endpoint, self._gpus_per_node)
        return f"node{node}/gpu{index}"

    @property
    def num_links(self) -> int:
        """Number of links that the fluid network shares."""
        return len(self.capacity_bytes_per_s)

    def per_cable(self, per_link: FloatArray) -> FloatArray:
        """Return an amount per link [num_links, ...] as one per cable: a bundle's cables carry equal parts."""
        parts = per_link[self.link_of_cable].T / self.cables_of_link[self.link_of_cable]
        return np.asarray(parts.T)

    def _route_kinds(self, source: IntArray, target: IntArray, *, over_nics: bool) -> IntArray:
        """Return the route of each leg [num_legs] in the network's book, where it depends on the ends alone.

        Pairs of GPUs with one index each, of nodes of one sort each, are of one kind: their routes are alike. Only
        `static` tells GPUs apart by their number, so that there kinds have one target.
        """
        kind = self._kinds(source, target)
        kinds, kind_of_leg = np.unique(kind, return_inverse=True)
        known = self._routes.of_kind[over_nics]
        if not known.keys() >= set(kinds.tolist()):
            order = np.lexsort((target, source))
            _, first = np.unique(kind[order], return_index=True)
            for leg in order[np.sort(first)].tolist():
                if int(kind[leg]) not in known:
                    ends = int(source[leg]), int(target[leg])
                    route, latency_s = self._route(*ends, 0, np.zeros(0), over_nics=over_nics)
                    nodes = ends[0] // self._gpus_per_node, ends[1] // self._gpus_per_node
                    known[int(kind[leg])] = self._routes.add(route, latency_s, *nodes)
        return np.array([known[number] for number in kinds.tolist()], np.int64)[kind_of_leg]

    def _kinds(self, source: IntArray, target: IntArray) -> IntArray:
        """Return a number for the kind of each pair of GPUs: see `_route_kinds`."""
        gpus, sort = self._gpus_per_node, self._node_cables.sort
        to = target if self._policy_name == "static" else sort[target // gpus] * gpus + target % gpus
        pair = (sort[source // gpus] * gpus + source % gpus) * len(sort) * gpus + to
        return np.asarray(2 * pair + (source // gpus == target // gpus), np.int64)

    def _route_one_by_one(
        self,
        book: "RouteBook",
        source: IntArray,
        target: IntArray,
        flow_numbers: IntArray,
        sent_bytes: FloatArray,
        backlog_s: FloatArray,
        *,
        over_nics: bool,
    ) -> IntArray:
        """Return the route of each leg [num_legs] in `book`; each is seen in the backlog by those after it."""
        chosen = np.empty(len(source), np.int64)
        for leg in range(len(source)):
            ends, number = (int(source[leg]), int(target[leg])), int(flow_numbers[leg])
            route, latency_s = self._route(*ends, number, backlog_s, over_nics=over_nics)
            nodes = ends[0] // self._gpus_per_node, ends[1] // self._gpus_per_node
            chosen[leg] = book.add(route, latency_s, *nodes)
            for cable, coefficient in route:
                backlog_s[cable] += sent_bytes[leg] * coefficient / self._speed_bytes_per_s[cable]
        return chosen

    def _backlog_s(self, backlog_bytes: Callable[[], FloatArray]) -> FloatArray:
        """Return how long each cable needs for what it has yet to send: [num_cables] seconds."""
        if not self.routes_by_load:
            return np.zeros(len(self.cables))
        return np.asarray(self.per_cable(backlog_bytes()) / self._speed_bytes_per_s)

    def _route(
        self, source: int, target: int, flow: int, backlog_s: FloatArray, *, over_nics: bool
    ) -> tuple[Route, float]:
        """Return the cables from one GPU to another with their coefficients, and the latency in seconds.

        Where no way is open now it is one that will be, or would be if all cables were alive: see `without`.
        """
        found = self._open_route(source, target, flow, backlog_s, over_nics=over_nics)
        if found is None and self._later_networks is None:
            self._later_networks = [
                self.without(dead, self._later[place + 1 :]) for place, dead in enumerate(self._later)
            ]
        for network in (*(self._later_networks or ()), self._whole):
            if found is None:
                found = network._open_route(source, target, flow, backlog_s, over_nics=over_nics)
        if found is None:
            where = "the same node over the network" if over_nics else "another node"
            msg = (
                f"no path from GPU {source} to GPU {target} of {where}: no NIC of its node reaches that one's"
            )
            raise NoPathError(msg)
        return found

    def _open_route(
        self, source: int, target: int, flow: int, backlog_s: FloatArray, *, over_nics: bool
    ) -> tuple[Route, float] | None:
        """Return the route from one GPU to another over cables that are alive, and its latency; None without any.

        Within a node, NVLink, or, `over_nics`, from the one's NIC to the other's. Between nodes, the first of
        `gateways.ways` that are open. Of several that are equally good, `adaptive` takes all, with equal shares, and
        other policies one.
        """
        if source // self._gpus_per_node == target // self._gpus_per_node:
            if over_nics:
                way = (source, target)
                open_now = self._is_open(source, target, *way)
                return self._by_way(way, source, target, flow, backlog_s) if open_now else None
            route = self._over_nvlink(source, target)
            alive = self._are_alive(*(cable for cable, _ in route))
            return (route, self._costs["nvlink"].latency_s) if alive else None
        for equally_good in ways(source, target, self._gpus_per_node):
            is_open = [way for way in equally_good if self._is_open(source, target, *way)]
            if is_open:
                return self._over(is_open, source, target, flow, backlog_s)
        return None

    def _over(
        self, options: Ways, source: int, target: int, flow: int, backlog_s: FloatArray
    ) -> tuple[Route, float]:
        """Return the route over all of the ways, or over one where the policy does not spray; and its latency.

        Which one: by the flow's number (ecmp, minimal, valiant), by the target (static), or by load.
        """
        if self.sprays:
            return _spread([self._by_way(way, source, target, flow, backlog_s) for way in options])
        if self.routes_by_load:
            routes = [self._by_way(way, source, target, flow, backlog_s) for way in options]
            return min(routes, key=lambda option: _wait(option[0], backlog_s))
        pick = target if self._policy_name == "static" else flow
        return self._by_way(options[pick % len(options)], source, target, flow, backlog_s)

    def _by_way(
        self, way: tuple[int, int], source: int, target: int, flow: int, backlog_s: FloatArray
    ) -> tuple[Route, float]:
        """Return the route that leaves by one GPU and arrives at another, and its latency.

        Packets are sprayed over all pairs of ports that reach each other: one in each plane that both NICs are in.
        """
        leaving, arriving = way
        route, latency_s = _spread(
            [
                self._between_ports(out, into, flow, backlog_s)
                for out, into in self._pairs_of_ports(leaving, arriving)
            ]
        )
        for start, end in ((source, leaving), (arriving, target)):
            if start != end:
                route = [*self._over_nvlink(start, end), *route]
                latency_s += self._costs["nvlink"].latency_s
        return route, latency_s

    def _between_ports(
        self, leaving: Port, arriving: Port, flow: int, backlog_s: FloatArray
    ) -> tuple[Route, float]:
        """Return the route from one port to another, and its latency: more for each switch but the first."""
        crossing: Route = []
        further_switches = 0
        if leaving.switch != arriving.switch:
            crossing = self._crossing(leaving, arriving, flow, backlog_s)
            # a spray's paths are equally long; another policy has one path, which need not be a shortest one
            hops = self._fabric.hops(leaving.switch, arriving.switch) if self.sprays else len(crossing)
            further_switches = hops or 0
        ends = [(cable, 1.0) for cable in (*leaving.out_cables, *arriving.in_cables)]
        costs = self._costs[leaving.profile]
        return [*ends, *crossing], costs.latency_s + further_switches * costs.switch_latency_s

    def _crossing(self, leaving: Port, arriving: Port, flow: int, backlog_s: FloatArray) -> Route:
        """Return the cables between the switches of two ports; a spray depends on these alone, and is found once."""
        switches = (leaving.switch, arriving.switch)
        if self.sprays and switches in self._sprays:
            return self._sprays[switches]
        request = Request(leaving.switch, arriving.switch, arriving.number, flow)
        crossing = self._policy(self._fabric, request, self._seed, backlog_s)
        if self.sprays:
            crossing = self._sprays[switches] = self._bundled(crossing)
        return crossing

    def _bundled(self, route: Route) -> Route:
        """Return a route with one cable for each link that it crosses, which carries what all of that link's do."""
        carried: dict[int, float] = {}
        for cable, coefficient in route:
            first = int(self.first_cable[self.link_of_cable[cable]])
            carried[first] = carried.get(first, 0.0) + coefficient
        return list(carried.items())

    def _is_open(self, source: int, target: int, leaving: int, arriving: int) -> bool:
        """Return whether bytes can go from `source` over `leaving`, `arriving` and so to `target`."""
        detours = [pair for pair in ((source, leaving), (arriving, target)) if pair[0] != pair[1]]
        nvlinks = [cable for pair in detours for cable, _ in self._over_nvlink(*pair)]
        return self._are_alive(*nvlinks) and bool(self._pairs_of_ports(leaving, arriving))

    def _pairs_of_ports(self, leaving: int, arriving: int) -> list[tuple[Port, Port]]:
        """Return the ports of two GPUs that reach each other."""
        return [
            (out, into)
            for out in self._wiring.ports_of(leaving)
            if self._are_alive(*out.out_cables)
            for into in self._wiring.ports_of(arriving)
            if self._are_alive(*into.in_cables) and self._fabric.hops(out.switch, into.switch) is not None
        ]

    def _over_nvlink(self, source: int, target: int) -> Route:
        """Return the NVLink cables from a GPU to another of its node."""
        return [(int(self._wiring.nvlink[source, 0]), 1.0), (int(self._wiring.nvlink[target, 1]), 1.0)]

    def _are_alive(self, *cables: int) -> bool:
        return self._dead.isdisjoint(cables)


def _ports(cables: Cables, link_of_cable: IntArray) -> dict[str, IntArray]:
    """Return the links of GPUs' NVLink cables and of NICs' cables by profile; each of these has a link of its own."""
    is_port = (cables.kind == "nvlink") | (cables.kind == "nic")
    profiles = sorted(set(cables.profile[is_port].tolist()))
    return {name: link_of_cable[is_port & (cables.profile == name)] for name in profiles}


def _spread(routes: list[tuple[Route, float]]) -> tuple[Route, float]:
    """Return a flow's route when each of these carries an equal part of it, and the largest of their latencies."""
    if len(routes) == 1:
        return routes[0]
    share = 1.0 / len(routes)
    together = [(cable, coefficient * share) for route, _ in routes for cable, coefficient in route]
    return together, max(latency_s for _, latency_s in routes)


def _wait(route: Route, backlog_s: FloatArray) -> _Wait:
    """Return the longest wait on any cable of a route, and the sum of all."""
    waits = [float(backlog_s[cable]) for cable, _ in route]
    return max(waits), sum(waits)
