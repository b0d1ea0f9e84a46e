"""The network with its cables coloured by how busy they were over the step.

Small networks are drawn whole, large ones by groups: a band for all cables between two layers of a plane, a line for
all between two groups of routers.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Final, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from simulator.link_groups import NETWORK_KINDS, place_of, switch_layers
from simulator.plots.colour_bar import add_load_scale, colour_of_load
from simulator.plots.router_load import draw_router_load
from simulator.plots.topology_layers import (
    LAYERS,
    Panel,
    Summary,
    draw_layers,
    draw_summaries,
    summary_of_panel,
)
from simulator.plots.topology_parts import DARK, WIDTH_IN
from simulator.result import Result

# More than these are not told apart on a page, as in `simulator.plots.topology`.
_MOST_SWITCHES: Final = 144
_MOST_IN_A_ROW: Final = 40
_MOST_PANELS: Final = 16
_BOX: Final = "#666666"  # of switches: colours are for loads
_UP: Final = {layer: place for place, layer in enumerate(("NIC", *reversed(LAYERS)))}


class _Cables(NamedTuple):
    """The cables between two layers of a plane, one way: their utilisation each."""

    mean: float
    busiest: float

    def text(self) -> str:
        return f"{100 * self.mean:.0f} %, at most {100 * self.busiest:.0f} %"


def draw_network_load(result: Result) -> Figure:
    """Return the picture of the network of a run, coloured by the utilisation of its links.

    Raises ValueError where no link between nodes carried anything.
    """
    links = result.links[result.links["kind"].isin(NETWORK_KINDS)]
    if not links["bytes"].any():
        msg = "there is no network to draw: no link between nodes carried anything"
        raise ValueError(msg)
    layers = switch_layers(links)
    title = f"{result.summary['scenario']}: how busy links were over the step"
    if "router" in layers.values():
        return draw_router_load(links, title)
    frames = [rows for _, rows in links.groupby("plane")]
    panels = [_panel(rows, layers) for rows in frames]
    if len(panels) > 1:
        for panel, rows in zip(panels, frames, strict=True):
            panel.title = f"plane {rows['plane'].iloc[0]}"
    small = len(layers) <= _MOST_SWITCHES and len(panels) <= _MOST_PANELS
    if small and max(panel.widest for panel in panels) <= _MOST_IN_A_ROW:
        subtitle = (
            "A line is all cables between two switches, coloured by the busiest of them, either way; below a "
            "leaf those of its NICs. Grey: nothing crossed"
        )
        figure = draw_layers(panels, title, subtitle)
    else:
        shown = frames[:_MOST_PANELS]
        some = f". The first {len(shown)} of {len(frames)} planes" if len(shown) < len(frames) else ""
        subtitle = (
            f"A band is all cables between two layers, coloured by the mean of its busier direction{some}"
        )
        summaries = [_summary(panel, rows, layers) for panel, rows in zip(panels, shown, strict=False)]
        figure = draw_summaries(summaries, title, subtitle)
    add_load_scale(figure, WIDTH_IN / 2 - 2, 0.45, 4)
    return figure


def _panel(links: pd.DataFrame, layers: dict[str, str]) -> Panel:
    """Return a plane with the colours of its loads; links: those of the plane."""
    panel = Panel("", DARK)
    ends = dict.fromkeys(end for pair in zip(links["source"], links["target"], strict=True) for end in pair)
    for name, layer in layers.items():
        if name in ends:
            panel.switches.setdefault(layer, []).append((name, _BOX))
    busiest: dict[tuple[str, str], float] = {}
    nics: dict[tuple[str, str, int], float] = {}
    for source, target, key, utilisation in zip(
        links["source"], links["target"], links["key"], links["utilisation"], strict=True
    ):
        lower, upper = sorted((source, target), key=lambda end: _UP[layers.get(end, "NIC")])
        if place_of(lower) is None:
            busiest[lower, upper] = max(busiest.get((lower, upper), 0.0), utilisation)
            panel.cables[lower, upper] += source == lower
        else:
            nics[upper, lower, key] = max(nics.get((upper, lower, key), 0.0), utilisation)
            panel.nics[upper] += source == lower
    for pair, load in sorted(busiest.items(), key=lambda item: item[1]):
        panel.cable_colours[pair] = colour_of_load(load)
    for (switch, _, _), load in nics.items():
        panel.nic_colours.setdefault(switch, []).append(colour_of_load(load))
    return panel


def _summary(panel: Panel, links: pd.DataFrame, layers: dict[str, str]) -> Summary:
    """Return a plane in words, with the loads of the cables between its layers."""
    summary = summary_of_panel(panel)
    present = [*(layer for layer in LAYERS if layer in panel.switches), "NIC"]
    of_source, of_target = (
        links[end].map(lambda name: layers.get(name, "NIC")) for end in ("source", "target")
    )
    bands, colours = [], []
    for (upper, lower), text in zip(pairwise(present), summary.bands, strict=True):
        up = _loads(links[(of_source == lower) & (of_target == upper)])
        down = _loads(links[(of_source == upper) & (of_target == lower)])
        bands.append(f"{text}\nup {up.text()}\ndown {down.text()}")
        colours.append(colour_of_load(max(up.mean, down.mean)))
    return replace(summary, bands=tuple(bands), band_colours=tuple(colours))


def _loads(links: pd.DataFrame) -> _Cables:
    return _Cables(float(links["utilisation"].mean()), float(links["utilisation"].max()))
