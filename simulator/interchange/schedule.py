"""A GOAL schedule being built: operations of ranks, messages between them, and which waits for which.

GOAL: Hoefler, Siebert and Lumsdaine, "Group Operation Assembly Language" (ICPP 2009). Its text form is that which
`txt2bin` of LogGOPSim reads (https://github.com/spcl/LogGOPSim, src/LogGOPSim/txt2bin.re), and so of ATLAHS
(https://github.com/spcl/atlahs): `num_ranks N`, then for each rank a block of `label: calc NANOSECONDS`,
`label: send BYTESb to RANK tag T`, `label: recv BYTESb from RANK tag T` and `label requires label`, each with a
`cpu` on which it runs. A label is known within its rank alone.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from simulator.units import UNITS
from workloads.tasks import Stream

# Operations on one cpu run one at a time; cpus are what a rank does at one time.
CPU_OF_STREAM = {Stream.COMPUTE: 0, Stream.COMMUNICATION: 1, None: 2}
CPU_OF_TIMERS = 3


@dataclass
class Whole:
    """Turns a series of amounts into whole numbers of which no sum is off by more than a half."""

    exact: float = 0.0
    whole: int = 0

    def next(self, amount: float) -> int:
        """Return the whole number that stands for the next amount."""
        self.exact += amount
        before, self.whole = self.whole, round(self.exact)
        return self.whole - before


@dataclass
class _Rank:
    operations: list[str] = field(default_factory=list)
    requirements: list[str] = field(default_factory=list)


class Schedule:
    """Operations of `num_ranks` ranks. Labels are numbers, from 0 in each rank.

    num_empty: messages so far that carry less than a byte
    """

    def __init__(self, num_ranks: int) -> None:
        self._ranks = [_Rank() for _ in range(num_ranks)]
        self._bytes: defaultdict[tuple[int, int], Whole] = defaultdict(Whole)
        self._tags: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._ns: defaultdict[tuple[int, int], Whole] = defaultdict(Whole)
        self.num_empty = 0

    def calc(self, rank: int, seconds: float, cpu: int) -> int:
        """Add a time during which a rank's cpu is busy; return its label."""
        nanoseconds = self._ns[rank, cpu].next(seconds / UNITS["time"]["ns"])
        return self._add(rank, f"calc {nanoseconds} cpu {cpu}")

    def message(self, source: int, target: int, size_bytes: float, cpu: int) -> tuple[int, int]:
        """Add a message under a tag of its own; return the label of its send, and that of its recv at the target.

        Sizes are whole bytes, so that the sum of a pair's is right to a half; but a message that has none is written
        with 1, since LogGOPSim (src/LogGOPSim/LogGOPSim.cpp) takes (size - 1) G for its bytes.
        """
        whole = self._bytes[source, target].next(size_bytes)
        if whole == 0:
            self.num_empty += 1
            whole = 1
        tag = self._tags[source, target]
        self._tags[source, target] += 1
        send = self._add(source, f"send {whole}b to {target} tag {tag} cpu {cpu}")
        return send, self._add(target, f"recv {whole}b from {source} tag {tag} cpu {cpu}")

    def require(self, rank: int, label: int, before: int) -> None:
        """Let an operation of a rank wait until another of the same rank has ended."""
        self._ranks[rank].requirements.append(f"l{label} requires l{before}")

    def _add(self, rank: int, operation: str) -> int:
        operations = self._ranks[rank].operations
        operations.append(operation)
        return len(operations) - 1

    def lines(self) -> Iterator[str]:
        """Yield the text, line by line. A rank that has nothing to do has a `calc 0`, for an empty block is none."""
        yield f"num_ranks {len(self._ranks)}"
        for number, rank in enumerate(self._ranks):
            yield ""
            yield f"rank {number} {{"
            for label, operation in enumerate(rank.operations or ["calc 0"]):
                yield f"l{label}: {operation}"
            yield from dict.fromkeys(rank.requirements)
            yield "}"
