"""How busy links are over time as a map: a row a link, or a row a group of links, time to the right."""

from typing import Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from simulator.link_groups import FloatArray, LinkGroups, layer_names, loads_over_time, rails
from simulator.plots.style import load_colours, new_figure, styled
from simulator.result import Result
from simulator.units import fitting_unit

_MOST_LINKS: Final = 40  # that have a row each
_MOST_ROWS: Final = 64
_ROW_IN: Final = 0.16
_LEAST_IN: Final = 1.0
_AROUND_IN: Final = 1.35  # heading, names of the panels, time
_TEXT: Final = 7.5


class Rows(NamedTuple):
    """What the rows of a map are: groups of links, and what a row is in words."""

    groups: LinkGroups
    meaning: str
    is_links: bool


def draw_heat_map(result: Result) -> Figure:
    """Return the map of utilisation over time; of groups both their mean and the link that is busiest at the time.

    Raises ValueError where no link carried anything.
    """
    rows = heat_rows(result)
    if not rows.groups.labels:
        msg = "there is no utilisation to draw: no link carried anything"
        raise ValueError(msg)
    loads = loads_over_time(result.link_timeline, result.links, rows.groups, result.step_time_s)
    counts = rows.groups.counts
    names = [
        label if rows.is_links else f"{label} ({count:,})"
        for label, count in zip(rows.groups.labels, counts.tolist(), strict=True)
    ]
    panels = [("", loads.mean)]
    if not rows.is_links:
        panels = [("mean of the group", loads.mean), ("busiest link of the group", loads.busiest)]
    with styled():
        height_in = max(_LEAST_IN, _ROW_IN * len(names)) + _AROUND_IN
        title = f"{result.summary['scenario']}: utilisation over time"
        figure = new_figure(title, f"A row is {rows.meaning}", height_in)
        for place, (name, shares) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), place + 1)
            _draw_map(axes, shares, loads.edges_s)
            axes.set_title(name, fontsize=9)
            labels = names if place == 0 else []
            axes.set_yticks(range(len(labels)), labels, fontsize=_TEXT)
        colours = ScalarMappable(Normalize(0, 100), load_colours())
        figure.colorbar(colours, ax=figure.axes, label="utilisation\n(% of datasheet)", pad=0.01)
    return figure


def heat_rows(result: Result) -> Rows:
    """Return the rows of the map: links one by one where they are few, else the groups that there is room for.

    Groups are layers, split by plane or rail where there are several of them and room for all. Links, and groups of
    links, that carry nothing are left out.
    """
    links = result.links
    used = (links["bytes"] > 0.0).tolist()
    layers = layer_names(links)
    if sum(used) <= _MOST_LINKS:
        keys = zip(links["kind"], links["source"], links["target"], links["key"], strict=True)
        kept = [key if carries else None for key, carries in zip(keys, used, strict=True)]
        return Rows(LinkGroups.by(kept, _link_label), "a link that carried anything", is_links=True)
    busy_layers = {layer for layer, carries in zip(layers, used, strict=True) if carries}
    noun, numbers = ("plane", links["plane"].tolist())
    if not (links["plane"] > 0).any():
        noun, numbers = "rail", rails(links).tolist()
    order = {layer: place for place, layer in enumerate(dict.fromkeys(layers))}
    split = [
        (order[layer], layer, number) if layer in busy_layers else None
        for layer, number in zip(layers, numbers, strict=True)
    ]
    groups = LinkGroups.by(
        split, lambda key: key[1] if key[2] < 0 else f"{key[1]}, {noun} {key[2]}", order=True
    )
    if len(groups.labels) > _MOST_ROWS:
        groups = LinkGroups.by([layer if layer in busy_layers else None for layer in layers])
    return Rows(
        groups, "a group of links, how many in brackets; those that carry nothing count too", is_links=False
    )


def _link_label(key: tuple[str, str, str, int]) -> str:
    """Return what a link is called."""
    kind, source, target, number = key
    return f"{kind}: {source} to {target}" + (f", {number}" if number else "")


def _draw_map(axes: Axes, shares: FloatArray, edges_s: FloatArray) -> None:
    """Draw shares [num_rows, num_bins] as colours.

    edges_s: [num_bins + 1] of bins that are equal but for the last, which the end of the step may cut off
    """
    width_s, step_time_s = float(edges_s[1] - edges_s[0]), float(edges_s[-1])
    unit, factor = fitting_unit(step_time_s, "time")
    axes.imshow(
        100 * shares,
        cmap=load_colours(),
        vmin=0,
        vmax=100,
        aspect="auto",
        interpolation="nearest",
        extent=(0, width_s * shares.shape[1] / factor, len(shares) - 0.5, -0.5),
    )
    axes.set_xlim(0, step_time_s / factor)
    axes.set_xlabel(f"time ({unit})")
    axes.grid(visible=False)
