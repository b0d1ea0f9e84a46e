"""A YAML file as plain data, with the place of every field.

Whatever is wrong with the file becomes one InputError that names the file, the line and the field; nothing in
the file is ever run. `simulator.yaml_nodes` says which YAML is read and which is refused.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from simulator.input_error import FieldPath, InputError, clipped, dotted
from simulator.regular_file import FileTooLargeError, NotTextError, decoded, read_regular, why
from simulator.yaml_nodes import MAX_DEPTH, MAX_VALUES, Node, compose

__all__ = [
    "MAX_FILE_BYTES",
    "Document",
    "FieldPath",
    "InputError",
    "Place",
    "parse_document",
    "read_document",
]

MAX_FILE_BYTES: Final = 2**18


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written: a file or an option, and the line within it, from 1."""

    file: str
    line: int | None


@dataclass(frozen=True, slots=True)
class Document:
    """The plain data of a file (dict, list, str, int, float, bool, None) and where each value stands in it.

    name: what messages call the file; places: field path -> where the field's name, or the list's item, stands.
    """

    name: str
    data: dict[str, Any]
    places: dict[FieldPath, Place]

    def place_of(self, path: FieldPath) -> Place:
        """Return the place of the field, or of the nearest field above it that was written."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return Place(self.name, None)

    def line_of(self, path: FieldPath) -> int | None:
        """Return the line of the field, or of the nearest field above it that was written."""
        return self.place_of(path).line

    def error(self, path: FieldPath, message: str) -> InputError:
        """Return the error that something is wrong with the field."""
        place = self.place_of(path)
        return InputError(place.file, place.line, dotted(path), message)

    def with_override(self, assignment: str) -> "Document":
        """Return the document with one field set, as by `cluster.nodes=16`.

        The value is YAML; the path is dotted, and an item of a list is named by its index, from 0. The field
        may be new; a mapping replaces the old one whole. Raises InputError, in which `--set` and the
        assignment stand for the file, as they do in later errors of this document about the field.
        """
        option = f"--set {assignment}"
        path_text, equals, value_text = assignment.partition("=")
        keys = [key.strip() for key in path_text.split(".")]
        if not equals or not all(keys) or len(keys) > MAX_DEPTH:
            message = "a setting must be PATH=VALUE with a dotted path, such as --set cluster.nodes=16"
            raise InputError(option, None, None, message)
        try:
            node = compose(value_text, option, numbered=False)
            value = None if node is None else _written_out(node, option, {}, ())
        except InputError as error:
            field = ".".join(part for part in (*keys, error.field) if part)
            raise InputError(option, None, field, error.message) from None
        data = copy.deepcopy(self.data)
        path, made = _set_field(data, keys, value, option)
        kept = {known: place for known, place in self.places.items() if known[: len(path)] != path}
        return Document(self.name, data, kept | dict.fromkeys([*made, path], Place(option, None)))


def _set_field(
    data: dict[str, Any], keys: list[str], value: Any, option: str
) -> tuple[FieldPath, list[FieldPath]]:
    """Set the field in place; return its path and those of the mappings made on the way to it."""
    path: FieldPath = ()
    made: list[FieldPath] = []
    holder: Any = data
    for position, text in enumerate(keys):
        key = _key_in(holder, text, path, option)
        path = (*path, key)
        if position == len(keys) - 1:
            holder[key] = value
            break
        below = holder.get(key) if isinstance(holder, dict) else holder[key]
        if below is None:
            below = holder[key] = {}
            made.append(path)
        holder = below
    return path, made


def _key_in(holder: Any, text: str, path: FieldPath, option: str) -> str | int:
    """Return what `text` names in the mapping or list at `path`."""
    if isinstance(holder, dict):
        return text
    if isinstance(holder, list):
        if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < len(holder):
            return int(text)
        message = f"this is a list of {len(holder)}, which has no item {text!r}; items are numbered from 0"
    else:
        message = f"this is {clipped(repr(holder), 100)}, which has no field {text!r}; set it to a mapping"
    raise InputError(option, None, dotted(path), message)


def read_document(path: Path) -> Document:
    """Return what the file holds; InputError if it cannot be read or is not one mapping of plain data."""
    name = str(path)
    try:
        raw = read_regular(path, MAX_FILE_BYTES)
        text = decoded(raw)
    except NotTextError as error:
        raise InputError(name, error.line, None, str(error)) from None
    except FileTooLargeError as error:
        raise InputError(name, None, None, f"{error}; keep long lists in files of their own") from None
    except (OSError, ValueError) as error:
        raise InputError(name, None, None, why(error, "a YAML file")) from None
    return parse_document(text, name)


def parse_document(text: str, name: str) -> Document:
    """Return what `text` holds; `name` is what messages call it. Raises InputError."""
    top = compose(text, name)
    if top is None or top.value is None:
        raise InputError(name, None, None, "this file is empty; write its fields, one 'field: value' a line")
    places: dict[FieldPath, Place] = {}
    data = _written_out(top, name, places, ())
    if not isinstance(data, dict):
        what = "a list" if isinstance(data, list) else "a single value"
        message = f"this is {what}; the top of the file must be fields, one 'field: value' a line"
        raise InputError(name, top.line, None, message)
    return Document(name, data, places)


def _written_out(node: Node, name: str, places: dict[FieldPath, Place], path: FieldPath) -> Any:
    """Return the plain data of the node, aliases written out, and note the place of every value in it."""
    places.setdefault(path, Place(name, node.line))
    if len(places) > MAX_VALUES or len(path) > MAX_DEPTH:
        message = (
            f"with its aliases written out this holds more than {MAX_VALUES:,} values or {MAX_DEPTH} levels"
        )
        raise InputError(name, places[path[:1]].line, dotted(path[:1]), f"{message}; use fewer aliases")
    children: Any = node.value
    if not isinstance(children, (dict, list)):
        return children
    plain: dict[str | int, Any] = {}
    for key, line in node.line_of.items():
        places[*path, key] = Place(name, line)
        plain[key] = _written_out(node.value[key], name, places, (*path, key))
    return plain if isinstance(children, dict) else list(plain.values())
