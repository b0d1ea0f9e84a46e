"""A network that reuses solutions beside one that solves everything, and patterns to run in both."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from simulator.bills import Bills
from simulator.pattern import Pattern
from simulator.reuse import ReusingNetwork
from simulator.rows import csr_offsets


def batch(*flows):
    """Return the columns of flows: (links, size, seconds after the begin), each charging each of its links once."""
    links = np.array([link for path, *_ in flows for link in path], np.int64)
    bills = Bills(csr_offsets([len(path) for path, *_ in flows]), links, np.ones(len(links)))
    size, after_s = (np.array([flow[column] for flow in flows], float) for column in (1, 2))
    return bills, size, after_s, np.ones(len(flows))


def pattern(capacity, bills, size, after_s, weights, parts=None):
    """Return a pattern; parts: lists of flows, one for each flow if None."""
    parts = [[flow] for flow in range(len(size))] if parts is None else parts
    flows = np.array([flow for part in parts for flow in part], np.int64)
    return Pattern(bills, size, weights, after_s, csr_offsets([len(part) for part in parts]), flows, capacity)


@dataclass
class Twins:
    """A network that reuses and one that does not, which are told the same."""

    capacity: list[float]
    ended: tuple[dict, dict] = field(default_factory=lambda: ({}, {}))
    batches: tuple[list, list] = field(default_factory=lambda: ([], []))

    def __post_init__(self):
        capacity = np.array(self.capacity, float)
        self.reusing = ReusingNetwork(capacity)
        self.plain = ReusingNetwork(capacity, reuse=False)
        self.both = (self.reusing, self.plain)

    def add(self, *columns):
        """Let a batch begin now."""
        for twin, batches in zip(self.both, self.batches, strict=True):
            batches.append(twin.add(pattern(twin.shared.capacity_bytes_per_s, *columns)))

    def advance(self, until_s=np.inf):
        """Move both clocks, through all parts that end, and compare."""
        for twin, ended in zip(self.both, self.ended, strict=True):
            while now := twin.advance(until_s):
                ended.update({(each.number, part): twin.now_s for each, part in now})
        assert self.ended[0] == pytest.approx(self.ended[1], rel=1e-9)
        assert self.reusing.now_s == pytest.approx(self.plain.now_s, rel=1e-9)

    def run(self, *batches):
        """Run batches one after the other, each alone."""
        for each in batches:
            self.add(*each)
            self.finish()

    def finish(self):
        """Run until all has ended, and compare what then can be seen."""
        self.advance()
        for ours, theirs in zip(*self.batches, strict=True):
            assert (ours.num_left, theirs.num_left) == (0, 0)
            assert ours.finish_after_s + ours.begin_s == pytest.approx(
                theirs.finish_after_s + theirs.begin_s, rel=1e-9
            )
        ours, theirs = self.reusing.meter, self.plain.meter
        assert ours.bytes == pytest.approx(theirs.bytes, rel=1e-9, abs=1e-12)
        assert ours.saturated_s == pytest.approx(theirs.saturated_s, rel=1e-9, abs=1e-12)

    def finish_s(self, number):
        return self.batches[0][number].begin_s + self.batches[0][number].finish_after_s

    @property
    def counts(self):
        """Return how many batches have been solved, and how many reused."""
        reused = sum(each.is_reused for each in self.batches[0])
        return len(self.batches[0]) - reused, reused
