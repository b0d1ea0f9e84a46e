"""Compiles a cluster graph to arrays with integer ids, and turns transfers between ranks into bills on links.

Results are told per cable, a directed edge of the graph. Flows share links: a cable, or a bundle of cables that
always carry equal load (`simulator.cables`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.cables import Cables, LinkCosts, bundle_cables
from simulator.routing import POLICIES, Fabric, NoPathError, Request, Route
from simulator.rows import csr_offsets, csr_select
from topologies.schema import ClusterGraph
from workloads.tasks import Transfers

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Port:
    """A GPU's way into the fabric through its NIC.

    out_cables, in_cables: from the GPU to its leaf switch, and back
    number: the NIC's place among all NICs, counted leaf by leaf
    """

    switch: int
    number: int
    profile: str
    out_cables: tuple[int, ...]
    in_cables: tuple[int, ...]


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
        self._fabric, switch_of = _compile_fabric(graph, self.cables)
        self._ports = _find_ports(graph, self.cables, switch_of)
        self._nvlink = _find_nvlinks(graph, self.cables)
        self._gpus_per_node: int = int(graph.graph["gpus_per_node"])
        alike = bundle and policy == "adaptive"
        self.link_of_cable = bundle_cables(self.cables) if alike else np.arange(len(self.cables))
        capacity = np.bincount(self.link_of_cable, self.cables.effective_bytes_per_s)
        self.capacity_bytes_per_s: FloatArray = capacity.astype(np.float64)
        self.cables_of_link = np.bincount(self.link_of_cable)
        self._routes = _RouteBook(self.link_of_cable)

    def bills(
        self,
        transfers: Transfers,
        endpoint_of_rank: IntArray,
        flow_numbers: IntArray,
        backlog_bytes: Callable[[], FloatArray],
    ) -> tuple[Bills, FloatArray]:
        """Return the bills of transfers, and the latency in seconds that each pays before its bytes move.

        flow_numbers: [num_transfers] the number by which ecmp tells flows apart
        backlog_bytes: returns [num_links] what flows under way have yet to send (asked by least-loaded only)
        """
        flow, source, target, share, in_chain = _legs(transfers, endpoint_of_rank)
        if self._policy_name in {"adaptive", "static"}:
            book, route_of_leg = self._routes, self._route_pairs(source, target)
        else:
            book = _RouteBook(self.link_of_cable)
            sent_bytes = transfers.size_bytes[flow] * share
            backlog_s = self._backlog_s(backlog_bytes)
            route_of_leg = self._route_one_by_one(
                book, source, target, flow_numbers[flow], sent_bytes, backlog_s
            )
        entries, links, coefficients, latency_s = book.rows(route_of_leg)
        charged = coefficients * np.repeat(share, entries)
        bills = _merge(np.repeat(flow, entries), links, charged, len(transfers), self.num_links)
        total_s = np.zeros(len(transfers))
        np.maximum.at(total_s, flow[~in_chain], latency_s[~in_chain])
        np.add.at(total_s, flow[in_chain], latency_s[in_chain])
        return bills, total_s * transfers.rounds

    @property
    def routes_by_load(self) -> bool:
        """Whether a flow's route depends on what else is under way when it starts."""
        return self._policy_name == "least-loaded"

    @property
    def num_links(self) -> int:
        """Number of links that the fluid network shares."""
        return len(self.capacity_bytes_per_s)

    def per_cable(self, per_link: FloatArray) -> FloatArray:
        """Return an amount per link [num_links, ...] as one per cable: a bundle's cables carry equal parts."""
        parts = per_link[self.link_of_cable].T / self.cables_of_link[self.link_of_cable]
        return np.asarray(parts.T)

    def _route_pairs(self, source: IntArray, target: IntArray) -> IntArray:
        """Return the route of each leg [num_legs] in the network's book, where it depends on the ends alone."""
        unique, pair_of_leg = np.unique(np.stack([source, target]), axis=1, return_inverse=True)
        pairs: list[tuple[int, int]] = list(zip(unique[0].tolist(), unique[1].tolist(), strict=True))
        known = self._routes.of_pair
        for pair in pairs:
            if pair not in known:
                known[pair] = self._routes.add(*self._route(pair[0], pair[1], 0, np.zeros(0)))
        return np.array([known[pair] for pair in pairs], np.int64)[pair_of_leg]

    def _route_one_by_one(
        self,
        book: "_RouteBook",
        source: IntArray,
        target: IntArray,
        flow_numbers: IntArray,
        sent_bytes: FloatArray,
        backlog_s: FloatArray,
    ) -> IntArray:
        """Return the route of each leg [num_legs] in `book`; each is seen in the backlog by those after it."""
        chosen = np.empty(len(source), np.int64)
        for leg in range(len(source)):
            route, latency_s = self._route(
                int(source[leg]), int(target[leg]), int(flow_numbers[leg]), backlog_s
            )
            chosen[leg] = book.add(route, latency_s)
            for cable, coefficient in route:
                backlog_s[cable] += sent_bytes[leg] * coefficient / self.cables.effective_bytes_per_s[cable]
        return chosen

    def _backlog_s(self, backlog_bytes: Callable[[], FloatArray]) -> FloatArray:
        """Return how long each cable needs for what it has yet to send: [num_cables] seconds."""
        if not self.routes_by_load:
            return np.zeros(len(self.cables))
        return self.per_cable(backlog_bytes()) / self.cables.effective_bytes_per_s

    def _route(self, source: int, target: int, flow: int, backlog_s: FloatArray) -> tuple[Route, float]:
        """Return the cables from one GPU to another with their coefficients, and the latency in seconds.

        Within a node, NVLink. Between nodes, from the source's own NIC if its fabric reaches the target's; if
        not, as between planes, first over NVLink to the GPU whose NIC is in the target's plane.
        """
        if source // self._gpus_per_node == target // self._gpus_per_node:
            return [(self._nvlink[source][0], 1.0), (self._nvlink[target][1], 1.0)], self._costs[
                "nvlink"
            ].latency_s
        gateway = self._gateway(source, target)
        route, latency_s = self._route(source, gateway, flow, backlog_s) if gateway != source else ([], 0.0)
        leaving, arriving = self._ports[gateway], self._ports[target]
        crossing: Route = []
        if leaving.switch != arriving.switch:
            request = Request(leaving.switch, arriving.switch, arriving.number, flow)
            crossing = self._policy(self._fabric, request, self._seed, backlog_s)
        ends = [(cable, 1.0) for cable in (*leaving.out_cables, *arriving.in_cables)]
        further_switches = self._fabric.hops(leaving.switch, arriving.switch) or 0
        costs = self._costs[leaving.profile]
        return [
            *route,
            *ends,
            *crossing,
        ], latency_s + costs.latency_s + further_switches * costs.switch_latency_s

    def _gateway(self, source: int, target: int) -> int:
        """Return the GPU of the source's node whose NIC reaches the target's: itself, the target's index, any."""
        first = source - source % self._gpus_per_node
        same_index = first + target % self._gpus_per_node
        wanted = self._ports.get(target)
        candidates: tuple[int, ...] = (source, same_index, *range(first, first + self._gpus_per_node))
        for gpu in candidates:
            port = self._ports.get(gpu)
            if wanted and port and self._fabric.hops(port.switch, wanted.switch) is not None:
                return gpu
        msg = f"no path from GPU {source} to GPU {target} of another node: no NIC of its node reaches that one's"
        raise NoPathError(msg)


