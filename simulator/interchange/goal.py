"""A scenario's task graph as a GOAL schedule, for LogGOPSim and ATLAHS: see `simulator.interchange.schedule`.

A task becomes a `calc` of its kernel's time, and, if it takes part in a collective, an end that waits for what its
rank sends and receives there. A transfer becomes a message for each leg: from its source to its relays one after the
other, and on to each destination; a reduction's legs are turned round. What depends on another rank's task waits for
the message that it sent, or, where there is none, for one of no bytes.
"""

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from simulator.interchange.acceptance import Acceptance
from simulator.interchange.case import Case
from simulator.interchange.schedule import CPU_OF_STREAM, CPU_OF_TIMERS, Schedule
from simulator.pricing import pricing_of
from workloads.tasks import Collective, Stream, Task, TaskGraph, Transfer, Transfers

MOST_OPERATIONS: Final = 5_000_000  # some 300 MB of text

FILES: Final = ("schedule.goal", "README.md")


def write_goal(case: Case, folder: Path, accepted: Collection[str] = ()) -> None:
    """Write `schedule.goal`, and a `README.md` that says what it holds, into a folder, made if need be.

    accepted: names of `ACCEPTANCES`. Raises NotSayableError, before anything is written, for what GOAL cannot say and
    the user has not accepted to lose.
    """
    acceptance = Acceptance("GOAL", accepted)
    _look_for_losses(case, acceptance)
    acceptance.check()
    schedule = schedule_of(case.graph)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILES[0]).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in schedule.lines())
    (folder / FILES[1]).write_text(_about(case, acceptance), "utf-8")


def schedule_of(graph: TaskGraph) -> Schedule:
    """Return the schedule of a task graph whose kernels are priced."""
    return _Builder(graph).build()


def _look_for_losses(case: Case, acceptance: Acceptance) -> None:
    """Note all that GOAL cannot say, and refuse what no schedule can do without."""
    graph = case.graph
    if case.loaded.scenario.faults:
        acceptance.refuse("faults and stragglers; take them out with --set 'faults=[]'")
    for collective in graph.collectives:
        _look_at(collective, case, acceptance)
    if graph.leader_of_rank is not None and len(set(graph.leader_of_rank.tolist())) < graph.num_ranks:
        acceptance.needs("own-pace", "ranks are folded")
    legs = sum(_num_messages(collective.transfers) for collective in graph.collectives)
    tasks = sum(len(graph.fold_of(leader)) * count for leader, count in _tasks_of_leaders(graph).items())
    if 2 * (legs + tasks) > MOST_OPERATIONS:
        acceptance.refuse(
            f"{legs:,} messages and {tasks:,} tasks of ranks are more than files of {MOST_OPERATIONS:,} "
            "operations hold; export a smaller cluster or fewer micro-batches"
        )


def _look_at(collective: Collective, case: Case, acceptance: Acceptance) -> None:
    transfers, name = collective.transfers, collective.name
    relayed = np.diff(transfers.relay_offsets) > 0
    if collective.from_host:
        acceptance.refuse(f"{name} comes out of the memory of hosts, which are no ranks")
    branched = relayed | (np.diff(transfers.destination_offsets) > 1) | transfers.reduce
    if (branched & (transfers.rounds > 1)).any():
        acceptance.refuse(f"{name} has transfers over relays that pay their latency several times")
    if relayed.any():
        acceptance.needs("store-and-forward", f"{name} has relays")
    if (transfers.weight != 1.0).any():
        acceptance.needs("weights", f"flows of {name} have weights")
    pricing = pricing_of(collective, case.loaded.costs.pricing)
    if not pricing.is_free or pricing.start_up_s:
        acceptance.needs("kernel-costs", f"{name} is moved by a kernel")


def _num_messages(transfers: Transfers) -> int:
    single = int((transfers.rounds - 1).sum())
    return len(transfers.relay_ranks) + len(transfers.destination_ranks) + single


def _tasks_of_leaders(graph: TaskGraph) -> dict[int, int]:
    counts: defaultdict[int, int] = defaultdict(int)
    for task in graph.tasks:
        counts[task.rank] += 1
    return counts


class _Ends(NamedTuple):
    """The first and the last operation of a rank's part of a task; the same where it takes part in nothing."""

    begin: int
    end: int


class _Builder:
    """Builds the schedule of a task graph.

    parts: the operations of each task on each rank; recvs: by collective and rank, (source, label) of what arrives
    """

    def __init__(self, graph: TaskGraph) -> None:
        self._graph = graph
        self._schedule = Schedule(graph.num_ranks)
        self._folds = {leader: graph.fold_of(leader).tolist() for leader in _tasks_of_leaders(graph)}
        self._fold_set = {leader: frozenset(ranks) for leader, ranks in self._folds.items()}
        self._parts: list[dict[int, _Ends]] = []
        self._in_collective: list[dict[int, tuple[_Ends, Task]]] = [{} for _ in graph.collectives]
        self._recvs: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)

    def build(self) -> Schedule:
        """Return the schedule: first what each task is, then messages, then what waits for what."""
        for task in self._graph.tasks:
            self._parts.append({rank: self._part(task, rank) for rank in self._folds[task.rank]})
        for number, collective in enumerate(self._graph.collectives):
            _Messages(self._schedule, self._in_collective[number], self._recvs, number).add(collective)
        self._add_waits()
        return self._schedule

    def _part(self, task: Task, rank: int) -> _Ends:
        cpu = CPU_OF_STREAM[task.stream]
        begin = self._schedule.calc(rank, task.duration_s, cpu)
        if task.collective is None:
            return _Ends(begin, begin)
        ends = _Ends(begin, self._schedule.calc(rank, 0.0, cpu))
        self._schedule.require(rank, ends.end, begin)
        self._in_collective[task.collective][rank] = ends, task
        return ends

    def _add_waits(self) -> None:
        """Let each task wait for the one before it on its stream, and for what it depends on."""
        last: dict[tuple[int, Stream], int] = {}
        for task, parts in zip(self._graph.tasks, self._parts, strict=True):
            for rank, ends in parts.items():
                if task.stream is not None:
                    before = last.get((rank, task.stream))
                    if before is not None:
                        self._schedule.require(rank, ends.begin, before)
                    last[rank, task.stream] = ends.end
            for before in task.after:
                self._wait_for(task, parts, before)

    def _wait_for(self, task: Task, parts: dict[int, _Ends], before: int) -> None:
        earlier = self._graph.tasks[before]
        if earlier.rank == task.rank:
            for rank, ends in parts.items():
                self._schedule.require(rank, ends.begin, self._parts[before][rank].end)
            return
        senders = self._fold_set[earlier.rank]
        for place, (rank, ends) in enumerate(parts.items()):
            arrived = self._recvs.get((-1 if earlier.collective is None else earlier.collective, rank), [])
            labels = [label for source, label in arrived if source in senders]
            if not labels:
                labels = self._empty_messages(rank, place, len(parts), before)
            for label in labels:
                self._schedule.require(rank, ends.begin, label)

    def _empty_messages(self, rank: int, place: int, num_ranks: int, before: int) -> list[int]:
        """Return the recvs of messages without bytes by which a rank learns that another's task has ended.

        Ranks of folds learn it of those at their own place in the other fold, each of at least one.
        """
        others = self._folds[self._graph.tasks[before].rank]
        count = len(others)
        those = others[
            place * count // num_ranks : max(place * count // num_ranks + 1, (place + 1) * count // num_ranks)
        ]
        labels = []
        for other in those:
            send, recv = self._schedule.message(other, rank, 0.0, CPU_OF_STREAM[None])
            self._schedule.require(other, send, self._parts[before][other].end)
            labels.append(recv)
        return labels


