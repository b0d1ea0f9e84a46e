"""Compiles the matrix products' library, which is linked to cuBLASLt: found in the CUDA toolkit or beside Python."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from simulator.calibration.gpu.build import GEMM_SOURCE, MissingTool, compiled, find_nvcc

HEADER: Final = "cublasLt.h"
LIBRARY_PATTERN: Final = "libcublasLt.so*"
HOME_VARIABLE: Final = "CUBLAS_HOME"
USUAL_TOOLKIT: Final = Path("/usr/local/cuda")
SYSTEM_PLACES: Final = (USUAL_TOOLKIT, Path("/usr"))


class CublasLt(NamedTuple):
    """Where cuBLASLt is.

    include: folder of cublasLt.h
    shared_object: the library itself
    """

    include: Path
    shared_object: Path


def build_gemm(folder: Path) -> Path:
    """Return the matrix products' shared library, compiled into `folder` unless it is there."""
    include, library = find_cublaslt()
    options = (
        f"-I{include}",
        f"-L{library.parent}",
        f"-l:{library.name}",
        "-Xlinker",
        f"-rpath={library.parent}",
    )
    return compiled("railplane_gemm", [GEMM_SOURCE], folder, options)


def find_cublaslt() -> CublasLt:
    """Return cuBLASLt: that of CUBLAS_HOME in the environment, else of the toolkit, else of Python's packages."""
    named = os.environ.get(HOME_VARIABLE)
    places = [Path(named)] if named else [*_toolkits(), *_packages(), *SYSTEM_PLACES]
    for place in places:
        found = _look_into(place)
        if found is not None:
            return found
    if named:
        raise MissingTool(
            f"cuBLASLt is missing: {HOME_VARIABLE} names '{named}', which has no include/{HEADER} and "
            f"lib/libcublasLt.so; name a folder that has both, or unset it"
        )
    raise MissingTool(
        f"cuBLASLt is missing: {HEADER} and libcublasLt.so are neither in the CUDA toolkit nor among Python's "
        f"packages; pip install nvidia-cublas, or name a folder that has include/ and lib/ in {HOME_VARIABLE}, or "
        "measure --without-gemm"
    )


def _toolkits() -> Iterator[Path]:
    """Yield the folders of the toolkit that nvcc belongs to: where it lies, and where a link to it leads."""
    nvcc = find_nvcc()
    for path in dict.fromkeys((nvcc, nvcc.resolve())):
        root = path.parent.parent
        yield root
        yield root / "targets" / "x86_64-linux"


def _packages() -> Iterator[Path]:
    """Yield the folders of the packages nvidia-cublas (CUDA 13 and later) and nvidia-cublas-cu12."""
    spec = find_spec("nvidia")
    for parent in (spec.submodule_search_locations or ()) if spec else ():
        yield from sorted(Path(parent).glob("cu[0-9]*"), reverse=True)
        yield Path(parent) / "cublas"


def _look_into(place: Path) -> CublasLt | None:
    include = place / "include"
    if not (include / HEADER).is_file():
        return None
    for folder in ("lib64", "lib", "lib/x86_64-linux-gnu"):
        # The shortest name is the link that developers' packages have; Python's have but the numbered one.
        libraries = sorted(
            (place / folder).glob(LIBRARY_PATTERN), key=lambda path: (len(path.name), path.name)
        )
        if libraries:
            return CublasLt(include, libraries[0])
    return None
