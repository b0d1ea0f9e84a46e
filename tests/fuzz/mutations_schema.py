"""What a scenario may hold, by its JSON Schema: names, words, and fields with values of the right type."""

import random
from collections.abc import Iterator
from typing import Any, Final

from simulator.scenario import json_schema

_SCHEMA: Final = json_schema()
_DEFINITIONS: Final[dict[str, dict[str, Any]]] = {"Scenario": _SCHEMA, **_SCHEMA["$defs"]}
_DEPTH: Final = 6

FIELD_NAMES: Final = sorted({name for found in _DEFINITIONS.values() for name in found.get("properties", {})})


def _words(schema: object) -> Iterator[str]:
    """Yield every word that the schema names as a choice."""
    if isinstance(schema, dict):
        yield from (
            str(word) for word in [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
        )
        for below in schema.values():
            yield from _words(below)
    elif isinstance(schema, list):
        for below in schema:
            yield from _words(below)


WORDS: Final = sorted(set(_words(_SCHEMA)))


def field_of_schema(kind: str | None, given: frozenset[str], rng: random.Random) -> tuple[str, Any] | None:
    """Return a field, and a value of its type, of a mapping of that kind, or that has the given fields.

    None where no mapping of the schema is like that.
    """
    fitting = [
        found["properties"]
        for found in _DEFINITIONS.values()
        if given <= found.get("properties", {}).keys()
        and (kind is None or kind in _words(found["properties"].get("kind", {})))
    ]
    if not fitting:
        return None
    properties = rng.choice(fitting)
    name = rng.choice(sorted(properties))
    return name, _value(properties[name], rng, _DEPTH)


def _value(schema: dict[str, Any], rng: random.Random, depth: int) -> Any:
    """Return a value of a type, often near the ends of its range; optional fields come or not."""
    if "$ref" in schema:
        schema = _DEFINITIONS[schema["$ref"].rpartition("/")[2]]
    members = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if members:
        return _value(rng.choice(members), rng, depth)
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if choices:
        return rng.choice(choices)
    kind = schema.get("type", "string")
    if kind in {"object", "array"}:
        return _holder(schema, rng, depth - 1)
    if kind in {"integer", "number"}:
        return _number(schema, rng)
    return rng.choice({"boolean": (True, False), "null": (None,)}.get(kind, _TEXTS))


def _holder(schema: dict[str, Any], rng: random.Random, depth: int) -> Any:
    """Return a mapping or a list of a type."""
    if schema["type"] == "array":
        items = schema.get("items") or next(iter(schema.get("prefixItems", ())), {})
        return [_value(items, rng, depth) for _ in range(rng.choice((0, 1, 1, 2)) if depth > 0 else 0)]
    kept = {"kind", *schema.get("required", ())}
    return {
        name: _value(below, rng, depth)
        for name, below in schema.get("properties", {}).items()
        if depth > 0 and (name in kept or rng.random() < 0.2)
    }


_TEXTS: Final = (
    "1 us",
    "400 Gbit/s",
    "80 GiB",
    "1 TFLOP/s",
    "10 kUSD",
    "h800",
    "deepseek-v3",
    "x.csv",
    "node0/gpu0",
    "a",
)


def _number(schema: dict[str, Any], rng: random.Random) -> int | float:
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    most = schema.get("maximum", schema.get("exclusiveMaximum", 2**31))
    value = rng.choice(
        (least, least, least + 1, least + 1, 2, 4, 8, 16, most, most, most - 1, (least + most) / 2)
    )
    return int(value) if schema["type"] == "integer" else value
