"""The picture of a pipeline's schedule over time: a row a rank, a box a phase."""

from collections.abc import Sequence
from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from simulator.drawing_parts import COLOURS, DARK, WIDTH_IN, fits, new_figure, write
from simulator.units import fitting_unit

# Kinds that every schedule may have keep their colours in all pictures; others take those that are left, by name.
_COLOUR_OF_KIND: Final = {
    "forward": COLOURS[0],
    "backward": COLOURS[2],
    "backward-input": COLOURS[4],
    "weight": COLOURS[1],
    "forward-backward": COLOURS[7],
}
_OTHERS: Final = tuple(colour for colour in COLOURS if colour not in _COLOUR_OF_KIND.values())
_BRIGHT: Final = frozenset({COLOURS[1], COLOURS[3], COLOURS[4]})  # those on which white cannot be read
_COLUMNS: Final = ("rank", "kind", "label", "start_s", "end_s")
_ROW_IN: Final = 0.34
_LEFT_IN: Final = 0.9
_RIGHT_IN: Final = 0.2
_BELOW_IN: Final = 0.6
_ABOVE_IN: Final = 0.4  # for the legend
_BOX: Final = 0.84  # of a row's height
_LABEL_POINTS: Final = 7.0


def draw_schedule(rows: pd.DataFrame, title: str = "Schedule", subtitle: str = "") -> Figure:
    """Return the picture of a schedule, planned or run.

    rows: a row a phase: rank (of the pipeline, one line each), kind (colour), label (written into the box where it
    fits), start_s and end_s in seconds. Raises ValueError where there are none, or a column is missing.
    """
    missing = [column for column in _COLUMNS if column not in rows.columns]
    if missing or rows.empty:
        what = f"no column {missing[0]!r}" if missing else "no phase"
        msg = f"the schedule to draw has {what}; it needs a row a phase with {', '.join(_COLUMNS)}"
        raise ValueError(msg)
    ranks = sorted(set(rows["rank"].tolist()))
    unit, factor = fitting_unit(float(rows["end_s"].max()), "time")
    figure = new_figure(title, subtitle, len(ranks) * _ROW_IN + _BELOW_IN + _ABOVE_IN)
    axes = _new_axes(figure, ranks, float(rows["end_s"].max()) / factor, f"time ({unit})")
    colours = _colours(sorted(set(rows["kind"].tolist())))
    place_of_rank = {rank: place for place, rank in enumerate(ranks)}
    for (rank, kind), group in rows.groupby(["rank", "kind"], sort=True):
        starts = (group["start_s"] / factor).tolist()
        widths = ((group["end_s"] - group["start_s"]) / factor).tolist()
        _draw_boxes(axes, place_of_rank[rank], starts, widths, group["label"].tolist(), colours[kind])
    handles = [Patch(facecolor=colour, label=kind) for kind, colour in colours.items()]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(handles),
        frameon=False,
        fontsize=8,
    )
    return figure


def _new_axes(figure: Figure, ranks: Sequence[int], end: float, label: str) -> Axes:
    """Return axes with a line a rank, the first one on top, and time to the right."""
    width_in, height_in = figure.get_size_inches()
    box_in = (_LEFT_IN, _BELOW_IN, WIDTH_IN - _LEFT_IN - _RIGHT_IN, len(ranks) * _ROW_IN)
    left, bottom, width, height = box_in
    axes = figure.add_axes((left / width_in, bottom / height_in, width / width_in, height / height_in))
    axes.set_xlim(0, end or 1.0)
    axes.set_ylim(len(ranks) - 0.5, -0.5)
    axes.set_yticks(range(len(ranks)), [f"rank {rank}" for rank in ranks], fontsize=8)
    axes.set_xlabel(label, fontsize=8)
    axes.tick_params(labelsize=8, length=2)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return axes


def _colours(kinds: Sequence[str]) -> dict[str, str]:
    """Return the colour of each kind, the usual kinds first."""
    others = [kind for kind in kinds if kind not in _COLOUR_OF_KIND]
    usual = {kind: colour for kind, colour in _COLOUR_OF_KIND.items() if kind in kinds}
    return usual | {kind: _OTHERS[number % len(_OTHERS)] for number, kind in enumerate(others)}


def _draw_boxes(
    axes: Axes, place: int, starts: list[float], widths: list[float], labels: list[str], colour: str
) -> None:
    """Draw the phases of one kind on one rank, each with its label if that fits."""
    boxes = list(zip(starts, widths, strict=True))
    axes.broken_barh(boxes, (place - _BOX / 2, _BOX), facecolors=colour, edgecolors="white", linewidth=0.4)
    inch = (WIDTH_IN - _LEFT_IN - _RIGHT_IN) / axes.get_xlim()[1]
    ink = DARK if colour in _BRIGHT else "white"
    for (start, width), label in zip(boxes, labels, strict=True):
        if label and fits(str(label), width * inch, _LABEL_POINTS):
            write(axes, start + width / 2, place, str(label), _LABEL_POINTS, ink)
