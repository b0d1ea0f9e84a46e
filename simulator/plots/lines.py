"""How busy groups of links are over time, a line a group."""

from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from simulator.link_groups import FloatArray, LinkGroups, LoadsOverTime, loads_over_time
from simulator.plots.style import COLOURS, DASHES, legend_above
from simulator.units import fitting_unit

_ALIKE: Final = 0.01  # of datasheet capacity: lines that are no further apart, on average, are drawn as one
_MOST_LINES: Final = 7


class Line(NamedTuple):
    """One line: what its groups are called, and the share of capacity in each bin [num_bins]."""

    label: str
    shares: FloatArray


def plot_over_time(link_timeline: pd.DataFrame, links: pd.DataFrame, step_time_s: float, axes: Axes) -> Axes:
    """Draw the mean utilisation of each link kind over time, in percent of what the datasheets of its links say.

    Kinds that hardly differ share a line.
    """
    groups = LinkGroups.by(links["kind"].tolist())
    loads = loads_over_time(link_timeline, links, groups, step_time_s)
    return plot_lines(joined_lines(groups.labels, loads.mean), loads, axes)


def plot_lines(lines: list[Line], loads: LoadsOverTime, axes: Axes) -> Axes:
    """Draw lines over the bins of `loads`, in percent of datasheet capacity."""
    step_time_s = float(loads.edges_s[-1])
    unit, factor = fitting_unit(step_time_s, "time")
    for place, line in enumerate(lines):
        axes.plot(
            loads.edges_s / factor,
            100 * np.append(line.shares, line.shares[-1]),
            drawstyle="steps-post",
            label=line.label,
            color=COLOURS[place % len(COLOURS)],
            linestyle=DASHES[place % len(DASHES)],
            linewidth=1.6,
        )
    axes.set_xlabel(f"time ({unit})")
    axes.set_ylabel("mean utilisation\n(% of datasheet)")
    axes.set_xlim(0, step_time_s / factor or 1.0)
    axes.set_ylim(0, 105)
    legend_above(axes)
    return axes


def joined_lines(labels: tuple[str, ...], shares: FloatArray, noun: str = "") -> list[Line]:
    """Return a line for each group that carries anything, one for those that are alike, and few enough to read.

    labels: of the groups, ascending numbers where `noun` says what they are, such as `plane`, else names of layers or
    kinds. Where there would be too many, the least busy become one line, their mean.
    """
    bundles: list[list[int]] = []
    for group in np.flatnonzero(shares.any(axis=1)).tolist():
        alike = next((b for b in bundles if np.abs(shares[b[0]] - shares[group]).mean() <= _ALIKE), None)
        if alike is None:
            bundles.append([group])
        else:
            alike.append(group)
    busiest = sorted(bundles, key=lambda bundle: (-shares[bundle].mean(), bundle[0]))
    named = sorted(busiest if len(bundles) <= _MOST_LINES else busiest[: _MOST_LINES - 1])
    lines = [
        Line(_name([labels[group] for group in bundle], noun), shares[bundle].mean(axis=0))
        for bundle in named
    ]
    rest = [group for bundle in busiest[len(named) :] for group in bundle]
    if rest:
        lines.append(Line(f"mean of {len(rest)} others", shares[rest].mean(axis=0)))
    return lines


def _name(labels: list[str], noun: str) -> str:
    """Return what a line of some groups is called: `plane 2`, or `planes 0 to 1, 3 to 7`."""
    if not noun:
        return ", ".join(_both_ways(labels))
    return f"{noun}{'s' if len(labels) > 1 else ''} {_ranges(labels)}"


def _ranges(labels: list[str]) -> str:
    """Return numbers with those that follow each other as a range."""
    numbers = np.array(labels, np.int64)
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)


def _both_ways(layers: list[str]) -> list[str]:
    """Return names of layers, one for the two directions where both are there: `NIC ↔ leaf`."""
    names: dict[str, str] = {}
    for layer in layers:
        one, _, other = layer.partition(" to ")
        back = f"{other} to {one}"
        if back in names:
            names[back] = f"{other} ↔ {one}"
        else:
            names[layer] = layer
    return list(names.values())
