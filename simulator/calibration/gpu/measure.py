"""Builds, verifies and times all kernels on one device.

    python -m simulator.calibration.gpu.measure --device 0 --out FOLDER

The folder gets `samples.json` (simulator.calibration.gpu.samples reads it) and `log.txt`, all that is printed. Both
are written as the measurement goes on, so that one which is cut short leaves what it has. A kernel that fails any
verification case is not timed. Needs Python with NumPy, nvcc, a Hopper GPU and cuBLASLt; nothing else of this project
than its folder.

Exit status: 0 all kernels are right; 1 some kernel is wrong, or the measurement failed; 2 something is missing on
this machine, or an argument is wrong.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from secrets import randbelow
from typing import Final

from simulator.calibration.gpu.build import BuildFailed, MissingTool
from simulator.calibration.gpu.cases import (
    ORDER,
    VERIFICATION_CASES,
    Cases,
    Shape,
    quick_timing_cases,
    timing_cases,
)
from simulator.calibration.gpu.cuda_library import CudaError, DeviceFailed
from simulator.calibration.gpu.draws import PooledDraw, rng_of
from simulator.calibration.gpu.gemm_library import NoLibraryKernel
from simulator.calibration.gpu.kernel import Bench, Call, Kernel
from simulator.calibration.gpu.kernels import every_kernel, is_product
from simulator.calibration.gpu.machine import check_machine, opened
from simulator.calibration.gpu.samples import (
    Device,
    LeftOut,
    Measurement,
    Sample,
    Verified,
    shape_text,
    summary_of,
    write_samples,
)
from simulator.calibration.gpu.summary import line_of, table, targets
from simulator.calibration.gpu.timing import FULL, QUICK, Effort, Flush, TimingError, time_call
from simulator.calibration.gpu.verify import verify

# Of the device's memory, for the inputs and outputs of one case; the rest is for the cache flush and CUDA itself.
MEMORY_SHARE: Final = 0.8
MOST_SEED: Final = 2**31
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to verify and what to time, and how long to take."""

    verification: Cases
    timing: Cases
    effort: Effort
    seed: int


@dataclass
class Progress:
    """What a measurement has found so far."""

    device: Device
    date: str
    seed: int
    verified: list[Verified] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def measurement(self) -> Measurement:
        """Return it as what is written and read."""
        return Measurement(
            self.device, self.date, self.seed, tuple(self.verified), tuple(self.left_out), tuple(self.samples)
        )


def measure(
    folder: Path,
    *,
    device: int = 0,
    only: Sequence[str] = (),
    quick: bool = False,
    seed: int | None = None,
    with_gemm: bool = True,
    check: Callable[[Device], None] | None = None,
    say: Say = print,
) -> Measurement:
    """Return what a device's kernels come to, and leave it in `folder`.

    device: its number
    only: names of kernels; none for all
    quick: time but a few shapes of each kernel
    seed: of the random inputs; None draws one
    with_gemm: False leaves products of matrices out, and the samples say so
    check: is given the device as soon as it is open, before anything runs on it; raises ValueError to refuse it
    say: what is told each line of the log

    Raises MissingTool where the machine lacks something, BuildFailed where nvcc refuses a source, CudaError where the
    device fails as a whole. ValueError names an unknown kernel.
    """
    kernels = chosen(only)
    timing = quick_timing_cases() if quick else timing_cases()
    seed = randbelow(MOST_SEED) if seed is None else seed
    plan = Plan(VERIFICATION_CASES, timing, QUICK if quick else FULL, seed)
    needs_gemm = with_gemm and any(is_product(kernel.name) for kernel in kernels)
    check_machine(device, needs_gemm)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("w", encoding="utf-8") as log:

        def say_and_log(line: str) -> None:
            say(line)
            print(line, file=log, flush=True)

        try:
            with opened(device, needs_gemm) as (bench, described):
                if check is not None:
                    check(described)
                return measure_on(bench, described, kernels, plan, folder, say_and_log)
        except (MissingTool, BuildFailed, CudaError, TimingError, ValueError) as error:
            print(error, file=log)
            raise


def chosen(only: Sequence[str]) -> list[Kernel]:
    """Return the kernels of these names, or all, in the order in which they are timed."""
    kernels = every_kernel()
    unknown = sorted(set(only) - set(ORDER))
    if unknown:
        raise ValueError(f"unknown kernel '{unknown[0]}'; kernels are {', '.join(ORDER)}")
    return [kernels[name] for name in ORDER if not only or name in only]


def measure_on(
    bench: Bench, device: Device, kernels: Sequence[Kernel], plan: Plan, folder: Path, say: Say
) -> Measurement:
    """Return what these kernels come to on an open device, and leave it in `folder`."""
    progress = Progress(device, datetime.now(UTC).date().isoformat(), plan.seed)
    say(
        f"{device.name}, compute capability {device.compute_capability}, driver {device.driver}, "
        f"runtime {device.runtime}, cuBLASLt {device.cublaslt}; seed {plan.seed}"
    )
    without = [kernel for kernel in kernels if is_product(kernel.name) and bench.products is None]
    for kernel in without:
        _leave_out(progress, kernel, {}, "without cuBLASLt, as was asked", say)
    at_hand = [kernel for kernel in kernels if kernel not in without]
    try:
        for kernel in at_hand:
            _verify(bench, kernel, plan, progress, say)
        write_samples(progress.measurement(), folder / "samples.json")
        _time_all(bench, at_hand, plan, progress, folder, say)
    finally:  # what a device that fails leaves behind is written, too
        write_samples(progress.measurement(), folder / "samples.json")
    for line in (*table(progress.measurement()), *map(str, targets(progress.measurement()))):
        say(line)
    return progress.measurement()


