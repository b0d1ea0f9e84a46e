"""Samples as a measurement would leave them if kernels took what the cost table `roofline` says."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from simulator.calibration.gpu.cases import VERIFICATION_CASES, timing_cases
from simulator.calibration.gpu.kernels import every_kernel
from simulator.calibration.gpu.samples import Device, Measurement, Sample, Verified
from simulator.calibration.known_gpus import gpu_of
from simulator.calibration.measured_table import KINDS
from simulator.costs import load_cost_table
from simulator.kernel_times import KernelTimes

H200 = Device(
    "NVIDIA H200", "9.0", 132, 141 * 10**9, 60 * 2**20, 1980000, 3201000, 6144, 13000, 13000, 131000
)
ROOFLINE = load_cost_table("roofline", Path())
CASES = timing_cases()
KERNELS = every_kernel()


def sample(kernel: str, sizes: dict[str, int], seconds: float) -> Sample:
    """A sample with one time, as a kernel's own class counts its work."""
    one, note = KERNELS[kernel], KERNELS[kernel].note(sizes)
    method = f"made; {note}" if note else "made"
    return Sample(kernel, sizes, method, one.flops(sizes), one.bytes(sizes), (seconds,), seconds, 0.0)


def retimed(one: Sample, seconds: float) -> Sample:
    """The sample with another time."""
    return replace(one, times_s=(seconds,), median_s=seconds)


def right(kernel: str) -> Verified:
    """A verification that the kernel passed."""
    return Verified(kernel, VERIFICATION_CASES[kernel][0], "out", 1e-3, 4e-3, 0.5, "")


def measurement_of(samples: list[Sample], device: Device = H200) -> Measurement:
    """A measurement of these samples, whose kernels are all verified."""
    names = dict.fromkeys(one.kernel for one in samples)
    return Measurement(device, "2026-01-31", 1, tuple(map(right, names)), (), tuple(samples))


def made(device: Device = H200, left_out: tuple[str, ...] = ()) -> Measurement:
    """Return the samples that there would be if kernels took on this device what `roofline` says of it."""
    times = KernelTimes(ROOFLINE.kernels, {}, None, gpu_of(device.name))
    samples = []
    for kind in KINDS.values():
        for name in kind.sampled:
            for shaped in (name, f"grouped-{name}"):
                samples += [
                    sample(shaped, sizes, times.cost(kind.call(sizes)).seconds)
                    for sizes in CASES.get(shaped, ())
                    if shaped not in left_out
                ]
    return measurement_of(samples, device)


def noisy(measurement: Measurement, deviation: float, seed: int = 1) -> Measurement:
    """The measurement with each time off by a factor of this deviation."""
    factors = np.exp(np.random.default_rng(seed).normal(0.0, deviation, len(measurement.samples)))
    samples = zip(measurement.samples, factors.tolist(), strict=True)
    return replace(measurement, samples=tuple(retimed(one, one.median_s * factor) for one, factor in samples))
