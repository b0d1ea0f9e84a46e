"""What every run keeps of bytes and links: none is lost or made, and no link carries more than it can.

What GPUs send and get is added up here from what the workload asked for. It holds whatever routes bytes took: what a
device other than these gets it passes on. Where routes do not depend on load or faults, what each link is charged is
known too, and so is that no stretch of time, between the start of any transfer and the end of any other, is too short
for what must have crossed a link within it.
"""

import itertools
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.engine import Recording
from simulator.waits import bills_of
from support.observed import Observed
from workloads.tasks import Collective, Transfers

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ROUNDING = 1e-9
_MOST_WINDOWS = 24  # starts of transfers that are looked at, of each link


def check_links(run: Observed) -> None:
    """Check that bytes are conserved, and that links and time suffice for them."""
    _check_all_ran(run)
    _check_conserved(run)
    _check_timeline(run)
    effective_s = run.result.links["bytes"] / run.result.links["effective_bytes_per_s"]
    assert effective_s.max() <= run.step_s * (1 + ROUNDING)
    assert run.result.summary["bounds_s"]["busiest_link"] == effective_s.max()
    if run.routes_known:
        _check_charges(run, charges_of(run))


def _check_all_ran(run: Observed) -> None:
    """Every transfer ran, once, whole, and is a row of the table."""
    size_bytes, starts, ends = [], [], []
    for collective, times in zip(run.graph.collectives, run.recording.transfers, strict=True):
        assert len(times.end_s) == len(collective.transfers), collective.name
        size_bytes.append(collective.transfers.size_bytes)
        starts.append(times.start_s)
        ends.append(times.end_s)
    flows = run.result.flows
    if size_bytes and "flows" not in flows:
        np.testing.assert_array_equal(flows["size_bytes"], np.concatenate(size_bytes))
        np.testing.assert_array_equal(flows["start_s"], np.concatenate(starts))
        np.testing.assert_array_equal(flows["end_s"], np.concatenate(ends))


# Conservation


def _check_conserved(run: Observed) -> None:
    """What leaves a device less what enters it is what it sends less what it gets: nothing, for most."""
    links = run.result.links
    leaving = links.groupby("source")["bytes"].sum()
    entering = links.groupby("target")["bytes"].sum()
    sent = _sent_less_received(run)
    for device in sorted(set(leaving.index) | set(entering.index)):
        through = leaving.get(device, 0.0) + entering.get(device, 0.0)
        net = leaving.get(device, 0.0) - entering.get(device, 0.0)
        assert abs(net - sent.get(device, 0.0)) <= ROUNDING * through, (device, net, sent.get(device, 0.0))


def _sent_less_received(run: Observed) -> dict[str, float]:
    """Return for each GPU and host the bytes that all transfers have it send, less those that it receives."""
    gpus_per_node = run.loaded.node.gpus
    net: dict[str, float] = defaultdict(float)
    known: dict[tuple[int, bool], dict[tuple[str, int], float]] = {}
    for collective in run.graph.collectives:
        key = id(collective.transfers), collective.from_host
        if key not in known:
            known[key] = _net_of(collective)
        for (kind, rank), size in known[key].items():
            node, index = divmod(int(run.endpoint_of_rank[rank]), gpus_per_node)
            net[f"node{node}/host" if kind == "host" else f"node{node}/gpu{index}"] += size
    return net


def _net_of(collective: Collective) -> dict[tuple[str, int], float]:
    """Return the bytes that ranks, and hosts of ranks, send less those that they get in a collective."""
    net: dict[tuple[str, int], float] = defaultdict(float)
    transfers = collective.transfers
    for row in range(len(transfers)):
        size, sign = float(transfers.size_bytes[row]), -1.0 if transfers.reduce[row] else 1.0
        relays = slice(transfers.relay_offsets[row], transfers.relay_offsets[row + 1])
        way = [int(transfers.source_rank[row]), *transfers.relay_ranks[relays].tolist()]
        fan = slice(transfers.destination_offsets[row], transfers.destination_offsets[row + 1])
        for rank, fraction in zip(
            transfers.destination_ranks[fan].tolist(), transfers.fractions[fan].tolist(), strict=True
        ):
            first = ("host", rank) if collective.from_host else ("gpu", way[-1])
            net[first] += sign * fraction * size
            net["gpu", rank] -= sign * fraction * size
        for one, other in itertools.pairwise(way):
            net["gpu", one] += sign * size
            net["gpu", other] -= sign * size
    return net


# Capacity


def _check_timeline(run: Observed) -> None:
    """No bin of the timeline holds more than the link can carry in it, whatever faults have left of it."""
    links, timeline = run.result.links, run.result.link_timeline
    if not len(timeline):
        return
    effective = links["effective_bytes_per_s"].to_numpy()[timeline["link"]]
    start_s, end_s = timeline["start_s"].to_numpy(), timeline["end_s"].to_numpy()
    most = effective * _seconds_of_capacity(run, timeline["link"].to_numpy(), start_s, end_s)
    room = ROUNDING * effective * np.maximum(end_s - start_s, 1e-3 * run.step_s)
    over = timeline["bytes"].to_numpy() - most - room
    assert (over <= 0.0).all(), timeline.assign(most=most)[over > 0.0].head()


