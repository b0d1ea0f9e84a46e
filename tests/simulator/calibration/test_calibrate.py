"""`railplane calibrate`, by an earlier measurement's samples and on machines that lack what it needs."""

import json

import pytest

from simulator.calibration import calibrate as module
from simulator.calibration.gpu.build import MissingTool
from simulator.calibration.gpu.samples import write_samples
from simulator.costs import load_cost_table
from support.command_line import railplane
from support.samples import made


@pytest.fixture
def samples(tmp_path):
    write_samples(made(), tmp_path / "samples.json")
    return tmp_path / "samples.json"


def test_samples_become_a_table_and_a_comparison(monkeypatch, capsys, tmp_path, samples):
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json", "--samples", samples) == 0
    printed = capsys.readouterr()
    assert "| kernel | figure | mine | h800-published | ratio |" in printed.out
    assert printed.err == f"Wrote {tmp_path / 'mine.json'}\n"
    table = load_cost_table("mine.json", tmp_path)
    assert (table.name, table.date) == ("mine", "2026-01-31")
    assert table.kernels["latent-attention"].listed.how == "measured"


def test_kernels_that_were_wrong_are_named_and_the_exit_status_says_so(
    monkeypatch, capsys, tmp_path, samples
):
    document = json.loads(samples.read_text())
    document["verified"] = [
        {"kernel": "norm", "shape": {"tokens": 1}, "output": "out", "norm_error": 1.0, "norm_bound": 0.1,
         "worst_share": 9.0, "why": "off"}
    ]  # fmt: skip
    samples.write_text(json.dumps(document))
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json", "--samples", samples) == 1
    assert "Not timed, since their results were wrong: norm" in capsys.readouterr().err


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


def test_a_gpu_whose_peaks_are_not_known_makes_no_table(monkeypatch, capsys, tmp_path, samples):
    samples.write_text(samples.read_text().replace("NVIDIA H200", "NVIDIA X1"))
    assert railplane(monkeypatch, "calibrate", "--out", tmp_path / "mine.json", "--samples", samples) == 2
    assert "the peaks of 'NVIDIA X1' are not known" in capsys.readouterr().err
