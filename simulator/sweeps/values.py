"""Swept values as one-line YAML, which is what overrides, files and tables hold."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from simulator.yaml_nodes import parse_scalar

# What needs no quotes anywhere in a line of YAML, unless it reads as a number or a word such as `true`.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_/](?:[A-Za-z0-9_/. +-]*[A-Za-z0-9_/.+-])?", re.ASCII)


def flow_text(value: Any) -> str:
    """Return a value as one line of YAML that reads back as the same: `{kind: multi-plane-fat-tree, planes: 8}`.

    value: None, bool, int, float, str, or lists, tuples and mappings of these; NumPy's numbers too. ValueError for
    anything else, for numbers that are not finite, and for keys that are not text.
    """
    match value.item() if isinstance(value, np.generic) else value:
        case None:
            text = "null"
        case bool() as truth:
            text = str(truth).lower()
        case str() as held:
            text = _quoted_at_need(held)
        case int() as number:
            text = str(number)
        case float() as number if math.isfinite(number):
            text = repr(number)
        case list() | tuple() as items:
            text = f"[{', '.join(map(flow_text, items))}]"
        case Mapping() as fields if all(isinstance(key, str) for key in fields):
            pairs = (f"{_quoted_at_need(key)}: {flow_text(held)}" for key, held in fields.items())
            text = f"{{{', '.join(pairs)}}}"
        case _:
            msg = (
                f"{value!r} cannot stand in a scenario; give finite numbers, text, true, false, or lists and "
                "mappings of these"
            )
            raise ValueError(msg)
    return text


def _quoted_at_need(text: str) -> str:
    """Return text as YAML reads it back; JSON's quotes are YAML's double quotes."""
    try:
        is_plain = _PLAIN.fullmatch(text) is not None and isinstance(parse_scalar(text), str)
    except ValueError:
        is_plain = False
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def sameness(value: Any) -> Any:
    """Return what is equal for values that mean the same: 1 and 1.0, mappings in any order; but not 1 and true."""
    match value:
        case np.generic():
            return sameness(value.item())
        case Mapping():
            return ("mapping", frozenset((key, sameness(held)) for key, held in value.items()))
        case list() | tuple():
            return ("list", tuple(map(sameness, value)))
        case bool() | None:
            return ("word", value)
    return ("scalar", value)
