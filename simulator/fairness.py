"""Weighted max-min fair rates from link capacities and flow bills: arrays in, arrays out, no clock.

Each flow f has a weight w_f > 0 and a bill: for each link l that it uses, a coefficient b_lf > 0, the bytes
that l carries for each byte of f delivered. Rates r_f must satisfy, for every link l,

    sum over f of b_lf * r_f <= capacity_l

and be max-min fair: no flow's level r_f / w_f can grow without lowering that of a flow whose level is no
larger. The rates are unique. They are found by progressive filling (Bertsekas and Gallager, Data Networks,
2nd ed., section 6.5.2): raise the level of all flows together; the link that fills first fixes its flows at
that level; go on with the others. Link l fills at the level

    (capacity_l - what fixed flows take) / (sum over unfixed f of b_lf * w_f),

and every step fixes flows at a level no higher than l's own, so that this level never falls. Hence a heap of
levels that are brought up to date only when they reach its top gives the links in the right order.

Worked example: link 0 of capacity 2 carries flows 0 and 1, link 1 of capacity 10 carries flows 1 and 2, all
with weight and coefficients 1. Levels: link 0 fills at 2/2 = 1, link 1 at 10/2 = 5. Link 0 first: flows 0 and
1 get 1. Link 1 now fills at (10 - 1)/1 = 9: flow 2 gets 9.
"""

from heapq import heapify, heappop, heapreplace

import numpy as np
from numba import njit

# Links whose levels differ by less than this (relative) fill at once: symmetric flows then get the very same
# rate, whatever the order in which rounding met their links.
SAME_LEVEL = 1e-12


@njit(cache=True)
def flows_of_links(num_links: int, bill_offsets, bill_links):  # type: ignore[no-untyped-def]
    """Return the bills by link: offsets [num_links + 1], and [num_entries] the flow and the entry's index.

    Flows of one link are in rising order. Raises nothing; the caller has checked the bills.
    """
    offsets = np.zeros(num_links + 1, np.int64)
    for link in bill_links:
        offsets[link + 1] += 1
    offsets = np.cumsum(offsets)
    place = offsets[:-1].copy()
    flows = np.empty(len(bill_links), np.int64)
    entries = np.empty(len(bill_links), np.int64)
    for flow in range(len(bill_offsets) - 1):
        for entry in range(bill_offsets[flow], bill_offsets[flow + 1]):
            link = bill_links[entry]
            flows[place[link]] = flow
            entries[place[link]] = entry
            place[link] += 1
    return offsets, flows, entries


@njit(cache=True)
def _fill_level(capacity: float, start: int, end: int, flows, entries, coefficients, weights, rates):  # type: ignore[no-untyped-def]
    """Return the level at which a link fills, summed afresh: running differences drift, this does not."""
    taken = 0.0
    demand = 0.0
    for position in range(start, end):
        flow = flows[position]
        if rates[flow] == np.inf:
            demand += coefficients[entries[position]] * weights[flow]
        else:
            taken += coefficients[entries[position]] * rates[flow]
    return max(capacity - taken, 0.0) / demand


@njit(cache=True)
def max_min_rates(capacity_bytes_per_s, bill_offsets, bill_links, coefficients, weights):  # type: ignore[no-untyped-def]
    """Return the weighted max-min fair rates.

    capacity_bytes_per_s: [num_links] bytes/s, >= 0 (0: a dead link; its flows get rate 0)
    bill_offsets: [num_flows + 1], bill_links and coefficients: [num_entries], bills in CSR form; a link at
    most once in a bill; coefficients > 0
    weights: [num_flows] > 0
    returns: [num_flows] bytes/s; infinite for a flow with an empty bill, which nothing holds back
    """
    num_links = len(capacity_bytes_per_s)
    num_flows = len(weights)
    offsets, flows, entries = flows_of_links(num_links, bill_offsets, bill_links)

    # 1. Each link's level if it filled first, in a heap; ties go to the lower link. `fixed` counts, for every
    #    link, its flows with a rate; a stored level is out of date once that count has changed.
    rates = np.full(num_flows, np.inf)
    fixed = np.zeros(num_links, np.int64)
    fixed_when_stored = np.zeros(num_links, np.int64)
    heap = [(0.0, 0) for _ in range(0)]
    for link in range(num_links):
        start, end = offsets[link], offsets[link + 1]
        if end > start:
            capacity = capacity_bytes_per_s[link]
            heap.append(
                (_fill_level(capacity, start, end, flows, entries, coefficients, weights, rates), link)
            )
    heapify(heap)

    # 2. Fill the link with the lowest level, and fix its flows there.
    level = 0.0
    while heap:
        stored, link = heap[0]
        start, end = offsets[link], offsets[link + 1]
        if fixed[link] == end - start:
            heappop(heap)
            continue
        if fixed[link] != fixed_when_stored[link]:
            capacity = capacity_bytes_per_s[link]
            current = _fill_level(capacity, start, end, flows, entries, coefficients, weights, rates)
            fixed_when_stored[link] = fixed[link]
            heapreplace(heap, (current, link))
            continue
        heappop(heap)
        if stored > level * (1.0 + SAME_LEVEL):
            level = stored
        for position in range(start, end):
            flow = flows[position]
            if rates[flow] == np.inf:
                rates[flow] = level * weights[flow]
                for entry in range(bill_offsets[flow], bill_offsets[flow + 1]):
                    fixed[bill_links[entry]] += 1
    return rates
