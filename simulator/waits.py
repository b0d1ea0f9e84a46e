"""What ranks waited for: the last transfer that each sent or received, and the link on its way that was busiest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.network import Network
from simulator.pricing import FREE, Pricing
from simulator.transfer_times import TransferTimes
from workloads.tasks import Collective, CommunicationKernel, TaskGraph, TaskTimes, Transfers

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

NOTHING: Final = -1
# Routes of more transfers than this are not looked up again: as many as `flows.parquet` lists one by one.
_MOST_TRANSFERS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Waits:
    """What each task that took part in a collective waited for: [num_tasks], NOTHING where there is nothing to name.

    transfer: row in its collective; cable: the one on that transfer's route whose link was busiest in the collective
    of_collective: for each collective that moved bytes, in order of first appearance by name, what its last rank
    waited for
    """

    transfer: IntArray
    cable: IntArray
    of_collective: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Busy:
    """How long each link was busy with a collective, [num_links] seconds, and the busiest on each transfer's way."""

    busy_s: FloatArray
    link_of_transfer: IntArray


def explain(
    graph: TaskGraph,
    times: TaskTimes,
    transfers: Sequence[TransferTimes],
    network: Network,
    endpoint_of_rank: IntArray,
    price: Callable[[CommunicationKernel], Pricing],
    *,
    routes_known: bool,
) -> Waits:
    """Return what ranks waited for.

    transfers: [num_collectives] when the transfers of each ran; routes_known: whether the routes that transfers
    took, and the capacities that they found, are those that `network` has: not if routes depend on load, or cables
    have faults
    """
    links = _Links(network, endpoint_of_rank, price, routes_known)
    transfer, cable = (np.full(len(graph.tasks), NOTHING) for _ in range(2))
    worst: dict[str, dict[str, Any]] = {}
    for number, tasks in _tasks_by_collective(graph):
        collective, ends = graph.collectives[number], transfers[number].end_s
        if not len(ends):
            continue
        ranks = np.array([graph.tasks[index].rank for index in tasks])
        transfer[tasks] = _last_of_rank(collective.transfers, ends, graph.num_ranks)[ranks]
        busy = links.of(collective)
        if busy is not None:
            named = np.array(tasks)[transfer[tasks] != NOTHING]
            link = busy.link_of_transfer[transfer[named]]
            cable[named] = np.where(link == NOTHING, NOTHING, network.first_cable[link])
        waited = _describe(collective, ends, times.start_s[tasks], times.end_s[tasks], links)
        if collective.name not in worst or waited["seconds"] > worst[collective.name]["seconds"]:
            worst[collective.name] = waited
    return Waits(transfer, cable, list(worst.values()))


def _tasks_by_collective(graph: TaskGraph) -> list[tuple[int, list[int]]]:
    """Return each collective, in order, and the tasks that take part in it."""
    tasks_of: dict[int, list[int]] = {}
    for index, task in enumerate(graph.tasks):
        if task.collective is not None:
            tasks_of.setdefault(task.collective, []).append(index)
    return sorted(tasks_of.items())


@dataclass(frozen=True, slots=True)
class _Links:
    """How busy collectives keep links: looked up once for each that differs."""

    network: Network
    endpoint_of_rank: IntArray
    price: Callable[[CommunicationKernel], Pricing]
    routes_known: bool
    _known: dict[tuple[int, CommunicationKernel | None], _Busy] = field(default_factory=dict)

    def of(self, collective: Collective) -> _Busy | None:
        """Return how busy a collective keeps links, None where its routes are not known."""
        if not self.routes_known or len(collective.transfers) > _MOST_TRANSFERS:
            return None
        key = id(collective.transfers), collective.kernel
        if key not in self._known:
            self._known[key] = _busy(collective, self.network, self.endpoint_of_rank, self.price)
        return self._known[key]

    def gpu_name(self, rank: int) -> str:
        """Return the name of a rank's GPU."""
        return self.network.gpu_name(int(self.endpoint_of_rank[rank]))


