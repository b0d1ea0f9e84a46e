"""Results side by side: their breakdowns, and how busy their links are, by kind and one by one."""

import math
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from simulator.comparison import Comparison
from simulator.plots.style import COLOURS, WIDTH_IN, styled
from simulator.units import fitting_unit, show_quantity

# Beside colours, for print: bars that stand next to each other.
_HATCHES: Final = ("", "//", "..", "xx", "\\\\", "++")
# Lines that lie on top of each other: the first is whole, and seen between the dashes of the others.
_DASHES: Final = ("-", (0, (4, 4)), (0, (1, 2)), (0, (6, 2, 1, 2)), (0, (2, 6)), (0, (8, 8)))
_BAR_IN: Final = 0.16
_LEAST_PANEL_IN: Final = 2.4
_CURVES_IN: Final = 2.2
_LEGEND_ROW_IN: Final = 0.22
_MOST_CURVES_A_ROW: Final = 4
_LEAST_PERCENT: Final = 1.0  # of the scale, so that lines of nearly nothing do not look like something
_NAME_CHARACTERS: Final = 60  # names beyond it make the legend one of a column


def draw_comparison(comparison: Comparison) -> Figure:
    """Return the picture of a comparison: breakdowns, utilisation by link kind, and of links, busiest first.

    What no scenario has anything of is left out: link kinds that carry nothing.
    """
    labels = comparison.labels
    parts = comparison.figures[comparison.figures["group"] == "breakdown"]
    used = comparison.kinds.groupby("kind", sort=False)["used"].sum()
    kinds = [str(kind) for kind, links in used.items() if links]
    a_row = len(kinds) if len(kinds) <= _MOST_CURVES_A_ROW else math.ceil(len(kinds) / 2)
    curve_rows = math.ceil(len(kinds) / a_row) if kinds else 0
    heights = [_top_in(parts["figure"].nunique(), len(labels)), *[_CURVES_IN] * curve_rows]
    columns = 1 if max(map(len, labels)) > _NAME_CHARACTERS / 2 else 2
    heights_in = sum(heights) + _LEGEND_ROW_IN * (1 + math.ceil(len(labels) / columns))
    with styled():
        figure = Figure(figsize=(WIDTH_IN, heights_in), layout="constrained")
        _legend(comparison, figure, columns)
        grid = figure.add_gridspec(1 + curve_rows, 2 * max(a_row, 1), height_ratios=heights)
        top = figure.add_subplot(grid[0, : a_row if kinds else None])
        plot_breakdowns(parts, labels, top)
        if kinds:
            plot_kinds_of(comparison.kinds, kinds, labels, figure.add_subplot(grid[0, a_row:]))
        for place, kind in enumerate(kinds):
            row, column = divmod(place, a_row)
            axes = figure.add_subplot(grid[1 + row, 2 * column : 2 * column + 2])
            of_kind = comparison.curves[comparison.curves["kind"] == kind]
            plot_curves(of_kind, labels, axes)
            axes.set_title(f"{kind} links, busiest first", fontsize=9, loc="left")
    return figure


def plot_breakdowns(parts: pd.DataFrame, labels: Sequence[str], axes: Axes) -> Axes:
    """Draw the parts of each step as a bar for each scenario that has them, with the values beside them.

    parts: rows of `Comparison.figures` of the breakdown
    """
    names = list(dict.fromkeys(parts["figure"]))
    unit, factor = fitting_unit(parts["value"].max(), "time")
    values = parts.set_index(["figure", "scenario"])["value"] / factor
    for number, label in enumerate(labels):
        seconds = [values[name, label] for name in names]
        bars = axes.barh(
            _places(len(names), number, len(labels)), seconds, _width(len(labels)), **_look(number)
        )
        texts = ["" if math.isnan(value) else f"{value:.4g}" for value in seconds]
        axes.bar_label(bars, texts, padding=3, fontsize=7)
    axes.set_yticks(range(len(names)), [name.removesuffix("_s") for name in names], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(f"time ({unit})")
    axes.set_xlim(0, values.max() * 1.2 or 1.0)
    axes.grid(visible=False)
    return axes


def plot_kinds_of(kinds: pd.DataFrame, shown: Sequence[str], labels: Sequence[str], axes: Axes) -> Axes:
    """Draw the mean utilisation of each link kind as a bar for each scenario, and its busiest link as a line above.

    kinds: `Comparison.kinds`; shown: of which kinds
    """
    rows = kinds.set_index(["kind", "scenario"])
    for number, label in enumerate(labels):
        places = _places(len(shown), number, len(labels))
        for figure in ("mean_utilisation", "peak_utilisation"):
            percent = [100 * rows[figure].get((kind, label), math.nan) for kind in shown]
            if figure == "mean_utilisation":
                axes.bar(places, percent, _width(len(labels)), **_look(number))
            else:
                half = 0.45 * _width(len(labels))
                axes.hlines(
                    percent,
                    [place - half for place in places],
                    [place + half for place in places],
                    color="black",
                )
    axes.set_xticks(range(len(shown)), shown, fontsize=9, rotation=20 if len(shown) > 4 else 0)
    axes.set_ylabel("utilisation (% of datasheet)", fontsize=9)
    axes.set_ylim(0, 105)
    axes.set_title("bar: mean; line: busiest link", fontsize=9, loc="left")
    return axes


def plot_curves(curves: pd.DataFrame, labels: Sequence[str], axes: Axes) -> Axes:
    """Draw the utilisation of links, busiest first, as a line for each scenario.

    curves: rows of `Comparison.curves` of one link kind
    """
    for number, label in enumerate(labels):
        of_label = curves[curves["scenario"] == label]
        if len(of_label):
            axes.plot(
                100 * of_label["rank_fraction"],
                100 * of_label["utilisation"],
                marker="o" if len(of_label) == 1 else None,
                **_line(number),
            )
    axes.set_xlabel("share of links (%)", fontsize=9)
    axes.set_ylabel("utilisation (%)", fontsize=9)
    axes.set_ylim(0, max(_LEAST_PERCENT, 110 * curves["utilisation"].max()))
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 25, 50, 75, 100])
    return axes


def _legend(comparison: Comparison, figure: Figure, columns: int) -> None:
    """Put the scenarios and their step times below the heading."""
    # a box and a line each, which matplotlib takes though its types do not say so
    handles: Any = [
        (Patch(**_look(number)), Line2D([], [], **_line(number))) for number in range(len(comparison.labels))
    ]
    names = [
        f"{side.label}: {show_quantity(side.summary['step_time_s'], 'time')}" for side in comparison.sides
    ]
    figure.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=9,
        handlelength=5,
        handler_map={tuple: HandlerTuple(ndivide=None)},
    )


def _look(number: int) -> dict[str, Any]:
    """Return how the bars of a scenario look."""
    return {
        "facecolor": COLOURS[number % len(COLOURS)],
        "hatch": _HATCHES[number % len(_HATCHES)],
        "edgecolor": "white",
    }


def _line(number: int) -> dict[str, Any]:
    """Return how the lines of a scenario look."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "linewidth": 1.8,
    }


def _width(count: int) -> float:
    return 0.8 / count


def _places(groups: int, number: int, count: int) -> list[float]:
    """Return where the bars of one of `count` scenarios stand, a group of bars at each whole number."""
    return [group + (number - (count - 1) / 2) * _width(count) for group in range(groups)]


def _top_in(parts: int, count: int) -> float:
    return max(_LEAST_PANEL_IN, _BAR_IN * parts * (count + 1))
