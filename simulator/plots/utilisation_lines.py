"""How busy layers, planes and rails are over time, a panel each with a line for each of them."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from simulator.link_groups import NETWORK_KINDS, LinkGroups, layer_names, loads_over_time, rails
from simulator.plots.lines import joined_lines, plot_lines
from simulator.plots.style import new_figure, styled
from simulator.result import Result

_ROW_IN: Final = 2.6
_HEAD_IN: Final = 0.5


class _Grouping(NamedTuple):
    """Links in groups. noun: what the groups are, empty where their labels say it."""

    title: str
    noun: str
    groups: LinkGroups


def draw_utilisation_lines(result: Result) -> Figure:
    """Return the picture of mean utilisation over time by layer, and by plane and rail where there are several.

    Raises ValueError where no link carried anything.
    """
    links = result.links
    if not links["bytes"].any():
        msg = "there is no utilisation to draw: no link carried anything"
        raise ValueError(msg)
    panels, alike = [], []
    for title, noun, groups in _groupings(links):
        loads = loads_over_time(result.link_timeline, links, groups, result.step_time_s)
        lines = joined_lines(groups.labels, loads.mean, noun)
        if noun and len(lines) == 1:
            alike.append(f"{lines[0].label} of {title}")
        else:
            panels.append((title, lines, loads))
    subtitle = "Each line is the mean of its links" + (f". Alike: {'; '.join(alike)}" if alike else "")
    with styled():
        name = f"{result.summary['scenario']}: utilisation over time"
        figure = new_figure(name, subtitle, _HEAD_IN + _ROW_IN * len(panels))
        for place, (title, lines, loads) in enumerate(panels, start=1):
            axes = plot_lines(lines, loads, figure.add_subplot(len(panels), 1, place))
            axes.set_title(title, fontsize=9, loc="left")
    return figure


def _groupings(links: pd.DataFrame) -> Iterator[_Grouping]:
    """Yield layers, and of each kind of network link its planes or rails, if several carry anything."""
    yield _Grouping("layers", "", LinkGroups.by(layer_names(links)))
    carries, kinds = links["bytes"].to_numpy() > 0.0, links["kind"].to_numpy()
    for noun, numbers in (("plane", links["plane"].to_numpy()), ("rail", rails(links))):
        for kind in NETWORK_KINDS:
            kept = (kinds == kind) & (numbers >= 0)
            if len(set(numbers[kept & carries].tolist())) > 1:
                keys = [
                    number if of_kind else None
                    for number, of_kind in zip(numbers.tolist(), kept, strict=True)
                ]
                yield _Grouping(f"{kind} links", noun, LinkGroups.by(keys, order=True))
