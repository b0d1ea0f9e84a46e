"""What ranks waited for: the last transfer that each sent or received, and the link on its way that was busiest."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.network import Network
from simulator.pricing import Pricing, pricing_of
from simulator.rows import csr_offsets
from simulator.task_columns import NONE, collective_of_task, fold_sizes, leader_of_rank, rank_of_task
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
    """The busiest link on each transfer's way, NOTHING for none, and its seconds busy with all: [num_transfers]."""

    link: IntArray
    busy_s: FloatArray


@dataclass(frozen=True, slots=True)
class _Members:
    """The tasks that take part in collectives that ran, those of a collective together.

    tasks: [num_members] in order of collective, then of task; collectives: [num_joined] numbers, rising;
    bounds: [num_joined + 1] the tasks of collectives[i] are tasks[bounds[i]:bounds[i + 1]]
    """

    tasks: IntArray
    collectives: IntArray
    bounds: IntArray

    @classmethod
    def of(cls, graph: TaskGraph, transfers: Sequence[TransferTimes]) -> "_Members":
        """Return the members of collectives that have transfers which ran."""
        of_task = collective_of_task(graph)
        ran = np.array([len(times.end_after_s) > 0 for times in transfers], np.bool_)
        joined = np.flatnonzero(of_task != NONE)
        joined = joined[ran[of_task[joined]]]
        tasks = joined[np.argsort(of_task[joined], kind="stable")]
        collectives, sizes = np.unique(of_task[tasks], return_counts=True)
        return cls(tasks, collectives, csr_offsets(sizes))

    def of_collective(self, place: int) -> IntArray:
        """Return the tasks of collectives[place]."""
        return self.tasks[self.bounds[place] : self.bounds[place + 1]]

    def seconds(self, times: TaskTimes) -> FloatArray:
        """Return how long each collective took, from its first task's start to its last one's end: [num_joined]."""
        first, start_s, end_s = self.bounds[:-1], times.start_s[self.tasks], times.end_s[self.tasks]
        if not len(first):
            return np.zeros(0)
        return np.maximum.reduceat(end_s, first) - np.minimum.reduceat(start_s, first)


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
    """Return what ranks waited for; a task that stands for a fold waits for the transfers of all its ranks.

    transfers: [num_collectives] when the transfers of each ran; routes_known: whether the routes that transfers
    took, and the capacities that they found, are those that `network` has: not if routes depend on load, or cables
    have faults
    """
    links = _Links(network, endpoint_of_rank, price, routes_known)
    members = _Members.of(graph, transfers)
    leader, rank = leader_of_rank(graph), rank_of_task(graph)
    transfer, cable = (np.full(len(graph.tasks), NOTHING) for _ in range(2))
    fans: dict[int, _Fans] = {}
    for collective, ends, tasks in _alike(graph, transfers, members):
        if id(collective.transfers) not in fans:
            fans[id(collective.transfers)] = _Fans.of(collective.transfers, leader)
        transfer[tasks] = fans[id(collective.transfers)].last(ends)[rank[tasks]]
        busy = links.of(collective)
        if busy is not None:
            named = tasks[transfer[tasks] != NOTHING]
            link = busy.link[transfer[named]]
            cable[named] = np.where(link == NOTHING, NOTHING, network.first_cable[link])
    ranks = fold_sizes(graph)[rank]
    of_collective = []
    for place in _longest_by_name(graph, members, times):
        number, tasks = int(members.collectives[place]), members.of_collective(place)
        end_s = times.end_s[tasks]
        wait_s = float(np.average(end_s.max() - end_s, weights=ranks[tasks]))
        seconds = float(end_s.max() - times.start_s[tasks].min())
        row = int(np.argmax(transfers[number].end_after_s))
        of_collective.append(_describe(graph.collectives[number], row, seconds, wait_s, links))
    return Waits(transfer, cable, of_collective)


def _alike(
    graph: TaskGraph, transfers: Sequence[TransferTimes], members: _Members
) -> Iterator[tuple[Collective, FloatArray, IntArray]]:
    """Yield a collective of each sort, when its transfers ended, and the tasks of all of that sort.

    Of one sort are those that share transfers and times, by identity, and have one kernel. Times are seconds after
    the collective began.
    """
    place_of: dict[tuple[int, int, CommunicationKernel | None], int] = {}
    sorts: list[tuple[Collective, FloatArray]] = []
    sort_of_collective: list[int] = []
    for number in members.collectives.tolist():
        collective, end_after_s = graph.collectives[number], transfers[number].end_after_s
        key = id(collective.transfers), id(end_after_s), collective.kernel
        place = place_of.setdefault(key, len(sorts))
        sort_of_collective.append(place)
        if place == len(sorts):
            sorts.append((collective, end_after_s))
    sort_of_member = np.repeat(np.array(sort_of_collective, np.int64), np.diff(members.bounds))
    by_sort = members.tasks[np.argsort(sort_of_member, kind="stable")]
    offsets = csr_offsets(np.bincount(sort_of_member, minlength=len(sorts)))
    for place, (collective, end_after_s) in enumerate(sorts):
        yield collective, end_after_s, by_sort[offsets[place] : offsets[place + 1]]


