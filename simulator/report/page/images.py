"""Pictures of a run as a page holds them: the saved files themselves, as data."""

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from simulator.plots import Picture

MAX_SVG_BYTES: Final = 250_000  # of a larger one the page holds the PNG
_SPELLED: Final = {"gpu": "GPU"}  # words whose capitals are lost in the name of a file
_PIXELS_PER_INCH: Final = 96  # of CSS


@dataclass(frozen=True, slots=True)
class Image:
    """A picture in a page.

    name: in words, as a heading has them; caption: what it shows; address: a data URI; width, height: in CSS pixels
    """

    name: str
    caption: str
    address: str
    width: int
    height: int


def read_images(pictures: Iterable[Picture], folder: Path) -> list[Image]:
    """Return pictures for a page, from the NAME.svg and NAME.png that a folder holds of each.

    Each is a file of its own within the page, so that names inside of one cannot meet those of another.
    """
    return [_read(picture, folder) for picture in pictures]


def _read(picture: Picture, folder: Path) -> Image:
    content, kind = (folder / f"{picture.name}.svg").read_bytes(), "svg+xml"
    if len(content) > MAX_SVG_BYTES:
        content, kind = (folder / f"{picture.name}.png").read_bytes(), "png"
    width, height = (round(_PIXELS_PER_INCH * float(inches)) for inches in picture.figure.get_size_inches())
    address = f"data:image/{kind};base64,{b64encode(content).decode()}"
    words = " ".join(_SPELLED.get(word, word) for word in picture.name.split("_"))
    return Image(f"{words[0].upper()}{words[1:]}", picture.caption, address, width, height)
