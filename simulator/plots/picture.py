"""A picture with what it shows in words."""

from typing import NamedTuple

from matplotlib.figure import Figure


class Picture(NamedTuple):
    """A figure, the name of its files, and a caption of a sentence or two that says what it shows."""

    name: str
    caption: str
    figure: Figure
