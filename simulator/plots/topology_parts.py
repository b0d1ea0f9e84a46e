"""What pictures of networks are made of. All places and sizes are in inches from the lower left corner of a panel."""

from collections.abc import Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon

# Okabe and Ito's palette, told apart by the colour-blind, with grey and violet in place of black and yellow.
COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#666666", "#7B3F9E")
_BRIGHT: Final = frozenset({"#E69F00", "#CC79A7", "#56B4E9"})  # those on which white cannot be read
DARK: Final = "#222222"
FAINT: Final = "#888888"
WIDTH_IN: Final = 12.0
CHARACTER_IN: Final = 0.0085  # width of a character, a point of font size: rather more than DejaVu Sans has


def colour_of(number: int) -> str:
    """Return the colour of a plane, rail or group."""
    return COLOURS[number % len(COLOURS)]


def new_figure(title: str, subtitle: str, height_in: float) -> Figure:
    """Return a figure with a heading, below which `height_in` inches are left for panels."""
    head_in = 0.75
    figure = Figure(figsize=(WIDTH_IN, height_in + head_in))
    top = height_in + head_in
    for below_in, text, most_size, weight in ((0.28, title, 13.0, "bold"), (0.56, subtitle, 9.0, "normal")):
        size = min(most_size, 0.96 * WIDTH_IN / (CHARACTER_IN * max(1, len(text))))
        how: dict[str, Any] = {"ha": "center", "va": "center", "color": DARK, "parse_math": False}
        figure.text(0.5, 1 - below_in / top, text, fontsize=size, weight=weight, **how)
    return figure


def new_panel(figure: Figure, left_in: float, bottom_in: float, width_in: float, height_in: float) -> Axes:
    """Return axes of that size whose units are inches."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left_in / width, bottom_in / height, width_in / width, height_in / height))
    axes.set_xlim(0, width_in)
    axes.set_ylim(0, height_in)
    axes.set_axis_off()
    return axes


def fits(text: str, width_in: float, size: float) -> bool:
    """Return whether a text of that font size, in points, is no wider."""
    return max(map(len, text.split("\n"))) * CHARACTER_IN * size <= width_in


def write(
    axes: Axes, x: float, y: float, text: str, size: float = 8.0, colour: str = DARK, **how: Any
) -> None:
    """Write text around a place."""
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size, "color": colour, "zorder": 5}
    axes.text(x, y, text, parse_math=False, **(style | how))  # names may hold dollars


def draw_box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    colour: str,
    texts: Sequence[str] = (),
    size: float = 8,
) -> None:
    """Draw a box around a place, with the first of `texts` that fits into it."""
    rounding = min(width, height) * 0.2
    corner = (x - width / 2 + rounding, y - height / 2 + rounding)
    axes.add_patch(
        FancyBboxPatch(
            corner,
            width - 2 * rounding,
            height - 2 * rounding,
            boxstyle=f"round,pad={rounding}",
            facecolor=colour,
            edgecolor="white",
            linewidth=0.8,
            zorder=3,
        )
    )
    text = next((text for text in texts if fits(text, width * 0.96, size)), "")
    if text:
        write(axes, x, y, text, size, "black" if colour in _BRIGHT else "white")


def draw_band(
    axes: Axes,
    below: tuple[float, float, float],
    above: tuple[float, float, float],
    colour: str,
    text: str,
    size: float,
    *,
    opaque: bool = False,
) -> None:
    """Draw a bundle of cables: a band between two boxes, each given by its centre, its edge's height and width.

    opaque: in its full colour, with the text on a ground of its own
    """
    (low_x, low_y, low_width), (high_x, high_y, high_width) = below, above
    corners = [
        (low_x - low_width / 2, low_y),
        (low_x + low_width / 2, low_y),
        (high_x + high_width / 2, high_y),
        (high_x - high_width / 2, high_y),
    ]
    alpha = 1.0 if opaque else 0.22
    axes.add_patch(Polygon(corners, closed=True, facecolor=colour, alpha=alpha, linewidth=0, zorder=1))
    if text:
        white = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        ground: dict[str, Any] = {"bbox": white} if opaque else {}
        write(axes, (low_x + high_x) / 2, (low_y + high_y) / 2, text, size, DARK, **ground)
