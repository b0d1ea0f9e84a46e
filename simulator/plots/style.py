"""What all pictures share: colours that the colour-blind and a printer tell apart, fonts, and headings."""

import textwrap
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by the colour-blind and, by lightness, in print.
COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
# Lines that lie on top of each other: dashes let both be seen.
DASHES: Final = ("-", "-", "-", (0, (4, 4)), "-", "-.")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH_IN: Final = 10.0
_CHARACTERS_AN_INCH: Final = 12.5  # of the heading's font, rather fewer than there is room for
_CHARACTER_IN: Final = 0.075  # of a legend's font, rather more than it takes
_HANDLE_IN: Final = 0.6
_STYLE: Final[dict[str, Any]] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    "text.parse_math": False,  # names may hold dollars
}


def styled() -> AbstractContextManager[None]:
    """Return the context in which figures are made."""
    return mpl.rc_context(rc=_STYLE)  # type: ignore[arg-type]


@cache
def load_colours() -> Colormap:
    """Return the colours of loads, from pale for idle to dark for full: ever darker, so that grey prints tell."""
    return LinearSegmentedColormap.from_list(
        "load", mpl.colormaps["magma_r"]([0.03 + 0.009 * i for i in range(101)])
    )


def new_figure(title: str, subtitle: str, height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """Return a figure with a heading that breaks its lines where it must."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    room = int(width_in * _CHARACTERS_AN_INCH)
    figure.suptitle(
        "\n".join(line for text in (title, subtitle) for line in textwrap.wrap(text, room)), fontsize=10
    )
    return figure


def legend_above(axes: Axes) -> None:
    """Put the legend in rows above the axes, where it hides nothing, in as many columns as there is room for."""
    labels = axes.get_legend_handles_labels()[1]
    if labels:
        figure = axes.get_figure(root=True)
        assert figure is not None
        room_in = figure.get_size_inches()[0] * axes.get_position().width
        columns = int(room_in / (_CHARACTER_IN * max(map(len, labels)) + _HANDLE_IN))
        axes.legend(
            frameon=False,
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=max(1, min(columns, len(labels))),
            borderaxespad=0.1,
            fontsize=9,
        )