def _time_all(
    bench: Bench, kernels: Sequence[Kernel], plan: Plan, progress: Progress, folder: Path, say: Say
) -> None:
    """Add the samples of all kernels that are right, and write them after each."""
    draw = PooledDraw(rng_of("timing", {}, plan.seed))
    with Flush(bench) as flush:
        for kernel in kernels:
            refusal = _refusal(progress.verified, kernel)
            if refusal:
                _leave_out(progress, kernel, {}, refusal, say)
                continue
            for shape in plan.timing[kernel.name]:
                _time(bench, flush, kernel, shape, draw, plan.effort, progress, say)
            write_samples(progress.measurement(), folder / "samples.json")


def _verify(bench: Bench, kernel: Kernel, plan: Plan, progress: Progress, say: Say) -> None:
    """Add what each verification case of a kernel came to."""
    for shape in plan.verification[kernel.name]:
        try:
            results = verify(bench, kernel, shape, plan.seed)
        except NoLibraryKernel as error:
            _leave_out(progress, kernel, shape, f"not verified at this shape either: {error}", say)
            continue
        except DeviceFailed as error:
            progress.verified.append(Verified(kernel.name, shape, "", None, 0.0, None, str(error)))
            raise
        for verified in results:
            progress.verified.append(verified)
            say(_line_of_verified(verified))


def _refusal(every: Sequence[Verified], kernel: Kernel) -> str:
    """Return why a kernel is not timed; nothing where it is right."""
    of_kernel = [verified for verified in every if verified.kernel == kernel.name]
    if not of_kernel:
        return "no verification case of it could run, so that it is not timed"
    if not all(verified.passed for verified in of_kernel):
        return "failed verification, so that it is not timed"
    return ""


def _time(
    bench: Bench,
    flush: Flush,
    kernel: Kernel,
    shape: Shape,
    draw: PooledDraw,
    effort: Effort,
    progress: Progress,
    say: Say,
) -> None:
    """Add the sample of one case, or why there is none."""
    set_bytes = kernel.bytes(shape)
    if set_bytes > MEMORY_SHARE * bench.memory_bytes:
        why = f"needs {set_bytes / 1e9:.1f} GB, of {bench.memory_bytes / 1e9:.1f} GB on the device"
        _leave_out(progress, kernel, shape, why, say)
        return
    inputs = kernel.inputs(shape, draw)

    def make_call(held: ExitStack) -> Call:
        contents = inputs | {name: output.size_bytes for name, output in kernel.outputs(shape).items()}
        arrays = {
            name: held.enter_context(bench.cuda.allocate(content)) for name, content in contents.items()
        }
        return held.enter_context(kernel.bound_call(bench, shape, arrays))

    try:
        timing = time_call(bench, flush, make_call, set_bytes, effort)
    except (CudaError, TimingError) as error:
        _leave_out(progress, kernel, shape, str(error), say)
        if isinstance(error, CudaError):
            bench.cuda.check_answers(f"{kernel.name} {shape_text(shape)}", error)
        return
    middle, spread = summary_of(timing.times_s)
    method = "; ".join(filter(None, (timing.method, kernel.note(shape))))
    sample = Sample(
        kernel.name, shape, method, kernel.flops(shape), set_bytes, timing.times_s, middle, spread
    )
    progress.samples.append(sample)
    say(line_of(sample))


def _leave_out(progress: Progress, kernel: Kernel, shape: Shape, why: str, say: Say) -> None:
    progress.left_out.append(LeftOut(kernel.name, shape, why))
    say(f"not timed: {kernel.name} {shape_text(shape)}: {why}")


def _line_of_verified(verified: Verified) -> str:
    name = f"{verified.kernel} {shape_text(verified.shape)} {verified.output}"
    if not verified.passed:
        return f"WRONG: {name}: {verified.why}"
    return (
        f"right: {name}: error {verified.norm_error:.2e} of at most {verified.norm_bound:.2e}, "
        f"worst element at {verified.worst_share:.0%} of its bound"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement that the command line asks for, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m simulator.calibration.gpu.measure", description=__doc__)
    parser.add_argument("--device", type=int, default=0, help="number of the GPU (default 0)")
    parser.add_argument("--out", type=Path, required=True, help="folder for samples.json and log.txt")
    parser.add_argument("--only", default="", help=f"kernels, with commas between: {', '.join(ORDER)}")
    parser.add_argument("--quick", action="store_true", help="time but a few shapes of each kernel")
    parser.add_argument("--seed", type=int, help="of the random inputs (default: a fresh one)")
    parser.add_argument("--without-gemm", action="store_true", help="leave products of matrices out")
    given = parser.parse_args(arguments)
    only = [name for name in given.only.split(",") if name]
    if given.device < 0:
        parser.error(f"--device: is {given.device}; devices are numbered from 0")
    if given.seed is not None and given.seed < 0:
        parser.error(f"--seed: is {given.seed}; it must be 0 or more")
    try:
        chosen(only)
    except ValueError as error:
        parser.error(str(error))
    try:
        measurement = measure(
            given.out,
            device=given.device,
            only=only,
            quick=given.quick,
            seed=given.seed,
            with_gemm=not given.without_gemm,
        )
    except OSError as error:
        print(f"{error.filename or given.out} cannot be written to: {error.strerror}", file=sys.stderr)
        return 2
    except MissingTool as error:
        print(error, file=sys.stderr)
        return 2
    except (BuildFailed, CudaError, TimingError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if all(verified.passed for verified in measurement.verified) else 1


if __name__ == "__main__":
    sys.exit(main())
