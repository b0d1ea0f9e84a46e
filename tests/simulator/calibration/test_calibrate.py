"""`railplane calibrate`, by an earlier measurement's samples and on machines that lack what it needs."""

import json
import os
from dataclasses import replace

import pytest

from simulator.calibration import calibrate as module
from simulator.calibration.gpu import driver as driver_module
from simulator.calibration.gpu import machine as machine_module
from simulator.calibration.gpu.build import BuildFailed, MissingTool
from simulator.calibration.gpu.cuda_library import CudaError, DeviceFailed
from simulator.calibration.gpu.samples import write_samples
from simulator.calibration.gpu.timing import TimingError
from simulator.costs import load_cost_table
from support.command_line import railplane
from support.samples import CASES, H200, made


@pytest.fixture
def samples(tmp_path):
    write_samples(made(), tmp_path / "samples.json")
    return tmp_path / "samples.json"


def test_samples_become_a_table_and_a_comparison(monkeypatch, capsys, tmp_path, samples):
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json", "--samples", samples) == 0
    printed = capsys.readouterr()
    assert "| kernel | figure | how | mine | h800-published | ratio |" in printed.out
    note, wrote = printed.err.splitlines()
    assert note.startswith("Groups of products were timed as loops of calls, and are not listed: ")
    assert wrote == f"Wrote {tmp_path / 'mine.json'}"
    assert {path.name for path in tmp_path.iterdir()} == {"mine.json", "samples.json"}
    table = load_cost_table("mine.json", tmp_path)
    assert (table.name, table.date) == ("mine", "2026-01-31")
    assert table.kernels["latent-attention"].listed.how == "measured"


def test_kernels_that_were_wrong_are_named_and_the_exit_status_says_so(
    monkeypatch, capsys, tmp_path, samples
):
    document = json.loads(samples.read_text())
    document["verified"].append(
        {"kernel": "norm", "shape": {"tokens": 1, "hidden": 8}, "output": "out", "norm_error": 1.0,
         "norm_bound": 0.1, "worst_share": 9.0, "why": "off"}
    )  # fmt: skip
    samples.write_text(json.dumps(document))
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json", "--samples", samples) == 1
    said = capsys.readouterr().err
    assert "Not timed, since their results were wrong: norm" in said
    assert (
        f"The samples of norm, {len(CASES['norm'])}, are left out: it failed its verification (off)." in said
    )
    assert load_cost_table("mine.json", tmp_path).kernels.get("norm") is None


@pytest.mark.parametrize(
    "missing", ["a GPU is missing: no device", "nvcc is missing: it is not on PATH", "cuBLASLt is missing"]
)
def test_what_a_machine_lacks_is_named(monkeypatch, capsys, tmp_path, missing):
    def without(*_args: object, **_options: object) -> None:
        raise MissingTool(missing)

    monkeypatch.setattr(module, "measure", without)
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json") == 2
    assert capsys.readouterr().err == f"railplane calibrate: {missing}\n"
    assert not (tmp_path / "mine.json").exists()


