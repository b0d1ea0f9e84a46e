"""The user's input is wrong: what every reader of a file raises, and how it reads on one line."""

from typing import Final

FieldPath = tuple[str | int, ...]

_MAX_PLACE_CHARACTERS: Final = 400
_MAX_FIELD_CHARACTERS: Final = 200
_MAX_CHARACTERS: Final = 1600


class InputError(ValueError):
    """The user's input is wrong: where, and what would be right.

    file: the file, or the option that holds the value; line: counted from 1, None where there is none;
    field: dotted path, None where no single field is at fault. As text it is one line.
    """

    def __init__(self, file: str, line: int | None, field: str | None, message: str) -> None:
        super().__init__(file, line, field, message)
        self.file = file
        self.line = line
        self.field = field
        self.message = message

    def __str__(self) -> str:
        place = clipped(self.file, _MAX_PLACE_CHARACTERS)
        if self.line is not None:
            place = f"{place}:{self.line}"
        field = clipped(self.field or "", _MAX_FIELD_CHARACTERS)
        return clipped(": ".join(part for part in (place, field, self.message) if part), _MAX_CHARACTERS)


def clipped(text: str, length: int) -> str:
    """Return `text` on one line, without its middle where it is longer than `length` characters.

    Characters that a terminal would obey or not show are written as escapes.
    """
    text = " ".join(text.split())
    if not text.isprintable():
        text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    half = length // 2
    return text if len(text) <= length else f"{text[:half]} ... {text[-half:]}"


def dotted(path: FieldPath) -> str | None:
    """Return a field's path as users write it, None for the file as a whole."""
    return ".".join(str(key) for key in path) or None
