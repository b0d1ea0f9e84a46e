"""All kernels, by the names that samples carry."""

from simulator.calibration.gpu.kernel import Kernel
from simulator.calibration.gpu.kernels_attention import MlaDecode
from simulator.calibration.gpu.kernels_gemm import OPERANDS, Gemm, GroupedGemm
from simulator.calibration.gpu.kernels_streaming import Combine, Copy, Norm, Quantise


def every_kernel() -> dict[str, Kernel]:
    """Return all kernels by name."""
    kernels: list[Kernel] = [Copy(), Quantise(), Combine(), Norm(), MlaDecode()]
    for operands in OPERANDS:
        kernels += [Gemm(operands), GroupedGemm(operands)]
    return {kernel.name: kernel for kernel in kernels}


def is_product(name: str) -> bool:
    """Return whether a kernel is a product of matrices, which needs cuBLASLt."""
    return "gemm" in name
