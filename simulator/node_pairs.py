"""Flows added up by collective's name, source node and destination node, without a row for each of them.

Steps have tens of thousands of collectives that share a few hundred transfers and times, by identity. What follows
from those is found out once, and combined over the collectives that repeat it: these differ in when they begin alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simulator.rows import csr_offsets
from simulator.transfer_ends import TransferEnds
from simulator.transfer_times import TransferTimes
from workloads.tasks import Collective, Layout, Transfers

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


def flows_by_nodes(
    collectives: Sequence[Collective], times: Sequence[TransferTimes], layout: Layout
) -> pd.DataFrame:
    """Return a row per name of a collective, source node and destination node, in order of first appearance.

    times: [num_collectives]. Columns: collective, source_node, destination_node (-1: several), flows (how many),
    size_bytes (their sum), start_s (the first), end_s (the last). Collectives that did not run have no part in
    it; at least one did.
    """
    repeats = _Repeats()
    for collective, times_of in zip(collectives, times, strict=True):
        if len(times_of.end_after_s):
            repeats.add(collective, times_of)
    num_nodes = int(layout.node_of_rank.max()) + 1
    distinct = {id(transfers): transfers for _, transfers in repeats.named}
    pairs_of = {key: _Pairs.of(transfers, layout, num_nodes) for key, transfers in distinct.items()}
    pairs = [pairs_of[id(transfers)] for _, transfers in repeats.named]
    name_of, names = pd.factorize(np.array([name for name, _ in repeats.named], np.object_))
    num_codes = (num_nodes + 1) ** 2
    named_codes = [number * num_codes + each.codes for number, each in zip(name_of, pairs, strict=True)]
    row_of, rows = pd.factorize(np.concatenate(named_codes))
    offsets = csr_offsets([len(each.codes) for each in pairs])
    count = np.repeat(repeats.counts, np.diff(offsets))
    start_s, end_s = repeats.spans([row_of[begin:end] for begin, end in pairwise(offsets)], pairs, len(rows))
    name, pair = np.divmod(rows, num_codes)
    source, destination = np.divmod(pair, num_nodes + 1)
    return pd.DataFrame(
        {
            "collective": names[name],
            "source_node": source - 1,
            "destination_node": destination - 1,
            "flows": np.bincount(row_of, count * np.concatenate([each.flows for each in pairs])).astype(
                np.int64
            ),
            "size_bytes": np.bincount(row_of, count * np.concatenate([each.size_bytes for each in pairs])),
            "start_s": start_s,
            "end_s": end_s,
        }
    )


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The pairs of nodes between which transfers move bytes.

    codes: [num_pairs] the pair as one number; of_transfer: [num_transfers] places in it; flows, size_bytes:
    [num_pairs] how many transfers there are, and their bytes
    """

    codes: IntArray
    of_transfer: IntArray
    flows: IntArray
    size_bytes: FloatArray

    @classmethod
    def of(cls, transfers: Transfers, layout: Layout, num_nodes: int) -> "_Pairs":
        """Return the pairs of transfers, in order of first appearance."""
        ends = TransferEnds.of(transfers, layout)
        code = (ends.source_node + 1) * (num_nodes + 1) + ends.destination_node + 1  # from 0: -1 is several
        of_transfer, codes = pd.factorize(code)
        size_bytes = np.bincount(of_transfer, transfers.size_bytes).astype(np.float64)
        return cls(codes, of_transfer, np.bincount(of_transfer), size_bytes)


@dataclass(slots=True)
class _Begins:
    """When the first and the last of collectives that repeat each other began."""

    first_s: float
    last_s: float


@dataclass(slots=True)
class _Repeats:
    """Collectives by what they share.

    named: each name with each of its transfers, in order of first appearance; counts: how many collectives of each
    begins: by the identities of transfers and times, those times, and by place in `named` when collectives began
    """

    named: list[tuple[str, Transfers]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    begins: dict[tuple[int, int, int], tuple[TransferTimes, dict[int, _Begins]]] = field(default_factory=dict)
    _place_of: dict[tuple[str, int], int] = field(default_factory=dict)

    def add(self, collective: Collective, times: TransferTimes) -> None:
        """Take in a collective that ran."""
        transfers, begin_s = collective.transfers, times.begin_s
        place = self._place_of.setdefault((collective.name, id(transfers)), len(self.named))
        if place == len(self.named):
            self.named.append((collective.name, transfers))
            self.counts.append(0)
        self.counts[place] += 1
        key = id(transfers), id(times.start_after_s), id(times.end_after_s)
        _, begins = self.begins.setdefault(key, (times, {}))
        if place not in begins:
            begins[place] = _Begins(begin_s, begin_s)
        else:
            begins[place].first_s = min(begins[place].first_s, begin_s)
            begins[place].last_s = max(begins[place].last_s, begin_s)

    def spans(
        self, row_sets: list[IntArray], pairs: list[_Pairs], num_rows: int
    ) -> tuple[FloatArray, FloatArray]:
        """Return the first start and the last end of each row: [num_rows], NaN where nothing began or ended.

        row_sets, pairs: by place in `named`, which rows its pairs belong to, and the pairs
        """
        start_s, end_s = np.full(num_rows, np.nan), np.full(num_rows, np.nan)
        for times, begins in self.begins.values():
            shared = pairs[next(iter(begins))]
            first_s, last_s = np.full(len(shared.codes), np.nan), np.full(len(shared.codes), np.nan)
            np.fmin.at(first_s, shared.of_transfer, times.start_after_s)
            np.fmax.at(last_s, shared.of_transfer, times.end_after_s)
            for place, began in begins.items():
                rows = row_sets[place]
                start_s[rows] = np.fmin(start_s[rows], began.first_s + first_s)
                end_s[rows] = np.fmax(end_s[rows], began.last_s + last_s)
        return start_s, end_s
