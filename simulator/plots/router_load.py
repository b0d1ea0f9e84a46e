"""Networks of routers in groups, such as Dragonfly and Slim Fly, with their cables coloured by load."""

from typing import Final, NamedTuple

import networkx as nx
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from simulator.link_groups import place_of
from simulator.plots.colour_bar import add_load_scale, colour_of_load
from simulator.plots.topology_groups import HEIGHT_IN, LEFT_IN, Point, group_places, write_groups
from simulator.plots.topology_parts import WIDTH_IN, new_figure, new_panel, write

_MOST_ROUTERS: Final = 144
_MOST_CABLES: Final = 1_000
_MOST_LINES: Final = 2_000  # beyond it they are pixels, also in SVG
_LOCAL: Final = "router_local"

Pair = tuple[str, str]


class _Drawn(NamedTuple):
    """What is drawn: names of dots, group by group, the load of each dot and line, and what a dot and a line are."""

    dots: list[list[str]]
    dot_loads: dict[str, float]
    line_loads: dict[Pair, float]
    meaning: str


def draw_router_load(links: pd.DataFrame, title: str) -> Figure:
    """Return the picture of groups of routers; links: those of the network alone.

    Up to 144 routers are drawn one by one, coloured by the mean of the cables of their NICs; else groups, coloured by
    the mean of the cables within them.
    """
    drawn = _drawn(links)
    centres, radius, place = group_places(drawn.dots, in_rows=False)
    subtitle = f"{drawn.meaning}, coloured by the busiest of them, either way"
    figure = new_figure(title, subtitle, HEIGHT_IN)
    axes = new_panel(figure, 0, 0, LEFT_IN, HEIGHT_IN)
    _draw_lines(axes, place, drawn.line_loads)
    axes.scatter(
        [x for x, _ in place.values()],
        [y for _, y in place.values()],
        s=max(10.0, min(80.0, (radius * 72 * 0.5) ** 2)),
        color=[colour_of_load(drawn.dot_loads.get(name, 0.0)) for name in place],
        edgecolors="#444444",
        linewidths=0.5,
        zorder=3,
    )
    write_groups(axes, centres, radius, in_rows=False, numbers=list(range(len(drawn.dots))))
    _write_kinds(figure, links)
    add_load_scale(figure, LEFT_IN + 0.3, HEIGHT_IN / 2 - 1, 3.6)
    return figure


def _drawn(links: pd.DataFrame) -> _Drawn:
    """Return routers and the cables between them where they are few, else groups and the cables between those."""
    between = links[links["kind"] != "nic"]
    loads = _busiest(between)
    groups = _groups(links)
    group_of = {name: str(number) for number, members in enumerate(groups) for name in members}
    if len(group_of) <= _MOST_ROUTERS and len(loads) <= _MOST_CABLES:
        what = "A dot is a router, coloured by the mean of its NICs' cables; a line is all cables between two routers"
        return _Drawn(groups, _router_dots(links), loads, what)
    far = between[between["kind"] != _LOCAL]
    loads = _busiest(far.assign(source=far["source"].map(group_of), target=far["target"].map(group_of)))
    what = (
        "A dot is a group, coloured by the mean of the cables within; a line is all cables between two groups"
    )
    return _Drawn(
        [[str(number)] for number in range(len(groups))], _group_dots(between, group_of), loads, what
    )


def _write_kinds(figure: Figure, links: pd.DataFrame) -> None:
    """Write the mean and the busiest of each kind of link beside the groups."""
    side = new_panel(figure, LEFT_IN, 0, WIDTH_IN - LEFT_IN, HEIGHT_IN)
    for number, (kind, rows) in enumerate(links.groupby("kind", sort=False)):
        mean, most = 100 * rows["utilisation"].mean(), 100 * rows["utilisation"].max()
        text = f"{kind}: mean {mean:.1f} %, busiest {most:.1f} %"
        write(side, 0.3, HEIGHT_IN / 2 + 0.6 - 0.28 * number, text, 9, ha="left")


def _groups(links: pd.DataFrame) -> list[list[str]]:
    """Return the routers of each group: those that local cables join, in the order of the links."""
    graph: nx.Graph[str] = nx.Graph()
    for source, target, kind in zip(links["source"], links["target"], links["kind"], strict=True):
        graph.add_nodes_from(end for end in (source, target) if place_of(end) is None)
        if kind == _LOCAL:
            graph.add_edge(source, target)
    order = {name: number for number, name in enumerate(graph)}
    found = [sorted(group, key=order.__getitem__) for group in nx.connected_components(graph)]
    return sorted(found, key=lambda group: order[group[0]])


def _busiest(links: pd.DataFrame) -> dict[Pair, float]:
    """Return the utilisation of the busiest link of each pair of ends, either way."""
    loads: dict[Pair, float] = {}
    for source, target, load in zip(links["source"], links["target"], links["utilisation"], strict=True):
        pair = (min(source, target), max(source, target))
        loads[pair] = max(loads.get(pair, 0.0), load)
    return loads


def _router_dots(links: pd.DataFrame) -> dict[str, float]:
    """Return the mean utilisation of the links between each router and its NICs."""
    nics = links[links["kind"] == "nic"]
    router = nics["source"].where(nics["source"].map(place_of).isna(), nics["target"])
    means: dict[str, float] = nics["utilisation"].groupby(router).mean().to_dict()
    return means


def _group_dots(between: pd.DataFrame, group_of: dict[str, str]) -> dict[str, float]:
    """Return the mean utilisation of the links within each group."""
    local = between[between["kind"] == _LOCAL]
    means: dict[str, float] = local["utilisation"].groupby(local["source"].map(group_of)).mean().to_dict()
    return means


def _draw_lines(axes: Axes, place: dict[str, Point], loads: dict[Pair, float]) -> None:
    """Draw a line for each pair, the busiest on top."""
    pairs = sorted(loads, key=lambda pair: (loads[pair], pair))
    axes.add_collection(
        LineCollection(
            [(place[one], place[other]) for one, other in pairs],
            colors=[colour_of_load(loads[pair]) for pair in pairs],
            linewidths=1.0 if len(pairs) <= _MOST_CABLES else 0.6,
            zorder=1,
            rasterized=len(pairs) > _MOST_LINES,
        )
    )
