"""The measurement end to end on the emulated device: what it leaves, what it refuses, and what it says is missing."""

import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from simulator.calibration.gpu import build as build_module
from simulator.calibration.gpu import build_gemm as build_gemm_module
from simulator.calibration.gpu import driver as driver_module
from simulator.calibration.gpu import machine as machine_module
from simulator.calibration.gpu import measure as module
from simulator.calibration.gpu.cases import ORDER, VERIFICATION_CASES, quick_timing_cases, timing_cases
from simulator.calibration.gpu.cuda_library import CudaError, Library
from simulator.calibration.gpu.kernels import every_kernel
from simulator.calibration.gpu.machine import on_bench
from simulator.calibration.gpu.measure import Plan, chosen, main, measure, measure_on
from simulator.calibration.gpu.samples import LeftOut
from simulator.calibration.gpu.samples_reader import read_samples
from simulator.calibration.gpu.summary import table, targets
from simulator.calibration.gpu.timing import Effort
from support.damaged_kernels import (
    Damaged,
    MortalLibrary,
    corrupt_one_element,
    fail_the_device,
    refuse,
    write_past_the_end,
)
from support.emulated import MISSING_COMPILER, emulated_library, emulated_library_path, has_compiler
from support.emulated_gemm import emulated_gemm_library

ROOT = Path(__file__).parents[4]
needs_compiler = pytest.mark.skipif(not has_compiler(), reason=MISSING_COMPILER)

PRODUCT = {"m": 4, "n": 128, "k": 128}
TOKENS = {"tokens": 2, "copies": 2, "hidden": 256}
TINY = {
    "copy": ({"bytes": 4096}, {"bytes": 2**16}),
    "quantise": (TOKENS,),
    "combine": (TOKENS,),
    "norm": ({"tokens": 2, "hidden": 256},),
    "mla-decode": ({"requests": 1, "heads": 16, "cached": 64},),
    **{name: (PRODUCT,) for name in ORDER if name.startswith("gemm")},
    **{name: ({"groups": 2, **PRODUCT},) for name in ORDER if name.startswith("grouped")},
}
PLAN = Plan(
    {name: shapes[:1] for name, shapes in VERIFICATION_CASES.items()}, TINY, Effort(2, 2, 0.01, launches=3), 7
)


@contextmanager
def emulated(with_gemm=True):
    with on_bench(emulated_library(), emulated_gemm_library() if with_gemm else None, 0) as opened:
        yield opened


def measured(folder, kernels, *, with_gemm=True, plan=PLAN):
    """What `measure_on` returns, and what it says."""
    said = []
    with emulated(with_gemm) as (bench, device):
        return measure_on(bench, device, kernels, plan, folder, said.append), said


# --- what it leaves ---


@needs_compiler
def test_every_kernel_is_verified_timed_and_written(tmp_path):
    measurement, said = measured(tmp_path, chosen(()))
    assert {each.kernel for each in measurement.verified} == set(ORDER)
    assert all(each.passed for each in measurement.verified)
    assert [(each.kernel, each.shape) for each in measurement.samples] == [
        (name, shape) for name in ORDER for shape in TINY[name]
    ]
    assert measurement.left_out == ()
    assert measurement.device.name == "CUDA on the CPU"
    assert measurement.device.cublaslt == emulated_gemm_library().version()
    assert read_samples(tmp_path / "samples.json") == measurement
    assert any(line.startswith("not measured: norm, the slowest") for line in said)


@needs_compiler
def test_a_group_is_labelled_as_the_loop_that_it_is(tmp_path):
    measurement, _ = measured(tmp_path, chosen(["grouped-gemm-bf16", "gemm-bf16"]))
    methods = {each.kernel: each.method for each in measurement.samples}
    assert methods["grouped-gemm-bf16"].endswith("; loop of 2 library calls")
    assert "loop" not in methods["gemm-bf16"]


