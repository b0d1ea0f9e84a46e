"""What samples must hold beyond their types: sizes of their kernel's shape, its counts of work, times that can be."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Final

from simulator.calibration.gpu.cases import SIZES, SIZES_OF_VERIFICATION
from simulator.calibration.gpu.kernels import every_kernel
from simulator.calibration.gpu.samples import (
    Device,
    LeftOut,
    Measurement,
    Sample,
    SamplesError,
    Verified,
    summary_of,
)

# A median is stored beside its times, for the reader's ease; it is theirs to this relative difference.
ROUNDING: Final = 1e-9
MOST_SIZE: Final = 2**40
# What no GPU has less or more of, by field; counts and bytes of several generations to come fit in.
RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "sms": (1, 1024),
    "memory_bytes": (2**20, 2**40),
    "l2_bytes": (2**10, 2**34),
    "sm_clock_khz": (0, 10**8),
    "memory_clock_khz": (0, 10**8),
    "bus_width_bits": (0, 2**16),
    "driver": (1000, 10**6),
    "runtime": (1000, 10**6),
    "cublaslt": (1000, 10**7),
}
CAPABILITY: Final = re.compile(r"[1-9]\d?\.\d")
MOST_NAME_CHARACTERS: Final = 256


def check(measurement: Measurement) -> None:
    """Raise SamplesError, naming the field, where a measurement cannot have been."""
    _check_device(measurement.device)
    if not _is_date(measurement.date):
        raise SamplesError(f"date: is '{measurement.date[:40]}'; it must be a day such as 2026-01-31")
    if measurement.seed < 0:
        raise SamplesError(f"seed: is {_short(measurement.seed)}; it must be 0 or more")
    for index, verified in enumerate(measurement.verified):
        _check_verified(verified, f"verified[{index}]")
    for index, left_out in enumerate(measurement.left_out):
        _check_left_out(left_out, f"left_out[{index}]")
    seen: dict[tuple[str, tuple[tuple[str, int], ...]], int] = {}
    for index, sample in enumerate(measurement.samples):
        where = f"samples[{index}]"
        _check_times(sample, where)
        _check_shape(sample.kernel, sample.shape, SIZES, where)
        _check_work(sample, measurement.device, where)
        first = seen.setdefault((sample.kernel, tuple(sorted(sample.shape.items()))), index)
        if first != index:
            raise SamplesError(f"{where}: is {sample.kernel} at the shape of samples[{first}]; once is right")


def _check_device(device: Device) -> None:
    """Refuse a device that no GPU is."""
    if not 1 <= len(device.name) <= MOST_NAME_CHARACTERS or not device.name.isprintable():
        raise SamplesError(f"device.name: is {device.name[:40]!r}; it must be the GPU's name as CUDA has it")
    if not CAPABILITY.fullmatch(device.compute_capability):
        raise SamplesError(
            f"device.compute_capability: is {device.compute_capability[:40]!r}; it must be one such as '9.0'"
        )
    for name, (least, most) in RANGES.items():
        value = getattr(device, name)
        if value is not None and not least <= value <= most:
            raise SamplesError(f"device.{name}: is {_short(value)}; it must be from {least} to {most}")


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _check_verified(verified: Verified, where: str) -> None:
    """Refuse errors that cannot be, and a kernel that is called right with an error beyond its bound."""
    _check_shape(verified.kernel, verified.shape, SIZES_OF_VERIFICATION, where)
    numbers = (
        ("norm_error", verified.norm_error),
        ("norm_bound", verified.norm_bound),
        ("worst_share", verified.worst_share),
    )
    for name, value in numbers:
        if value is not None and value < 0:
            raise SamplesError(f"{where}.{name}: is {value}; it must be 0 or more")
    if verified.why:
        return
    for name, value, most in (
        ("norm_error", verified.norm_error, verified.norm_bound),
        ("worst_share", verified.worst_share, 1.0),
    ):
        if value is None or value > most:
            raise SamplesError(
                f"{where}.{name}: is {'null' if value is None else value}, of at most {most}, and `why` is empty; "
                "it must say what was wrong"
            )


def _check_left_out(left_out: LeftOut, where: str) -> None:
    """Refuse what is left out of no kernel; it may have no shape, where the whole kernel is left out."""
    if left_out.shape:
        _check_shape(left_out.kernel, left_out.shape, SIZES_OF_VERIFICATION, where)
    else:
        _check_kernel(left_out.kernel, where)


def _check_kernel(kernel: str, where: str) -> None:
    if kernel not in SIZES:
        raise SamplesError(f"{where}.kernel: is '{kernel[:40]}'; kernels are {', '.join(SIZES)}")


def _check_shape(
    kernel: str, shape: Mapping[str, int], sizes: Mapping[str, Iterable[str]], where: str
) -> None:
    """Refuse a shape that is not its kernel's: `sizes` by kernel, those in SIZES being needed."""
    _check_kernel(kernel, where)
    for name in SIZES[kernel]:
        if name not in shape:
            raise SamplesError(f"{where}.shape.{name}: is missing; {kernel} has {', '.join(SIZES[kernel])}")
    for name, size in shape.items():
        if name not in sizes[kernel]:
            known = ", ".join(sizes[kernel])
            raise SamplesError(f"{where}.shape.{name[:40]}: is unknown here; {kernel} has {known}")
        if size < 1:
            raise SamplesError(f"{where}.shape.{name}: is {_short(size)}; a size is at least 1")
        if size > MOST_SIZE:
            raise SamplesError(f"{where}.shape.{name}: is {_short(size)}; a size is at most {MOST_SIZE}")


def _check_times(sample: Sample, where: str) -> None:
    """Refuse times that are none, and a median and a spread that are not theirs."""
    if not sample.times_s:
        raise SamplesError(f"{where}.times_s: is empty; a sample has at least one time")
    for index, time_s in enumerate(sample.times_s):
        if not time_s > 0:
            raise SamplesError(f"{where}.times_s[{index}]: is {time_s}; a time is more than 0 s")
    middle, spread = summary_of(sample.times_s)
    for name, stored, right in (("median_s", sample.median_s, middle), ("spread", sample.spread, spread)):
        if not math.isclose(stored, right, rel_tol=ROUNDING, abs_tol=ROUNDING * middle):
            raise SamplesError(f"{where}.{name}: is {stored}; that of its times_s is {right}")


def _check_work(sample: Sample, device: Device, where: str) -> None:
    """Refuse other FLOPs and bytes than the kernel's class counts, and more bytes than the device has."""
    kernel = every_kernel()[sample.kernel]
    for name, stored, right in (
        ("flops", sample.flops, kernel.flops(sample.shape)),
        ("bytes", sample.bytes, kernel.bytes(sample.shape)),
    ):
        if stored != right:
            raise SamplesError(
                f"{where}.{name}: is {_short(stored)}; {sample.kernel} of this shape has {_short(right)}"
            )
    if sample.bytes > device.memory_bytes:
        raise SamplesError(
            f"{where}.shape: needs {_short(sample.bytes)} bytes; device.memory_bytes is {device.memory_bytes}"
        )


def _short(number: int) -> str:
    """Return a whole number, or how many digits it has where they would fill the message."""
    text = str(number)
    return text if len(text) <= 24 else f"{text[:6]}... ({len(text)} digits)"
