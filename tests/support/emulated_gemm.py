"""Products of matrices on the CPU: gemm.cu itself, compiled by g++ against a stand-in for cuBLASLt's header.

What it shows: that gemm.cu asks cuBLASLt for the product that it means, transposes, strides and scales included. What
it cannot show: that cuBLASLt is as its documentation says.
"""

import functools
import subprocess
from pathlib import Path

from simulator.calibration.gpu.build import GEMM_SOURCE
from simulator.calibration.gpu.gemm_library import GemmLibrary
from support.emulated import EMULATION_FOLDER
from support.scratch import made_once

STAND_IN_FOLDER = Path(__file__).parent / "cublaslt_on_cpu"


def _compile_to(target: Path) -> None:
    command = [
        "g++", "-std=c++20", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", f"-I{STAND_IN_FOLDER}",
        f"-I{EMULATION_FOLDER}", "-x", "c++", str(GEMM_SOURCE), str(EMULATION_FOLDER / "cuda_runtime_api.cpp"),
        "-o", str(target),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"gemm.cu does not compile for the CPU:\n{done.stderr}")


@functools.cache
def emulated_gemm_library() -> GemmLibrary:
    """The products' library for the CPU, built once a run."""
    return GemmLibrary(made_once("libgemm.so", _compile_to))
