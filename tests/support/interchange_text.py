"""GOAL and HPCC texts read back by parsers that share nothing with the writers."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from workloads.tasks import Transfers

# as the scanner of txt2bin.re has it
_OPERATION = re.compile(
    r"(?P<label>[a-zA-Z]\w*): (?:calc (?P<ns>\d+)|(?P<kind>send|recv) (?P<bytes>\d+)b (?:to|from) (?P<peer>\d+)"
    r" tag (?P<tag>\d+))(?: cpu (?P<cpu>\d+))?"
)
_REQUIRES = re.compile(r"([a-zA-Z]\w*) requires ([a-zA-Z]\w*)")


class Message(NamedTuple):
    source: int
    target: int
    tag: int
    size_bytes: int


@dataclass
class Goal:
    """A schedule; operations and what they wait for are (rank, label)."""

    num_ranks: int = 0
    sends: dict[tuple[int, str], Message] = field(default_factory=dict)
    recvs: dict[tuple[int, str], Message] = field(default_factory=dict)
    calc_ns: dict[tuple[int, str], int] = field(default_factory=dict)
    cpu: dict[tuple[int, str], int] = field(default_factory=dict)
    after: defaultdict[tuple[int, str], list[tuple[int, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def bytes_of_pairs(self) -> Counter[tuple[int, int]]:
        total: Counter[tuple[int, int]] = Counter()
        for message in self.sends.values():
            total[message.source, message.target] += message.size_bytes
        return total

    def busy_ns(self) -> Counter[tuple[int, int]]:
        """Return by rank and cpu how long its kernels take."""
        total: Counter[tuple[int, int]] = Counter()
        for key, taken in self.calc_ns.items():
            total[key[0], self.cpu[key]] += taken
        return total

    def check(self) -> None:
        """Every send has its recv, under a tag of its own; and no operation waits for itself in a circle."""
        assert Counter(self.sends.values()) == Counter(self.recvs.values())
        assert len({message[:3] for message in self.sends.values()}) == len(self.sends)
        assert self.ended_ns() is not None

    def ended_ns(self) -> float:
        """Return when the last operation ends on a network that takes no time, cpus without limit."""
        send_of = {message[:3]: key for key, message in self.sends.items()}
        waits = {key: list(self.after[key]) for key in [*self.sends, *self.recvs, *self.calc_ns]}
        for key, message in self.recvs.items():
            waits[key].append(send_of[message[:3]])
        dependents = defaultdict(list)
        for key, befores in waits.items():
            for before in befores:
                dependents[before].append(key)
        left = {key: len(befores) for key, befores in waits.items()}
        ready = [key for key, count in left.items() if not count]
        end_ns = dict.fromkeys(waits, 0.0)
        for key in ready:
            end_ns[key] = max((end_ns[before] for before in waits[key]), default=0.0) + self.calc_ns.get(
                key, 0
            )
            for dependent in dependents[key]:
                left[dependent] -= 1
                if not left[dependent]:
                    ready.append(dependent)
        assert len(ready) == len(waits), "operations wait for each other in a circle"
        return max(end_ns.values())


def read_goal(text: str) -> Goal:
    """Return a schedule; fails where txt2bin would."""
    goal, rank, ranks = Goal(), -1, []
    for line in text.splitlines():
        if found := re.fullmatch(r"num_ranks (\d+)", line):
            goal.num_ranks = int(found[1])
        elif found := re.fullmatch(r"rank (\d+) {", line):
            rank = int(found[1])
            ranks.append(rank)
        elif found := _OPERATION.fullmatch(line):
            key = rank, found["label"]
            assert key not in goal.cpu
            goal.cpu[key] = int(found["cpu"] or 0)
            assert goal.cpu[key] < 256
            if found["ns"]:
                goal.calc_ns[key] = int(found["ns"])
            else:
                peer, tag, size_bytes = int(found["peer"]), int(found["tag"]), int(found["bytes"])
                is_send = found["kind"] == "send"
                message = Message(*((rank, peer) if is_send else (peer, rank)), tag, size_bytes)
                (goal.sends if is_send else goal.recvs)[key] = message
        elif found := _REQUIRES.fullmatch(line):
            assert (rank, found[1]) in goal.cpu
            assert (rank, found[2]) in goal.cpu
            goal.after[rank, found[1]].append((rank, found[2]))
        else:
            assert line in {"", "}"}, line
    assert ranks == list(range(goal.num_ranks))
    return goal


def bytes_by_hand(transfers: Transfers) -> Counter[tuple[int, int]]:
    """Return the bytes that each rank hands to each other, relays included, one transfer after the other."""
    total: Counter[tuple[int, int]] = Counter()
    for place in range(len(transfers)):
        chain = [int(transfers.source_rank[place])]
        chain += transfers.relay_ranks[
            transfers.relay_offsets[place] : transfers.relay_offsets[place + 1]
        ].tolist()
        size_bytes = float(transfers.size_bytes[place])
        legs = [(chain[hop], chain[hop + 1], size_bytes) for hop in range(len(chain) - 1)]
        for entry in range(transfers.destination_offsets[place], transfers.destination_offsets[place + 1]):
            fraction = float(transfers.fractions[entry])
            legs.append((chain[-1], int(transfers.destination_ranks[entry]), size_bytes * fraction))
        for source, target, leg_bytes in legs:
            if source != target:
                total[(target, source) if transfers.reduce[place] else (source, target)] += leg_bytes
    return total


class Link(NamedTuple):
    source: int
    target: int
    gbps: float
    delay_s: float


class Flow(NamedTuple):
    source: int
    target: int
    size_bytes: int
    start_s: float


@dataclass
class Hpcc:
    num_nodes: int
    switches: set[int]
    links: list[Link]
    flows: list[Flow]

    def reaches(self, source: int, target: int) -> bool:
        """Return whether packets find a way: over switches alone, as hosts pass nothing on."""
        beside: defaultdict[int, set[int]] = defaultdict(set)
        for link in self.links:
            beside[link.source].add(link.target)
            beside[link.target].add(link.source)
        seen, ready = {source}, [source]
        for node in ready:
            for following in beside[node] - seen:
                seen.add(following)
                if following in self.switches:
                    ready.append(following)
        return target in seen


def read_hpcc(topology: str, flows: str) -> Hpcc:
    """Return a topology and its flows, read as `third.cc` reads them: by fields, not by lines."""
    words = iter(topology.split())
    num_nodes, num_switches, num_links = (int(next(words)) for _ in range(3))
    switches = {int(next(words)) for _ in range(num_switches)}
    links = []
    for _ in range(num_links):
        source, target, rate, delay, error_rate = (next(words) for _ in range(5))
        assert rate.endswith("Gbps")
        assert delay.endswith("ms")
        assert float(error_rate) == 0
        link = Link(int(source), int(target), float(rate.removesuffix("Gbps")), float(delay[:-2]) / 1e3)
        links.append(link)
    assert next(words, None) is None
    words = iter(flows.split())
    found = []
    for _ in range(int(next(words))):
        source, target, group, port, size_bytes, start_s = (next(words) for _ in range(6))
        assert (group, port) == ("3", "100")
        found.append(Flow(int(source), int(target), int(size_bytes), float(start_s)))
    assert next(words, None) is None
    return Hpcc(num_nodes, switches, links, found)
