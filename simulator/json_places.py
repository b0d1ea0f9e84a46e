"""JSON that is read strictly, and that can tell on which line a value stands once something is wrong with it.

The standard library reads it; only to say where a fault is does this module walk over the text by itself.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from simulator.input_error import FieldPath, InputError, dotted
from simulator.regular_file import NotTextError, decoded

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
_MOST_DIGITS: Final = 640  # `int` takes this many whatever the interpreter's limit (sys.int_info)


@dataclass(frozen=True, slots=True)
class JsonFile:
    """A JSON file; name: what messages call it; data: what it holds."""

    name: str
    text: str
    data: Any

    def error(self, path: FieldPath, message: str) -> InputError:
        """Return the error that something is wrong with the value at a path, or with its absence."""
        return InputError(self.name, self.line_of(path), dotted(path), message)

    def line_of(self, path: FieldPath) -> int | None:
        """Return the line of a value's name, or of an item; where it is absent, of the nearest value around it."""
        nearest, found = 0, None
        for known, offset in _places(self.text):
            if len(known) > nearest and known == path[: len(known)]:
                nearest, found = len(known), offset
                if nearest == len(path):
                    break
        return None if found is None else _line_at(self.text, found)

    def lines(self) -> dict[FieldPath, int]:
        """Return the line of every value, as `line_of`; for files that are not large."""
        found: dict[FieldPath, int] = {}
        line, counted = 1, 0
        for path, offset in _places(self.text):
            line, counted = line + self.text.count("\n", counted, offset), offset
            found[path] = line
        return found


def parse_json(raw: bytes, name: str) -> JsonFile:
    """Return what JSON in UTF-8 holds; `name` is what messages call it.

    A whole number of very many digits becomes infinity, as a fraction does. Raises InputError for what is not JSON,
    and for a name that stands twice in one object.
    """
    try:
        text = decoded(raw)
    except NotTextError as error:
        raise InputError(name, error.line, None, str(error)) from None
    try:
        data = json.loads(text, object_pairs_hook=_once_each, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        message = f"this is not JSON: {error.msg.removesuffix(' at')} (column {error.colno})"
        raise InputError(name, error.lineno, None, message) from None
    except RecursionError:
        message = "the values of this file are nested too deeply; write fewer levels"
        raise InputError(name, None, None, message) from None
    except _TwiceError:
        path, line = _first_twice(text)
        message = "this key stands twice in one object; keep one of them"
        raise InputError(name, line, dotted(path), message) from None
    return JsonFile(name, text, data)


class _TwiceError(Exception):
    pass


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a mapping; raise _TwiceError for a key that stands in it twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _TwiceError
    return found


def _whole_number(digits: str) -> int | float:
    """Return the number, or infinity for one that Python would refuse to convert."""
    return (
        int(digits) if len(digits) < _MOST_DIGITS else math.copysign(math.inf, -1 if digits[0] == "-" else 1)
    )


def _first_twice(text: str) -> tuple[FieldPath, int | None]:
    """Return the path and line of a key where it stands for the second time in its object."""
    seen: list[set[str | int]] = []  # keys of the objects around, outermost first
    for path, offset in _places(text):
        del seen[len(path) :]
        seen += [set() for _ in range(len(path) - len(seen))]
        if path[-1] in seen[-1]:
            return path, _line_at(text, offset)
        seen[-1].add(path[-1])
    return (), None


def _places(text: str) -> Iterator[tuple[FieldPath, int]]:
    """Yield the path of every value below the top, and where its key, or an item itself, starts; in order."""
    # of each open object its key, None before one comes; of each list the index
    steps: list[str | int | None] = []
    for token in _TOKEN.finditer(text):
        match token.group():
            case ":":
                continue
            case ",":
                if steps:
                    steps[-1] = steps[-1] + 1 if isinstance(steps[-1], int) else None
                continue
            case "}" | "]":
                del steps[-1:]
                continue
            case start:
                is_key = bool(steps) and steps[-1] is None and start[0] == '"'
                if is_key:
                    steps[-1] = _unquoted(start)
                if is_key or (steps and isinstance(steps[-1], int)):
                    yield _path(steps), token.start()
                if start in {"{", "["}:
                    steps.append(None if start == "{" else 0)


def _unquoted(token: str) -> str:
    try:
        return str(json.loads(token, strict=False))
    except ValueError:  # a stray backslash, behind the fault that is looked for
        return token


def _path(steps: Sequence[str | int | None]) -> FieldPath:
    return tuple(step for step in steps if step is not None)


def _line_at(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1
