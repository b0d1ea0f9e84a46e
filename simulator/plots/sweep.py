"""Curves of a sweep: a metric over one swept field, a line for each value of the others, and memory below."""

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator
from matplotlib.transforms import offset_copy

from simulator.metric_units import dimension_of, is_share
from simulator.plots.style import COLOURS, DASHES, MARKERS, new_figure, styled
from simulator.units import fitting_unit

MEMORY: Final = "memory_bytes_per_gpu"
LIMIT: Final = "gpu_memory_bytes"
_TOP_IN: Final = 3.4
_MEMORY_IN: Final = 2.0
_TEXT_ROW_IN: Final = 0.2  # of legends and names
_ROOM: Final = 1.12  # above the highest point
_CHARACTERS: Final = 120  # that the width has room for
_LEAST_CHARACTERS: Final = 8  # of a name's line
_FEW: Final = 4  # curves, named one below the other
_CROSS_PT: Final = 6.0
_ENDS: Final = 0.06  # of the width, left free


class Curve(NamedTuple):
    """The points of one line: label, places on the x axis, and the rows of the table."""

    label: str
    places: list[float]
    rows: pd.DataFrame


class _Axis(NamedTuple):
    """The swept field on the x axis: the place of each value, their names (none: they would touch), whether log2."""

    place_of: dict[Any, float]
    names: list[str]
    is_log: bool


