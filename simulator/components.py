"""Flows that share no link, not even through others, do not know of each other: connected components.

Two flows are connected if they cross a common link; a component is a largest set of flows that such steps lead
through. Max-min rates of a component depend on its own links and flows alone: filling a link changes levels only
of links that its flows cross, all of the same component. So each component has its own clock: a start or an end
in one changes no rate in another, and the rates of the others stay valid over it.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulator.bills import Bills
from simulator.rows import csr_offsets

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Components:
    """The components of some flows, in the order of their first flows; rows in CSR form.

    flow_offsets: [num_components + 1], flows: [num_flows] each component's, in order of their starts
    link_offsets: [num_components + 1], links: the links that each component's flows cross
    local_links: [num_entries] for each entry of the bills, the link's place in its component's row
    """

    flow_offsets: IntArray
    flows: IntArray
    link_offsets: IntArray
    links: IntArray
    local_links: IntArray


def find_components(bills: Bills, start_s: FloatArray, num_links: int) -> Components:
    """Return the connected components of flows with these bills; flows without links are one of their own."""
    component_of_link = _component_of_link(num_links, bills.offsets, bills.links)
    has_links = np.diff(bills.offsets) > 0
    component_of_flow = np.full(bills.num_flows, num_links)
    component_of_flow[has_links] = component_of_link[bills.links[bills.offsets[:-1][has_links]]]
    # Components are numbered by their first flow, so that their order does not depend on how links are numbered.
    _, first, component_of_flow = np.unique(component_of_flow, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    component_of_flow = number[component_of_flow]

    used, place = np.unique(bills.links, return_inverse=True)
    component_of_used = np.empty(len(used), np.int64)
    component_of_used[place] = np.repeat(component_of_flow, np.diff(bills.offsets))
    order = np.argsort(component_of_used, kind="stable")
    link_offsets = csr_offsets(np.bincount(component_of_used, minlength=len(first)))
    local = np.empty(len(used), np.int64)
    local[order] = np.arange(len(used)) - link_offsets[component_of_used[order]]
    return Components(
        flow_offsets=csr_offsets(np.bincount(component_of_flow, minlength=len(first))),
        flows=np.lexsort((start_s, component_of_flow)),
        link_offsets=link_offsets,
        links=used[order],
        local_links=local[place],
    )


@njit(cache=True)
def _component_of_link(num_links: int, bill_offsets, bill_links):  # type: ignore[no-untyped-def]
    """Return for each link [num_links] the lowest link that it is connected with (union-find, paths halved)."""
    parent = np.arange(num_links)
    for flow in range(len(bill_offsets) - 1):
        for entry in range(bill_offsets[flow] + 1, bill_offsets[flow + 1]):
            one, other = bill_links[entry - 1], bill_links[entry]
            while parent[one] != one:
                parent[one] = parent[parent[one]]
                one = parent[one]
            while parent[other] != other:
                parent[other] = parent[parent[other]]
                other = parent[other]
            parent[max(one, other)] = min(one, other)
    for link in range(num_links):
        parent[link] = parent[parent[link]]
    return parent
