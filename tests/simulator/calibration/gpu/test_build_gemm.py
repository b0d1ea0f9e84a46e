"""Where cuBLASLt is looked for, what is said where it is missing, and that gemm.cu compiles where it is not."""

from pathlib import Path

import pytest

from simulator.calibration.gpu import build_gemm as module
from simulator.calibration.gpu.build import MissingTool, find_nvcc
from simulator.calibration.gpu.build_gemm import build_gemm, find_cublaslt


def toolkit(root, *, folder="lib64", names=("libcublasLt.so", "libcublasLt.so.13")):
    """A folder as that of a CUDA toolkit, with empty files."""
    for path in (root / "bin/nvcc", root / "include/cublasLt.h", *(root / folder / name for name in names)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o755)
    return root


@pytest.fixture
def nvcc_at(monkeypatch):
    """Set where nvcc is, with no cuBLASLt anywhere else."""
    monkeypatch.delenv("CUBLAS_HOME", raising=False)
    monkeypatch.setattr(module, "_packages", lambda: iter(()))
    monkeypatch.setattr(module, "SYSTEM_PLACES", ())

    def set_to(path):
        monkeypatch.setattr(module, "find_nvcc", lambda: path)

    return set_to


def test_the_toolkit_of_nvcc_comes_first(tmp_path, nvcc_at):
    root = toolkit(tmp_path / "cuda")
    nvcc_at(root / "bin/nvcc")
    assert find_cublaslt() == (root / "include", root / "lib64/libcublasLt.so")


def test_a_link_to_nvcc_is_followed(tmp_path, nvcc_at):
    root = toolkit(tmp_path / "cuda")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvcc").symlink_to(root / "bin/nvcc")
    nvcc_at(tmp_path / "bin/nvcc")
    assert find_cublaslt().shared_object == root / "lib64/libcublasLt.so"


def test_a_package_has_but_the_numbered_library(tmp_path, nvcc_at, monkeypatch):
    package = toolkit(tmp_path / "nvidia/cu13", folder="lib", names=("libcublasLt.so.13",))
    nvcc_at(tmp_path / "empty/bin/nvcc")
    monkeypatch.setattr(module, "_packages", lambda: iter([package]))
    assert find_cublaslt() == (package / "include", package / "lib/libcublasLt.so.13")


def test_the_named_folder_is_the_only_one_looked_into(tmp_path, nvcc_at, monkeypatch):
    nvcc_at(toolkit(tmp_path / "cuda") / "bin/nvcc")
    named = toolkit(tmp_path / "mine")
    monkeypatch.setenv("CUBLAS_HOME", str(named))
    assert find_cublaslt().include == named / "include"
    monkeypatch.setenv("CUBLAS_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(
        MissingTool, match=r"cuBLASLt is missing: CUBLAS_HOME names '.*nowhere', which has no"
    ):
        find_cublaslt()


def test_headers_without_the_library_are_not_taken(tmp_path, nvcc_at):
    root = toolkit(tmp_path / "cuda", names=())
    nvcc_at(root / "bin/nvcc")
    with pytest.raises(
        MissingTool, match=r"cuBLASLt is missing: .* pip install nvidia-cublas, .*--without-gemm"
    ):
        find_cublaslt()


def test_gemm_compiles_with_nvcc_and_the_real_library(tmp_path):
    try:
        find_nvcc()
        find_cublaslt()
    except MissingTool as missing:
        pytest.skip(str(missing))
    library = build_gemm(tmp_path)
    assert library.parent == tmp_path
    assert b"rp_gemm_create" in Path(library).read_bytes()