@pytest.mark.parametrize(
    "error",
    [BuildFailed("nvcc\nsaid no"), CudaError("rp_read: bad"), DeviceFailed("norm: off"), TimingError("0 s")],
)
def test_a_machine_that_fails_is_no_wrong_input(monkeypatch, capsys, tmp_path, error):
    def failing(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(module, "measure", failing)
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json") == 1
    said = capsys.readouterr().err
    log = tmp_path / "mine_samples/log.txt"
    assert said == f"railplane calibrate: {' '.join(str(error).split())} (in full in {log})\n"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_gpu_is_told_before_anything_is_compiled_and_leaves_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(driver_module, "DRIVER", "libno-such-driver.so.1")
    monkeypatch.setattr(machine_module, "build", lambda folder: pytest.fail("compiled"))
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json") == 2
    said = capsys.readouterr().err
    assert said.startswith("railplane calibrate: a GPU is missing: there is no NVIDIA driver")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_of_which_no_table_can_be_made_is_refused_before_it_is_measured(monkeypatch, capsys, tmp_path):
    def opening(_folder, *, check, **_options):
        check(replace(H200, name="NVIDIA H100 PCIe", sms=114))
        pytest.fail("measured")

    monkeypatch.setattr(module, "measure", opening)
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json") == 2
    assert "railplane calibrate: the peaks of 'NVIDIA H100 PCIe' are not known" in capsys.readouterr().err


def test_a_missing_fit_is_told_before_anything_is_measured(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    monkeypatch.setattr(module, "measure", lambda *_args, **_options: pytest.fail("measured"))
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json") == 2
    assert "needs scipy, which is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "text", "match"),
    [
        ("mine.yaml", None, "a cost table is a .json file"),
        ("no/mine.json", None, "there is no folder"),
        ("mine.json", "{", "samples.json: is not JSON"),
        ("mine.json", '{"format": 2}', "samples.json: format: is 2; this version reads 1"),
    ],
)
def test_what_is_wrong_with_files_is_one_line(monkeypatch, capsys, tmp_path, samples, out, text, match):
    if text is not None:
        samples.write_text(text)
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / out, "--samples", samples) == 2
    message = capsys.readouterr().err
    assert match in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("prepare", "out", "match"),
    [
        (lambda folder: (folder / "mine.json").mkdir(), "mine.json", "is no file; --out names the file"),
        (lambda folder: os.mkfifo(folder / "mine.json"), "mine.json", "is no file; --out names the file"),
        (lambda folder: None, "samples.json", "--out names the file of --samples"),
        (lambda folder: (folder / "loop.json").symlink_to("samples.json"), "loop.json", "the file of --samples"),
        (lambda folder: None, "x" * 300 + ".json", "cannot write there: File name too long"),
        (lambda folder: (folder / "no.json").symlink_to("nowhere/x"), "no.json", "cannot write there: No such file"),
    ],
)  # fmt: skip
def test_an_out_that_cannot_be_is_told_before_anything_else(
    monkeypatch, capsys, tmp_path, samples, prepare, out, match
):
    prepare(tmp_path)
    before = samples.read_text()
    monkeypatch.setattr(module, "read_samples", lambda _path: pytest.fail("read"))
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / out, "--samples", samples) == 2
    message = capsys.readouterr().err
    assert match in message
    assert message.count("\n") == 1
    assert samples.read_text() == before


def test_a_file_where_the_samples_folder_goes_is_told_before_anything_is_measured(
    monkeypatch, capsys, tmp_path
):
    (tmp_path / "mine_samples").touch()
    monkeypatch.setattr(module, "measure", lambda *_args, **_options: pytest.fail("measured"))
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json") == 2
    message = capsys.readouterr().err
    assert message.startswith(
        f"{tmp_path / 'mine_samples'}: is a file, where the folder of the measurement goes"
    )


def test_a_disk_that_is_full_is_one_line(monkeypatch, capsys, tmp_path, samples):
    def full(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "mine_samples/log.txt"))

    monkeypatch.setattr(module, "measure", full)
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json") == 2
    message = f"{tmp_path}/mine_samples/log.txt: cannot write there: No space left on device\n"
    assert capsys.readouterr().err == message
    monkeypatch.setattr(module, "write_table", full)
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json", "--samples", samples) == 2
    assert capsys.readouterr().err == f"{tmp_path}/mine.json: cannot write there: No space left on device\n"


def test_a_gpu_whose_peaks_are_not_known_makes_no_table(monkeypatch, capsys, tmp_path, samples):
    samples.write_text(samples.read_text().replace("NVIDIA H200", "NVIDIA X1"))
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json", "--samples", samples) == 2
    assert "the peaks of 'NVIDIA X1' are not known" in capsys.readouterr().err
