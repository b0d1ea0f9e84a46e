"""Reads the file that a measurement leaves, and refuses what is missing, unknown or impossible, by file and field."""

import json
import math
from dataclasses import MISSING, fields
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final, get_args, get_origin, get_type_hints

from simulator.calibration.gpu.samples import FORMAT, Measurement, SamplesError
from simulator.calibration.gpu.samples_checks import check

# A whole measurement takes about one megabyte.
MOST_BYTES: Final = 64 * 2**20
TOLD_CHARACTERS: Final = 40


def read_samples(path: Path) -> Measurement:
    """Return the measurement of a file that `write_samples` wrote, or raise SamplesError."""
    try:
        value = _json_of(path)
        if isinstance(value, dict) and value.get("format") != FORMAT:
            said = _told(value.get("format"))
            raise SamplesError(f"format: is {said}; this version reads {FORMAT}")
        measurement: Measurement = _read(Measurement, value, "")
        check(measurement)
    except SamplesError as error:
        raise SamplesError(f"{path}: {error}") from error
    return measurement


def _json_of(path: Path) -> Any:
    """Return what a file of JSON holds."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise SamplesError("is no regular file; name the samples.json of a measurement")
        if status.st_size > MOST_BYTES:
            raise SamplesError(f"has {status.st_size} bytes; a file of samples has at most {MOST_BYTES}")
        text = path.read_text("utf-8")
    except OSError as error:
        raise SamplesError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SamplesError("is not JSON: it is no UTF-8 text") from error
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise SamplesError("is nested too deep; it has objects in lists in one object") from error
    except SamplesError:
        raise
    except ValueError as error:
        raise SamplesError(f"is not JSON: {error}") from error


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of its pairs, each name of which is there once."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise SamplesError(f"{name[:TOLD_CHARACTERS]}: is there twice in one object; once is right")
        found[name] = value
    return found


def _read(kind: Any, value: Any, where: str) -> Any:
    """Return a JSON value as what a type hint says, or raise SamplesError with where it stands."""
    origin = get_origin(kind)
    if origin is tuple:
        items = _expect(list, value, where)
        return tuple(_read(get_args(kind)[0], item, f"{where}[{index}]") for index, item in enumerate(items))
    if origin is dict:
        pairs = _expect(dict, value, where)
        return {key: _read(get_args(kind)[1], item, f"{where}.{key}") for key, item in pairs.items()}
    if type(None) in get_args(kind):
        return None if value is None else _read(get_args(kind)[0], value, where)
    if kind in (int, str):
        return _expect(kind, value, where)
    if kind is float:
        return _read_float(_expect((int, float), value, where), where)
    return _read_fields(kind, _expect(dict, value, where), where)


def _expect(kind: Any, value: Any, where: str) -> Any:
    # True is an int to Python, but not to a reader of samples.
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
    raise SamplesError(f"{where or 'the file'}: is {_told(value)}; it must be of type {names}")


def _read_float(value: float, where: str) -> float:
    """Return a number as a finite float."""
    try:
        number = float(value)
    except OverflowError:  # a whole number of more digits than a float has room for
        number = math.inf
    if not math.isfinite(number):
        raise SamplesError(f"{where}: is {_told(value)}, which is too large for a number")
    return number


def _told(value: Any) -> str:
    """Return a value as the file has it, cut to what fits into a message."""
    try:
        return json.dumps(value)[:TOLD_CHARACTERS]
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"


def _read_fields(kind: Any, value: dict[str, Any], where: str) -> Any:
    """Return a dataclass of an object's values; its names must be just those of the class."""
    prefix = f"{where}." if where else ""
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    for name in value:
        if name not in known:
            raise SamplesError(
                f"{prefix}{name[:TOLD_CHARACTERS]}: is unknown here; known are {', '.join(known)}"
            )
    for name, field in known.items():
        if name not in value and field.default is MISSING:
            raise SamplesError(f"{prefix}{name}: is missing")
    return kind(**{name: _read(hints[name], item, f"{prefix}{name}") for name, item in value.items()})
