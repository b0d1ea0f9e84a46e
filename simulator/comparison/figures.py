"""The figures of several results, side by side, and how far each is from that of the first."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from simulator.comparison.sides import Side
from simulator.result import ROUNDING

# what a summary says of a link kind
KIND_FIGURES: Final = ("mean_utilisation", "peak_utilisation", "saturated_fraction", "bytes", "count")


def are_equal(values: Sequence[float]) -> bool:
    """Return whether numbers are equal but for rounding, to 1e-9 of the largest; NaN equals nothing."""
    largest = max(map(abs, values))
    return max(values) - min(values) <= ROUNDING * largest


def difference(value: float, first: float) -> float:
    """Return how far a value is from the first, as a fraction of that; NaN where one is absent or the first is 0."""
    if value == first:
        return 0.0
    return (value - first) / abs(first) if first else math.nan


def figures_table(sides: Sequence[Side]) -> pd.DataFrame:
    """Return a row per figure and scenario: the figures in the order of their first appearance, scenarios in theirs.

    Columns: group (`step`, `breakdown`, `metrics`, `memory`, `links`, `kernels` or `network`), figure, scenario,
    value (SI; NaN: absent), difference (from the first scenario, as a fraction of it: see `difference`), equal
    (whether all scenarios have the figure, and equal to 1e-9).
    """
    by_side = [dict(_figures(side)) for side in sides]
    keys = dict.fromkeys(key for figures in by_side for key in figures)
    order = {group: place for place, group in enumerate(dict.fromkeys(group for group, _ in keys))}
    rows = []
    for group, figure in sorted(keys, key=lambda key: order[key[0]]):
        values = [float(figures.get((group, figure), math.nan)) for figures in by_side]
        equal = not any(map(math.isnan, values)) and are_equal(values)
        rows += [
            (group, figure, side.label, value, difference(value, values[0]), equal)
            for side, value in zip(sides, values, strict=True)
        ]
    return pd.DataFrame(rows, columns=["group", "figure", "scenario", "value", "difference", "equal"])


def _figures(side: Side) -> Iterator[tuple[tuple[str, str], float]]:
    """Yield the figures of a side by group and name."""
    summary = side.summary
    yield ("step", "step_time_s"), summary["step_time_s"]
    yield ("step", "busiest_link_s"), summary["bounds_s"]["busiest_link"]
    for part, seconds in summary["breakdown_s"].items():
        yield ("breakdown", f"{part}_s"), seconds
    for name, value in summary["metrics"].items():
        yield ("metrics", name), value
    for name, value in _memory(summary).items():
        yield ("memory", name), value
    for kind, row in summary["links"].items():
        for name in KIND_FIGURES:
            yield ("links", f"{kind}.{name}"), row[name]
    for kernel, row in summary.get("kernels", {}).get("by_kernel", {}).items():
        yield ("kernels", f"{kernel}.seconds"), row["seconds"]
    for name, value in side.network.items():
        yield ("network", name), value


def _memory(summary: dict[str, Any]) -> dict[str, float]:
    """Return what a GPU holds by part, in bytes; of training, a GPU of the pipeline rank that needs most."""
    rows = summary.get("memory", [])
    if not rows:
        return {}
    if "part" in rows[0]:
        parts = {f"{row['part'].replace(' ', '_')}_bytes": row["size_bytes"] for row in rows}
    else:
        fullest = rows[int(np.argmax([row["total_bytes"] for row in rows]))]
        parts = {name: fullest[name] for name in fullest if name.endswith("_bytes") and name != "total_bytes"}
    return parts | {"gpu_memory_bytes": summary["gpu_memory_bytes"]}