def _last_of_rank(transfers: Transfers, ends: FloatArray, num_ranks: int) -> IntArray:
    """Return the last transfer to end of those that each rank sends or receives, NOTHING for none: [num_ranks]."""
    rows = np.arange(len(transfers))
    fan_rows = np.repeat(rows, np.diff(transfers.destination_offsets))
    row = np.concatenate([rows, fan_rows])
    rank = np.concatenate([transfers.source_rank, transfers.destination_ranks])
    order = np.lexsort((-row, ends[row], rank))  # of those that end together the first is named
    last = np.full(num_ranks, NOTHING)
    last[rank[order]] = row[order]
    return last


def _busy(
    collective: Collective,
    network: Network,
    endpoint_of_rank: IntArray,
    price: Callable[[CommunicationKernel], Pricing],
) -> _Busy:
    """Return how long a collective keeps links busy."""
    transfers = collective.transfers
    bills = bills_of(collective, network, endpoint_of_rank, price)
    charged = bills.coefficients * np.repeat(transfers.size_bytes, np.diff(bills.offsets))
    on_link = np.bincount(bills.links, charged, network.num_links)
    busy_s = on_link / network.capacity_bytes_per_s
    flow = np.repeat(np.arange(len(transfers)), np.diff(bills.offsets))
    idlest_first = np.lexsort((-bills.links, busy_s[bills.links]))  # so that the busiest are written last
    link_of_transfer = np.full(len(transfers), NOTHING)
    link_of_transfer[flow[idlest_first]] = bills.links[idlest_first]
    return _Busy(busy_s, link_of_transfer)


def bills_of(
    collective: Collective,
    network: Network,
    endpoint_of_rank: IntArray,
    price: Callable[[CommunicationKernel], Pricing],
) -> Bills:
    """Return what a collective's transfers charge links on a network that nothing else uses."""
    transfers = collective.transfers
    pricing = FREE if collective.kernel is None else price(collective.kernel)
    no_backlog = np.zeros(network.num_links)
    bills, _ = network.bills(
        transfers, endpoint_of_rank, np.arange(len(transfers)), lambda: no_backlog, pricing
    )
    return bills


def _describe(
    collective: Collective, ends: FloatArray, task_start_s: FloatArray, task_end_s: FloatArray, links: _Links
) -> dict[str, Any]:
    """Return what the last rank of a collective waited for, as the summary has it."""
    transfers, row = collective.transfers, int(np.argmax(ends))
    fan = slice(transfers.destination_offsets[row], transfers.destination_offsets[row + 1])
    owner = links.gpu_name(transfers.source_rank[row])
    others = [links.gpu_name(rank) for rank in transfers.destination_ranks[fan]]
    sender, receiver = (others, [owner]) if transfers.reduce[row] else ([owner], others)
    network, busy = links.network, links.of(collective)
    seconds = float(task_end_s.max() - task_start_s.min())
    found: dict[str, Any] = {
        "collective": collective.name,
        "seconds": seconds,
        "mean_wait_s": float((task_end_s.max() - task_end_s).mean()),
        "slowest_sender": _together(sender),
        "slowest_receiver": _together(receiver),
        "slowest_link": None,
        "slowest_link_kind": None,
        "slowest_link_busy_fraction": None,
    }
    link = NOTHING if busy is None else int(busy.link_of_transfer[row])
    if busy is None or link == NOTHING:
        return found
    cable, alike = int(network.first_cable[link]), int(network.cables_of_link[link])
    source, target = network.cables.source[cable], network.cables.target[cable]
    found["slowest_link"] = f"{source} -> {target}" + (f" and {alike - 1} alike" if alike > 1 else "")
    found["slowest_link_kind"] = network.cables.kind[cable]
    found["slowest_link_busy_fraction"] = float(busy.busy_s[link]) / seconds if seconds else 0.0
    return found


def _together(names: list[str]) -> str:
    """Return GPUs as text: several of one node by their number."""
    nodes = {name.split("/")[0] for name in names}
    return f"{len(names)} GPUs of {nodes.pop()}" if len(names) > 1 and len(nodes) == 1 else ", ".join(names)
