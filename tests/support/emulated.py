"""The CUDA kernels on the CPU: the same sources, compiled by g++ against the headers of cuda_on_cpu/.

What it shows: that a kernel computes what it should, meets its own barriers, and neither reads what nobody wrote nor
touches what lies beyond an array's end. What it cannot show: time, and races that no order of threads brings out.
"""

import ctypes
import functools
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from simulator.calibration.gpu.build import CUDA_FOLDER, kernel_sources
from simulator.calibration.gpu.cuda_library import Library
from support.scratch import made_once

EMULATION_FOLDER = Path(__file__).parent / "cuda_on_cpu"
MISSING_COMPILER = "g++ is missing: the kernels cannot be compiled for the CPU"
# -O1 takes half as long to compile as -O2, and the tests run no longer. Warnings are for nvcc's eyes too; what a
# kernel unrolls by a pragma is none of g++'s business.
OPTIONS = (
    "-std=c++20", "-O1", "-fPIC", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-U_FORTIFY_SOURCE",
    f"-I{EMULATION_FOLDER}", f"-I{CUDA_FOLDER}",
)  # fmt: skip


def has_compiler() -> bool:
    return shutil.which("g++") is not None


def compiled_object(source: Path) -> Path:
    """One source as an object file, compiled once a run."""

    def compile_to(target: Path) -> None:
        command = ["g++", *OPTIONS, "-x", "c++", "-c", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AssertionError(f"{source.name} does not compile for the CPU:\n{done.stderr}")

    return made_once(f"{source.name}.o", compile_to)


def linked(name: str, sources: Iterable[Path]) -> Path:
    """The sources and the emulation as one shared library, linked once a run."""

    def link_to(target: Path) -> None:
        every = [*sources, *sorted(EMULATION_FOLDER.glob("*.cpp"))]
        with ThreadPoolExecutor(2) as compilers:
            objects = list(compilers.map(compiled_object, every))
        subprocess.run(["g++", "-shared", *map(str, objects), "-o", str(target)], check=True)

    return made_once(name, link_to)


@functools.cache
def emulated_library_path() -> Path:
    """The kernels' shared library for the CPU, built once a run."""
    return linked("libkernels.so", kernel_sources())


@functools.cache
def emulated_library() -> Library:
    """The kernels' library for the CPU."""
    return Library(emulated_library_path())


@contextmanager
def reverse_order() -> Iterator[None]:
    """Start the threads of a block from the last to the first: without a barrier it is lacking, results change."""
    functions = ctypes.CDLL(str(emulated_library_path()))
    functions.emulated_reverse_order(1)
    try:
        yield
    finally:
        functions.emulated_reverse_order(0)