class _RouteBook:
    """Routes as rows of links and coefficients, each with a latency; those of pairs are looked up again."""

    def __init__(self, link_of_cable: IntArray) -> None:
        self._link_of_cable = link_of_cable
        self.of_pair: dict[tuple[int, int], int] = {}
        self._links: list[IntArray] = []
        self._coefficients: list[FloatArray] = []
        self._latencies_s: list[float] = []

    def add(self, route: Route, latency_s: float) -> int:
        """Store a route and return its index."""
        cables = np.array([cable for cable, _ in route], np.int64)
        links, place = np.unique(self._link_of_cable[cables], return_inverse=True)
        self._links.append(links)
        shares = [coefficient for _, coefficient in route]
        self._coefficients.append(np.bincount(place, shares).astype(np.float64))
        self._latencies_s.append(latency_s)
        return len(self._links) - 1

    def rows(self, routes: IntArray) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
        """Return the lengths of the given routes, their links and coefficients end to end, their latencies."""
        offsets, entries = csr_select(csr_offsets([len(links) for links in self._links]), routes)
        links = np.concatenate([np.zeros(0, np.int64), *self._links])[entries]
        coefficients = np.concatenate([np.zeros(0), *self._coefficients])[entries]
        return np.diff(offsets), links, coefficients, np.array(self._latencies_s)[routes]


