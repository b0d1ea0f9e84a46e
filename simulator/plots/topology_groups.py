"""Pictures of Slim Fly and Dragonfly: groups of routers, and a closer look at one of them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from simulator.plots.topology_parts import DARK, FAINT, WIDTH_IN, colour_of, new_figure, new_panel, write
from topologies import ClusterGraph

HEIGHT_IN: Final = 6.6
LEFT_IN: Final = 7.4
_MOST_GROUPS: Final = 32
MOST_MEMBERS: Final = 64

Point = tuple[float, float]


@dataclass(frozen=True)
class Closer:
    """One group: its routers, the pairs of them that cables join, and what a router has, a line each."""

    num_routers: int
    pairs: tuple[tuple[int, int], ...]
    lines: tuple[str, ...]


def draw_groups(graph: ClusterGraph, in_rows: bool, closer: Closer, title: str, subtitle: str) -> Figure:
    """Return the picture of a small network of routers, with every router and every cable between routers.

    in_rows: groups stand in two rows, the two kinds of a Slim Fly; else on a circle.
    """
    groups: dict[int, list[str]] = {}
    for vertex, data in graph.nodes.items():
        if data["kind"] == "switch":
            groups.setdefault(data["group"], []).append(vertex)
    centres, radius, place = group_places([members for _, members in sorted(groups.items())], in_rows)
    group_of = {member: group for group, members in groups.items() for member in members}
    figure = new_figure(title, subtitle, HEIGHT_IN)
    axes = new_panel(figure, 0, 0, LEFT_IN, HEIGHT_IN)
    pairs = {(one, other) for one, other in graph.edges() if one in place and other in place and one < other}
    local = [pair for pair in sorted(pairs) if group_of[pair[0]] == group_of[pair[1]]]
    far = [pair for pair in sorted(pairs) if group_of[pair[0]] != group_of[pair[1]]]
    _draw_lines(axes, [(place[one], place[other]) for one, other in far], FAINT, 0.5, _faint(len(far)))
    for one, other in local:
        _draw_lines(axes, [(place[one], place[other])], colour_of(group_of[one]), 0.8, 0.8)
    size = max(6.0, min(50.0, (radius * 72 * 2.2 / max(len(closer.pairs) ** 0.5, 3)) ** 2))
    for name, (x, y) in place.items():
        axes.scatter([x], [y], s=size, color=colour_of(group_of[name]), zorder=3, linewidths=0)
    write_groups(axes, centres, radius, in_rows, list(groups))
    _draw_closer(figure, closer)
    return figure


def draw_group_summary(
    num_groups: int, in_rows: bool, between: str, closer: Closer, title: str, subtitle: str
) -> Figure:
    """Return the picture of a large network of routers: its groups, as many as can be seen, and one of them."""
    figure = new_figure(title, subtitle, HEIGHT_IN)
    axes = new_panel(figure, 0, 0, LEFT_IN, HEIGHT_IN)
    shown = num_groups if num_groups <= 2 * _MOST_GROUPS and in_rows else min(num_groups, _MOST_GROUPS)
    centres = _two_rows(shown) if in_rows else _circle(shown, 2.5)
    half = shown // 2
    pairs = [
        (centres[one], centres[other])
        for one in range(half if in_rows else shown)
        for other in (range(half, shown) if in_rows else range(one + 1, shown))
    ]
    _draw_lines(axes, pairs, FAINT, 0.6, _faint(len(pairs)))
    size = min(130.0, (_room(centres) * 72 * 0.55) ** 2)
    for number, (x, y) in enumerate(centres):
        axes.scatter([x], [y], s=size, color=colour_of(number), zorder=3, linewidths=0)
    some = "" if shown == num_groups else f", of which {shown} are drawn"
    write(axes, LEFT_IN / 2, HEIGHT_IN - 0.25, f"{num_groups:,} groups (dots){some}", 9, weight="bold")
    write(axes, LEFT_IN / 2, 0.25, between, 8.5)
    _draw_closer(figure, closer)
    return figure


def _draw_closer(figure: Figure, closer: Closer) -> None:
    """Draw one group at the right of the picture."""
    width = WIDTH_IN - LEFT_IN - 0.2
    axes = new_panel(figure, LEFT_IN, 0, width, HEIGHT_IN)
    x, y = width / 2, HEIGHT_IN - 2.35
    routers = "router" if closer.num_routers == 1 else "routers"
    shown = min(closer.num_routers, MOST_MEMBERS)
    some = "" if shown == closer.num_routers else f", of which {shown} are drawn"
    write(axes, x, HEIGHT_IN - 0.25, f"A group: {closer.num_routers:,} {routers}{some}", 9, weight="bold")
    ring = [(x + dx, y + dy) for dx, dy in _ring(shown, 1.6)]
    lines = [(ring[one], ring[other]) for one, other in closer.pairs if other < shown]
    _draw_lines(axes, lines, colour_of(0), 0.7, _faint(len(lines)))
    size = max(14, 90 - 2 * shown)
    for dot_x, dot_y in ring:
        axes.scatter([dot_x], [dot_y], s=size, color=colour_of(0), zorder=3, linewidths=0)
    for number, line in enumerate(closer.lines):
        write(axes, x, y - 2.15 - 0.28 * number, line, 8.5)


def group_places(
    groups: Sequence[Sequence[str]], in_rows: bool
) -> tuple[list[Point], float, dict[str, Point]]:
    """Return the centre of each group, how far from it its routers are, and the place of each router."""
    centres = _two_rows(len(groups)) if in_rows else _circle(len(groups), 2.35)
    radius = _room(centres) * 0.34
    place = {
        member: (x + dx, y + dy)
        for members, (x, y) in zip(groups, centres, strict=True)
        for member, (dx, dy) in zip(members, _ring(len(members), radius), strict=True)
    }
    return centres, radius, place


def write_groups(axes: Axes, centres: list[Point], radius: float, in_rows: bool, numbers: list[int]) -> None:
    """Write the number of each group beside it."""
    for number, (x, y) in zip(sorted(numbers), centres, strict=True):
        if in_rows:
            dx, dy = 0.0, (radius + 0.22) * (1 if y > HEIGHT_IN / 2 else -1)
        else:
            out_x, out_y = x - LEFT_IN / 2, y - HEIGHT_IN / 2
            away = math.hypot(out_x, out_y)
            # To the side of a group its name needs more room than above it.
            dx, dy = (
                ((radius + 0.38) * out_x / away, (radius + 0.18) * out_y / away)
                if away
                else (0, radius + 0.2)
            )
        write(axes, x + dx, y + dy, f"{number}" if len(centres) > 12 else f"group {number}", 8, DARK)


def _draw_lines(
    axes: Axes, lines: Iterable[tuple[Point, Point]], colour: str, width: float, alpha: float
) -> None:
    axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=width, alpha=alpha, zorder=1))


def _faint(count: int) -> float:
    """Return how opaque lines are, so that many do not become a blot."""
    return float(max(0.12, min(0.8, 60 / max(count, 1) ** 0.9)))


def _circle(count: int, radius: float) -> list[Point]:
    """Return places around the middle of the left panel."""
    middle = (LEFT_IN / 2, HEIGHT_IN / 2)
    return [(middle[0] + dx, middle[1] + dy) for dx, dy in _ring(count, radius)]


def _ring(count: int, radius: float) -> list[Point]:
    """Return places on a circle around the origin, the first at the top, or the origin for one."""
    if count == 1:
        return [(0.0, 0.0)]
    turns = [2 * math.pi * number / count for number in range(count)]
    return [(radius * math.sin(turn), radius * math.cos(turn)) for turn in turns]


def _two_rows(count: int) -> list[Point]:
    """Return places in an upper and a lower row of the left panel."""
    half = count // 2
    step = (LEFT_IN - 0.6) / half
    row = [0.3 + (number + 0.5) * step for number in range(half)]
    return [(x, HEIGHT_IN - 1.35) for x in row] + [(x, 1.35) for x in row]


def _room(centres: list[Point]) -> float:
    """Return how far neighbours are apart, at most an inch and a half."""
    if len(centres) == 1:
        return 4.5
    return min(1.5, math.dist(centres[0], centres[1]))