@needs_compiler
def test_products_that_are_left_out_are_named(tmp_path):
    measurement, _ = measured(tmp_path, chosen(["norm", "gemm-bf16"]), with_gemm=False)
    assert measurement.left_out == (LeftOut("gemm-bf16", {}, "without cuBLASLt, as was asked"),)
    assert measurement.device.cublaslt is None
    assert {each.kernel for each in measurement.samples} == {"norm"}


# --- what it refuses ---


@needs_compiler
@pytest.mark.parametrize("damage", [corrupt_one_element, write_past_the_end, refuse])
def test_a_wrong_kernel_is_not_timed_and_the_right_ones_are(tmp_path, damage):
    kernels = every_kernel()
    measurement, said = measured(tmp_path, [kernels["copy"], Damaged(kernels["norm"], damage)])
    assert {each.kernel for each in measurement.samples} == {"copy"}
    assert measurement.left_out == (LeftOut("norm", {}, "failed verification, so that it is not timed"),)
    assert any(line.startswith("WRONG: norm tokens=1 hidden=8") for line in said)
    assert read_samples(tmp_path / "samples.json") == measurement


@needs_compiler
def test_a_kernel_that_nothing_verified_is_not_timed(tmp_path):
    # cuBLASLt has no kernel for scales by blocks where m is no multiple of 4.
    plan = replace(PLAN, verification={"gemm-fp8-block": ({"m": 5, "n": 128, "k": 128},)})
    measurement, _ = measured(tmp_path, chosen(["gemm-fp8-block"]), plan=plan)
    assert measurement.samples == ()
    assert [each.why.split(":")[0] for each in measurement.left_out] == [
        "not verified at this shape either",
        "no verification case of it could run, so that it is not timed",
    ]


@needs_compiler
def test_what_does_not_fit_and_what_the_device_refuses_is_left_out_with_the_reason(tmp_path):
    shapes = ({"bytes": 2**40}, {"bytes": 4096})
    products = ({"m": 4, "n": 20, "k": 64}, PRODUCT)
    plan = replace(PLAN, timing=TINY | {"copy": shapes, "gemm-fp8": products})
    measurement, _ = measured(tmp_path, chosen(["copy", "gemm-fp8"]), plan=plan)
    assert [each.shape for each in measurement.samples] == [shapes[1], products[1]]
    too_large, no_kernel = measurement.left_out
    assert too_large == LeftOut("copy", shapes[0], "needs 2199.0 GB, of 1.1 GB on the device")
    assert (no_kernel.kernel, no_kernel.shape) == ("gemm-fp8", products[0])
    assert "not supported" in no_kernel.why


# --- the command ---


@pytest.fixture
def emulated_machine(monkeypatch):
    """A machine whose nvcc is g++, with no cuBLASLt."""
    monkeypatch.setattr(machine_module, "find_nvcc", lambda: Path("nvcc"))
    monkeypatch.setattr(machine_module, "check_gpu", lambda device: None)
    monkeypatch.setattr(machine_module, "build", lambda folder: emulated_library_path())
    monkeypatch.setattr(module, "quick_timing_cases", lambda: TINY)
    monkeypatch.setattr(module, "VERIFICATION_CASES", PLAN.verification)
    monkeypatch.setattr(module, "QUICK", PLAN.effort)


