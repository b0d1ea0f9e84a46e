"""Pictures of fat-trees and of other networks in layers: a row for each layer, a panel for each plane."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from simulator.plots.topology_parts import (
    FAINT,
    WIDTH_IN,
    colour_of,
    draw_band,
    draw_box,
    fits,
    new_figure,
    new_panel,
    write,
)
from topologies import ClusterGraph

LAYERS: Final = ("core", "spine", "router", "leaf")
NIC_LINES: Final = "NICs"  # label of what hangs below a switch
PLURALS: Final = {"core": "cores", "spine": "spines", "router": "routers", "leaf": "leaves"}
_ROW_IN: Final = 1.35
_MARGIN_IN: Final = 0.25
_GAP_IN: Final = 0.15
_BOX_IN: Final = 0.34


@dataclass
class Panel:
    """One plane: its layers from the top down.

    switches: layer -> its switches, with their colour; cables: (lower, upper) -> how many;
    nics: switch -> how many NICs hang on it
    cable_colours: (lower, upper) -> colour, of those that do not have their lower switch's, the last drawn on top
    nic_colours: switch -> the colour of each of its NICs' cables, where they are not all alike
    """

    title: str
    colour: str
    switches: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    cables: Counter[tuple[str, str]] = field(default_factory=Counter)
    nics: Counter[str] = field(default_factory=Counter)
    cable_colours: dict[tuple[str, str], str] = field(default_factory=dict)
    nic_colours: dict[str, list[str]] = field(default_factory=dict)

    @property
    def widest(self) -> int:
        """Return the number of switches of the largest layer."""
        return max(map(len, self.switches.values()), default=0)


def draw_layers(panels: list[Panel], title: str, subtitle: str) -> Figure:
    """Return the picture of a small network in layers, with every switch and every cable between switches."""
    layers = [layer for layer in LAYERS if any(layer in panel.switches for panel in panels)]
    columns = _columns(len(panels), max(panel.widest for panel in panels))
    height_in = _ROW_IN * len(layers) + 0.75
    figure, places = _grid(title, subtitle, len(panels), columns, height_in)
    for panel, (left, bottom, width) in zip(panels, places, strict=True):
        _draw_panel(new_panel(figure, left, bottom, width, height_in), panel, layers, width, height_in)
    return figure


def panel_of_plane(graph: ClusterGraph, plane: int) -> Panel:
    """Return one plane of a graph."""
    name = f"plane {plane}" if graph.graph["planes"] > 1 else ""
    panel = Panel(name, colour_of(plane))
    rank = {layer: place for place, layer in enumerate(reversed(LAYERS))}
    layer_of: dict[str, str] = {}
    for vertex, data in graph.nodes.items():
        if data["kind"] == "switch" and data["plane"] == plane:
            layer_of[vertex] = data["layer"]
            tone = data["rail"] if data["rail"] >= 0 else data.get("group", -1)
            colour = panel.colour if tone < 0 else colour_of(tone)
            panel.switches.setdefault(data["layer"], []).append((vertex, colour))
    for one, other, data in graph.edges(data=True):
        if other in layer_of and data["kind"] == "nic":
            panel.nics[other] += 1
        elif one in layer_of and other in layer_of and rank[layer_of[one]] < rank[layer_of[other]]:
            panel.cables[one, other] += 1
    return panel


def _columns(num_panels: int, widest: int) -> int:
    """Return how many panels stand side by side: as many as leave room for the switches of each."""
    room = int((WIDTH_IN - 2 * _MARGIN_IN) / max(1.3, 0.16 * widest))
    return max(1, min(num_panels, room, 8))


def _grid(
    title: str, subtitle: str, num_panels: int, columns: int, height_in: float
) -> tuple[Figure, list[tuple[float, float, float]]]:
    """Return a figure, and the left edge, the bottom edge and the width of each panel."""
    rows = -(-num_panels // columns)
    figure = new_figure(title, subtitle, rows * height_in + 0.1)
    width = (WIDTH_IN - 2 * _MARGIN_IN - (columns - 1) * _GAP_IN) / columns
    places = [
        (
            _MARGIN_IN + number % columns * (width + _GAP_IN),
            (rows - 1 - number // columns) * height_in,
            width,
        )
        for number in range(num_panels)
    ]
    return figure, places


def _draw_panel(axes: Axes, panel: Panel, layers: list[str], width: float, height: float) -> None:
    if panel.title:
        write(axes, width / 2, height - 0.15, panel.title, 9, panel.colour, weight="bold")
    place: dict[str, tuple[float, float]] = {}
    for row, layer in enumerate(layers):
        switches = panel.switches.get(layer, [])
        y = height - 0.8 - row * _ROW_IN
        step = width / max(len(switches), 1)
        box = min(step * 0.82, 0.95)
        for number, (name, colour) in enumerate(switches):
            x = (number + 0.5) * step
            place[name] = (x, y)
            short = name.rpartition("/")[2]
            digits = short.lstrip("abcdefghijklmnopqrstuvwxyz")
            draw_box(axes, x, y, box, _BOX_IN, colour, [name, short, digits], 7)
        if switches:
            noun = PLURALS[layer] if len(switches) > 1 else layer
            ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            write(axes, 0.02, y + 0.29, f"{len(switches)} {noun}", 7, FAINT, ha="left", bbox=ground)
    _draw_cables(axes, panel, place)
    _draw_nics(axes, panel, place, width)


def _draw_cables(axes: Axes, panel: Panel, place: dict[str, tuple[float, float]]) -> None:
    """Draw a line for each pair of switches that cables join, the wider the more there are."""
    crowd = max(0.25, min(0.8, 60 / max(len(panel.cables), 1)))
    colour_of_switch = {name: colour for row in panel.switches.values() for name, colour in row}
    own = panel.cable_colours
    thinnest, thickest = (1.2, 1.8) if own else (0.5, 4.0)
    pairs = [*(pair for pair in panel.cables if pair not in own), *own]
    lines = [
        [(place[one][0], place[one][1] + _BOX_IN / 2), (place[other][0], place[other][1] - _BOX_IN / 2)]
        for one, other in pairs
    ]
    axes.add_collection(
        LineCollection(
            lines,
            colors=[own.get(pair, colour_of_switch[pair[0]]) for pair in pairs],
            linewidths=[min(thinnest + 0.35 * (panel.cables[pair] - 1), thickest) for pair in pairs],
            alpha=1.0 if own else crowd,
            zorder=1,
        )
    )


def _draw_nics(axes: Axes, panel: Panel, place: dict[str, tuple[float, float]], width: float) -> None:
    """Draw what hangs below each switch that holds NICs, and how many there are."""
    holders = [(name, count) for name, count in panel.nics.items() if name in place]
    if not holders:
        return
    step = width / len(holders)
    texts = [f"{count} NICs" for _, count in holders]
    each = all(fits(text, step * 0.95, 7) for text in texts)
    for (name, _), text in zip(holders, texts, strict=True):
        x, y = place[name]
        colours, reach, width_pt = [FAINT] * 3, 0.06 * min(1.0, step / 0.3), 0.7
        if name in panel.nic_colours:
            colours, width_pt = panel.nic_colours[name], 1.2
            reach = min(0.42 * step, 0.03 * (len(colours) - 1))
        offsets = np.linspace(-reach, reach, len(colours))
        lines = [[(x + offset * 0.5, y - 0.17), (x + offset, y - 0.34)] for offset in offsets]
        axes.add_collection(LineCollection(lines, colors=colours, linewidths=width_pt, label=NIC_LINES))
        if each:
            write(axes, x, y - 0.44, text, 7, FAINT)
    if not each:
        lowest = min(place[name][1] for name, _ in holders)
        counts = sorted({count for _, count in holders})
        spread = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        write(axes, width / 2, lowest - 0.44, f"{sum(panel.nics.values()):,} NICs, {spread} each", 7, FAINT)


@dataclass(frozen=True)
class Summary:
    """A large plane in words: its layers from the top down, NICs last, and the cables between each and the next.

    band_colours: of the bands of cables, where they do not have the plane's
    """

    title: str
    colour: str
    rows: tuple[str, ...]
    bands: tuple[str, ...]
    band_colours: tuple[str, ...] = ()


def draw_summaries(summaries: list[Summary], title: str, subtitle: str) -> Figure:
    """Return the picture of a large network: a panel for each plane, a box for each layer."""
    columns = min(len(summaries), 8)
    height_in = 1.1 * len(summaries[0].rows) + 0.35
    figure, places = _grid(title, subtitle, len(summaries), columns, height_in)
    for summary, (left, bottom, width) in zip(summaries, places, strict=True):
        axes = new_panel(figure, left, bottom, width, height_in)
        if summary.title:
            write(axes, width / 2, height_in - 0.15, summary.title, 9, summary.colour, weight="bold")
        box = min(width * 0.94, 5.0)
        _draw_stack(axes, width / 2, height_in - 0.55, box, 1.1, summary)
    return figure


def _draw_stack(axes: Axes, x: float, top: float, width: float, step: float, summary: Summary) -> None:
    """Draw the layers of a summary as boxes, one below the other, with bands of cables between them."""
    last = len(summary.rows) - 1
    for row, text in enumerate(summary.rows):
        y = top - row * step
        if row < last:
            draw_box(axes, x, y, width, 0.42, summary.colour, [text], 8)
            below = (x, y - step + (0.21 if row + 1 < last else 0.12), width)
            above = (x, y - 0.21, width)
            if summary.band_colours:
                draw_band(axes, below, above, summary.band_colours[row], summary.bands[row], 7, opaque=True)
            else:
                draw_band(axes, below, above, summary.colour, summary.bands[row], 7.5)
        else:
            write(axes, x, y, text, 8)


def draw_pods(cores: str, pods: int, pod: Summary, cables: str, title: str, subtitle: str) -> Figure:
    """Return the picture of a large three-layer tree: cores above, and of the pods three and an ellipsis."""
    height_in, width = 4.9, WIDTH_IN - 2 * _MARGIN_IN
    figure = new_figure(title, subtitle, height_in)
    axes = new_panel(figure, _MARGIN_IN, 0, width, height_in)
    colour = colour_of(2)
    draw_box(axes, width / 2, height_in - 0.4, width * 0.6, 0.42, colour, [cores], 9)
    shown = list(range(pods)) if pods <= 4 else [0, 1, pods - 1]
    slots = len(shown) + (pods > 4)
    step = width / slots
    for slot, number in enumerate(shown):
        place = slot + (1 if pods > 4 and number == pods - 1 else 0)
        x, box = (place + 0.5) * step, min(step * 0.78, 2.6)
        part = width * 0.6 / slots
        above = (width / 2 + (place - (slots - 1) / 2) * part, height_in - 0.61, part * 0.9)
        draw_band(axes, (x, 3.01, box), above, colour, cables, 7.5)
        write(axes, x, 0.15, f"pod {number}", 9, colour_of(0), weight="bold")
        _draw_stack(axes, x, 2.8, box, 1.1, pod)
    if pods > 4:
        write(axes, 2.5 * step, 1.7, f"...\n{pods:,} pods in all", 10)
    return figure


def summary_of_panel(panel: Panel) -> Summary:
    """Return a plane of a graph in words."""
    layers = [layer for layer in LAYERS if layer in panel.switches]
    layer_of: dict[str, Any] = {name: layer for layer in layers for name, _ in panel.switches[layer]}
    rows = tuple(f"{len(panel.switches[layer]):,} {PLURALS[layer]}" for layer in layers)
    between: Counter[tuple[str, str]] = Counter()
    for (one, other), count in panel.cables.items():
        between[layer_of[other], layer_of[one]] += count
    bands = [f"{between[pair]:,} cables" for pair in pairwise(layers)]
    nics = f"{sum(panel.nics.values()):,}"
    return Summary(panel.title, panel.colour, (*rows, f"{nics} NICs"), (*bands, f"{nics} cables"))
