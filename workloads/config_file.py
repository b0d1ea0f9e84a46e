"""A Hugging Face `config.json`, read strictly: whatever is missing or odd is named with its key.

Nothing is coerced: `"61"`, `61.0` and `true` are no layer counts. Keys that nobody asks for are ignored, whatever
they hold. Every error is a ValueError; the reader of the file adds its name.
"""

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LARGEST_CONFIG_BYTES: Final = 1_000_000  # real ones hold a few kB; a wrongly named weight file holds GB
# Far above any published dimension (the widest is a feed-forward layer of 53,248; contexts reach 4 million), so
# that a slip of the keyboard is an error and not a simulation that never ends.
LARGEST_DIMENSION: Final = 10_000_000
_MOST_DIGITS: Final = 640  # `int` takes this many whatever the interpreter's limit (sys.int_info)


@dataclass(frozen=True, slots=True)
class Config:
    """The keys of a `config.json`; each method returns one value in the type that is asked for, or says why not."""

    values: Mapping[str, object]

    def text(self, key: str) -> str:
        """Return the text at `key`."""
        value = self._required(key, "text")
        if not isinstance(value, str):
            msg = f"{key!r} is {_show(value)}; it must be text"
            raise ValueError(msg)
        return value

    def count(self, key: str, *, at_least: int = 1) -> int:
        """Return the whole number at `key`, from `at_least` to LARGEST_DIMENSION."""
        value = self._required(key, "a whole number")
        if isinstance(value, bool) or not isinstance(value, int):
            msg = f"{key!r} is {_show(value)}; it must be a whole number"
            raise ValueError(msg)
        if not at_least <= value <= LARGEST_DIMENSION:
            msg = f"{key!r} is {_show(value)}; it must be from {at_least:,} to {LARGEST_DIMENSION:,}"
            raise ValueError(msg)
        return value

    def count_or_null(self, key: str, *, at_least: int = 1) -> int | None:
        """Return the whole number at `key`, or None where it holds null; the key must be there."""
        if self._required(key, "a whole number or null") is None:
            return None
        return self.count(key, at_least=at_least)

    def count_or(self, key: str, default: int, *, at_least: int = 1) -> int:
        """Return the whole number at `key`, or `default` where it is absent or null."""
        if self.values.get(key) is None:
            return default
        return self.count(key, at_least=at_least)

    def flag(self, key: str) -> bool:
        """Return the flag at `key`, false where it is absent or null."""
        value = self.values.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            msg = f"{key!r} is {_show(value)}; it must be true or false"
            raise ValueError(msg)
        return value

    def _required(self, key: str, what: str) -> object:
        if key not in self.values:
            msg = f"the key {key!r} is missing; it must hold {what}"
            raise ValueError(msg)
        return self.values[key]


def parse_config(content: bytes) -> Config:
    """Return the object that `content` holds as JSON in UTF-8; ValueError if it holds anything else."""
    if len(content) > LARGEST_CONFIG_BYTES:
        msg = f"the file is larger than {LARGEST_CONFIG_BYTES:,} bytes and so is no config.json"
        raise ValueError(msg)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        msg = f"byte {error.start} is not UTF-8; a config.json is JSON text in UTF-8"
        raise ValueError(msg) from error
    try:
        values = json.loads(text, object_pairs_hook=_without_duplicates, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        msg = f"line {error.lineno}, column {error.colno}: this is not JSON ({error.msg})"
        raise ValueError(msg) from error
    except RecursionError as error:
        msg = "the JSON is nested too deeply for a config.json"
        raise ValueError(msg) from error
    if not isinstance(values, dict):
        msg = f"it holds {_show(values)}; a config.json holds one JSON object"
        raise ValueError(msg)
    return Config(values)


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            msg = f"the key {_show(key)} stands twice in one object; leave one of them"
            raise ValueError(msg)
        values[key] = value
    return values


def _whole_number(digits: str) -> int | float:
    """Return the number, or infinity for one that Python would refuse to convert; no dimension comes near it."""
    return int(digits) if len(digits) < _MOST_DIGITS else math.inf


def _show(value: object) -> str:
    """Return the value as JSON would write it, cut short."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    return reprlib.repr(value)
