"""The flows that cross the network, from NIC to NIC, of all transfers of a case."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.interchange.acceptance import Acceptance
from simulator.interchange.case import Case
from simulator.pricing import Pricing, pricing_of
from simulator.route_book import legs_of
from simulator.run import simulate
from workloads.tasks import Collective, TaskGraph, Transfers

FloatArray = NDArray[np.float64]

MOST_FLOWS: Final = 1_000_000
_EVEN: Final = 1e-9


class NetworkFlow(NamedTuple):
    """Bytes from one NIC to another; name: of the collective that they belong to."""

    name: str
    source: str
    target: str
    size_bytes: float
    start_s: float


def network_flows(
    case: Case, acceptance: Acceptance, progress: Callable[[float], None] | None = None
) -> list[NetworkFlow]:
    """Return the flows between NICs, in the order of collectives, transfers and legs.

    progress: of the run that tells when they start, if one is needed
    """
    graph = case.graph
    count = sum(len(collective.transfers) for collective in graph.collectives)
    if count > MOST_FLOWS:
        acceptance.refuse(f"{count:,} transfers; {MOST_FLOWS:,} at most are written")
    for collective in graph.collectives:
        _look_at(collective, case, acceptance)
    if not _all_start_at_once(graph):
        acceptance.needs("start-times", "transfers wait for kernels or for each other")
    acceptance.check()
    if _all_start_at_once(graph):
        starts = [each.transfers.delay_s + _pricing(each, case).start_up_s for each in graph.collectives]
    else:
        starts = _simulated_starts(case, progress)
    return [
        flow
        for collective, start_s in zip(graph.collectives, starts, strict=True)
        for flow in _flows_of(collective, start_s, case, acceptance)
    ]


def _look_at(collective: Collective, case: Case, acceptance: Acceptance) -> None:
    if collective.from_host:
        acceptance.refuse(f"{collective.name} comes out of the memory of hosts, over PCIe")
    if (collective.transfers.weight != 1.0).any():
        acceptance.needs("weights", f"flows of {collective.name} have weights")
    if not _pricing(collective, case).is_free:
        acceptance.needs("kernel-costs", f"{collective.name} is moved by a kernel")
    if (collective.transfers.rounds > 1).any():
        acceptance.needs("rounds", f"{collective.name} runs in rings")


def _pricing(collective: Collective, case: Case) -> Pricing:
    return pricing_of(collective, case.loaded.costs.pricing)


def _all_start_at_once(graph: TaskGraph) -> bool:
    """Return whether every transfer can start, but for its own delay, when the step does."""
    return len(graph.collectives) <= 1 and not any(task.after or task.duration_s for task in graph.tasks)


def _simulated_starts(case: Case, progress: Callable[[float], None] | None) -> list[FloatArray]:
    """Return when the transfers of each collective leave in railplane's own run: before their latency."""
    starts_s = simulate(case.loaded, progress).flows["start_s"].to_numpy()
    sizes = [len(collective.transfers) for collective in case.graph.collectives]
    assert len(starts_s) == sum(sizes), "the table of flows has a row for each transfer"
    parts = np.split(starts_s, np.cumsum(sizes)[:-1])
    return [
        np.maximum(0.0, part - _latency_s(collective, case))
        for collective, part in zip(case.graph.collectives, parts, strict=True)
    ]


def _latency_s(collective: Collective, case: Case) -> FloatArray:
    """Return what each transfer pays on its way before its bytes move, without its kernel's start-up."""
    pricing = replace(_pricing(collective, case), start_up_s=0.0)
    rows = np.arange(len(collective.transfers))
    _, latency_s = case.network.bills(
        collective.transfers, case.layout.endpoint_of_rank, rows, lambda: _no_backlog(case), pricing
    )
    return latency_s


def _no_backlog(case: Case) -> FloatArray:
    return np.zeros(case.network.num_links)


def _flows_of(
    collective: Collective, start_s: FloatArray, case: Case, acceptance: Acceptance
) -> list[NetworkFlow]:
    """Return the flows of one collective: a leg that crosses the network is one, or one for each plane it takes."""
    transfers, cables = collective.transfers, case.network.cables
    row, source, target, share, _ = legs_of(transfers, case.layout.endpoint_of_rank)
    legs = Transfers.point_to_point(source, target, transfers.size_bytes[row] * share)
    pricing = Pricing(over_nics=_pricing(collective, case).over_nics)
    every_gpu = np.arange(case.layout.num_nodes * case.layout.gpus_per_node)
    bills, _ = case.network.bills(legs, every_gpu, row, lambda: _no_backlog(case), pricing)
    leg = np.repeat(np.arange(len(legs)), np.diff(bills.offsets))
    at_nic = np.flatnonzero(cables.kind[bills.links] == "nic")
    nics = {name for name, data in case.cluster.nodes(data=True) if data["kind"] == "nic"}
    leaves: defaultdict[int, dict[tuple[str, int], float]] = defaultdict(dict)
    arrives: defaultdict[int, dict[tuple[str, int], float]] = defaultdict(dict)
    for entry in at_nic.tolist():
        cable, part = int(bills.links[entry]), float(bills.coefficients[entry])
        away = cables.source[cable] in nics
        nic, plane = (cables.source if away else cables.target)[cable], int(cables.plane[cable])
        (leaves if away else arrives)[int(leg[entry])][nic, plane] = part
    flows = []
    for number in sorted(leaves):
        size_bytes, start = float(legs.size_bytes[number]), float(start_s[row[number]])
        for out, into, part in _paired(leaves[number], arrives[number], collective.name, acceptance):
            flows.append(NetworkFlow(collective.name, out, into, size_bytes * part, start))
    return flows


def _paired(
    leaves: dict[tuple[str, int], float],
    arrives: dict[tuple[str, int], float],
    name: str,
    acceptance: Acceptance,
) -> list[tuple[str, str, float]]:
    """Return the NICs between which a leg's bytes go, and which part of them.

    leaves, arrives: by NIC and plane, the part of the bytes that leave and arrive there
    """
    away, back = sorted({nic for nic, _ in leaves}), sorted({nic for nic, _ in arrives})
    if len(away) == len(back) == 1:
        return [(away[0], back[0], 1.0)]
    pairs = []
    for plane in sorted({plane for _, plane in leaves} | {plane for _, plane in arrives}):
        out = [(nic, part) for (nic, at), part in sorted(leaves.items()) if at == plane]
        into = [(nic, part) for (nic, at), part in sorted(arrives.items()) if at == plane]
        if not len(out) == len(into) == 1 or abs(out[0][1] - into[0][1]) > _EVEN:
            acceptance.refuse(f"{name} is spread over several NICs of a plane at once")
        pairs.append((out[0][0], into[0][0], out[0][1]))
    return pairs
