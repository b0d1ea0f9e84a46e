"""The protocol of a kernel that is verified and timed: inputs, launch, truth and cost."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from simulator.calibration.gpu.cases import Shape
from simulator.calibration.gpu.cuda_library import DeviceArray, Library
from simulator.calibration.gpu.draws import Draw
from simulator.calibration.gpu.gemm_library import GemmLibrary

Array = NDArray[np.float64]
HostArrays = dict[str, NDArray[Any]]
DeviceArrays = Mapping[str, DeviceArray]
Call = Callable[[], None]

BF16: Final = np.uint16  # bits
E4M3: Final = np.uint8  # bits


class Output(NamedTuple):
    """An array that a kernel writes whole."""

    shape: tuple[int, ...]
    dtype: DTypeLike

    @property
    def size_bytes(self) -> int:
        """Return the array's size."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


class Comparison(NamedTuple):
    """What a kernel wrote beside what it should have, and how far the two may be apart.

    found, truth: float64 of one shape; found has NaN where nothing was written
    element_bound: of that shape, absolute
    norm_bound: of ||found - truth|| / ||truth||
    """

    output: str
    found: Array
    truth: Array
    element_bound: Array
    norm_bound: float


class Products(NamedTuple):
    """What products of matrices run on: the library, and the memory that they share, as they run one by one."""

    library: GemmLibrary
    workspace: DeviceArray


@dataclass(frozen=True)
class Bench:
    """The device at work: the libraries, and what of the device kernels ask for.

    products: None where they are left out
    """

    cuda: Library
    products: Products | None
    sms: int
    l2_bytes: int
    memory_bytes: int


class Kernel(Protocol):
    """One kernel, or one kind of library call, at any shape."""

    name: str

    def note(self, shape: Shape, /) -> str:
        """Return what a call is made up of, where it is not one launch; else nothing."""

    def inputs(self, shape: Shape, draw: Draw, /) -> HostArrays:
        """Return the arrays that the kernel reads."""

    def outputs(self, shape: Shape, /) -> dict[str, Output]:
        """Return the arrays that it writes."""

    def bound_call(self, bench: Bench, shape: Shape, arrays: DeviceArrays, /) -> AbstractContextManager[Call]:
        """Return a call that launches it on these inputs and outputs, with the memory that it needs beside them."""

    def compare(self, shape: Shape, inputs: HostArrays, found: HostArrays, /) -> Iterator[Comparison]:
        """Yield the comparisons of what it wrote with the truth."""

    def flops(self, shape: Shape, /) -> int:
        """Return the floating-point operations of a call, a multiplication and an addition being two."""

    def bytes(self, shape: Shape, /) -> int:
        """Return the bytes that a call must move: each operand read once, each result written once."""
