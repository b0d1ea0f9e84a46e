"""The fluid network alone: paths, sizes and starts in, finish times out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.bills import Bills
from simulator.compiled import compiled
from simulator.fluid import FluidNetwork

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Replay:
    """What `replay_flows` returns: when flows ended, how often rates were solved, and what a tolerance did.

    finish_s: [num_flows] seconds; merged: flows that ended without a solve of their own; stale_share: of all bytes,
    those that moved at rates which a solve would have changed; both 0 without a tolerance
    """

    finish_s: FloatArray
    solves: int
    merged: int
    stale_share: float


def replay_flows(
    capacity_bytes_per_s: ArrayLike,
    path_offsets: ArrayLike,
    path_links: ArrayLike,
    size_bytes: ArrayLike,
    start_s: ArrayLike | None = None,
    coefficients: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    tolerance: float = 0.0,
) -> Replay:
    """Return when each flow ends: the fluid network alone, without a cluster or a workload.

    capacity_bytes_per_s: [num_links] bytes/s
    path_offsets: [num_flows + 1], path_links: [num_entries], the links of flow f being
    path_links[path_offsets[f]:path_offsets[f + 1]], each at most once
    size_bytes: [num_flows] bytes; start_s: [num_flows] seconds, 0 by default
    coefficients: [num_entries] bytes charged per byte delivered, 1 by default; weights: [num_flows], 1 by default
    tolerance: 0, exact, by default. Else, when a flow ends that took t seconds, others that end within tolerance x t
    after it do so at the rates that they have, each at its own time, and rates are solved once for all of them. The
    error is not bounded: rates are stale for a short time, but what follows may amplify that; `benchmarks` has it
    measured.
    Raises ValueError, naming the flow or link, for anything that is not finite and positive (starts may be 0),
    offsets that do not rise from 0, links that do not exist, and repeated links.
    """
    capacity = _checked("capacity of link", capacity_bytes_per_s)
    size = _checked("size of flow", size_bytes)
    offsets, links = _checked_paths(path_offsets, path_links, len(size), len(capacity))
    start = (
        np.zeros(len(size)) if start_s is None else _checked("start of flow", start_s, len(size), zero=True)
    )
    weight = np.ones(len(size)) if weights is None else _checked("weight of flow", weights, len(size))
    coefficient = (
        np.ones(len(links))
        if coefficients is None
        else _checked("coefficient of entry", coefficients, len(links))
    )
    if not (np.isfinite(tolerance) and tolerance >= 0):
        msg = f"the tolerance is {tolerance}; it must be finite and not negative"
        raise ValueError(msg)
    network = FluidNetwork(capacity, metered=False, tolerance=float(tolerance))
    no_watches = np.zeros(len(size) + 1, np.int64), np.zeros(0, np.int64)
    network.add_flows(Bills(offsets, links, coefficient), size, start, weight, *no_watches)
    network.advance(np.inf)
    stale_share = network.stale_bytes / size.sum() if len(size) else 0.0
    return Replay(network.finish_s.copy(), network.solves, network.merged, stale_share)


def _checked(what: str, values: ArrayLike, length: int | None = None, *, zero: bool = False) -> FloatArray:
    """Return values [length] as floats that are finite and positive (or zero), or raise naming the first bad one."""
    array = np.array(values, np.float64)
    if array.ndim != 1 or (length is not None and len(array) != length):
        msg = f"the {what}s must be one row of {length if length is not None else 'any number of'} values"
        raise ValueError(msg)
    bad = ~(np.isfinite(array) & ((array >= 0) if zero else (array > 0)))
    if bad.any():
        index = int(np.argmax(bad))
        msg = f"{what} {index} is {array[index]}; it must be finite and {'not negative' if zero else 'positive'}"
        raise ValueError(msg)
    return array


def _checked_paths(
    path_offsets: ArrayLike, path_links: ArrayLike, num_flows: int, num_links: int
) -> tuple[IntArray, IntArray]:
    """Return the paths as integers, or raise naming the flow whose path is wrong."""
    offsets, links = np.asarray(path_offsets), np.asarray(path_links)
    links = links if links.size else links.astype(np.int64)  # an empty list has no type of its own
    if not (np.issubdtype(offsets.dtype, np.integer) and np.issubdtype(links.dtype, np.integer)):
        msg = "path offsets and links must be integers"
        raise ValueError(msg)
    offsets, links = offsets.astype(np.int64), links.astype(np.int64)
    if offsets.shape != (num_flows + 1,) or offsets[0] != 0 or offsets[-1] != len(links):
        msg = f"path offsets must be {num_flows + 1} numbers from 0 to the number of links, {len(links)}"
        raise ValueError(msg)
    if (np.diff(offsets) <= 0).any():
        flow = int(np.argmax(np.diff(offsets) <= 0))
        msg = (
            f"flow {flow} has no path: offsets must rise, and go from {offsets[flow]} to {offsets[flow + 1]}"
        )
        raise ValueError(msg)
    flow_of_entry = np.repeat(np.arange(num_flows), np.diff(offsets))
    bad = (links < 0) | (links >= num_links)
    if bad.any():
        entry = int(np.argmax(bad))
        msg = f"flow {flow_of_entry[entry]} names link {links[entry]}; links are 0 to {num_links - 1}"
        raise ValueError(msg)
    last_flow = np.full(num_links, -1)
    entry = _first_repeated(offsets, links, last_flow)
    if entry >= 0:
        msg = (
            f"flow {flow_of_entry[entry]} names link {links[entry]} more than once; use a coefficient instead"
        )
        raise ValueError(msg)
    return offsets, links


@compiled
def _first_repeated(offsets: IntArray, links: IntArray, last_flow: IntArray) -> int:
    """Return the first entry that names a link for the second time in its row, or -1.

    last_flow: [num_links] -1, to be written to
    """
    for flow in range(len(offsets) - 1):
        for entry in range(offsets[flow], offsets[flow + 1]):
            if last_flow[links[entry]] == flow:
                return entry
            last_flow[links[entry]] = flow
    return -1
