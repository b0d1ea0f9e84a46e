"""The scale of loads, for pictures whose places are in inches."""

from typing import Final

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure

from simulator.plots.style import load_colours

IDLE: Final = "#d0d0d0"
_HIGH_IN: Final = 0.14


def colour_of_load(utilisation: float) -> str:
    """Return the colour of a link whose utilisation is that share of 1; grey where it carried nothing."""
    return to_hex(load_colours()(utilisation)) if utilisation > 0.0 else IDLE


def add_load_scale(figure: Figure, left_in: float, bottom_in: float, width_in: float) -> None:
    """Draw the scale of loads from left to right, its names below it: half an inch high in all."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left_in / width, bottom_in / height, width_in / width, _HIGH_IN / height))
    colours = ScalarMappable(Normalize(0, 100), load_colours())
    scale = figure.colorbar(colours, cax=axes, orientation="horizontal")
    scale.set_label("utilisation (% of datasheet)", fontsize=8)
    axes.tick_params(labelsize=8)
