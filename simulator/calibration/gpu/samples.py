"""The file that a measurement leaves: the device, what was verified, every time that was taken; written and read.

`samples.json` is one object:

    {"format": 1, "device": {...}, "date": "2026-01-31", "seed": 1, "verified": [...], "left_out": [...],
     "samples": [{"kernel": "norm", "shape": {"tokens": 128, "hidden": 7168}, "method": "...", "flops": n, "bytes": n,
                  "times_s": [...], "median_s": x, "spread": x}, ...]}

with the fields of the classes below. The reader refuses what is missing, unknown or impossible, and names it.
"""

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, get_args, get_origin, get_type_hints

FORMAT: Final = 1
# A median is stored beside its times, for the reader's ease; it is theirs to this relative difference.
ROUNDING: Final = 1e-9


class SamplesError(ValueError):
    """A file of samples is not as it should be; the message names the file, the field and what would be right."""


@dataclass(frozen=True)
class Device:
    """The device that was measured, and the software on it.

    compute_capability: such as "9.0"
    driver, runtime: CUDA's numbers, such as 13000
    cublaslt: its number, such as 131000; None where products were left out
    """

    name: str
    compute_capability: str
    sms: int
    memory_bytes: int
    l2_bytes: int
    sm_clock_khz: int
    memory_clock_khz: int
    bus_width_bits: int
    driver: int
    runtime: int
    cublaslt: int | None


@dataclass(frozen=True)
class Verified:
    """One output of one verification case: how far it was from the truth, and how far it may be.

    norm_error, norm_bound: ||out - truth|| / ||truth||
    worst_share: the largest error of an element over that element's bound
    why: what was wrong; empty where the case passed
    """

    kernel: str
    shape: dict[str, int]
    output: str
    norm_error: float | None
    norm_bound: float
    worst_share: float | None
    why: str

    @property
    def passed(self) -> bool:
        """Return whether the kernel was right."""
        return not self.why


@dataclass(frozen=True)
class LeftOut:
    """What was not timed, and why."""

    kernel: str
    shape: dict[str, int]
    why: str


@dataclass(frozen=True)
class Sample:
    """The times of one kernel at one shape.

    method: how the times were taken
    flops, bytes: of one call, as the kernel's class counts them
    times_s: [repetitions] seconds of one call
    spread: interquartile range over median
    """

    kernel: str
    shape: dict[str, int]
    method: str
    flops: int
    bytes: int
    times_s: tuple[float, ...]
    median_s: float
    spread: float

    @property
    def bytes_per_s(self) -> float:
        """Return bytes over the median time."""
        return self.bytes / self.median_s

    @property
    def flops_per_s(self) -> float:
        """Return floating-point operations over the median time."""
        return self.flops / self.median_s


@dataclass(frozen=True)
class Measurement:
    """All that one run of the measurement found.

    date: of the run, ISO 8601
    seed: of its random inputs
    """

    device: Device
    date: str
    seed: int
    verified: tuple[Verified, ...]
    left_out: tuple[LeftOut, ...]
    samples: tuple[Sample, ...]
    format: int = FORMAT


def summary_of(times_s: tuple[float, ...]) -> tuple[float, float]:
    """Return the median of these times, and their interquartile range over it."""
    middle = median(times_s)
    if len(times_s) < 2:
        return middle, 0.0
    lower, _, upper = quantiles(times_s, n=4, method="inclusive")
    return middle, (upper - lower) / middle


def write_samples(measurement: Measurement, path: Path) -> None:
    """Write a measurement as JSON."""
    path.write_text(json.dumps(asdict(measurement), indent=1, allow_nan=False) + "\n")


def read_samples(path: Path) -> Measurement:
    """Return the measurement of a file that `write_samples` wrote, or raise SamplesError."""
    try:
        value = json.loads(path.read_text(), parse_constant=_refuse_constant)
    except OSError as error:
        raise SamplesError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SamplesError(f"{path}: is not JSON: {error}") from error
    try:
        if isinstance(value, dict) and value.get("format") != FORMAT:
            raise SamplesError(f"format: is {value.get('format')!r}; this version reads {FORMAT}")
        measurement: Measurement = _read(Measurement, value, "")
        for index, sample in enumerate(measurement.samples):
            _check_sample(sample, f"samples[{index}]")
    except SamplesError as error:
        raise SamplesError(f"{path}: {error}") from error
    return measurement


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _check_sample(sample: Sample, where: str) -> None:
    """Refuse a sample whose numbers cannot be."""
    if not sample.times_s:
        raise SamplesError(f"{where}.times_s: is empty; a sample has at least one time")
    for index, time_s in enumerate(sample.times_s):
        if not 0 < time_s < math.inf:
            raise SamplesError(f"{where}.times_s[{index}]: is {time_s}; a time is more than 0 s")
    for name, size in sample.shape.items():
        if size < 1:
            raise SamplesError(f"{where}.shape.{name}: is {size}; a size is at least 1")
    if sample.flops < 0 or sample.bytes < 1:
        raise SamplesError(f"{where}: flops {sample.flops}, bytes {sample.bytes}; they are at least 0 and 1")
    middle, spread = summary_of(sample.times_s)
    for name, stored, right in (("median_s", sample.median_s, middle), ("spread", sample.spread, spread)):
        if not math.isclose(stored, right, rel_tol=ROUNDING, abs_tol=ROUNDING * middle):
            raise SamplesError(f"{where}.{name}: is {stored}; that of its times_s is {right}")


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
        return float(_expect((int, float), value, where))
    return _read_fields(kind, _expect(dict, value, where), where)


def _expect(kind: Any, value: Any, where: str) -> Any:
    # True is an int to Python, but not to a reader of samples.
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
    raise SamplesError(f"{where or 'the file'}: is {json.dumps(value)[:40]}; it must be of type {names}")


def _read_fields(kind: Any, value: dict[str, Any], where: str) -> Any:
    """Return a dataclass of an object's values; its names must be just those of the class."""
    prefix = f"{where}." if where else ""
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    for name in value:
        if name not in known:
            raise SamplesError(f"{prefix}{name}: is unknown here; known are {', '.join(known)}")
    for name, field in known.items():
        if name not in value and field.default is MISSING:
            raise SamplesError(f"{prefix}{name}: is missing")
    return kind(**{name: _read(hints[name], item, f"{prefix}{name}") for name, item in value.items()})
