"""Whether kernels are right: fresh random inputs, poisoned outputs, guarded ends, against the truth in float64.

Each output starts as bytes 0xFF, which are NaN in BF16, e4m3 and FP32 alike, and is followed by a guard zone of
bytes 0xA5. What a kernel does not write is NaN and never passes; what it writes beyond the end shows in the guard.
Its inputs must be what they were.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from simulator.calibration.gpu.cases import Shape
from simulator.calibration.gpu.cuda_library import CudaError, DeviceArray
from simulator.calibration.gpu.draws import FreshDraw, rng_of
from simulator.calibration.gpu.gemm_library import NoLibraryKernel
from simulator.calibration.gpu.kernel import Bench, Comparison, DeviceArrays, HostArrays, Kernel, Output
from simulator.calibration.gpu.samples import Verified, shape_text

POISON: Final = 0xFF
GUARD: Final = 0xA5  # not the poison, which a kernel may copy past an end
GUARD_BYTES: Final = 4096


def verify(bench: Bench, kernel: Kernel, shape: Shape, seed: int) -> list[Verified]:
    """Return what each output of one case came to; where the device refused, one that says so.

    Raises NoLibraryKernel where there is nothing to verify, DeviceFailed where the device answers no more.
    """
    inputs = kernel.inputs(shape, FreshDraw(rng_of(kernel.name, shape, seed)))
    try:
        found, faults = _run(bench, kernel, shape, inputs)
    except NoLibraryKernel:
        raise
    except CudaError as error:
        bench.cuda.check_answers(f"{kernel.name} {shape_text(shape)}", error)
        return [Verified(kernel.name, shape, "", None, 0.0, None, str(error))]
    with np.errstate(invalid="ignore"):  # a NaN is found, not computed with
        return [
            _judge(kernel, shape, comparison, faults) for comparison in kernel.compare(shape, inputs, found)
        ]


def _run(bench: Bench, kernel: Kernel, shape: Shape, inputs: HostArrays) -> tuple[HostArrays, list[str]]:
    """Return what the kernel wrote, and what it did to memory that is none of its outputs."""
    outputs = kernel.outputs(shape)
    with ExitStack() as held:
        arrays: dict[str, DeviceArray] = {}
        for name, array in inputs.items():
            arrays[name] = held.enter_context(bench.cuda.allocate(array))
        for name, output in outputs.items():
            arrays[name] = held.enter_context(bench.cuda.allocate(_poisoned(output.size_bytes)))
        call = held.enter_context(kernel.bound_call(bench, shape, arrays))
        call()
        bench.cuda.synchronise()
        found = {name: arrays[name].to_host(output.shape, output.dtype) for name, output in outputs.items()}
        faults = [*_faults_at_ends(arrays, outputs), *_changed_inputs(arrays, inputs)]
    return found, faults


def _poisoned(size_bytes: int) -> NDArray[np.uint8]:
    """Return the bytes of an output before it is written, and of the guard zone behind it."""
    contents = np.full(size_bytes + GUARD_BYTES, POISON, np.uint8)
    contents[size_bytes:] = GUARD
    return contents


def _faults_at_ends(arrays: DeviceArrays, outputs: Mapping[str, Output]) -> Iterator[str]:
    for name, output in outputs.items():
        whole = arrays[name].to_host(output.size_bytes + GUARD_BYTES, np.uint8)
        written = np.flatnonzero(whole[output.size_bytes :] != GUARD)
        if written.size:
            yield f"{name}: wrote {written.size} bytes past the end, the first {written[0]} bytes beyond it"


def _changed_inputs(arrays: DeviceArrays, inputs: HostArrays) -> Iterator[str]:
    for name, array in inputs.items():
        if not _same_bytes(arrays[name].to_host(array.shape, array.dtype), array):
            yield f"{name}: is an input, and was written to"


def _same_bytes(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.tobytes() == other.tobytes()


def _judge(kernel: Kernel, shape: Shape, comparison: Comparison, faults: list[str]) -> Verified:
    """Return a comparison's errors beside their bounds, and in words what is wrong."""
    error = np.abs(comparison.found - comparison.truth)
    why = list(faults)
    unwritten = np.count_nonzero(~np.isfinite(comparison.found))
    if unwritten:
        first = _first(~np.isfinite(comparison.found))
        why.append(
            f"{unwritten} of {error.size} elements are not written or not finite, the first at {first}"
        )
    over = ~(error <= comparison.element_bound)
    if over.any() and not unwritten:
        worst = np.unravel_index(np.argmax(error - comparison.element_bound), error.shape)
        why.append(
            f"{np.count_nonzero(over)} of {error.size} elements are off by more than they may; the worst, at "
            f"{tuple(map(int, worst))}, is {comparison.found[worst]:.6g} and should be {comparison.truth[worst]:.6g}"
        )
    norm_error = _relative_norm(error, comparison.truth)
    if not norm_error <= comparison.norm_bound and not unwritten:
        why.append(
            f"the error's norm is {norm_error:.3g} of the truth's; at most {comparison.norm_bound:.3g} is right"
        )
    return Verified(
        kernel.name,
        shape,
        comparison.output,
        _finite(norm_error),
        comparison.norm_bound,
        _finite(_worst_share(error, comparison.element_bound)),
        "; ".join(why),
    )


def _relative_norm(error: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    size, of_error = float(np.linalg.norm(truth)), float(np.linalg.norm(error))
    if size == 0:
        return 0.0 if of_error == 0 else np.inf
    return of_error / size


def _worst_share(error: NDArray[np.float64], bound: NDArray[np.float64]) -> float:
    """Return the largest error over its bound; an element without an error has a share of 0, whatever its bound."""
    share = np.divide(
        error, bound, out=np.where(error == 0, 0.0, np.inf), where=(bound > 0) & ~np.isnan(error)
    )
    return float(np.max(share, initial=0.0))


def _first(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.argwhere(mask)[0])


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
