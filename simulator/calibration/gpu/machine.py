"""A machine's GPU, opened: the kernels' libraries built and loaded, and what the device is."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from simulator.calibration.gpu.build import MissingTool, build, find_nvcc
from simulator.calibration.gpu.build_gemm import build_gemm, find_cublaslt
from simulator.calibration.gpu.cuda_library import CudaError, Library
from simulator.calibration.gpu.driver import WHAT_TO_DO, check_capability, check_count, check_gpu
from simulator.calibration.gpu.gemm_library import GemmLibrary
from simulator.calibration.gpu.kernel import Bench, Products
from simulator.calibration.gpu.samples import Device

GEMM_WORKSPACE_BYTES: Final = 64 * 2**20


def check_machine(device: int, with_gemm: bool) -> None:
    """Raise MissingTool, naming it, where the machine lacks what measuring needs; nothing is compiled or written."""
    check_gpu(device)
    find_nvcc()
    if with_gemm:
        find_cublaslt()


@contextmanager
def opened(device: int, with_gemm: bool) -> Iterator[tuple[Bench, Device]]:
    """Yield the device, its libraries built and open, and its description."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "railplane"
    library = Library(build(cache))
    _check_device(library, device)
    library.set_device(device)
    gemm = GemmLibrary(build_gemm(cache), device) if with_gemm else None
    with on_bench(library, gemm, device) as found:
        yield found


@contextmanager
def on_bench(library: Library, gemm: GemmLibrary | None, device: int) -> Iterator[tuple[Bench, Device]]:
    """Yield a device whose libraries are open, and its description."""
    properties = library.device_properties(device)
    described = Device(
        properties.name,
        properties.compute_capability,
        properties.sms,
        properties.memory_bytes,
        properties.l2_bytes,
        properties.sm_clock_khz,
        properties.memory_clock_khz,
        properties.bus_width_bits,
        library.driver_version(),
        library.runtime_version(),
        gemm.version() if gemm else None,
    )
    with ExitStack() as held:
        workspace = held.enter_context(library.allocate(GEMM_WORKSPACE_BYTES)) if gemm else None
        products = Products(gemm, workspace) if gemm and workspace else None
        yield (
            Bench(library, products, properties.sms, properties.l2_bytes, properties.memory_bytes),
            described,
        )


def _check_device(library: Library, device: int) -> None:
    """Refuse a device that the CUDA runtime does not have, as where the driver is older than the runtime."""
    try:
        count = library.device_count()
    except CudaError as error:
        said = str(error).partition(": ")[2]
        raise MissingTool(f"a GPU is missing: CUDA says '{said}'; {WHAT_TO_DO}") from error
    check_count(device, count)
    check_capability(device, library.device_properties(device).compute_capability)