def _longest_by_name(graph: TaskGraph, members: _Members, times: TaskTimes) -> list[int]:
    """Return of each name, in order of first appearance, the collective that took longest: places in `members`."""
    longest: dict[str, int] = {}
    seconds = members.seconds(times).tolist()
    for place, number in enumerate(members.collectives.tolist()):
        known = longest.setdefault(graph.collectives[number].name, place)
        if seconds[place] > seconds[known]:
            longest[graph.collectives[number].name] = place
    return list(longest.values())


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


@dataclass(frozen=True, slots=True)
class _Fans:
    """Which transfers the ranks of each leader send or receive.

    leaders: [num_leaders] rising; the transfers of leaders[i] are transfers[offsets[i]:offsets[i + 1]], rising too
    """

    leaders: IntArray
    offsets: IntArray
    transfers: IntArray
    num_ranks: int

    @classmethod
    def of(cls, transfers: Transfers, leader_of_rank: IntArray) -> "_Fans":
        """Return those of transfers, of which there is at least one; leader_of_rank: [num_ranks]."""
        rows = np.arange(len(transfers))
        fan_rows = np.repeat(rows, np.diff(transfers.destination_offsets))
        ranks = np.concatenate([transfers.source_rank, transfers.destination_ranks])
        # with counts it sorts; without, it would hash, and take several times as long
        pairs, _ = np.unique(
            leader_of_rank[ranks] * len(rows) + np.concatenate([rows, fan_rows]), return_counts=True
        )
        leaders, counts = np.unique(pairs // len(rows), return_counts=True)
        return cls(leaders, csr_offsets(counts), pairs % len(rows), len(leader_of_rank))

    def last(self, ends: FloatArray) -> IntArray:
        """Return the last transfer to end of each leader's, NOTHING for ranks that have none: [num_ranks].

        ends: [num_transfers] seconds
        """
        last = np.full(self.num_ranks, NOTHING)
        known_ends = np.where(np.isnan(ends), np.inf, ends)  # what has not ended ends last
        last[self.leaders] = self.transfers[_first_largest(known_ends[self.transfers], self.offsets)]
        return last


def _first_largest(values: FloatArray, offsets: IntArray) -> IntArray:
    """Return where the first of each row's largest values is; rows [num_rows + 1] are not empty, values not NaN."""
    largest = np.repeat(np.maximum.reduceat(values, offsets[:-1]), np.diff(offsets))
    places = np.flatnonzero(values == largest)
    return np.asarray(places[np.searchsorted(places, offsets[:-1])])


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
    link_of_transfer = np.full(len(transfers), NOTHING)
    crossing = np.flatnonzero(np.diff(bills.offsets))
    if len(crossing):
        # of those that are equally busy the first is named
        places = _first_largest(busy_s[bills.links], np.append(bills.offsets[crossing], bills.offsets[-1]))
        link_of_transfer[crossing] = bills.links[places]
    busiest_s = np.where(link_of_transfer == NOTHING, 0.0, busy_s[link_of_transfer])
    return _Busy(link_of_transfer, busiest_s)


def bills_of(
    collective: Collective,
    network: Network,
    endpoint_of_rank: IntArray,
    price: Callable[[CommunicationKernel], Pricing],
) -> Bills:
    """Return what a collective's transfers charge links on a network that nothing else uses."""
    transfers = collective.transfers
    pricing = pricing_of(collective, price)
    no_backlog = np.zeros(network.num_links)
    bills, _ = network.bills(
        transfers, endpoint_of_rank, np.arange(len(transfers)), lambda: no_backlog, pricing
    )
    return bills


def _describe(
    collective: Collective, row: int, seconds: float, mean_wait_s: float, links: _Links
) -> dict[str, Any]:
    """Return what the last rank of a collective waited for, as the summary has it; row: the transfer to end last."""
    transfers = collective.transfers
    fan = slice(transfers.destination_offsets[row], transfers.destination_offsets[row + 1])
    owner = links.gpu_name(transfers.source_rank[row])
    others = [links.gpu_name(rank) for rank in transfers.destination_ranks[fan]]
    sender, receiver = (others, [owner]) if transfers.reduce[row] else ([owner], others)
    network, busy = links.network, links.of(collective)
    found: dict[str, Any] = {
        "collective": collective.name,
        "seconds": seconds,
        "mean_wait_s": mean_wait_s,
        "slowest_sender": _together(sender),
        "slowest_receiver": _together(receiver),
        "slowest_link": None,
        "slowest_link_kind": None,
        "slowest_link_busy_fraction": None,
    }
    link = NOTHING if busy is None else int(busy.link[row])
    if busy is None or link == NOTHING:
        return found
    cable, alike = int(network.first_cable[link]), int(network.cables_of_link[link])
    source, target = network.cables.source[cable], network.cables.target[cable]
    found["slowest_link"] = f"{source} -> {target}" + (f" and {alike - 1} alike" if alike > 1 else "")
    found["slowest_link_kind"] = network.cables.kind[cable]
    found["slowest_link_busy_fraction"] = float(busy.busy_s[row]) / seconds if seconds else 0.0
    return found


def _together(names: list[str]) -> str:
    """Return GPUs as text: several of one node by their number."""
    nodes = {name.split("/")[0] for name in names}
    return f"{len(names)} GPUs of {nodes.pop()}" if len(names) > 1 and len(nodes) == 1 else ", ".join(names)
