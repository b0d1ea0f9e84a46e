"""The file that a measurement leaves: the device, what was verified, every time that was taken.

`samples.json` is one object:

    {"format": 1, "device": {...}, "date": "2026-01-31", "seed": 1, "verified": [...], "left_out": [...],
     "samples": [{"kernel": "norm", "shape": {"tokens": 128, "hidden": 7168}, "method": "...", "flops": n, "bytes": n,
                  "times_s": [...], "median_s": x, "spread": x}, ...]}

with the fields of the classes below. `samples_reader` reads it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from simulator.durable import write_file

FORMAT: Final = 1


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


def shape_text(shape: Mapping[str, int]) -> str:
    """Return a shape as text."""
    return " ".join(f"{name}={size}" for name, size in shape.items())


def summary_of(times_s: tuple[float, ...]) -> tuple[float, float]:
    """Return the median of these times, and their interquartile range over it."""
    middle = median(times_s)
    if len(times_s) < 2:
        return middle, 0.0
    lower, _, upper = quantiles(times_s, n=4, method="inclusive")
    return middle, (upper - lower) / middle


def write_samples(measurement: Measurement, path: Path) -> None:
    """Write a measurement as JSON."""
    write_file(path, (json.dumps(asdict(measurement), indent=1, allow_nan=False) + "\n").encode())