@needs_compiler
def test_the_command_measures_and_logs_what_it_prints(tmp_path, emulated_machine, capsys):
    arguments = ["--out", str(tmp_path / "new"), "--only", "norm,copy", "--quick", "--seed", "5"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out == (tmp_path / "new/log.txt").read_text()
    assert printed.err == ""
    assert "seed 5" in printed.out
    assert re.search(r"^norm +tokens=2 hidden=256 +[\d.]+ us", printed.out, re.MULTILINE)
    measurement = read_samples(tmp_path / "new/samples.json")
    assert measurement.seed == 5
    assert {each.kernel for each in measurement.samples} == {"copy", "norm"}


@needs_compiler
def test_the_command_fails_where_a_kernel_is_wrong(tmp_path, emulated_machine, monkeypatch, capsys):
    kernels = every_kernel()
    wrong = kernels | {"norm": Damaged(kernels["norm"], corrupt_one_element)}
    monkeypatch.setattr(module, "every_kernel", lambda: wrong)
    assert main(["--out", str(tmp_path), "--only", "norm,copy", "--quick"]) == 1
    assert "not timed: norm : failed verification" in capsys.readouterr().out


@needs_compiler
def test_without_a_seed_each_run_has_its_own(tmp_path, emulated_machine):
    seeds = set()
    for run in "ab":
        assert main(["--out", str(tmp_path / run), "--only", "copy", "--quick"]) == 0
        seeds.add(read_samples(tmp_path / run / "samples.json").seed)
    assert len(seeds) == 2


def missing(arguments, folder, capsys, *, compiled=False):
    """The one message of a run that lacks something; compiled: it is found only then, and the log has it, too."""
    assert main(["--out", str(folder / "new"), *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "rp_" not in printed.err
    assert (folder / "new").exists() == compiled
    if compiled:
        assert (folder / "new/log.txt").read_text() == printed.err
    return printed.err


def test_a_missing_gpu_is_named_before_anything_is_compiled(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(driver_module, "DRIVER", "libno-such-driver.so.1")
    monkeypatch.setattr(machine_module, "build", lambda folder: pytest.fail("compiled"))
    assert missing([], tmp_path, capsys).startswith("a GPU is missing: there is no NVIDIA driver")


def test_a_missing_compiler_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine_module, "check_gpu", lambda device: None)
    monkeypatch.delenv("NVCC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build_module, "_USUAL_PLACE", tmp_path / "nvcc")
    assert missing([], tmp_path, capsys).startswith("nvcc is missing: ")


@needs_compiler
def test_a_driver_that_the_runtime_cannot_use_is_named(tmp_path, emulated_machine, monkeypatch, capsys):
    class OldDriver(Library):
        def device_count(self):
            raise CudaError("rp_device_count: CUDA driver version is insufficient (CUDA error 35)")

    monkeypatch.setattr(machine_module, "Library", OldDriver)
    said = missing(["--without-gemm"], tmp_path, capsys, compiled=True)
    assert said.startswith(
        "a GPU is missing: CUDA says 'CUDA driver version is insufficient (CUDA error 35)'"
    )
    assert "Hopper GPU and its driver" in said


@needs_compiler
def test_a_gpu_beyond_the_last_is_named(tmp_path, emulated_machine, capsys):
    said = missing(["--device", "3", "--without-gemm"], tmp_path, capsys, compiled=True)
    assert said == "GPU 3 is missing: this machine has 1, numbered from 0\n"


@needs_compiler
def test_another_architecture_is_named(tmp_path, emulated_machine, monkeypatch, capsys):
    class Ampere(Library):
        def device_properties(self, device):
            return replace(super().device_properties(device), compute_capability="8.0")

    monkeypatch.setattr(machine_module, "Library", Ampere)
    said = missing(["--without-gemm"], tmp_path, capsys, compiled=True)
    assert "GPU 0 has compute capability 8.0, and the kernels are compiled for 9.0" in said


@needs_compiler
def test_a_missing_cublaslt_is_named_unless_products_are_not_asked_for(
    tmp_path, emulated_machine, monkeypatch, capsys
):
    monkeypatch.setenv("CUBLAS_HOME", str(tmp_path))
    assert missing([], tmp_path, capsys).startswith("cuBLASLt is missing: CUBLAS_HOME names ")
    assert main(["--out", str(tmp_path), "--quick", "--without-gemm"]) == 0
    left_out = {each.kernel for each in read_samples(tmp_path / "samples.json").left_out}
    assert left_out == {name for name in ORDER if "gemm" in name}
    assert build_gemm_module.HOME_VARIABLE == "CUBLAS_HOME"


@needs_compiler
def test_the_device_is_checked_before_anything_runs_on_it(tmp_path, emulated_machine):
    def refuse_it(device):
        raise ValueError(f"no {device.name}")

    said = []
    with pytest.raises(ValueError, match="no CUDA on the CPU"):
        measure(tmp_path / "new", only=["copy"], check=refuse_it, say=said.append)
    assert said == []
    assert (tmp_path / "new/log.txt").read_text() == "no CUDA on the CPU\n"


# --- a device that fails ---


@needs_compiler
@pytest.mark.parametrize("while_timing", [False, True])
def test_a_device_that_answers_no_more_ends_the_measurement(
    tmp_path, emulated_machine, monkeypatch, capsys, while_timing
):
    kernels = every_kernel()
    failing = Damaged(kernels["norm"], fail_the_device)
    if while_timing:  # right where it is verified
        shape = PLAN.verification["norm"][0]
        failing.damage = lambda kernel, at, arrays: at == shape or fail_the_device(kernel, at, arrays)
    monkeypatch.setattr(machine_module, "Library", MortalLibrary)
    monkeypatch.setattr(module, "every_kernel", lambda: kernels | {"norm": failing})
    assert main(["--out", str(tmp_path), "--only", "norm,copy,combine", "--quick"]) == 1
    printed = capsys.readouterr()
    where = "norm tokens=2 hidden=256" if while_timing else "norm tokens=1 hidden=8"
    assert printed.err.startswith(f"{where}: rp_synchronize: an illegal memory access was encountered")
    assert printed.err.endswith("the device answers no more, so that nothing after it is measured\n")
    measurement = read_samples(tmp_path / "samples.json")
    assert {each.kernel for each in measurement.verified if not each.passed} == (
        set() if while_timing else {"norm"}
    )
    assert {each.kernel for each in measurement.samples} == ({"copy", "combine"} if while_timing else set())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "norm,nrom"], "unknown kernel 'nrom'; kernels are copy, "),
        (["--device", "first"], "argument --device: invalid int value: 'first'"),
        (["--device", "-1"], "--device: is -1; devices are numbered from 0"),
        (["--seed", "-1"], "--seed: is -1; it must be 0 or more"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        main(["--out", str(tmp_path), *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_cannot_be_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "check_machine", lambda device, with_gemm: None)
    (tmp_path / "file").touch()
    assert main(["--out", str(tmp_path / "file"), "--only", "copy"]) == 2
    assert re.fullmatch(r".*/file cannot be written to: File exists\n", capsys.readouterr().err)


# --- what is measured ---


def test_every_kernel_has_cases_to_verify_and_to_time():
    assert set(ORDER) == set(every_kernel()) == set(timing_cases()) == set(quick_timing_cases())
    for name, shapes in timing_cases().items():
        kernel = every_kernel()[name]
        assert len({tuple(shape.items()) for shape in shapes}) == len(shapes)
        for shape in shapes:
            assert kernel.bytes(shape) > 0
            assert kernel.flops(shape) >= 0


def test_the_quick_cases_hold_what_the_targets_rest_on():
    quick = quick_timing_cases()
    decode = [shape for shape in quick["mla-decode"] if shape["cached"] == 4096]
    assert [(shape["requests"], shape["heads"]) for shape in decode] == [(128, 16), (128, 128)]
    for name in ("quantise", "combine", "norm"):
        assert every_kernel()[name].bytes(quick[name][0]) >= 2**28


def test_work_is_counted_as_the_classes_say():
    kernels = every_kernel()
    tokens = {"tokens": 10, "copies": 8, "hidden": 256}
    # 256 values: 2 tiles. x: 512 B a token; a copy: 4 B of slot, 256 B of codes, 8 B of scales.
    assert kernels["quantise"].bytes(tokens) == 10 * (512 + 8 * 268)
    # A copy: 512 B of row, 8 B of slot and weight; the sum 512 B.
    assert kernels["combine"].bytes(tokens) == 10 * (8 * 520 + 512)
    assert kernels["combine"].flops(tokens) == 10 * 8 * 256 * 2
    # x, residual, sum, result: 512 B each a token; gamma 512 B.
    assert kernels["norm"].bytes({"tokens": 10, "hidden": 256}) == 10 * 4 * 512 + 512
    assert kernels["copy"].bytes({"bytes": 7}) == 14
    # 242 FLOP per byte at 128 heads, were it the cache alone: 2 * 128 * (576 + 512) / (2 * 576).
    decode = {"requests": 1, "heads": 128, "cached": 64}
    assert kernels["mla-decode"].flops(decode) == pytest.approx(64 * 1152 * 241.8, rel=1e-3)
    assert kernels["mla-decode"].bytes(decode) == 64 * 1152 + 4 + 128 * (1152 + 1024)
    product = {"m": 10, "n": 300, "k": 256}
    # 2 tiles along k, 3 blocks along n: 2 * (10 + 3) scales.
    assert kernels["gemm-fp8-block"].bytes(product) == 310 * 256 + 4 * 26 + 2 * 3000
    assert kernels["gemm-fp8"].bytes(product) == 310 * 256 + 8 + 2 * 3000
    assert kernels["gemm-bf16"].bytes(product) == 310 * 512 + 2 * 3000
    assert kernels["grouped-gemm-bf16"].bytes({"groups": 4, **product}) == 4 * kernels["gemm-bf16"].bytes(
        product
    )
    assert kernels["grouped-gemm-bf16"].flops({"groups": 4, **product}) == 4 * 2 * 10 * 300 * 256


def sampled(template, kernel, shape, seconds, *, size_bytes=2**30, flops=10**12):
    return replace(
        template,
        kernel=kernel,
        shape=shape,
        bytes=size_bytes,
        flops=flops,
        times_s=(seconds,),
        median_s=seconds,
    )


@needs_compiler
def test_targets_are_shares_of_the_same_run(tmp_path):
    measurement, _ = measured(tmp_path, chosen(["copy"]))
    one = measurement.samples[0]
    decode = {"requests": 128, "cached": 4096}
    samples = (
        sampled(one, "copy", {"bytes": 2**29}, 1.0),
        sampled(one, "copy", {"bytes": 2**28}, 0.4, size_bytes=2**29),  # faster, but not the largest
        sampled(one, "copy", {"bytes": 2**10}, 1e-9, size_bytes=2**11),  # in the cache: not the ceiling
        sampled(one, "norm", {"tokens": 1, "hidden": 8}, 1.25),  # 80% of the copy
        sampled(one, "combine", {"tokens": 1, "copies": 1, "hidden": 8}, 1.3),  # 77%
        sampled(one, "gemm-bf16", {"m": 1, "n": 1, "k": 1}, 1.0),
        sampled(one, "mla-decode", {**decode, "heads": 16}, 1.4),  # 71% of the copy
        sampled(one, "mla-decode", {**decode, "heads": 128}, 2.6),  # 38% of the product
    )
    found = [str(target) for target in targets(replace(measurement, samples=samples))]
    assert [line.split(":")[0] for line in found] == ["not measured", "MISSED", "met", "met", "MISSED"]
    assert found[4].startswith(
        "MISSED: mla-decode, 128 requests, 4096 cached tokens, 128 heads, of the best BF16"
    )
    assert found[4].endswith("product: 38.5%, at least 40%")
    lines = table(replace(measurement, samples=samples))
    assert len(lines) == 1 + len(samples)
    assert lines[4].split()[-3:] == ["0.80", "80.0%", "-"]


def test_it_needs_numpy_and_the_standard_library_alone():
    script = (
        "import sys; import simulator.calibration.gpu.measure; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    others = {name for name in done.stdout.split() if not name.startswith(("_", "sitecustomize", "cython"))}
    assert others == {"numpy", "simulator"}
