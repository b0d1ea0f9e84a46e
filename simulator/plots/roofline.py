"""The kernels of a run against what the GPU could do: FLOPs and bytes per second under the device's peaks."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from simulator.plots.style import COLOURS, MARKERS, new_figure, styled
from simulator.units import fitting_unit, show_quantity

_HEIGHT_IN: Final = 4.6
_BAR_IN: Final = 0.28
_LEAST_SIZE: Final = 5.0  # of a marker, points
_SIZE: Final = 16.0  # more for a kernel that takes the whole step: its area tells the share
_LEGEND_ROW_IN: Final = 0.2
_COLUMNS: Final = 2  # of the legend
_LEGEND_SCALE: Final = 0.75  # of its markers, which would reach into other rows
_FORMATS: Final = {"fp8": "-", "bf16": "--"}  # and the line of its roof
_STEPS: Final = (1.0, 2.0, 5.0)  # of the scales

Kernels = Mapping[str, Mapping[str, Any]]


def draw_roofline(summary: Mapping[str, Any]) -> Figure:
    """Return the roofline of a run: kernels that compute as points, those that only move bytes as bars beside it.

    summary: of a result, with `kernels`; raises ValueError where there are none, or no peaks beside them.
    """
    if not has_roofline(summary):
        lacks = "no peaks of its GPU: run it again" if summary.get("kernels") else "no priced kernels"
        msg = f"there is no roofline to draw: the run has {lacks}"
        raise ValueError(msg)
    told = summary["kernels"]
    kernels: Kernels = {name: row for name, row in told["by_kernel"].items() if row["seconds"] > 0.0}
    computing = {name: row for name, row in kernels.items() if row["flops_per_s"] > 0.0}
    moving = {name: row for name, row in kernels.items() if row["flops_per_s"] == 0.0}
    panels = [(plot, rows) for plot, rows in ((_plot_points, computing), (_plot_bars, moving)) if rows]
    legend_in = _LEGEND_ROW_IN * (1 + -(-(len(computing) + len(_FORMATS)) // _COLUMNS)) if computing else 0.0
    with styled():
        figure = new_figure(
            f"{summary['scenario']}: kernels and the GPU's peaks",
            "Means over all calls of a kind, on all ranks, slowed by what runs beside them",
            max(_HEIGHT_IN, _BAR_IN * len(moving) + 1.2) + legend_in,
        )
        widths = [1.5, 1.0] if len(panels) == 2 else [1.0]
        grid = figure.add_gridspec(1, len(panels), width_ratios=widths)
        for place, (plot, rows) in enumerate(panels):
            axes = figure.add_subplot(grid[0, place])
            plot(rows, told["peaks"], axes)
            if plot is _plot_points:
                found = axes.get_legend_handles_labels()
                look: dict[str, Any] = {"frameon": False, "fontsize": 8, "markerscale": _LEGEND_SCALE}
                figure.legend(*found, loc="outside lower left", ncols=_COLUMNS, **look)
    return figure


def has_roofline(summary: Mapping[str, Any]) -> bool:
    """Return whether a run has kernels, and its GPU's peaks, which folders of older versions lack."""
    return "peaks" in summary.get("kernels", {})


def _plot_points(kernels: Kernels, peaks: Mapping[str, Any], axes: Axes) -> None:
    """Draw FLOPs per second over FLOPs per byte, under the roofs of the formats that the kernels compute in."""
    memory = peaks["memory_bytes_per_s"]
    used = {row["arithmetic"] for row in kernels.values()}
    roofs = {name: peaks[f"{name}_flops_per_s"] for name in _FORMATS if name in used}
    rates = [row["flops_per_s"] for row in kernels.values()]
    unit, factor = fitting_unit(min(rates), "flop per second")
    intensity = {name: row["flops_per_s"] / row["bytes_per_s"] for name, row in kernels.items()}
    corners = [*intensity.values(), *(peak / memory for peak in roofs.values())]
    left, right = min(corners) / 2, max(corners) * 3
    for name, peak in roofs.items():
        at = np.array([left, peak / memory, right])
        roof = np.minimum(at * memory, peak) / factor
        peaks_of = f"{show_quantity(memory, 'bytes per second')}, {show_quantity(peak, 'flop per second')}"
        style: dict[str, Any] = {"color": "#444444", "linestyle": _FORMATS[name], "linewidth": 1.4}
        axes.plot(at, roof, label=f"{name.upper()} roof: {peaks_of}", **style)
    for place, (name, row) in enumerate(kernels.items()):
        axes.plot(
            [intensity[name]],
            [row["flops_per_s"] / factor],
            linestyle="none",
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=_LEAST_SIZE + _SIZE * row["step_share"] ** 0.5,
            markeredgecolor="white",
            label=f"{name}, {row['arithmetic'].upper()}: {100 * row['step_share']:.1f} % of the time",
            zorder=3,
        )
    _set_scales(axes)
    axes.set_xlim(left, right)
    axes.set_ylim(min(rates) / factor / 3, max(roofs.values()) / factor * 2)
    axes.set_xlabel("arithmetic intensity (FLOP per byte of memory traffic)")
    axes.set_ylabel(f"arithmetic of a GPU ({unit})")


def _set_scales(axes: Axes) -> None:
    """Make both scales logarithmic, with plain numbers at 1, 2 and 5."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(visible=True, which="major", axis="both", alpha=0.3)
    for scale in (axes.xaxis, axes.yaxis):
        scale.set_major_locator(LogLocator(10.0, subs=_STEPS))
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
        scale.set_minor_locator(NullLocator())


def _plot_bars(kernels: Kernels, peaks: Mapping[str, Any], axes: Axes) -> None:
    """Draw what share of the memory's bandwidth each kernel that only moves bytes reaches."""
    percent = [100 * row["bytes_per_s"] / peaks["memory_bytes_per_s"] for row in kernels.values()]
    axes.barh(list(kernels), percent, color=COLOURS[4], height=0.6)
    end = max(100.0, *percent)
    for place, (value, row) in enumerate(zip(percent, kernels.values(), strict=True)):
        text = f"{value:.0f} %; {100 * row['step_share']:.1f} % of the time"
        axes.text(1.03 * end, place, text, fontsize=8, va="center")  # beyond the line of the peak
    axes.invert_yaxis()
    axes.set_xlim(0, 1.95 * end)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.spines["bottom"].set_bounds(0, end)
    axes.axvline(100, color="#444444", linewidth=1.0)
    axes.set_xlabel(f"memory traffic (% of {show_quantity(peaks['memory_bytes_per_s'], 'bytes per second')})")
    axes.grid(visible=False)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title("kernels that only move bytes", fontsize=9)
