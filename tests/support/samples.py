"""Samples as a measurement would leave them if kernels took what the cost table `roofline` says."""

from pathlib import Path

from simulator.calibration.gpu.cases import timing_cases
from simulator.calibration.gpu.samples import Device, Measurement, Sample
from simulator.calibration.measured_table import KINDS, gpu_of
from simulator.costs import load_cost_table
from simulator.kernel_times import KernelTimes

H200 = Device(
    "NVIDIA H200", "9.0", 132, 141 * 10**9, 60 * 2**20, 1980000, 3201000, 6144, 13000, 13000, 131000
)
ROOFLINE = load_cost_table("roofline", Path())
CASES = timing_cases()


def sample(kernel: str, sizes: dict[str, int], call, seconds: float) -> Sample:
    return Sample(kernel, sizes, "made", int(call.flops), int(call.moved_bytes), (seconds,), seconds, 0.0)


def made(device: Device = H200, left_out: tuple[str, ...] = ()) -> Measurement:
    """Return the samples that there would be if kernels took on this device what `roofline` says of it."""
    times = KernelTimes(ROOFLINE.kernels, {}, None, gpu_of(device.name))
    samples = []
    for kind in KINDS.values():
        for name in kind.sampled:
            for shaped in (name, f"grouped-{name}"):
                for sizes in () if shaped in left_out else CASES.get(shaped, ()):
                    call = kind.call(sizes)
                    samples.append(sample(shaped, sizes, call, times.cost(call).seconds))
    return Measurement(device, "2026-01-31", 1, (), (), tuple(samples))
