"""Routes as rows of arrays: the legs that transfers have, the routes that legs take, and the bills that follow."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.cables import Cables
from simulator.routing import Route
from simulator.rows import csr_offsets, csr_select
from topologies.schema import ClusterGraph
from workloads.tasks import Transfers

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_HERE: Final = 0
_THERE: Final = 1
_BETWEEN: Final = 2


@dataclass(frozen=True, slots=True)
class NodeCables:
    """The cables that have an end in a node, each at a *slot* of it, and which nodes are alike.

    Nodes of one *sort* hang on the same switches, with cables alike at every slot. So whatever way leads from GPU i
    of a node to GPU j of another, over their cables at some slots, leads over those at the same slots from GPU i to
    GPU j of any two nodes of these sorts.

    at: [num_nodes, num_slots] the cable at each slot, -1 for none; slot: [num_cables] -1 for those between switches
    node: [num_cables] the node, -1 for those between switches; sort: [num_nodes] a number, from 0
    """

    at: IntArray
    slot: IntArray
    node: IntArray
    sort: IntArray

    @classmethod
    def of_graph(cls, graph: ClusterGraph, cables: Cables) -> Self:
        """Return those of a graph that keeps the vocabulary of `topologies.schema`."""
        num_nodes = int(graph.graph["num_nodes"])
        data = [vertex for _, vertex in graph.nodes(data=True)]
        place = _places(np.array([vertex.get("node", -1) for vertex in data], np.int64))
        # a vertex of a node is known by its place in it and by what it is, a switch by itself
        what = _numbers((vertex["kind"], vertex.get("index", -1)) for vertex in data)
        known_by = np.where(place < 0, -1 - np.arange(len(place)), place)
        source, target = cables.source_vertex, cables.target_vertex
        ends = known_by[source], what[source], known_by[target], what[target]
        signs = np.stack([*ends, cables.key, _numbers(cables.profile.tolist())], axis=1)
        slot = _places(cables.node)
        at = np.full((num_nodes, int(slot.max(initial=-1)) + 1), -1)
        inside = np.flatnonzero(slot >= 0)
        at[cables.node[inside], slot[inside]] = inside
        rows = np.where(at[:, :, np.newaxis] < 0, 0, signs[at]).reshape(num_nodes, -1)
        return cls(at, slot, cables.node, _numbers(row.tobytes() for row in rows))

    def parted(self, dead_cables: Sequence[frozenset[int]]) -> Self:
        """Return the same, nodes of one sort being alike also in which of their cables are in each of these sets."""
        is_dead = np.zeros((len(self.slot) + 1, len(dead_cables)), np.bool_)  # the last: of no cable
        for column, cables in enumerate(dead_cables):
            is_dead[list(cables), column] = True
        rows = is_dead[self.at].reshape(len(self.at), -1)
        sort = _numbers((sort, row.tobytes()) for sort, row in zip(self.sort.tolist(), rows, strict=True))
        return replace(self, sort=sort)


def _places(owner: IntArray) -> IntArray:
    """Return the place of each item among those of its owner, in order; -1 where the owner is -1."""
    order = np.argsort(owner, kind="stable")
    first = np.searchsorted(owner[order], owner[order])
    place = np.empty(len(owner), np.int64)
    place[order] = np.arange(len(owner)) - first
    return np.where(owner < 0, -1, place)


def _numbers(values: Iterable[Hashable]) -> IntArray:
    """Return a number for each value, from 0 in order of first appearance; equal values have one."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], np.int64)


class RouteBook:
    """Routes as rows of links and coefficients, each with a latency; for all pairs of GPUs of one kind the same row.

    of_kind: the rows of routes to look up again, by the numbers of kinds, and by whether NVLink is left unused within
    a node. What a row says of cables of the two nodes, it says of their slots: see `NodeCables`.
    """

    def __init__(self, link_of_cable: IntArray, node_cables: NodeCables) -> None:
        self.of_kind: dict[bool, dict[int, int]] = {False: {}, True: {}}
        self._link_of_cable, self._cables = link_of_cable, node_cables
        self._lengths: list[int] = []
        self._ends: list[int] = []  # of entries: _HERE and _THERE for slots of the two nodes, else _BETWEEN
        self._names: list[int] = []  # of entries: slots, or links
        self._coefficients: list[float] = []
        self._latencies_s: list[float] = []
        self._arrays: tuple[IntArray, IntArray, IntArray, FloatArray, FloatArray] | None = None

    def add(self, route: Route, latency_s: float, source_node: int, target_node: int) -> int:
        """Store a route between GPUs of two nodes, and return its row."""
        bill: dict[int, tuple[int, float]] = {}  # by link, a cable of it and the sum of coefficients
        for cable, coefficient in route:
            link = int(self._link_of_cable[cable])
            bill[link] = cable, bill.get(link, (cable, 0.0))[1] + coefficient
        for link in sorted(bill):
            cable, coefficient = bill[link]
            node = int(self._cables.node[cable])
            assert node in {-1, source_node, target_node}, "routes cross no node but those of their ends"
            self._ends.append(_BETWEEN if node < 0 else _HERE if node == source_node else _THERE)
            self._names.append(link if node < 0 else int(self._cables.slot[cable]))
            self._coefficients.append(coefficient)
        self._lengths.append(len(bill))
        self._latencies_s.append(latency_s)
        self._arrays = None
        return len(self._lengths) - 1

    def rows(
        self, routes: IntArray, source_node: IntArray, target_node: IntArray
    ) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
        """Return the lengths of the given rows between these nodes, their links and coefficients, their latencies."""
        if self._arrays is None:
            self._arrays = (
                csr_offsets(self._lengths),
                np.array(self._ends, np.int64),
                np.array(self._names, np.int64),
                np.array(self._coefficients, np.float64),
                np.array(self._latencies_s, np.float64),
            )
        all_offsets, all_ends, names, coefficients, latencies_s = self._arrays
        offsets, entries = csr_select(all_offsets, routes)
        lengths, links, ends = np.diff(offsets), names[entries], all_ends[entries]
        for end, node in ((_HERE, source_node), (_THERE, target_node)):
            of_end = np.flatnonzero(ends == end)
            cables = self._cables.at[np.repeat(node, lengths)[of_end], links[of_end]]
            links[of_end] = self._link_of_cable[cables]
        return lengths, links, coefficients[entries], latencies_s[routes]


def legs_of(
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


def merged(
    flow: IntArray, links: IntArray, coefficients: FloatArray, num_flows: int, num_links: int
) -> Bills:
    """Return bills in which each link stands once per flow, with the sum of its coefficients."""
    entries, place = np.unique(flow * num_links + links, return_inverse=True)
    merged_flow, merged_links = np.divmod(entries, num_links)
    lengths = np.bincount(merged_flow, minlength=num_flows)
    summed = np.bincount(place, coefficients, minlength=len(entries)).astype(np.float64)
    return Bills(csr_offsets(lengths), merged_links, summed)