def draw_sweep(
    table: pd.DataFrame, x: str, y: str = "step_time_s", series: Sequence[str] | None = None
) -> Figure:
    """Return the curves of a sweep.

    table: a row a point, as `simulator.sweeps` has it; x: the swept path to the right; y: the column upwards; series:
    other swept paths, of whose values each combination has a line (None: all that the table has). Points that did not
    run are crosses on the axis. Where the table has `memory_bytes_per_gpu`, it is drawn below, with the GPU's memory
    as the limit. Raises ValueError for a column that the table lacks, or that has no numbers to draw.
    """
    others = _checked(table, x, y, series)
    axis = _axis_of(table[x])
    curves = list(_curves(table, x, others, axis))
    title = ", ".join(others) if others and len(curves) > 1 else ""
    has_memory = y != MEMORY and MEMORY in table.columns and bool(table[MEMORY].notna().any())
    heights = [_TOP_IN, _MEMORY_IN] if has_memory else [_TOP_IN]
    legend_rows = -(-len(curves) // _columns(curves)) + 2 if title else 1
    names_rows = max((name.count("\n") for name in axis.names), default=0)
    with styled():
        height_in = sum(heights) + _TEXT_ROW_IN * (legend_rows + names_rows) + 0.4
        figure = new_figure(f"{y} over {x}", "", height_in)
        grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
        panels = [figure.add_subplot(grid[place, 0]) for place in range(len(heights))]
        for panel, name in zip(panels, (y, MEMORY), strict=False):
            _draw_curves(panel, curves, name)
            _set_x(panel, axis)
        if axis.names:
            panels[-1].set_xticklabels(axis.names, fontsize=8)
        panels[-1].set_xlabel(x)
        if has_memory or y == MEMORY:
            _draw_limit(panels[-1], table)
        _add_legend(panels[0], curves, title)
    return figure


def _checked(table: pd.DataFrame, x: str, y: str, series: Sequence[str] | None) -> list[str]:
    """Return the swept paths of whose values each combination has a line; ValueError where nothing can be drawn."""
    swept = swept_paths(table)
    others = [path for path in swept if path != x] if series is None else list(series)
    for name in (x, y, *others):
        if name not in table.columns:
            msg = f"the table has no column {name!r}; swept are {', '.join(swept) or 'no fields'}"
            raise ValueError(msg)
    if not pd.api.types.is_numeric_dtype(table[y]):
        msg = f"column {y!r} holds no numbers; draw a metric, such as step_time_s"
        raise ValueError(msg)
    if table[y].isna().all():
        msg = f"there is nothing to draw: no point has a value of {y!r}"
        raise ValueError(msg)
    return others


def swept_paths(table: pd.DataFrame) -> list[str]:
    """Return the swept paths of a table: the columns between `point` and `step_time_s`."""
    columns = list(table.columns)
    return columns[columns.index("point") + 1 : columns.index("step_time_s")]


def short_label(value: object) -> str:
    """Return a value as people read it: `{kind: multi-plane, planes: 8}` as `multi-plane, planes 8`."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, float, np.number)):
        return f"{value:g}" if abs(float(value)) < 1e6 else f"{value:.4g}"
    text = re.sub(r"\bkind:\s*", "", str(value))
    return re.sub(r"\s+", " ", re.sub(r"[{}\"']", "", text).replace(":", "")).strip()


def _axis_of(values: pd.Series) -> _Axis:
    """Return the x axis: numbers at their places, log2 where all are powers of two; other values side by side."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        numbers = sorted({float(value) for value in values})
        logs = np.log2([number for number in numbers if number > 0])
        is_log = len(logs) == len(numbers) > 2 and bool((logs == np.round(logs)).all())
        scaled = logs if is_log else np.array(numbers)
        names = [short_label(number) for number in numbers]
        room = _CHARACTERS * np.diff(scaled) / max(np.ptp(scaled), np.finfo(float).tiny)
        touch = len(room) > 0 and room.min() < max(map(len, names)) + 1
        return _Axis({number: number for number in numbers}, [] if touch else names, is_log)
    distinct = list(dict.fromkeys(values.tolist()))
    places = {value: float(place) for place, value in enumerate(distinct)}
    room = max(_LEAST_CHARACTERS, _CHARACTERS // len(distinct))
    names = [textwrap.fill(short_label(value), room, break_long_words=False) for value in distinct]
    return _Axis(places, names, is_log=False)


def _curves(table: pd.DataFrame, x: str, others: list[str], axis: _Axis) -> Iterator[Curve]:
    """Yield a curve for each combination of the other fields, in the order of the table."""
    groups = table.groupby(others, sort=False, dropna=False) if others else [((), table)]
    for key, rows in groups:
        placed = rows.assign(place=[axis.place_of[value] for value in rows[x].tolist()]).sort_values(
            "place", kind="stable"
        )
        label = ", ".join(short_label(value) for value in key)
        yield Curve(label, placed["place"].tolist(), placed)


def _draw_curves(axes: Axes, curves: list[Curve], name: str) -> None:
    """Draw a column of each curve, with gaps and crosses for points that did not run, a curve's above another's."""
    unit, scale = _unit(name, _largest(name, curves))
    figure = axes.get_figure(root=True)
    assert figure is not None
    for number, curve in enumerate(curves):
        values = np.array([scale(value) for value in curve.rows[name].tolist()], np.float64)
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot(
            curve.places,
            values,
            color=colour,
            linestyle=DASHES[number % len(DASHES)],
            marker=marker,
            markersize=5,
            label=curve.label or name,
        )
        failed = [place for place, value in zip(curve.places, values, strict=True) if np.isnan(value)]
        on_axis = offset_copy(axes.get_xaxis_transform(), figure, y=_CROSS_PT * (1 + number), units="points")
        axes.plot(failed, [0.0] * len(failed), "x", color=colour, markersize=6, mew=1.6, transform=on_axis)
    axes.set_ylim(0, scale(_largest(name, curves)) * _ROOM or 1.0)
    axes.set_ylabel(name + (f"\n({unit})" if unit else ""), fontsize=9)


def _largest(name: str, curves: list[Curve]) -> float:
    return float(max(curve.rows[name].max() for curve in curves if curve.rows[name].notna().any()))


def _unit(name: str, largest: float) -> tuple[str, Callable[[float], float]]:
    """Return the unit in which a column is drawn, and what turns its values into it."""
    dimension = dimension_of(name)
    if dimension:
        unit, factor = fitting_unit(largest, dimension)
        return unit, lambda value: value / factor
    return ("%", lambda value: 100 * value) if is_share(name) else ("", lambda value: value)


def _set_x(axes: Axes, axis: _Axis) -> None:
    """Give the x axis its scale, a little room at its ends and, where names do not touch, a mark for each value."""
    places = np.array(list(axis.place_of.values()))
    scaled = np.log2(places) if axis.is_log else places
    room = _ENDS * float(np.ptp(scaled) or 1.0)
    ends = np.array([scaled.min() - room, scaled.max() + room])
    if axis.is_log:
        axes.set_xscale("log", base=2)
    axes.set_xlim(*(2.0**ends if axis.is_log else ends).tolist())
    if axis.names:
        axes.set_xticks(places, [""] * len(places))
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_label(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def _draw_limit(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the GPU's memory: a line for each size where GPUs differ."""
    if LIMIT not in table.columns or table[LIMIT].isna().all():
        return
    unit, factor = fitting_unit(float(table[MEMORY].max()), "bytes")
    limits = sorted({float(value) for value in table[LIMIT].dropna()})
    top = max(axes.get_ylim()[1], limits[-1] / factor * _ROOM)
    for limit in limits:
        axes.axhline(limit / factor, color="#444444", linestyle="--", linewidth=1.2)
        axes.annotate(
            f"memory of the GPU: {limit / factor:.4g} {unit}",
            (0.01, limit / factor),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            fontsize=8,
            color="#444444",
        )
    axes.set_ylim(0, top)


def _columns(curves: Sequence[Curve]) -> int:
    """Return in how many columns the legend names the curves."""
    longest = max(len(curve.label) for curve in curves)
    return max(1, min(3, len(curves) // _FEW, _CHARACTERS // max(longest, 1)))


def _add_legend(axes: Axes, curves: Sequence[Curve], title: str) -> None:
    """Put the legend above the panels: a line a curve, and what a cross is where there is one."""
    handles, labels = axes.get_legend_handles_labels() if title else ([], [])
    if any(line.get_marker() == "x" and np.size(line.get_xdata()) for line in axes.lines):
        handles = [
            *handles,
            Line2D([], [], color="#444444", marker="x", linestyle="none", markersize=6, mew=1.6),
        ]
        labels = [*labels, "did not run"]
    if handles:
        axes.legend(
            handles,
            labels,
            title=title or None,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=_columns(curves),
            frameon=False,
            fontsize=8,
            title_fontsize=8,
            alignment="left",
        )
