"""Compiling on demand: which compiler, when anew, what is said when it fails; and every kernel for Hopper."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from simulator.calibration.gpu import build as build_module
from simulator.calibration.gpu.build import (
    CUDA_FOLDER,
    GEMM_SOURCE,
    OPTIONS,
    BuildFailed,
    MissingTool,
    build,
    compiled,
    find_nvcc,
    kernel_sources,
)
from simulator.calibration.gpu.build_gemm import find_cublaslt
from support.params import mostly_slow

# Writes down how it was called, and a "library" that says the same; fails where the file `refuse` is beside it.
PRETENDED_NVCC = """#!/bin/sh
here=$(dirname "$0")
if [ "$1" = --version ]; then cat "$here/version"; exit 0; fi
echo "$@" >> "$here/calls"
if [ -e "$here/refuse" ]; then echo "error: no such thing" >&2; exit 3; fi
while [ "$1" != -o ]; do shift; done
echo library > "$2"
"""


NVCC_OF_12_0 = "#!/bin/sh\necho Cuda compilation tools, release 12.0, V12.0.140\n"


def program(path, text=NVCC_OF_12_0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No compiler anywhere."""
    monkeypatch.delenv("NVCC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(build_module, "_USUAL_PLACE", tmp_path / "cuda/bin/nvcc")
    return tmp_path


@pytest.fixture
def pretended(monkeypatch, tmp_path):
    """A compiler that only pretends, and the folder it keeps its records in."""
    nvcc = program(tmp_path / "pretended/nvcc", PRETENDED_NVCC)
    (nvcc.parent / "version").write_text("release 13.0\n")
    monkeypatch.setenv("NVCC", str(nvcc))
    return nvcc.parent


def num_calls(pretended):
    calls = pretended / "calls"
    return len(calls.read_text().splitlines()) if calls.exists() else 0


# --- which compiler ---


def test_nvcc_is_that_of_the_environment_then_of_path_then_of_the_usual_place(nowhere, monkeypatch):
    usual = program(nowhere / "cuda/bin/nvcc")
    assert find_nvcc() == usual
    on_path = program(nowhere / "bin/nvcc")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_nvcc() == on_path
    named = program(nowhere / "mine/my-nvcc")
    monkeypatch.setenv("NVCC", str(named))
    assert find_nvcc() == named


def test_a_missing_nvcc_is_said_with_what_to_do(nowhere):
    with pytest.raises(MissingTool, match=r"nvcc is missing: .*install the CUDA toolkit .*NVCC"):
        find_nvcc()


def test_an_nvcc_that_is_named_but_not_there_is_not_passed_over(nowhere, monkeypatch):
    program(nowhere / "cuda/bin/nvcc")
    monkeypatch.setenv("NVCC", "/nowhere/nvcc")
    with pytest.raises(MissingTool, match="NVCC names '/nowhere/nvcc', which is no program"):
        find_nvcc()


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (
            "release 11.8, V11.8.89",
            r"is of CUDA 11\.8, and the kernels need 12\.0 or newer; install a newer CUDA",
        ),
        ("release 9.2", r"is of CUDA 9\.2, and the kernels need 12\.0"),
        ("hello", r"nvcc --version names no release; name nvcc in NVCC"),
    ],
)
def test_an_nvcc_that_is_too_old_is_said_before_anything_is_compiled(pretended, said, match, tmp_path):
    (pretended / "version").write_text(said)
    with pytest.raises(MissingTool, match=match):
        build(tmp_path / "made")
    assert num_calls(pretended) == 0


def test_a_missing_host_compiler_is_said(pretended, monkeypatch, tmp_path):
    (pretended / "refuse").touch()
    program(pretended / "dirname", '#!/bin/sh\necho "${1%/*}"\n')
    program(pretended / "cat", '#!/bin/sh\nread line < "$1"\necho "$line"\n')
    monkeypatch.setenv("PATH", str(pretended))
    with pytest.raises(MissingTool, match=r"gcc is missing: nvcc compiles by it .*NVCC_CCBIN"):
        build(tmp_path / "made")
    monkeypatch.setenv("NVCC_CCBIN", "/opt/gcc/bin/g++")
    with pytest.raises(BuildFailed, match="no such thing"):
        build(tmp_path / "made")


# --- when anew ---


