"""The matrix products' library as Python sees it: plans of cuBLASLt products, run on the kernels' device memory."""

import ctypes
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from simulator.calibration.gpu.cuda_library import CudaError, DeviceArray, give_back

# gemm.cu's number for cuBLASLt's "not supported".
NO_KERNEL: Final = 100000 + 15


class NoLibraryKernel(CudaError):  # noqa: N818
    """cuBLASLt has no kernel for a product of this shape and format."""


class GemmFormat(IntEnum):
    """The operands of a product, and the number by which the library knows them."""

    BF16 = 0
    FP8 = 1
    FP8_BLOCK = 2


class GemmPlan:
    """A product D[m, n] = A[m, k] B[n, k]^T that cuBLASLt chose a kernel for; destroyed at the end of its `with`."""

    def __init__(
        self,
        library: "GemmLibrary",
        format_of_operands: GemmFormat,
        sizes: tuple[int, int, int],
        workspace: DeviceArray,
    ) -> None:
        self._library = library
        self._workspace = workspace
        self._handle = ctypes.c_void_p()
        library.call(
            "rp_gemm_create",
            ctypes.byref(self._handle),
            ctypes.c_int(format_of_operands),
            *map(ctypes.c_int64, sizes),
            ctypes.c_int64(workspace.size_bytes),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        give_back(lambda: self._library.call("rp_gemm_destroy", self._handle), error)

    def run(
        self,
        a: DeviceArray,
        b: DeviceArray,
        d: DeviceArray,
        scale_a: DeviceArray | None = None,
        scale_b: DeviceArray | None = None,
    ) -> None:
        """Compute D; the scales are FP32 on the device, one of each operand or, by blocks, as gemm.cu says."""
        pointers = [
            None if array is None else array.pointer for array in (a, b, d, scale_a, scale_b, self._workspace)
        ]
        self._library.call("rp_gemm_run", self._handle, *pointers)


class GemmLibrary:
    """The matrix products' shared library at `path`; its memory is that of the kernels' library."""

    def __init__(self, path: Path, device: int = 0) -> None:
        try:
            self._functions = ctypes.CDLL(str(path))
        except OSError as error:
            raise CudaError(f"the library of matrix products cannot be opened: {error}") from error
        self._functions.rp_gemm_error_text.restype = ctypes.c_char_p
        self.call("rp_gemm_set_device", ctypes.c_int(device))

    def call(self, name: str, *arguments: Any) -> None:
        """Call the function `name` with ctypes' values; raise CudaError where it does not return 0."""
        code = getattr(self._functions, name)(*arguments)
        if code != 0:
            text = self._functions.rp_gemm_error_text(ctypes.c_int(code))
            kind = NoLibraryKernel if code == NO_KERNEL else CudaError
            raise kind(f"{name}: {text.decode()} (code {code})")

    def version(self) -> int:
        """Return cuBLASLt's version, 130000 for 13.0.0."""
        value = ctypes.c_int64()
        self.call("rp_gemm_library_version", ctypes.byref(value))
        return value.value

    def plan(
        self, format_of_operands: GemmFormat, *, m: int, n: int, k: int, workspace: DeviceArray
    ) -> GemmPlan:
        """Return a plan; raises NoLibraryKernel where cuBLASLt has none for it."""
        return GemmPlan(self, format_of_operands, (m, n, k), workspace)
