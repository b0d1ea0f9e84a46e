"""`railplane compare` on the command line: its contract, its report, its files and what it refuses."""

import json
from pathlib import Path

import pytest

from simulator.comparison.sides import RunKilled
from support.command_line import railplane

TEXT = """\
name: {name}
cluster: {{node: h800, nodes: 2, topology: {{kind: {topology}, layers: 2, switch_ports: 64}}}}
model: deepseek-v3
workload: {{kind: expert-parallel, tokens_per_rank: 64, expert_parallel: 16}}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("files")
    for name in ("planes", "rails"):
        topology = f"multi-{name.removesuffix('s')}-fat-tree"
        (folder / f"{name}.yaml").write_text(TEXT.format(name=name, topology=topology))
    return folder / "planes.yaml", folder / "rails.yaml"


def test_json_keeps_the_contract(monkeypatch, capsys, files):
    assert railplane(monkeypatch, "compare", *files, "--json", "--jobs", 1) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("\n") == 1  # one object, nothing else
    found = json.loads(captured.out)
    assert set(found) == {
        "scenarios", "verdict", "cautions", "figures", "fields", "kinds", "places", "links", "assumptions",
    }  # fmt: skip
    assert [each["name"] for each in found["scenarios"]] == ["planes", "rails"]
    for each in found["scenarios"]:
        assert set(each) == {"name", "scenario", "question", "step_time_s", "provenance"}
        assert set(each["provenance"]) == {"version", "seed", "scenario_sha256"}
    for row in found["figures"]:
        assert set(row) == {"group", "figure", "scenario", "value", "difference", "equal"}
    assert {row["group"] for row in found["figures"]} == {"step", "breakdown", "metrics", "links", "network"}


def test_the_report_shows_what_differs_and_folds_what_does_not(monkeypatch, capsys, files, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "deep" / "compared"
    assert railplane(monkeypatch, "compare", *files, "--jobs", 1, "--out", out) == 0
    captured = capsys.readouterr()
    text = captured.out
    assert "planes and rails take the same step, to the last bit" in text
    table = text[text.index("\nNetwork") : text.index("\nFields of the scenarios that differ")]
    assert "cost_usd" in table
    assert "endpoints " not in table
    equal = text[text.index("\nEqual in all") :]
    assert "step_time_s" in equal
    assert "endpoints 16" in equal
    assert "cost_usd" not in equal
    assert captured.err == f"Wrote {out}\n"
    tables = {"figures", "fields", "kinds", "places", "links", "curves", "assumptions"}
    expected = {f"{name}.{end}" for name in tables for end in ("parquet", "csv")}
    assert {path.name for path in out.iterdir()} == expected | {
        "comparison.json", "comparison.png", "comparison.svg", "files.json", ".railplane",
    }  # fmt: skip


def test_fields_are_set_in_all(monkeypatch, capsys, files):
    assert railplane(monkeypatch, "compare", *files, "--set", "seed=7", "--json", "--jobs", 1) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["provenance"]["seed"] for each in found["scenarios"]] == [7, 7]


def test_a_process_that_is_killed_is_said_on_one_line(monkeypatch, capsys, files):
    def killed(_scenarios, _jobs, _progress):
        msg = "a process that ran a scenario was killed"
        raise RunKilled(msg)

    monkeypatch.setattr("simulator.comparison.sides._run_all", killed)
    assert railplane(monkeypatch, "compare", *files) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Stopped, since a process that ran a scenario was killed\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["planes.yaml", "gone.yaml"], "gone.yaml: there is no such file"),
        (["planes.yaml"], "planes.yaml: there is nothing to compare it with; give two or more"),
        (
            ["planes.yaml", "empty"],
            "empty: this folder holds no result, tasks.parquet is missing; give a folder",
        ),
        (["planes.yaml", "broken"], "broken: the result in this folder cannot be read: "),
        (["planes.yaml", "planes.yaml"], "planes.yaml: this is given twice; name each scenario once"),
        (["planes.yaml", "./planes.yaml"], "planes.yaml: this is given twice; name each scenario once"),
        (["planes.yaml", "rails.yaml", "--set", "seed=x"], "--set seed=x: seed: "),
        (["planes.yaml", "rails.yaml", "--jobs", "0"], "--jobs: at least 1 scenario"),
        (["planes.yaml", "rails.yaml", "--out", "planes.yaml"], "planes.yaml: --out names a file"),
    ],
)
def test_what_is_wrong_is_said_on_one_line(monkeypatch, capsys, files, arguments, message):
    monkeypatch.chdir(files[0].parent)
    Path("empty").mkdir(exist_ok=True)
    Path("broken").mkdir(exist_ok=True)
    for name in ("tasks", "phases", "flows", "links", "link_timeline"):
        Path("broken", f"{name}.parquet").write_bytes(b"nothing")
    assert railplane(monkeypatch, "compare", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1