def test_the_kernels_library_leaves_out_what_needs_cublaslt():
    names = [path.name for path in kernel_sources()]
    assert names == sorted(names)
    assert {"combine.cu", "copy.cu", "mla_decode.cu", "norm.cu", "quantise.cu", "runtime.cu"} <= set(names)
    assert GEMM_SOURCE.name not in names


def test_a_library_is_compiled_once(pretended, tmp_path):
    library = build(tmp_path / "made/here")
    assert library.parent == tmp_path / "made/here"
    assert library.read_text() == "library\n"
    assert build(tmp_path / "made/here") == library
    assert num_calls(pretended) == 1
    (call,) = (pretended / "calls").read_text().splitlines()
    assert "-gencode=arch=compute_90,code=sm_90" in call
    assert "-shared" in call
    assert all(str(path) in call for path in kernel_sources())


def test_another_source_header_option_or_compiler_makes_another_library(pretended, monkeypatch, tmp_path):
    sources = tmp_path / "sources"
    sources.mkdir()
    monkeypatch.setattr(build_module, "CUDA_FOLDER", sources)
    source, header = sources / "a.cu", sources / "a.cuh"
    source.write_text("int a;")
    header.write_text("int b;")
    made = [compiled("a", [source], tmp_path)]
    source.write_text("int aa;")
    made.append(compiled("a", [source], tmp_path))
    header.write_text("int bb;")
    made.append(compiled("a", [source], tmp_path))
    made.append(compiled("a", [source], tmp_path, ["-lm"]))
    (pretended / "version").write_text("release 13.1\n")
    made.append(compiled("a", [source], tmp_path, ["-lm"]))
    assert len(set(made)) == 5
    assert num_calls(pretended) == 5
    assert compiled("a", [source], tmp_path, ["-lm"]) == made[-1]
    assert num_calls(pretended) == 5


def test_what_the_compiler_says_is_passed_on_and_leaves_no_file(pretended, tmp_path):
    (pretended / "refuse").touch()
    with pytest.raises(BuildFailed, match=r"(?s)nvcc .*copy\.cu.*ended with status 3:.*error: no such thing"):
        build(tmp_path / "made")
    assert list((tmp_path / "made").iterdir()) == []


def test_a_compiler_that_cannot_be_run_is_named(pretended, tmp_path):
    program(pretended / "nvcc", "#!/nowhere/sh\n")
    with pytest.raises(BuildFailed, match="nvcc cannot be run"):
        build(tmp_path)


# --- every kernel for Hopper ---


def nvcc_or_skip():
    try:
        return find_nvcc()
    except MissingTool as missing:
        pytest.skip(str(missing))


def cublaslt_options(source):
    if source != GEMM_SOURCE:
        return []
    try:
        return [f"-I{find_cublaslt().include}"]
    except MissingTool as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(
    "source",
    mostly_slow({path.name: path for path in sorted(CUDA_FOLDER.glob("*.cu"))}, "copy.cu", "norm.cu"),
)
def test_every_source_compiles_for_hopper_without_spilling(source, tmp_path):
    nvcc = nvcc_or_skip()
    wanted = ["-Xptxas", "-v", "-Werror", "all-warnings", "-c", str(source), "-o", str(tmp_path / "object.o")]
    command = [str(nvcc), *OPTIONS, *cublaslt_options(source), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels = re.findall(r"Function properties for (\w+)\s+(.*)", done.stdout + done.stderr)
    spilling = {
        name: said for name, said in kernels if " 0 bytes spill stores, 0 bytes spill loads" not in said
    }
    assert spilling == {}
    has_kernels = "__global__" in source.read_text()
    assert bool(kernels) == has_kernels


def test_what_is_compiled_is_a_library_that_python_opens(tmp_path):
    # One source is enough: that all go into one library, the emulation shows. Without a driver it opens all the same,
    # and says so when asked for its devices; with one it counts them.
    nvcc_or_skip()
    from simulator.calibration.gpu.cuda_library import CudaError, Library

    library = Library(compiled("runtime", [CUDA_FOLDER / "runtime.cu"], tmp_path))
    assert library.runtime_version() >= 12000
    try:
        said = f"{library.device_count()} devices"
    except CudaError as error:
        said = str(error)
    assert re.fullmatch(r"\d+ devices|rp_device_count: .+ \(CUDA error \d+\)", said)


def test_the_folder_holds_only_sources():
    assert {path.suffix for path in CUDA_FOLDER.iterdir()} == {".cu", ".cuh"}
    assert os.fspath(CUDA_FOLDER) == str(Path(build_module.__file__).parent / "cuda")
