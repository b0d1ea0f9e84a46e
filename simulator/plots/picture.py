"""A picture with what it shows in words."""

from typing import Final, NamedTuple

from matplotlib.figure import Figure

# The pictures that a run may have, in reading order.
PICTURE_NAMES: Final = (
    "overview",
    "schedule",
    "network_load",
    "gpu_links",
    "utilisation_map",
    "utilisation_lines",
    "roofline",
)


class Picture(NamedTuple):
    """A figure, the name of its files, and a caption of a sentence or two that says what it shows."""

    name: str
    caption: str
    figure: Figure
