"""The published FP8 GEMM rates on H800 that kernel costs are fitted to, and the fit.

DeepGEMM's README of March 2025 (SXM5, NVCC 12.8): dense, grouped contiguous and grouped masked shapes, 2 FLOPs per
multiply-add. What scales of 1x128 and 128x128 values cost, and the promotion of partial sums to FP32, is in them.
"""

import csv
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from simulator.costs import device_of
from simulator.figures import Duration, Efficiency
from simulator.kernel_times import Device, KernelCosts, KernelTimes, Listed, Shape, ShapeEffects
from topologies import NODES
from workloads.kernels import Gemm

FloatArray = NDArray[np.float64]

H800: Final[Device] = device_of(NODES["h800"].gpu)
SOURCE: Final = "DeepGEMM README, March 2025 figures, H800 SXM5"
TILE_ROWS: Final = 64  # rows of Hopper's matrix instruction (wgmma m64nNk16, PTX ISA 8.0)
_RATE_COLUMN: Final = {
    "deepgemm_dense.csv": "tflops_20250325",
    "deepgemm_grouped_contiguous.csv": "tflops_20250325",
    "deepgemm_grouped_masked.csv": "tflops",
}


def published(name: str) -> list[dict[str, str]]:
    """Return the rows of a published table that the project keeps a copy of."""
    with (files("simulator") / "calibration" / "published" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def published_shapes() -> tuple[Shape, ...]:
    """Return the published shapes, each with its share of an H800's FP8 peak, in the order of the tables."""
    return tuple(shape for name, rate in _RATE_COLUMN.items() for shape in _shapes_of(name, rate))


def _shapes_of(name: str, rate: str) -> Iterator[Shape]:
    for row in published(name):
        groups = int(row.get("groups", 1))
        rows = groups * int(row["M"] if "M" in row else row["M_per_group"])
        call = Gemm(rows=rows, columns=int(row["N"]), depth=int(row["K"]), groups=groups, format="fp8")
        yield Shape(call=call, share=float(row[rate]) * 1e12 / H800.peak_fp8)


def fit(shapes: Sequence[Shape]) -> KernelCosts:
    """Return the entry whose roofline comes closest to the shapes, by the sum of squared logarithms of ratios."""
    from scipy.optimize import least_squares

    measured_s = np.array([shape.seconds_on(H800) for shape in shapes])

    def misses(parameters: FloatArray) -> FloatArray:
        times = KernelTimes({"gemm-fp8": _entry(parameters)}, {}, None, H800)
        return np.log([times.cost(shape.call).seconds for shape in shapes] / measured_s)

    # arithmetic, bandwidth, launch in us, ramp depth in hundreds, blend
    found = least_squares(
        misses, [0.7, 0.9, 2.5, 2.5, 2.0], bounds=([0.3, 0.3, 0.0, 0.0, 1.0], [1.0, 1.0, 20.0, 30.0, 30.0])
    )
    return _entry(found.x, float(np.abs(np.expm1(found.fun)).max()))


def _entry(parameters: FloatArray, largest_residual: float | None = None) -> KernelCosts:
    """Return an entry without listed shapes; parameters: as in `fit`."""
    arithmetic, bandwidth, launch_us, ramp_hundreds, blend = parameters.tolist()
    told: Any = {"how": "fitted", "source": SOURCE, "largest_residual": largest_residual}
    return KernelCosts(
        launch=Duration.model_validate({"value": f"{launch_us!r} us", **told}),
        arithmetic=Efficiency(value=arithmetic, **told),
        bandwidth=Efficiency(value=bandwidth, **told),
        effects=ShapeEffects(tile_rows=TILE_ROWS, ramp_depth=100 * ramp_hundreds, blend=blend, **told),
    )


def leave_one_out(shapes: Sequence[Shape]) -> FloatArray:
    """Return what each shape is predicted to take by a table without it, over what it took, less 1: [num_shapes]."""
    misses = []
    for left_out in shapes:
        others = tuple(shape for shape in shapes if shape is not left_out)
        entry = fit(others).model_copy(
            update={"listed": Listed(how="published", source=SOURCE, shapes=others)}
        )
        predicted_s = KernelTimes({"gemm-fp8": entry}, {}, H800, H800).cost(left_out.call).seconds
        misses.append(predicted_s / left_out.seconds_on(H800) - 1.0)
    return np.array(misses)
