"""The published FP8 GEMM rates on H800 that kernel costs are fitted to, and the fit.

DeepGEMM's README of March 2025 (SXM5, NVCC 12.8): dense, grouped contiguous and grouped masked shapes, 2 FLOPs per
multiply-add. What scales of 1x128 and 128x128 values cost, and the promotion of partial sums to FP32, is in them.
"""

import csv
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.calibration import fitting
from simulator.costs import device_of
from simulator.kernel_times import Device, KernelCosts, KernelTimes, Listed, Shape
from topologies import NODES
from workloads.kernels import Gemm

FloatArray = NDArray[np.float64]

H800: Final[Device] = device_of(NODES["h800"].gpu)
SOURCE: Final = "DeepGEMM README, March 2025 figures, H800 SXM5"
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
    """Return the entry of FP8 products that comes closest to the shapes."""
    return fitting.fit(shapes, H800, fitting.OF_PRODUCTS, SOURCE)


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
