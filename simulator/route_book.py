"""Routes as rows of arrays: the legs that transfers have, the routes that legs take, and the bills that follow."""

import numpy as np
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.routing import Route
from simulator.rows import csr_offsets, csr_select
from workloads.tasks import Transfers

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class RouteBook:
    """Routes as rows of links and coefficients, each with a latency; those of pairs are looked up again."""

    def __init__(self, link_of_cable: IntArray) -> None:
        self._link_of_cable = link_of_cable
        # by whether NVLink is left unused within a node
        self.of_pair: dict[bool, dict[tuple[int, int], int]] = {False: {}, True: {}}
        self._lengths: list[int] = []
        self._links: list[int] = []
        self._coefficients: list[float] = []
        self._latencies_s: list[float] = []
        self._arrays: tuple[IntArray, IntArray, FloatArray, FloatArray] | None = None

    def add(self, route: Route, latency_s: float) -> int:
        """Store a route and return its index."""
        bill: dict[int, float] = {}
        for cable, coefficient in route:
            link = int(self._link_of_cable[cable])
            bill[link] = bill.get(link, 0.0) + coefficient
        self._lengths.append(len(bill))
        self._links += sorted(bill)
        self._coefficients += [bill[link] for link in sorted(bill)]
        self._latencies_s.append(latency_s)
        self._arrays = None
        return len(self._lengths) - 1

    def rows(self, routes: IntArray) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
        """Return the lengths of the given routes, their links and coefficients end to end, their latencies."""
        if self._arrays is None:
            self._arrays = (
                csr_offsets(self._lengths),
                np.array(self._links, np.int64),
                np.array(self._coefficients, np.float64),
                np.array(self._latencies_s, np.float64),
            )
        all_offsets, links, coefficients, latencies_s = self._arrays
        offsets, entries = csr_select(all_offsets, routes)
        return np.diff(offsets), links[entries], coefficients[entries], latencies_s[routes]


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
