"""Compiles the CUDA kernels into a shared library, on demand: never at install.

A library lies in the folder that the caller gives, named by a digest of all that it is made of: what is there already
is not compiled again, and an edit of a source, another compiler or another option makes another file.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

CUDA_FOLDER: Final = Path(__file__).parent / "cuda"

# The one source that is no part of the kernels' library: it needs cuBLASLt.
GEMM_SOURCE: Final = CUDA_FOLDER / "gemm.cu"

# Hopper: H100, H200, H800, H20.
ARCHITECTURE: Final = "-gencode=arch=compute_90,code=sm_90"
OPTIONS: Final = ("-std=c++20", "-O3", ARCHITECTURE, f"-I{CUDA_FOLDER}")
_LIBRARY_OPTIONS: Final = ("-shared", "-Xcompiler", "-fPIC", "--threads", "0")

_USUAL_PLACE: Final = Path("/usr/local/cuda/bin/nvcc")
_DIGEST_CHARACTERS: Final = 16

# The first nvcc that takes C++20, with GCC 10 or newer (CUDA 12.0's release notes); Hopper came with 11.8 already.
LEAST_NVCC: Final = (12, 0)
_LEAST: Final = ".".join(map(str, LEAST_NVCC))
_RELEASE: Final = re.compile(r"release (\d+)\.(\d+)")
# nvcc calls both of the host's compilers, unless one of these settings of its own names another.
_HOST_COMPILERS: Final = ("gcc", "g++")
_HOST_COMPILER_SETTINGS: Final = ("NVCC_CCBIN", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")


class MissingTool(RuntimeError):  # noqa: N818
    """Something that measuring needs is not on this machine: what, and how to get it."""


class BuildFailed(RuntimeError):  # noqa: N818
    """The compiler refused a source: its command and what it said."""


def find_nvcc() -> Path:
    """Return the CUDA compiler: that of the environment variable NVCC, else of PATH, else of /usr/local/cuda.

    Raises MissingTool where there is none, or none that is new enough.
    """
    nvcc = _path_of_nvcc()
    released = _RELEASE.search(_version(nvcc))
    if released is None:
        raise MissingTool(f"nvcc is missing: {nvcc} --version names no release; name nvcc in NVCC")
    version = (int(released[1]), int(released[2]))
    if version < LEAST_NVCC:
        raise MissingTool(
            f"nvcc is missing: {nvcc} is of CUDA {released[1]}.{released[2]}, and the kernels need {_LEAST} or "
            "newer; install a newer CUDA toolkit, or name its nvcc in NVCC"
        )
    return nvcc


def _path_of_nvcc() -> Path:
    named = os.environ.get("NVCC")
    if named:
        found = shutil.which(named)
        if found is None:
            raise MissingTool(
                f"nvcc is missing: NVCC names '{named}', which is no program; name nvcc or unset it"
            )
        return Path(found)
    found = shutil.which("nvcc") or shutil.which(str(_USUAL_PLACE))
    if found is None:
        raise MissingTool(
            "nvcc is missing: it is neither on PATH nor at "
            f"{_USUAL_PLACE}; install the CUDA toolkit ({_LEAST} or newer) or name its nvcc in NVCC"
        )
    return Path(found)


def kernel_sources() -> list[Path]:
    """Return the sources of the kernels' library, sorted."""
    return sorted(path for path in CUDA_FOLDER.glob("*.cu") if path != GEMM_SOURCE)


def build(folder: Path) -> Path:
    """Return the kernels' shared library, compiled into `folder` unless it is there."""
    return compiled("railplane_kernels", kernel_sources(), folder)


def compiled(name: str, sources: Sequence[Path], folder: Path, options: Sequence[str] = ()) -> Path:
    """Return the shared library of `sources`, compiled into `folder` unless it is there.

    options: what the compiler is told beside OPTIONS, such as folders and libraries.
    """
    nvcc = find_nvcc()
    arguments = (*OPTIONS, *_LIBRARY_OPTIONS, *map(str, sources), *options)
    library = folder / f"lib{name}_{_digest(sources, arguments, _version(nvcc))}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Whoever looks sees a whole library or none.
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            unfinished = Path(scratch) / library.name
            _compile([str(nvcc), *arguments, "-o", str(unfinished)])
            unfinished.replace(library)
    return library


def _version(nvcc: Path) -> str:
    """Return what the compiler says of itself."""
    return _run([str(nvcc), "--version"])


def _digest(sources: Iterable[Path], arguments: Iterable[str], version: str) -> str:
    """Return a digest of all that a library is made of: sources, every header of ours, command and compiler."""
    digest = hashlib.sha256("\0".join((*arguments, version)).encode())
    for path in (*sources, *sorted(CUDA_FOLDER.glob("*.cuh"))):
        digest.update(f"\0{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:_DIGEST_CHARACTERS]


def _compile(command: Sequence[str]) -> None:
    """Run nvcc; where it fails for want of a host compiler, raise MissingTool."""
    try:
        _run(command)
    except BuildFailed as error:
        missing = [name for name in _HOST_COMPILERS if shutil.which(name) is None]
        if missing and not any(os.environ.get(setting) for setting in _HOST_COMPILER_SETTINGS):
            raise MissingTool(
                f"{missing[0]} is missing: nvcc compiles by it and finds none on PATH; install GCC, or name a host "
                "compiler in NVCC_CCBIN"
            ) from error
        raise


def _run(command: Sequence[str]) -> str:
    """Return what the command printed; raise BuildFailed where it did not succeed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildFailed(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        raise BuildFailed(
            f"{' '.join(command)}\nended with status {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout
