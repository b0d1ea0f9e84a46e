"""The messages of a collective in a GOAL schedule: one for each leg of each transfer.

A leg leads from a transfer's source to its relays, one after the other, and on to each destination; a reduction's are
turned round. A hop of a ring is as many messages as the ring has rounds.
"""

from collections import defaultdict
from typing import NamedTuple

from simulator.interchange.schedule import CPU_OF_STREAM, CPU_OF_TIMERS, Schedule
from workloads.tasks import Transfer, Transfers

# By the rank that gets them, (source, label of the recv) of messages.
Arrivals = defaultdict[int, list[tuple[int, int]]]


class Part(NamedTuple):
    """A rank's part of a task: its first and its last operation, the same of one that takes part in nothing."""

    begin: int
    end: int
    cpu: int


class Messages:
    """Adds the messages of one collective.

    parts: of each rank that takes part; arrivals: of all messages so far
    """

    def __init__(self, schedule: Schedule, parts: dict[int, Part]) -> None:
        self.arrivals: Arrivals = defaultdict(list)
        self._schedule, self._parts = schedule, parts
        self._hops_into: defaultdict[int, list[list[int]]] = defaultdict(list)  # by rank, recvs of each hop
        self._delays: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)  # by rank, of sends

    def add(self, rows: list[Transfer]) -> None:
        """Add all messages, and let the ranks that take part wait for those that they send or receive."""
        hops: list[tuple[int, list[int]]] = []
        for row in rows:
            if row.rounds > 1:
                hops.append(self._hop(row))
            elif row.reduce:
                self._gather(row)
            else:
                self._spread(row)
        for source, sends in hops:
            for arrived in self._hops_into[source]:
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
        return recv

    def _hop(self, row: Transfer) -> tuple[int, list[int]]:
        """Add a hop of a ring as a message each round; return who sends them, and their sends."""
        source, target = row.source_rank, row.destinations[0][0]
        messages = [self._message(source, target, row.size_bytes / row.rounds) for _ in range(row.rounds)]
        self._wait_to_send(source, messages[0][0], row.delay_s)
        self._hops_into[target].append([recv for _, recv in messages])
        return source, [send for send, _ in messages]

    def _message(self, source: int, target: int, size_bytes: float) -> tuple[int, int]:
        """Add a message, and let the ends of both ranks' tasks wait for it; return its send and its recv."""
        sender, receiver = self._parts.get(source), self._parts.get(target)
        cpu = CPU_OF_STREAM[None] if sender is None else sender.cpu
        send, recv = self._schedule.message(source, target, size_bytes, cpu)
        if sender is not None:
            self._schedule.require(source, sender.end, send)
        if receiver is not None:
            self._schedule.require(target, receiver.end, recv)
        self.arrivals[target].append((source, recv))
        return send, recv

    def _wait_to_send(self, rank: int, send: int, delay_s: float) -> None:
        if delay_s > 0.0:
            self._delays[rank].append((delay_s, send))
        else:
            self._schedule.require(rank, send, self._parts[rank].begin)

    def _add_delays(self) -> None:
        """Let delayed sends wait for timers: each rank's run one after the other, for what is left to the next."""
        for rank, delayed in self._delays.items():
            before, elapsed_s = self._parts[rank].begin, 0.0
            for delay_s, send in sorted(delayed):
                timer = self._schedule.calc(rank, delay_s - elapsed_s, CPU_OF_TIMERS)
                self._schedule.require(rank, timer, before)
                self._schedule.require(rank, send, timer)
                before, elapsed_s = timer, delay_s


def rows_of(transfers: Transfers) -> list[Transfer]:
    """Return transfers as rows; without their weights."""
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
