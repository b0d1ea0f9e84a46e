"""A Hugging Face `config.json`, read strictly: whatever is missing or odd is named with its line and key.

Nothing is coerced: `"61"`, `61.0` and `true` are no layer counts. Keys that nobody asks for are ignored, whatever
they hold.
"""

import json
import math
import reprlib
from dataclasses import dataclass
from typing import Any, Final

from simulator.input_error import InputError
from simulator.json_places import JsonFile, parse_json

LARGEST_CONFIG_BYTES: Final = 1_000_000  # real ones hold a few kB; a wrongly named weight file holds GB
# Far above any published dimension (the widest is a feed-forward layer of 53,248; contexts reach 4 million), so
# that a slip of the keyboard is an error and not a simulation that never ends.
LARGEST_DIMENSION: Final = 10_000_000


class UnfitError(ValueError):
    """The value of a key does not fit those of others, or nothing that is modelled."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True)
class Config:
    """The keys of a `config.json`; each method returns one value in the type that is asked for, or says why not."""

    file: JsonFile

    def text(self, key: str) -> str:
        """Return the text at `key`."""
        value = self._required(key, "text")
        if not isinstance(value, str):
            raise self.error(key, f"this is {_show(value)}; it must be text")
        return value

    def count(self, key: str, *, at_least: int = 1) -> int:
        """Return the whole number at `key`, from `at_least` to LARGEST_DIMENSION."""
        value = self._required(key, "a whole number")
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"this is {_show(value)}; it must be a whole number")
        if not at_least <= value <= LARGEST_DIMENSION:
            message = f"this is {_show(value)}; it must be from {at_least:,} to {LARGEST_DIMENSION:,}"
            raise self.error(key, message)
        return value

    def count_or_null(self, key: str, *, at_least: int = 1) -> int | None:
        """Return the whole number at `key`, or None where it holds null; the key must be there."""
        if self._required(key, "a whole number or null") is None:
            return None
        return self.count(key, at_least=at_least)

    def count_or(self, key: str, default: int, *, at_least: int = 1) -> int:
        """Return the whole number at `key`, or `default` where it is absent or null."""
        if not self.holds(key):
            return default
        return self.count(key, at_least=at_least)

    def flag(self, key: str) -> bool:
        """Return the flag at `key`, false where it is absent or null."""
        value = self.file.data.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.error(key, f"this is {_show(value)}; it must be true or false")
        return value

    def holds(self, key: str) -> bool:
        """Return whether the key is there and not null."""
        return self.file.data.get(key) is not None

    def error(self, key: str, message: str) -> InputError:
        """Return the error that something is wrong with the value of a key."""
        return self.file.error((key,), message)

    def _required(self, key: str, what: str) -> Any:
        if key not in self.file.data:
            raise self.error(key, f"this key is missing; it must hold {what}")
        return self.file.data[key]


def parse_config(content: bytes, name: str) -> Config:
    """Return the object that `content` holds as JSON in UTF-8; InputError, naming the file, for anything else."""
    file = parse_json(content, name)
    if not isinstance(file.data, dict):
        message = f"this file holds {_show(file.data)}; a config.json holds one JSON object"
        raise InputError(name, None, None, message)
    return Config(file)


def _show(value: object) -> str:
    """Return the value as JSON would write it, cut short."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    if isinstance(value, dict):
        return "an object"
    return f"the text {reprlib.repr(value)}" if isinstance(value, str) else reprlib.repr(value)
