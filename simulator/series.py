"""Links in series: the same flows cross them, in the same proportions, as a GPU's PCIe port and its NIC's cable.

If each flow on link l charges link m the same multiple k of what it charges l, then the load of m is k times that of
l, whatever the rates are:

    load_m = sum over f of bill[m, f] x r_f = k x load_l.

So of links in series only the one with the least capacity over charge, the *tightest*, can hold a flow back: where it
is within its capacity all are. Rates solved with the tightest alone are those of the whole, and what passes the
others is known from what passes it.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.meter import SATURATED
from simulator.rows import csr_offsets

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
UintArray = NDArray[np.uint64]

# Odd numbers that spread the bits of what they multiply (fractions of the golden ratio and of roots of 2 and 3).
_SPREAD = tuple(
    np.uint64(number)
    for number in (0x9E3779B97F4A7C15, 0xB504F333F9DE6485, 0xDDB3D742C265539D, 0xD1B54A32D192ED03)
)


class Series(NamedTuple):
    """The links of some bills, by their tightest.

    tightest: [num_series] one link of each series, in order of number; links that nobody crosses are alone
    place: [num_links] where the tightest of each link's series is in `tightest`
    passing: [num_links] bytes that pass the link for each that passes the tightest
    fills: [num_links] whether the link is full when the tightest is
    """

    tightest: IntArray
    place: IntArray
    passing: FloatArray
    fills: BoolArray

    @classmethod
    def of(cls, bills: Bills, capacity_bytes_per_s: FloatArray) -> Self:
        """Return the links in series under some bills; capacity_bytes_per_s: [num_links]."""
        num_links = len(capacity_bytes_per_s)
        crossings = _Crossings.of(bills, num_links)
        first_of_series = _first_alike(crossings)
        charge, passing = np.ones(num_links), np.ones(num_links)
        used = np.flatnonzero(np.diff(crossings.offsets))
        charge[used] = crossings.charge[crossings.offsets[used]]
        passing[used] = crossings.passing[crossings.offsets[used]]
        room = capacity_bytes_per_s / charge
        order = np.lexsort((np.arange(num_links), room, first_of_series))
        leads = np.flatnonzero(np.diff(first_of_series[order], prepend=-1))
        tightest_of_link = np.empty(num_links, np.int64)
        tightest_of_link[order] = np.repeat(order[leads], np.diff(leads, append=num_links))
        tightest, place = np.unique(tightest_of_link, return_inverse=True)
        return cls(
            tightest,
            place,
            passing / passing[tightest_of_link],
            room * (1.0 - SATURATED) <= room[tightest_of_link],
        )

    def bills_of(self, bills: Bills) -> Bills:
        """Return what flows charge the tightest links, by their places."""
        is_tightest = np.zeros(len(self.place), np.bool_)
        is_tightest[self.tightest] = True
        kept = is_tightest[bills.links]
        flow = np.repeat(np.arange(bills.num_flows), np.diff(bills.offsets))
        return Bills(
            csr_offsets(np.bincount(flow[kept], minlength=bills.num_flows)),
            self.place[bills.links[kept]],
            bills.coefficients[kept],
            None if bills.passing is None else bills.passing[kept],
        )

    def saturated_s(self, of_tightest_s: FloatArray) -> FloatArray:
        """Return for how long each link was full: [num_links]; of_tightest_s: [num_series] the tightest were."""
        return np.where(self.fills, of_tightest_s[self.place], 0.0)


class _Crossings(NamedTuple):
    """The entries of bills link by link, on each in order of flow, in CSR form: offsets [num_links + 1]."""

    offsets: IntArray
    flow: IntArray
    charge: FloatArray
    passing: FloatArray

    @classmethod
    def of(cls, bills: Bills, num_links: int) -> Self:
        order = np.argsort(bills.links, kind="stable")
        flow = np.repeat(np.arange(bills.num_flows), np.diff(bills.offsets))
        return cls(
            csr_offsets(np.bincount(bills.links, minlength=num_links)),
            flow[order],
            bills.coefficients[order],
            bills.passing_bytes[order],
        )


def _first_alike(crossings: _Crossings) -> IntArray:
    """Return the least link that each link is in series with, itself if there is none: [num_links]."""
    counts = np.diff(crossings.offsets)
    used = np.flatnonzero(counts)
    firsts = np.repeat(crossings.offsets[used], counts[used])
    shares = [column / column[firsts] for column in (crossings.charge, crossings.passing)]
    mixed = _mixed(crossings.flow.view(np.uint64), *(share.view(np.uint64) for share in shares))
    sums = np.add.reduceat(mixed, crossings.offsets[used])
    _, first, group = np.unique(sums, return_index=True, return_inverse=True)
    like = used[first][group]
    # Sums that agree by chance are told apart: all that was summed must agree.
    like = np.where(counts[like] == counts[used], like, used)
    entries = np.arange(len(mixed))
    twin = entries + np.repeat(crossings.offsets[like] - crossings.offsets[used], counts[used])
    differs = np.zeros(len(mixed), np.bool_)
    for column in (crossings.flow, *shares):
        differs |= column != column[twin]
    found = np.arange(len(counts))
    found[used] = np.where(np.logical_or.reduceat(differs, crossings.offsets[used]), used, like)
    return found


def _mixed(*columns: UintArray) -> UintArray:
    """Return a number for each row that hardly two different rows share."""
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column, spread in zip(columns, _SPREAD, strict=False):
        mixed = (mixed ^ column) * spread
        mixed ^= mixed >> np.uint64(29)
    return mixed * _SPREAD[-1]
