"""The picture of a pipeline's schedule over time, as the papers draw it: a line a pipeline rank, a box a phase.

Colours are those of DualPipe's figure (arXiv 2412.19437, figure 5); an overlapped pair has its forward above its
backward. Numbers are micro-batches. A rank's second stage is paler: the other direction in DualPipe.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from simulator.pipeline_ranks import Stage, first_of_each, pipeline_rank_of, stages_of_ranks
from simulator.plots.topology_parts import CHARACTER_IN, COLOURS, DARK, FAINT, WIDTH_IN, new_figure
from simulator.units import fitting_unit

if TYPE_CHECKING:
    from matplotlib.path import Path

_PAIR: Final = "forward-backward"
# Kinds that every schedule may have keep their colours in all pictures; others take those that are left, by name.
_COLOUR_OF_KIND: Final = {
    "forward": COLOURS[1],
    "backward": COLOURS[2],
    "backward-input": COLOURS[4],
    "weight": COLOURS[0],
    "reduce-gradients": COLOURS[3],
    "optimizer": COLOURS[6],
    "gather-weights": COLOURS[7],
}
_OTHERS: Final = tuple(colour for colour in COLOURS if colour not in _COLOUR_OF_KIND.values())
_WHITEN: Final = (0.0, 0.5, 0.3, 0.7)  # of the first, second, ... stage of a rank; further ones begin again
_DARK_BELOW: Final = 0.36  # lightness from which dark letters are read better than white ones
_MOST_WIDTH_IN: Final = 30.0
_ROW_IN: Final = 0.34
_ROWS_IN: Final = 24.0  # all lines together: of many ranks, each gets less
_LEFT_IN: Final = 0.8
_RIGHT_IN: Final = 0.2
_BELOW_IN: Final = 0.6
_ABOVE_IN: Final = 0.4  # for the legend
_BOX: Final = 0.86  # of a row's height
_SIZES: Final = (7.0, 6.0, 5.0)  # points of numbers; the largest that fits most boxes
_MOST: Final = 0.8  # that is this share of them
_ROUNDING: Final = 1e-9
_MOST_SHAPES: Final = 3_000  # boxes beyond which all are pixels, also in SVG, which would take many megabytes


class _Box(NamedTuple):
    """Part of a phase as drawn: its line, from where to where, its edges within the line, colour and number."""

    line: int
    start: float
    end: float
    top: float
    bottom: float
    colour: str
    label: str


def draw_schedule(phases: pd.DataFrame, title: str = "Schedule", subtitle: str = "") -> Figure:
    """Return the picture of a schedule, planned or run; of the ranks with the same stages the first is drawn.

    phases: a row a phase, as `simulator.result.phases_table` has it. Raises ValueError where no phase has a stage.
    """
    timed = phases[phases["end_s"].notna()]
    pipeline_ranks = pipeline_rank_of(timed)
    if not pipeline_ranks:
        msg = "there is no schedule to draw: no phase has a stage"
        raise ValueError(msg)
    drawn = first_of_each(pipeline_ranks)
    shown = timed[timed["rank"].isin(drawn)]
    stages = {rank: held for rank, held in stages_of_ranks(shown).items() if rank in drawn}
    end_s = float(shown["end_s"].max())
    unit, factor = fitting_unit(end_s, "time")
    colours = _colours(sorted(set(shown["kind"].tolist())))
    boxes = list(_boxes(shown, stages, colours, factor))

    row_in = min(_ROW_IN, _ROWS_IN / len(drawn))
    figure = new_figure(title, subtitle, len(drawn) * row_in + _BELOW_IN + _ABOVE_IN)
    size, width_in = _sizes(boxes, end_s / factor)
    figure.set_size_inches(width_in, figure.get_size_inches()[1])
    axes = _new_axes(figure, len(drawn), row_in, end_s / factor, f"time ({unit})")
    _draw_boxes(axes, boxes, size, row_in, (width_in - _LEFT_IN - _RIGHT_IN) / (end_s / factor or 1.0))
    _add_legend(axes, colours, set(shown["kind"].tolist()), stages.values())
    return figure


def _colours(kinds: Iterable[str]) -> dict[str, str]:
    """Return the colour of each kind that has one of its own: an overlapped pair has those of its halves."""
    kinds = list(kinds)
    parts = {"forward", "backward"} if _PAIR in kinds else set()
    usual = {kind: colour for kind, colour in _COLOUR_OF_KIND.items() if kind in kinds or kind in parts}
    others = [kind for kind in kinds if kind not in _COLOUR_OF_KIND and kind != _PAIR]
    return usual | {kind: _OTHERS[number % len(_OTHERS)] for number, kind in enumerate(others)}


def _pale(colour: str, place: int) -> str:
    """Return a colour as it is for the first, second, ... stage of a rank."""
    whiten = _WHITEN[place % len(_WHITEN)]
    red, green, blue = (part + (1 - part) * whiten for part in to_rgb(colour))
    return to_hex((red, green, blue))


def _boxes(
    phases: pd.DataFrame, stages: dict[int, tuple[Stage, ...]], colours: dict[str, str], factor: float
) -> Iterable[_Box]:
    """Yield the boxes of all phases, times in units of `factor` seconds."""
    line_of_rank = {rank: line for line, rank in enumerate(stages)}
    for row in phases.itertuples():
        held, line = stages[row.rank], line_of_rank[row.rank]
        span = row.start_s / factor, row.end_s / factor
        forward = (row.forward_pipeline, row.forward_stage, row.forward_micro_batch)
        backward = (row.backward_pipeline, row.backward_stage, row.backward_micro_batch)
        if row.kind == _PAIR:
            for kind, cell, edges in (
                ("forward", forward, (-_BOX / 2, 0.0)),
                ("backward", backward, (0.0, _BOX / 2)),
            ):
                colour = _pale(colours[kind], held.index(cell[:2]))
                yield _Box(line, *span, *edges, colour, str(cell[2]))
            continue
        cell = forward if forward[1] >= 0 else backward
        colour, label = colours[row.kind], ""
        if cell[1] >= 0:
            colour, label = _pale(colour, held.index(cell[:2])), str(cell[2])
        yield _Box(line, *span, -_BOX / 2, _BOX / 2, colour, label)


def _sizes(boxes: list[_Box], end: float) -> tuple[float, float]:
    """Return the size of numbers in points and the width of the picture, with which most numbers fit."""
    margins_in = _LEFT_IN + _RIGHT_IN
    numbered = [box for box in boxes if box.label and box.end > box.start]
    needed = [_width_in(box.label, 1.0) / (box.end - box.start) for box in numbered]
    inch_a_point = float(np.quantile(needed, _MOST)) * end * (1 + _ROUNDING) if needed else 0.0
    for size in _SIZES:
        if inch_a_point * size <= WIDTH_IN - margins_in:
            return size, WIDTH_IN
    return _SIZES[-1], min(_MOST_WIDTH_IN, inch_a_point * _SIZES[-1] + margins_in)


def _width_in(label: str, size: float) -> float:
    """Return the width that a number of that size, in points, asks for, with some room beside it."""
    return (len(label) + 0.6) * CHARACTER_IN * size


def _new_axes(figure: Figure, num_lines: int, row_in: float, end: float, label: str) -> Axes:
    """Return axes with a line a pipeline rank, the first one on top, and time to the right."""
    width_in, height_in = figure.get_size_inches()
    box_in = (_LEFT_IN, _BELOW_IN, width_in - _LEFT_IN - _RIGHT_IN, num_lines * row_in)
    left, bottom, width, height = box_in
    axes = figure.add_axes((left / width_in, bottom / height_in, width / width_in, height / height_in))
    axes.set_xlim(0, end or 1.0)
    axes.set_ylim(num_lines - 0.5, -0.5)
    step = -(-num_lines // int(_ROWS_IN / 0.14))  # as many names as there is room for
    lines = range(0, num_lines, step)
    axes.set_yticks(lines, [f"rank {line}" for line in lines], fontsize=8)
    axes.set_xlabel(label, fontsize=8)
    axes.tick_params(labelsize=8, length=2)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return axes


def _draw_boxes(axes: Axes, boxes: list[_Box], size: float, row_in: float, inch: float) -> None:
    """Draw boxes, each with its number if that fits; inch: of a unit of time."""
    alike: dict[tuple[int, float, float, str], list[tuple[float, float]]] = {}
    numbered: dict[str, list[_Box]] = {}
    dense = len(boxes) > _MOST_SHAPES
    for box in boxes:
        key = (box.line, box.top, box.bottom, box.colour)
        alike.setdefault(key, []).append((box.start, box.end - box.start))
        high_enough = (box.bottom - box.top) * row_in * 72 >= size
        if box.label and high_enough and _width_in(box.label, size) <= (box.end - box.start) * inch:
            ink = DARK if _lightness(box.colour) > _DARK_BELOW else "white"
            numbered.setdefault(ink, []).append(box)
    for (line, top, bottom, colour), spans in alike.items():
        axes.broken_barh(
            spans,
            (line + top, bottom - top),
            facecolors=colour,
            edgecolors="white",
            linewidth=0.3,
            rasterized=dense,
        )
    for ink, those in numbered.items():
        _write_numbers(axes, those, size, ink).set_rasterized(dense)


def _write_numbers(axes: Axes, boxes: list[_Box], size: float, ink: str) -> PathCollection:
    """Write the numbers of boxes and return them, all as one: thousands of texts would take many seconds."""
    shapes: dict[str, Path] = {}
    for label in dict.fromkeys(box.label for box in boxes):
        shape = TextPath((0, 0), label, size=size)
        extents = shape.get_extents()
        centre = (extents.x0 + extents.x1) / 2, (extents.y0 + extents.y1) / 2
        shapes[label] = Affine2D().translate(-centre[0], -centre[1]).transform_path(shape)
    middles = [((box.start + box.end) / 2, box.line + (box.top + box.bottom) / 2) for box in boxes]
    numbers = PathCollection(
        [shapes[box.label] for box in boxes],
        offsets=middles,
        offset_transform=axes.transData,
        facecolors=ink,
        linewidths=0,
        zorder=5,
    )
    figure = axes.get_figure(root=True)
    assert figure is not None
    numbers.set_transform(Affine2D().scale(1 / 72) + figure.dpi_scale_trans)
    axes.add_collection(numbers, autolim=False)
    return numbers


def _lightness(colour: str) -> float:
    """Return the relative luminance of a colour, 0 to 1 (WCAG 2.1)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def _add_legend(
    axes: Axes, colours: dict[str, str], kinds: set[str], stages: Iterable[tuple[Stage, ...]]
) -> None:
    """Put the legend above the axes: kinds, what is pale, and that white is idle."""
    handles: list[Patch | tuple[Patch, ...]] = [
        Patch(facecolor=colours[kind]) for kind in colours if kind in kinds
    ]
    labels = [kind for kind in colours if kind in kinds]
    if _PAIR in kinds:
        handles.append((Patch(facecolor=colours["forward"]), Patch(facecolor=colours["backward"])))
        labels.append("overlapped pair")
    held = list(stages)
    most = max(map(len, held))
    if most > 1:
        handles.append(
            tuple(Patch(facecolor=_pale(FAINT, place)) for place in range(min(most, len(_WHITEN))))
        )
        directions = len({pipeline for those in held for pipeline, _ in those}) > 1
        labels.append("either direction" if directions else "stages of a rank")
    handles.append(Patch(facecolor="white", edgecolor=FAINT, linewidth=0.6))
    labels.append("idle")
    axes.legend(
        handles,
        labels,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.0)},
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        columnspacing=1.2,
        handlelength=2.0,
    )
