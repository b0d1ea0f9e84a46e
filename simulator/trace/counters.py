"""How busy links are over time, as counters: by kind, by plane, and of the busiest links one by one."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simulator.trace.spans import in_ns

FloatArray = NDArray[np.float64]

BUSIEST: Final = 16  # links that have a counter of their own
_IN_PLANES: Final = ("nic", "leaf_spine", "spine_core", "router_local", "router_global")
_DIGITS: Final = 2  # of a percent


class Counter(NamedTuple):
    """A series that holds each value until the next, in percent of datasheet capacity.

    at_ns: rising; series: by name, as long as `at_ns`
    """

    name: str
    at_ns: list[int]
    series: dict[str, list[float]]


def link_counters(links: pd.DataFrame, timeline: pd.DataFrame, step_time_s: float) -> Iterator[Counter]:
    """Yield the counters of a result's links: mean and busiest of each kind, mean of each plane, busiest links.

    links, timeline: as `simulator.result` has them. A kind or plane in which nothing moved has none. The busiest are
    the BUSIEST with the highest utilisation over the step, the first of equals. Each ends at 0 when the step ends.
    """
    used = timeline["link"].unique()
    end_ns = in_ns(step_time_s)
    if not len(used) or end_ns <= 0:
        return
    by_bin = timeline["utilisation"].to_numpy().reshape(len(used), -1)  # a link's bins follow each other
    begins_s = timeline["start_s"].to_numpy()[: by_bin.shape[1]]
    rows = links.set_index("link").loc[used]
    kinds, planes = rows["kind"].to_numpy(), rows["plane"].to_numpy()
    for kind in links["kind"].unique():
        of_kind = by_bin[kinds == kind]
        if len(of_kind):
            mean = of_kind.sum(axis=0) / (links["kind"] == kind).sum()
            series = {"mean %": mean, "busiest %": of_kind.max(axis=0)}
            yield _counter(f"{kind} links", begins_s, series, end_ns)
    in_planes = links[links["kind"].isin(_IN_PLANES) & (links["plane"] >= 0)]
    for plane, count in in_planes["plane"].value_counts().sort_index().items():
        of_plane = by_bin[(planes == plane) & np.isin(kinds, _IN_PLANES)]
        if len(of_plane):
            yield _counter(f"plane {plane}", begins_s, {"mean %": of_plane.sum(axis=0) / count}, end_ns)
    order = np.argsort(-rows["utilisation"].to_numpy(), kind="stable")[:BUSIEST]
    for place in order.tolist():
        yield _counter(_link_name(rows.iloc[place]), begins_s, {"%": by_bin[place]}, end_ns)


def _link_name(link: pd.Series) -> str:
    parallel = f" #{link['key']}" if link["key"] else ""
    return f"{link['kind']} {link['source']} to {link['target']}{parallel}"


def _counter(name: str, begins_s: FloatArray, series: dict[str, FloatArray], end_ns: int) -> Counter:
    """Return a counter that names a value only where one of its series changes, and falls to 0 at the end."""
    percent = np.array(list(series.values())).round(2 + _DIGITS) * 100
    at_ns = [in_ns(begin_s) for begin_s in begins_s.tolist()]
    kept: list[tuple[int, tuple[float, ...]]] = []
    for moment, values in zip(at_ns, percent.T.round(_DIGITS).tolist(), strict=True):
        if moment >= end_ns:
            break
        if kept and kept[-1][0] == moment:
            kept.pop()  # bins of less than a nanosecond
        if not kept or kept[-1][1] != tuple(values):
            kept.append((moment, tuple(values)))
    kept.append((end_ns, (0.0,) * len(series)))
    columns = zip(*(values for _, values in kept), strict=True)
    return Counter(name, [moment for moment, _ in kept], dict(zip(series, map(list, columns), strict=True)))
