"""YAML that may be wrong: a tree of nodes in which fields may stand twice and values are text as written."""

import re
from dataclasses import dataclass, field
from typing import Any

from simulator.yaml_nodes import parse_scalar


@dataclass
class Fields:
    """A mapping as it is written: names, of which some may stand twice, and their values, in order."""

    pairs: list[tuple[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Verbatim:
    """A value, or a field's whole line, as the file has it."""

    text: str


Tree = Fields | list[Any] | Verbatim


def as_tree(data: object) -> Tree:
    """Return plain data as a tree that can be damaged."""
    if isinstance(data, dict):
        return Fields([(key, as_tree(value)) for key, value in data.items()])
    if isinstance(data, list):
        return [as_tree(value) for value in data]
    return Verbatim(_scalar(data))


def _scalar(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]  # type: ignore[index]
    if not isinstance(value, str):
        return repr(value)
    try:
        plain = isinstance(parse_scalar(value), str) and re.fullmatch(r"[\w][\w ./+-]*", value, re.ASCII)
    except ValueError:
        plain = None
    return value if plain and value == value.strip() else "'" + value.replace("'", "''") + "'"


def written(tree: Tree, indent: str = "") -> str:
    """Return a tree as YAML, a field a line."""
    if isinstance(tree, Verbatim):
        return f"{indent}{tree.text}\n"
    if not (tree.pairs if isinstance(tree, Fields) else tree):
        return f"{indent}{'{}' if isinstance(tree, Fields) else '[]'}\n"
    items = (
        [(f"{name}:", value) for name, value in tree.pairs]
        if isinstance(tree, Fields)
        else [("-", value) for value in tree]
    )
    return "".join(f"{indent}{head}{_value(value, indent)}" for head, value in items)


def _value(value: Tree, indent: str) -> str:
    """Return what stands behind a field's name, to the end of its lines."""
    if isinstance(value, Verbatim):
        return f" {value.text}\n"
    if not (value.pairs if isinstance(value, Fields) else value):
        return " {}\n" if isinstance(value, Fields) else " []\n"
    return f"\n{written(value, f'{indent}  ')}"
