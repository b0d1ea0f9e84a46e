"""Figures to files, with the same bytes each time."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from warnings import catch_warnings, filterwarnings

import matplotlib as mpl
from matplotlib.figure import Figure

from simulator.durable import write_file
from simulator.plots.picture import PICTURE_NAMES, Picture

# Hinting rounds letters to whole pixels: text that fits at one resolution would be wider at another.
_ANY_RESOLUTION: Final[dict[str, Any]] = {"text.hinting": "no_hinting"}
_NO_LAYOUT: Final[dict[str, Any]] = {"figure.autolayout": False, "figure.constrained_layout.use": False}
_SUFFIXES: Final = ("png", "svg")
_SAME_IDS: Final[dict[str, Any]] = {"svg.hashsalt": "railplane"}


@contextmanager
def rendered() -> Iterator[None]:
    """Enter the context in which figures are laid out and drawn: texts are as wide at all resolutions.

    Letters that the font lacks become boxes: a line on standard error for each, at each save, would say no more.
    """
    with mpl.rc_context(rc=_ANY_RESOLUTION | _NO_LAYOUT | _SAME_IDS), catch_warnings():  # type: ignore[arg-type]
        filterwarnings("ignore", r"Glyph .* missing from font")
        yield


def settle(figure: Figure) -> Figure:
    """Return a figure with the places of its parts fixed: to lay it out once more, at another save, may move them."""
    engine = figure.get_layout_engine()
    if engine is not None:
        with rendered():
            engine.execute(figure)
            figure.set_layout_engine(None)  # the engine "none" would have each save draw twice
    return figure


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure as PNG or SVG, by the path's suffix, with nothing in it that changes from run to run.

    The file is written whole or not at all; raises OSError. dpi: of PNG, and of the parts of an SVG that are pixels
    """
    settle(figure)
    drawn = io.BytesIO()
    with rendered():
        metadata = {"Software": None} if path.suffix == ".png" else {"Date": None, "Creator": None}
        figure.savefig(drawn, format=path.suffix[1:], dpi=dpi, metadata=metadata)
    write_file(path, drawn.getvalue())


def save_pictures(pictures: Sequence[Picture], folder: Path) -> None:
    """Write the pictures of a run into a folder as NAME.png and NAME.svg, and remove those of a run before it."""
    for picture in pictures:
        for suffix in _SUFFIXES:
            save_figure(picture.figure, folder / f"{picture.name}.{suffix}")
    for name in set(PICTURE_NAMES) - {picture.name for picture in pictures}:
        for suffix in _SUFFIXES:
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