def _legs(
    transfers: Transfers, endpoint_of_rank: IntArray
) -> tuple[IntArray, IntArray, IntArray, FloatArray, NDArray[np.bool_]]:
    """Return the legs of transfers: flow, from, to, share of the flow's bytes, and whether it is in the chain.

    The chain leads from the source through the relays; its legs carry the whole flow, one after the other. From
    its end the fan-out leads to the destinations side by side. A leg from a GPU to itself crosses nothing and
    is left out; a transfer that reduces has its legs turned round.
    """
    num_relays, num_destinations = np.diff(transfers.relay_offsets), np.diff(transfers.destination_offsets)
    flows = np.arange(len(transfers))
    chain_flow = np.repeat(flows, num_relays)
    # The rank before each relay: the source for the first of a transfer, else the relay before it.
    before_relay = np.empty(len(transfers.relay_ranks), np.int64)
    before_relay[1:] = transfers.relay_ranks[:-1]
    relayed = num_relays > 0
    before_relay[transfers.relay_offsets[:-1][relayed]] = transfers.source_rank[relayed]
    last = transfers.source_rank.copy()
    last[relayed] = transfers.relay_ranks[transfers.relay_offsets[1:][relayed] - 1]

    flow = np.concatenate([chain_flow, np.repeat(flows, num_destinations)])
    start = endpoint_of_rank[np.concatenate([before_relay, np.repeat(last, num_destinations)])]
    end = endpoint_of_rank[np.concatenate([transfers.relay_ranks, transfers.destination_ranks])]
    share = np.concatenate([np.ones(len(chain_flow)), transfers.fractions])
    in_chain = np.arange(len(flow)) < len(chain_flow)
    turned = transfers.reduce[flow]
    start, end = np.where(turned, end, start), np.where(turned, start, end)
    crosses = (start != end) & (share > 0.0)
    return flow[crosses], start[crosses], end[crosses], share[crosses], in_chain[crosses]


def _merge(
    flow: IntArray, links: IntArray, coefficients: FloatArray, num_flows: int, num_links: int
) -> Bills:
    """Return bills in which each link stands once per flow, with the sum of its coefficients."""
    entries, place = np.unique(flow * num_links + links, return_inverse=True)
    merged_flow, merged_links = np.divmod(entries, num_links)
    lengths = np.bincount(merged_flow, minlength=num_flows)
    summed = np.bincount(place, coefficients, minlength=len(entries)).astype(np.float64)
    return Bills(csr_offsets(lengths), merged_links, summed)


def _compile_fabric(graph: ClusterGraph, cables: Cables) -> tuple[Fabric, dict[str, int]]:
    """Return the switches and the cables between them, and the number of each switch."""
    switches = [vertex for vertex, data in graph.nodes(data=True) if data["kind"] == "switch"]
    number = {vertex: index for index, vertex in enumerate(switches)}
    cables_from: list[list[tuple[int, int]]] = [[] for _ in switches]
    for cable, (source, target) in enumerate(zip(cables.source, cables.target, strict=True)):
        if source in number and target in number:
            cables_from[number[source]].append((cable, number[target]))
    for row in cables_from:
        row.sort(key=lambda pair: (pair[1], pair[0]))
    return Fabric(cables_from), number


def _find_ports(graph: ClusterGraph, cables: Cables, switch_of: dict[str, int]) -> dict[int, _Port]:
    """Return the port of every GPU whose NIC hangs on a switch: endpoint -> port."""
    cable_of = {pair: cable for cable, pair in enumerate(zip(cables.source, cables.target, strict=True))}
    gpus_per_node = int(graph.graph["gpus_per_node"])
    found = []
    for gpu, data in graph.nodes(data=True):
        if data["kind"] != "gpu":
            continue
        for pcie in (
            vertex for vertex in graph.successors(gpu) if graph.nodes[vertex]["kind"] == "pcie_switch"
        ):
            for nic in (vertex for vertex in graph.successors(pcie) if graph.nodes[vertex]["kind"] == "nic"):
                for switch in (vertex for vertex in graph.successors(nic) if vertex in switch_of):
                    way = (gpu, pcie, nic, switch)
                    endpoint = data["node"] * gpus_per_node + data["index"]
                    found.append((switch_of[switch], endpoint, way))
    ports = {}
    for number, (leaf, endpoint, way) in enumerate(sorted(found)):
        out_cables = tuple(cable_of[pair] for pair in pairwise(way))
        in_cables = tuple(cable_of[pair[::-1]] for pair in pairwise(way))
        ports[endpoint] = _Port(leaf, number, str(cables.profile[out_cables[-1]]), out_cables, in_cables)
    return ports


def _find_nvlinks(graph: ClusterGraph, cables: Cables) -> list[tuple[int, int]]:
    """Return the NVLink cables out of and into every GPU: [num_endpoints] pairs."""
    gpus_per_node = int(graph.graph["gpus_per_node"])
    pairs = [(-1, -1)] * (graph.graph["num_nodes"] * gpus_per_node)
    for cable in np.flatnonzero(cables.kind == "nvlink"):
        source, target = graph.nodes[cables.source[cable]], graph.nodes[cables.target[cable]]
        outward = source["kind"] == "gpu"
        gpu = source if outward else target
        endpoint = gpu["node"] * gpus_per_node + gpu["index"]
        leaving, arriving = pairs[endpoint]
        pairs[endpoint] = (int(cable), arriving) if outward else (leaving, int(cable))
    return pairs
