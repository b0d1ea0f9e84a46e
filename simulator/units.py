"""SI floats inside, strings with units at the edge.

This is the only module that multiplies by powers of ten. A scenario says `400 Gbit/s`; everything behind it
sees 5e10 (bytes per second). A bare number where a unit belongs is an error, because a reader cannot tell
whether `capacity: 400` means gigabits or gigabytes.
"""

import math
import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

_METRIC: Final = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY: Final = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def _bytes_units() -> dict[str, float]:
    return {f"{prefix}B": factor for prefix, factor in (_METRIC | _BINARY).items()}


def _bytes_per_second_units() -> dict[str, float]:
    per_byte = {f"{prefix}B/s": factor for prefix, factor in (_METRIC | _BINARY).items()}
    per_bit = {f"{prefix}bit/s": factor / 8 for prefix, factor in _METRIC.items()}
    return per_byte | per_bit


# Dimension -> unit -> SI factor. The SI unit comes first; the order is the one in which messages list them.
UNITS: Final[dict[str, dict[str, float]]] = {
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "bytes": _bytes_units(),
    "bytes per second": _bytes_per_second_units(),
    "flop per second": {f"{prefix}FLOP/s": factor for prefix, factor in _METRIC.items()},
    "dollars": {"USD": 1.0, "kUSD": 1e3, "MUSD": 1e6, "GUSD": 1e9},
}
_EXAMPLE: Final = {
    "time": "3.7 us",
    "bytes": "80 GiB",
    "bytes per second": "400 Gbit/s",
    "flop per second": "989.4 TFLOP/s",
    "dollars": "30 kUSD",
}
# Units tried, in this order, when a value is written back to a file; the SI unit takes the rest.
_WRITTEN: Final = {
    "time": ("s", "ms", "us", "ns"),
    "bytes": ("TiB", "GiB", "MiB", "KiB", "TB", "GB", "MB", "kB", "B"),
    "bytes per second": ("Gbit/s", "TB/s", "GB/s", "MB/s", "kB/s", "B/s"),
    "flop per second": ("PFLOP/s", "TFLOP/s", "GFLOP/s", "FLOP/s"),
    "dollars": ("MUSD", "kUSD", "USD"),
}
# Units in which values are shown to people.
_SHOWN: Final = {
    "time": ("s", "ms", "us", "ns"),
    "bytes": ("TB", "GB", "MB", "kB", "B"),
    "bytes per second": ("TB/s", "GB/s", "MB/s", "kB/s", "B/s"),
    "flop per second": ("PFLOP/s", "TFLOP/s", "GFLOP/s", "FLOP/s"),
    "dollars": ("GUSD", "MUSD", "kUSD", "USD"),
}
_QUANTITY: Final = re.compile(
    r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?:\s*([A-Za-z/]+))?\s*", re.ASCII
)
_TIDY_DIGITS: Final = 7  # a value is written back in a unit in which it needs no more digits than this


class Spec(BaseModel):
    """The base of every model that a scenario fills: unknown fields are errors, nothing is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FieldError(ValueError):
    """A rule between fields is broken; `field` is the dotted path, from the checked spec, to mend."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def parse_quantity(text: object, dimension: str) -> float:
    """Return the SI value of a string such as `400 Gbit/s`.

    dimension: a key of UNITS. Raises ValueError, naming what would be right, for anything but a finite,
    non-negative number followed by a unit of that dimension.
    """
    example = f"write a quantity with its unit, such as {_EXAMPLE[dimension]!r}"
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        msg = f"expected {dimension} as text; {example}"
        raise ValueError(msg)
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        msg = f"{text!r} is not a quantity; {example}"
        raise ValueError(msg)
    number, unit = match.groups()
    if not unit:
        msg = f"{text!r} has no unit; {example}"
        raise ValueError(msg)
    factor = UNITS[dimension].get(unit)
    if factor is None:
        msg = f"{unit!r} is not a unit of {dimension}; known are {', '.join(UNITS[dimension])}"
        raise ValueError(msg)
    value = float(number) * factor
    if not math.isfinite(value) or value < 0:
        msg = f"{text!r} must be finite and not negative"
        raise ValueError(msg)
    return value


def write_quantity(value: float, dimension: str) -> str:
    """Return text that `parse_quantity` reads back as exactly this value, in the tidiest unit that can."""
    for unit in _WRITTEN[dimension]:
        text = f"{value / UNITS[dimension][unit]:.{_TIDY_DIGITS}g} {unit}"
        if 1 <= value / UNITS[dimension][unit] < 1000 and parse_quantity(text, dimension) == value:
            return text
    return f"{value!r} {next(iter(UNITS[dimension]))}"


def fitting_unit(value: float, dimension: str) -> tuple[str, float]:
    """Return the decimal unit, and its SI factor, in which `value` is at least 1 (the smallest unit if none is)."""
    shown = _SHOWN[dimension]
    unit = next((unit for unit in shown if abs(value) >= UNITS[dimension][unit]), shown[-1])
    return unit, UNITS[dimension][unit]


def show_quantity(value: float, dimension: str, digits: int = 4) -> str:
    """Return a rounded text for people, in the decimal unit that fits."""
    unit, factor = fitting_unit(value, dimension)
    return f"{value / factor:.{digits}g} {unit}"


def show_count(value: float) -> str:
    """Return a rounded count for people: 671026419200 as `671 B`."""
    for factor, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if abs(value) >= factor:
            return f"{value / factor:,.4g} {name}"
    return f"{value:,.0f}"


def _field(dimension: str, *, positive: bool) -> Any:
    """Return the pydantic annotations of a float field of this dimension, read from and written to text."""
    pattern = rf"^\s*\+?[0-9.]+([eE][+-]?[0-9]+)?\s*({'|'.join(UNITS[dimension])})\s*$"
    schema = {
        "type": "string",
        "pattern": pattern,
        "examples": [_EXAMPLE[dimension]],
        "description": f"{dimension}: a number and one of {', '.join(UNITS[dimension])}",
    }
    return (
        BeforeValidator(lambda text: parse_quantity(text, dimension)),
        Field(gt=0) if positive else Field(ge=0),
        PlainSerializer(lambda value: write_quantity(value, dimension), return_type=str),
        WithJsonSchema(schema),
    )


Seconds = Annotated[float, *_field("time", positive=False)]
Bytes = Annotated[float, *_field("bytes", positive=False)]
BytesPerSecond = Annotated[float, *_field("bytes per second", positive=True)]
FlopPerSecond = Annotated[float, *_field("flop per second", positive=True)]
Dollars = Annotated[float, *_field("dollars", positive=False)]