class _Messages:
    """The messages of one collective.

    parts: the operations of each rank that takes part, and its task; recvs: see `_Builder`
    """

    def __init__(
        self,
        schedule: Schedule,
        parts: dict[int, tuple[_Ends, Task]],
        recvs: defaultdict[tuple[int, int], list[tuple[int, int]]],
        number: int,
    ) -> None:
        self._schedule, self._parts, self._recvs, self._number = schedule, parts, recvs, number
        self._rounds: defaultdict[int, list[list[int]]] = defaultdict(
            list
        )  # by rank, recvs of each hop into it
        self._delays: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)  # by rank, of sends

    def add(self, collective: Collective) -> None:
        """Add all messages, and let the ranks that take part wait for those that they send or receive."""
        hops: list[tuple[int, list[int]]] = []
        for row in _rows(collective.transfers):
            if row.rounds > 1:
                hops.append(self._hop(row))
            elif row.reduce:
                self._gather(row)
            else:
                self._spread(row)
        for source, sends in hops:
            for arrived in self._rounds[source]:
                for send, recv in zip(sends[1:], arrived, strict=False):
                    self._schedule.require(source, send, recv)
        self._add_delays()

    def _spread(self, row: Transfer) -> None:
        """Add the chain through the relays, and the messages from its end to each destination."""
        holder, held = row.source_rank, None
        for relay in row.relay_ranks:
            if relay != holder:
                held = self._leg(holder, relay, row.size_bytes, row, [held])
                holder = relay
        for destination, fraction in row.destinations:
            if destination != holder:
                self._leg(holder, destination, row.size_bytes * fraction, row, [held])

    def _gather(self, row: Transfer) -> None:
        """Add the messages from each destination to the last relay, and the chain from there to the source."""
        chain = [row.source_rank, *row.relay_ranks]
        arrived: list[int | None] = []
        for destination, fraction in row.destinations:
            own = destination == chain[-1]  # what it holds itself is there once its task has begun
            leg = None if own else self._leg(destination, chain[-1], row.size_bytes * fraction, row, [None])
            arrived.append(leg)
        for holder, following in zip(chain[:0:-1], chain[-2::-1], strict=True):
            if holder != following:
                arrived = [self._leg(holder, following, row.size_bytes, row, arrived)]

    def _leg(
        self, source: int, target: int, size_bytes: float, row: Transfer, after: list[int | None]
    ) -> int:
        """Add a message that waits for others that arrive at its source; None: for that rank's own task."""
        send, recv = self._message(source, target, size_bytes)
        for held in after:
            if held is not None:
                self._schedule.require(source, send, held)
            elif source in self._parts:
                self._wait_to_send(source, send, row.delay_s)
        self._settle(source, target, send, recv)
        return recv

    def _hop(self, row: Transfer) -> tuple[int, list[int]]:
        """Add a hop of a ring as a message each round; return who sends them, and their sends."""
        source, target = row.source_rank, row.destinations[0][0]
        messages = [self._message(source, target, row.size_bytes / row.rounds) for _ in range(row.rounds)]
        self._wait_to_send(source, messages[0][0], row.delay_s)
        for send, recv in messages:
            self._settle(source, target, send, recv)
        self._rounds[target].append([recv for _, recv in messages])
        return source, [send for send, _ in messages]

    def _message(self, source: int, target: int, size_bytes: float) -> tuple[int, int]:
        stream = self._parts[source][1].stream if source in self._parts else None
        return self._schedule.message(source, target, size_bytes, CPU_OF_STREAM[stream])

    def _wait_to_send(self, rank: int, send: int, delay_s: float) -> None:
        if delay_s > 0.0:
            self._delays[rank].append((delay_s, send))
        else:
            self._schedule.require(rank, send, self._parts[rank][0].begin)

    def _settle(self, source: int, target: int, send: int, recv: int) -> None:
        """Let the ends of both ranks' tasks wait for a message, and remember who hears of it."""
        for rank, label in ((source, send), (target, recv)):
            if rank in self._parts:
                self._schedule.require(rank, self._parts[rank][0].end, label)
        self._recvs[self._number, target].append((source, recv))

    def _add_delays(self) -> None:
        """Let delayed sends wait for timers: each rank's run one after the other, for what is left to the next."""
        for rank, delayed in self._delays.items():
            before, elapsed_s = self._parts[rank][0].begin, 0.0
            for delay_s, send in sorted(delayed):
                timer = self._schedule.calc(rank, delay_s - elapsed_s, CPU_OF_TIMERS)
                self._schedule.require(rank, timer, before)
                self._schedule.require(rank, send, timer)
                before, elapsed_s = timer, delay_s


def _rows(transfers: Transfers) -> list[Transfer]:
    """Return transfers as rows."""
    relays, destinations = transfers.relay_ranks.tolist(), transfers.destination_ranks.tolist()
    fractions = transfers.fractions.tolist()
    relay_at, destination_at = transfers.relay_offsets.tolist(), transfers.destination_offsets.tolist()
    columns = zip(
        transfers.source_rank.tolist(),
        transfers.size_bytes.tolist(),
        transfers.delay_s.tolist(),
        transfers.rounds.tolist(),
        transfers.reduce.tolist(),
        strict=True,
    )
    rows = []
    for place, (source, size_bytes, delay_s, rounds, reduce) in enumerate(columns):
        to = slice(destination_at[place], destination_at[place + 1])
        fan = tuple(zip(destinations[to], fractions[to], strict=True))
        over = tuple(relays[relay_at[place] : relay_at[place + 1]])
        rows.append(Transfer(source, over, fan, size_bytes, delay_s=delay_s, rounds=rounds, reduce=reduce))
    return rows


def _about(case: Case, acceptance: Acceptance) -> str:
    """Return what the file beside the schedule says."""
    scenario = case.loaded.scenario
    notes = [
        "`schedule.goal` is the text that `txt2bin` of LogGOPSim and ATLAHS reads; times are nanoseconds, sizes "
        "bytes, both whole, so that the sum of any cpu's times and of any pair's bytes is right to a half.",
        "The cpus of a rank: 0 its compute stream, 1 its communication stream, 2 what lies on neither, 3 timers.",
        "It says nothing about the network: latency, bandwidth, topology and routing are those of the simulator that "
        "reads it.",
        "A send ends when its own rank is done with it; in railplane the sender's task lasts until it has arrived.",
        "A ring is as many messages a hop as it has rounds; each waits for all that reached its rank one round "
        "before.",
        "Messages of 0 bytes let a rank know that another's task has ended.",
    ]
    accepted = acceptance.lines()
    lost = ["", "Accepted:", "", *(f"- {line}" for line in accepted)] if accepted else []
    return "\n".join([f"# {scenario.name}", "", *(f"- {note}" for note in notes), *lost, ""])
