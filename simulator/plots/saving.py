"""Figures to files, with the same bytes each time."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure


def settle(figure: Figure) -> Figure:
    """Return a figure with the places of its parts fixed: to lay it out once more, at another save, may move them."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure as PNG or SVG, by the path's suffix, with nothing in it that changes from run to run.

    dpi: of PNG, and of the parts of an SVG that are pixels
    """
    settle(figure)
    with mpl.rc_context({"svg.hashsalt": "railplane"}):
        metadata = {"Software": None} if path.suffix == ".png" else {"Date": None, "Creator": None}
        figure.savefig(path, dpi=dpi, metadata=metadata)
