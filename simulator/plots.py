"""Pictures of a result's tables. Plots take tables and return axes; they never compute results."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulator.computing import FloatArray, computing_shares
from simulator.result import Result
from simulator.units import fitting_unit

# Okabe and Ito's palette, told apart by the colour-blind and, by lightness, in print.
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
# Kinds that carry the same bytes lie on top of each other: dashes let both be seen.
_DASHES: Final = ("-", "-", "-", (0, (4, 4)), "-", "-.")
_TIME_BINS: Final = 400
_MOST_NAMES: Final = 16  # of lines, beside a picture of many
_ROW_IN: Final = 3.05
_HEAD_IN: Final = 0.5
_STYLE: Final[dict[str, Any]] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "font.size": 10,
}


def plot_breakdown(breakdown_s: dict[str, float], axes: Axes) -> Axes:
    """Draw the parts of a step as one bar each, with the values beside them."""
    unit, factor = fitting_unit(max(breakdown_s.values(), default=0.0), "time")
    values = [seconds / factor for seconds in breakdown_s.values()]
    bars = axes.barh(list(breakdown_s), values, color=_COLOURS[0], height=0.6)
    axes.bar_label(bars, fmt="{:.4g}", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel(f"time ({unit})")
    axes.set_xlim(0, max(values, default=0.0) * 1.2 or 1.0)
    axes.grid(visible=False)
    return axes


def plot_kinds(kinds: dict[str, dict[str, float]], axes: Axes) -> Axes:
    """Draw the mean and the peak utilisation of each link kind as bars, in percent of the datasheet capacity."""
    names = list(kinds)
    for offset, (key, label) in enumerate(
        (("mean_utilisation", "mean"), ("peak_utilisation", "busiest link"))
    ):
        places = [place + (offset - 0.5) * 0.4 for place in range(len(names))]
        heights = [100 * kinds[name][key] for name in names]
        bars = axes.bar(places, heights, 0.38, label=label, color=_COLOURS[offset])
        axes.bar_label(bars, fmt="{:.0f}", padding=2, fontsize=8)
    axes.set_xticks(range(len(names)), names, fontsize=9)
    axes.set_ylabel("utilisation (% of datasheet)")
    axes.set_ylim(0, 105)
    _legend_above(axes)
    return axes


def plot_over_time(link_timeline: pd.DataFrame, links: pd.DataFrame, step_time_s: float, axes: Axes) -> Axes:
    """Draw the mean utilisation of each link kind over time, in percent of the datasheet capacity of all links."""
    unit, factor = fitting_unit(step_time_s, "time")
    kind_of_link = links.set_index("link")["kind"]
    capacity = links.groupby("kind", sort=False)["capacity_bytes_per_s"].sum()
    sums = link_timeline.groupby([link_timeline["link"].map(kind_of_link), "start_s", "end_s"], sort=False)[
        "bytes"
    ].sum()
    for place, kind in enumerate(capacity.index):
        if kind in sums.index.get_level_values(0):
            rows = sums.loc[kind].sort_index().reset_index()
            # The last bin reaches past the step: its bytes moved in the part within it.
            seconds = rows["end_s"].clip(upper=step_time_s) - rows["start_s"]
            percent = 100 * rows["bytes"] / (seconds * capacity[kind])
            edges = [*(rows["start_s"] / factor), min(rows["end_s"].iloc[-1], step_time_s) / factor]
            stairs = axes.stairs(
                percent, edges, label=kind, color=_COLOURS[place % len(_COLOURS)], linewidth=1.6
            )
            stairs.set_linestyle(_DASHES[place % len(_DASHES)])
    axes.set_xlabel(f"time ({unit})")
    axes.set_ylabel("mean utilisation (%)")
    axes.set_xlim(0, step_time_s / factor or 1.0)
    axes.set_ylim(0, 105)
    _legend_above(axes)
    return axes


def _legend_above(axes: Axes) -> None:
    """Put the legend in one row above the axes, where it hides nothing."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=8, borderaxespad=0.1)


def plot_computing(shares: FloatArray, step_time_s: float, axes: Axes) -> Axes:
    """Draw how much each pipeline rank computes over time, darker for more.

    shares: [num_pipeline_ranks, num_bins] of each bin, as `simulator.computing` has them
    """
    unit, factor = fitting_unit(step_time_s, "time")
    num_ranks = len(shares)
    image = axes.imshow(
        100 * shares,
        cmap="Blues",
        vmin=0,
        vmax=100,
        aspect="auto",
        interpolation="nearest",
        extent=(0, step_time_s / factor or 1.0, num_ranks - 0.5, -0.5),
    )
    axes.set_yticks(range(0, num_ranks, -(-num_ranks // _MOST_NAMES)))
    axes.set_ylabel("pipeline rank")
    axes.set_xlabel(f"time ({unit})")
    axes.grid(visible=False)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.colorbar(image, ax=axes, label="GPU computes (% of the time)", pad=0.01)
    return axes


def draw_overview(result: Result) -> Figure:
    """Return the picture of a run: its breakdown, utilisation by link kind and over time, and when GPUs compute.

    What the run has nothing of is left out: links that carry nothing, pipeline ranks.
    """
    summary = result.summary
    moves_bytes = bool(result.links["bytes"].any())
    shares = computing_shares(result.tasks, result.phases, result.step_time_s, _TIME_BINS)
    below = [name for name, shown in (("links", moves_bytes), ("computing", bool(shares.any()))) if shown]
    with mpl.rc_context(rc=_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(10, _HEAD_IN + _ROW_IN * (1 + len(below))), layout="constrained")
        figure.suptitle(f"{summary['scenario']}\n{summary['question']}", fontsize=10)
        grid = figure.add_gridspec(1 + len(below), 2)
        plot_breakdown(summary["breakdown_s"], figure.add_subplot(grid[0, 0] if moves_bytes else grid[0, :]))
        if moves_bytes:
            plot_kinds(summary["links"], figure.add_subplot(grid[0, 1]))
        for place, panel in enumerate(below, start=1):
            axes = figure.add_subplot(grid[place, :])
            if panel == "links":
                plot_over_time(result.link_timeline, result.links, result.step_time_s, axes)
            else:
                plot_computing(shares, result.step_time_s, axes)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, by the path's suffix, with nothing in it that changes from run to run."""
    with mpl.rc_context({"svg.hashsalt": "railplane"}):
        metadata = {"Software": None} if path.suffix == ".png" else {"Date": None, "Creator": None}
        figure.savefig(path, dpi=150, metadata=metadata)