def check_bins(run: Observed, solved: Recording) -> None:
    """No bin holds more than its link can carry, to the last byte, where nothing is played back."""
    capacity, meter = run.network.capacity_bytes_per_s, solved.meter
    assert (meter.bins <= capacity * meter.width_s * (1 + ROUNDING)).all()


def _seconds_of_capacity(
    run: Observed, cable: IntArray, start_s: FloatArray, end_s: FloatArray
) -> FloatArray:
    """Return the integral of the share of capacity that a cable has left, over each of the times: [num_rows]."""
    edges = sorted({edge for fault in run.faults.cable_faults for edge in (fault.begin_s, fault.end_s)})
    total = np.zeros(len(cable))
    for begin_s, until_s in zip([0.0, *edges], [*edges, np.inf], strict=True):
        share = np.ones(int(cable.max()) + 1)
        for fault in run.faults.cable_faults:
            if fault.begin_s <= begin_s < fault.end_s:
                within = fault.cables[fault.cables < len(share)]
                share[within] *= fault.share
        total += share[cable] * np.maximum(np.minimum(end_s, until_s) - np.maximum(start_s, begin_s), 0.0)
    return total


class Charges(NamedTuple):
    """What transfers are charged on links: a row for each transfer and each link on its way.

    work_bytes, passing_bytes: what keeps the link busy, and what crosses it; start_s, end_s: of the transfer
    """

    link: IntArray
    work_bytes: FloatArray
    passing_bytes: FloatArray
    start_s: FloatArray
    end_s: FloatArray


def charges_of(run: Observed) -> Charges:
    """Return the charges of all transfers, which go by the routes that they have on a network of their own."""
    known: dict[tuple[int, object, bool], tuple[IntArray, IntArray, FloatArray, FloatArray]] = {}
    parts: list[Charges] = []
    for collective, times in zip(run.graph.collectives, run.recording.transfers, strict=True):
        key = id(collective.transfers), collective.kernel, collective.from_host
        if key not in known:
            bills = bills_of(collective, run.network, run.endpoint_of_rank, run.price)
            flow = np.repeat(np.arange(len(collective.transfers)), np.diff(bills.offsets))
            size = collective.transfers.size_bytes[flow]
            known[key] = flow, bills.links, bills.coefficients * size, bills.passing_bytes * size
        flow, link, work, passing = known[key]
        parts.append(Charges(link, work, passing, times.start_s[flow], times.end_s[flow]))
    if not parts:
        nothing = np.zeros(0)
        return Charges(np.zeros(0, np.int64), nothing, nothing, nothing, nothing)
    return Charges(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _check_charges(run: Observed, charges: Charges) -> None:
    """Links carried what was charged, were full for no longer than that takes, and had the time for it."""
    network, meter = run.network, run.recording.meter
    capacity = network.capacity_bytes_per_s
    passing = np.bincount(charges.link, charges.passing_bytes, network.num_links)
    np.testing.assert_allclose(meter.bytes, passing, rtol=ROUNDING, atol=0.0)
    busy_s = np.bincount(charges.link, charges.work_bytes, network.num_links) / capacity
    assert busy_s.max(initial=0.0) <= run.step_s * (1 + ROUNDING)
    assert (meter.saturated_s <= busy_s * (1 + 1e-6) + ROUNDING * run.step_s).all()
    order = np.argsort(charges.link, kind="stable")
    links, first = np.unique(charges.link[order], return_index=True)
    ends = np.append(first[1:], len(order))
    for link, rows in zip(links.tolist(), map(slice, first, ends), strict=True):
        of_link = order[rows]
        work_s = charges.work_bytes[of_link] / capacity[link]
        _check_windows(work_s, charges.start_s[of_link], charges.end_s[of_link], run.step_s)


def _check_windows(work_s: FloatArray, start_s: FloatArray, end_s: FloatArray, step_s: float) -> None:
    """What runs wholly between two instants takes a link no longer than lies between them.

    work_s: seconds of the link that each transfer takes if it has it to itself
    """
    order = np.argsort(end_s, kind="stable")
    work_s, start_s, end_s = work_s[order], start_s[order], end_s[order]
    begins = np.unique(start_s)
    for begin_s in begins[np.linspace(0, len(begins) - 1, min(len(begins), _MOST_WINDOWS)).astype(np.int64)]:
        within = start_s >= begin_s
        taken_s = np.cumsum(np.where(within, work_s, 0.0))[within]
        between_s = end_s[within] - begin_s
        assert (taken_s <= between_s * (1 + ROUNDING) + 1e-11 * step_s).all(), (begin_s, taken_s, between_s)


def ends_of(transfers: Transfers, row: int) -> tuple[list[int], list[int]]:
    """Return the ranks that send a transfer, and those that get it."""
    fan = slice(transfers.destination_offsets[row], transfers.destination_offsets[row + 1])
    destinations = transfers.destination_ranks[fan].tolist()
    source = [int(transfers.source_rank[row])]
    return (destinations, source) if transfers.reduce[row] else (source, destinations)
