"""What a measurement comes to: a short table, and whether the targets that the kernels were written for are met."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from simulator.calibration.gpu.samples import Measurement, Sample, shape_text

# From here on, what a kernel moves is far larger than any cache, and its start is of no weight.
LARGE_BYTES: Final = 2**28
MEMORY_BOUND: Final = ("quantise", "combine", "norm")
LEAST_OF_COPY: Final = 0.8
# MLA decoding at this batch and cache: heads, what it is compared with, the least share of it.
DECODE: Final = {"requests": 128, "cached": 4096}
LEAST_OF_COPY_16_HEADS: Final = 0.7
LEAST_OF_GEMM_128_HEADS: Final = 0.4
ROWS_PER_KERNEL: Final = 3


class Target(NamedTuple):
    """A share that must be reached.

    reached: None where it was not measured
    """

    text: str
    least: float
    reached: float | None

    def __str__(self) -> str:
        """Return the verdict as a line."""
        if self.reached is None:
            return f"not measured: {self.text}"
        verdict = "met" if self.reached >= self.least else "MISSED"
        return f"{verdict}: {self.text}: {self.reached:.1%}, at least {self.least:.0%}"


def copy_bytes_per_s(samples: Iterable[Sample]) -> float | None:
    """Return the copy bandwidth: that of the largest copy, bytes read and written; None without a large one.

    Smaller copies leave a larger part of what they write in the cache, which is no bandwidth of the memory.
    """
    large = [each for each in samples if each.kernel == "copy" and each.bytes >= LARGE_BYTES]
    return max(large, key=lambda sample: sample.bytes).bytes_per_s if large else None


def bf16_flops_per_s(samples: Iterable[Sample]) -> float | None:
    """Return the best rate of a BF16 product of the library; None without any."""
    return max((each.flops_per_s for each in samples if each.kernel == "gemm-bf16"), default=None)


def targets(measurement: Measurement) -> list[Target]:
    """Return the targets and what of them was reached."""
    samples = measurement.samples
    copy, gemm = copy_bytes_per_s(samples), bf16_flops_per_s(samples)
    found = []
    for name in MEMORY_BOUND:
        large = [each.bytes_per_s for each in samples if each.kernel == name and each.bytes >= LARGE_BYTES]
        text = f"{name}, the slowest of its shapes from {LARGE_BYTES // 2**20} MiB on, of the copy bandwidth"
        found.append(Target(text, LEAST_OF_COPY, _share(min(large, default=None), copy)))
    for heads, of_what in ((16, "copy bandwidth"), (128, "best BF16 product")):
        at = f"{DECODE['requests']} requests, {DECODE['cached']} cached tokens, {heads} heads"
        text = f"mla-decode, {at}, of the {of_what}"
        sample = _decode_sample(samples, heads)
        if heads == 16:
            reached = _share(sample.bytes_per_s if sample else None, copy)
            found.append(Target(text, LEAST_OF_COPY_16_HEADS, reached))
        else:
            reached = _share(sample.flops_per_s if sample else None, gemm)
            found.append(Target(text, LEAST_OF_GEMM_128_HEADS, reached))
    return found


def table(measurement: Measurement) -> list[str]:
    """Return the first few samples of each kernel as the lines of a table."""
    copy, gemm = copy_bytes_per_s(measurement.samples), bf16_flops_per_s(measurement.samples)
    header = ("kernel", "shape", "median", "spread", "GB/s", "TFLOP/s", "of copy", "of BF16 GEMM")
    rows = [header, *(_row(sample, copy, gemm) for sample in _first_of_each(measurement.samples))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = 2  # columns of text
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def line_of(sample: Sample) -> str:
    """Return a sample in a line."""
    return (
        f"{sample.kernel} {shape_text(sample.shape)}: {sample.median_s * 1e6:.2f} us (spread {sample.spread:.1%}), "
        f"{sample.bytes_per_s / 1e9:.1f} GB/s, {sample.flops_per_s / 1e12:.2f} TFLOP/s; {sample.method}"
    )


def _first_of_each(samples: Sequence[Sample]) -> list[Sample]:
    seen: dict[str, int] = {}
    first = []
    for sample in samples:
        seen[sample.kernel] = seen.get(sample.kernel, 0) + 1
        if seen[sample.kernel] <= ROWS_PER_KERNEL:
            first.append(sample)
    return first


def _row(sample: Sample, copy: float | None, gemm: float | None) -> tuple[str, ...]:
    of_gemm = sample.kernel == "mla-decode" or "gemm" in sample.kernel
    return (
        sample.kernel,
        shape_text(sample.shape),
        f"{sample.median_s * 1e6:.2f} us",
        f"{sample.spread:.1%}",
        f"{sample.bytes_per_s / 1e9:.1f}",
        f"{sample.flops_per_s / 1e12:.2f}" if sample.flops else "-",
        _percent(_share(sample.bytes_per_s, copy)),
        _percent(_share(sample.flops_per_s, gemm) if of_gemm else None),
    )


def _decode_sample(samples: Iterable[Sample], heads: int) -> Sample | None:
    shape = DECODE | {"heads": heads}
    return next((each for each in samples if each.kernel == "mla-decode" and each.shape == shape), None)


def _share(rate: float | None, of_rate: float | None) -> float | None:
    return None if rate is None or of_rate is None else rate / of_rate


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
