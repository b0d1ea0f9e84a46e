"""The CUDA kernels on the CPU: the same sources, compiled by g++ against the headers of cuda_on_cpu/.

What it shows: that a kernel computes what it should, meets its own barriers, and neither reads what nobody wrote nor
touches what lies beyond an array's end. What it cannot show: time, and races that no order of threads brings out.
"""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from simulator.calibration.gpu.build import CUDA_FOLDER, kernel_sources
from simulator.calibration.gpu.library import Library

EMULATION_FOLDER = Path(__file__).parent / "cuda_on_cpu"
MISSING_COMPILER = "g++ is missing: the kernels cannot be compiled for the CPU"
# Warnings are for nvcc's eyes too; what a kernel unrolls by a pragma is none of g++'s business.
OPTIONS = (
    "-std=c++20", "-O2", "-fPIC", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-U_FORTIFY_SOURCE",
    f"-I{EMULATION_FOLDER}", f"-I{CUDA_FOLDER}",
)  # fmt: skip


def has_compiler() -> bool:
    return shutil.which("g++") is not None


@functools.cache
def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """The session's folder of compiled code; it goes with the process."""
    return tempfile.TemporaryDirectory(prefix="cuda_on_cpu_")


@functools.cache
def compiled_object(source: Path) -> Path:
    """One source as an object file, compiled once a session."""
    target = Path(scratch_folder().name) / f"{source.name}.o"
    command = ["g++", *OPTIONS, "-x", "c++", "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{source.name} does not compile for the CPU:\n{done.stderr}")
    return target


def linked(target: Path, sources: Iterable[Path], *options: str) -> Path:
    """The sources and the emulation as one file: a shared library, or a program where options say so."""
    every = [*sources, *sorted(EMULATION_FOLDER.glob("*.cpp"))]
    with ThreadPoolExecutor(2) as compilers:
        objects = list(compilers.map(compiled_object, every))
    subprocess.run(["g++", *options, *map(str, objects), "-o", str(target)], check=True)
    return target


@functools.cache
def emulated_library_path() -> Path:
    """The kernels' shared library for the CPU, built once a session."""
    target = Path(scratch_folder().name) / "libkernels.so"
    return linked(target, kernel_sources(), "-shared")


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
