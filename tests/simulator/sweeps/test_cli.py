import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from simulator.cli.sweep import _print_table
from support.command_line import railplane

OVER = ("--over", "workload.size=1 MiB,2 MiB", "--over", "workload.ranks=all,[1000]", "--jobs", "1")


def test_json_is_one_object_with_the_rows_of_the_table(monkeypatch, capsys, quick, tmp_path):
    out = tmp_path / "out"
    assert railplane(monkeypatch, "sweep", quick, *OVER, "--out", out, "--json") == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    printed = json.loads(captured.out)
    assert set(printed) == {"scenario", "version", "rows"}
    table = pd.read_parquet(out / "sweep.parquet")
    assert [list(row) for row in printed["rows"]] == [list(table.columns)] * 4
    assert [row["step_time_s"] for row in printed["rows"]] == [
        None if pd.isna(cell) else cell for cell in table["step_time_s"]
    ]
    assert [row["outcome"] for row in printed["rows"]] == ["ran", "refused", "ran", "refused"]
    assert captured.err.splitlines() == [f"Wrote {out}", "2 of 4 points cannot run: see the column `error`"]


def test_the_table_shows_what_was_swept_what_differs_and_why_points_have_no_result(
    monkeypatch, capsys, quick
):
    monkeypatch.setenv("COLUMNS", "120")
    assert railplane(monkeypatch, "sweep", quick, *OVER) == 0
    text = capsys.readouterr().out
    for part in (".size", "1 MiB", "[1000]", "step_time_s", "algbw_bytes_per_s", "GB/s", "refused"):
        assert part.replace("_bytes_per_s", "") in text
    assert "1, 3: workload.ranks: a collective needs at least 2 ranks" in " ".join(text.split())


def test_the_table_shows_metrics_that_tell_points_apart(capsys):
    # the first is the step time by another name, the second differs only in that a point has none
    table = pd.DataFrame(
        {
            "point": [0, 1, 2],
            "workload.expert_parallel": [8, 16, 32],
            "step_time_s": [np.nan, 2.0, 3.0],
            "tpot_s": [np.nan, 2.0, 3.0],
            "requests": [np.nan, 1.0, 1.0],
            "dispatch_s": [np.nan, 0.25, 0.5],
            "outcome": ["refused", "ran", "ran"],
            "error": ["a GPU needs more", "", ""],
        }
    )
    _print_table(table, ["workload.expert_parallel"], Console(width=80))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[:3] == [["workload"], [".expert"], ["point", "_parallel", "step_time_s", "dispatch_s"]]
    assert lines[4:7] == [
        ["0", "8", "refused", "-"],
        ["1", "16", "2", "s", "250", "ms"],
        ["2", "32", "3", "s", "500", "ms"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--over", "workload.sise=1 MiB"), "did you mean"),
        (("--over", "seed=1,1"), "1 is given twice"),
        (("--over", "seed="), "no values are given"),
        (("--over", "seed=1", "--set", "seed=2"), "leave one of them out"),
        (("--over", "seed=1", "--resume"), "give --out as well"),
        (("--over", "seed=1", "--jobs", "0"), "at least 1 point"),
    ],
)
def test_wrong_input_is_one_line_and_status_two(monkeypatch, capsys, quick, arguments, message):
    assert railplane(monkeypatch, "sweep", quick, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_fault_of_ours_gives_status_one(monkeypatch, capsys, quick, tmp_path):
    def at_fault(_loaded):
        msg = "ours"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr("simulator.run.simulate", at_fault)
    assert railplane(monkeypatch, "sweep", quick, *OVER) == 1
    captured = capsys.readouterr()
    assert "ZeroDivisionError: ours" in captured.out
    # there is nothing to go on with
    assert captured.err.splitlines()[-1] == "2 of 4 points failed: see the column `error`"
    assert railplane(monkeypatch, "sweep", quick, *OVER, "--out", tmp_path / "out") == 1
    assert capsys.readouterr().err.endswith("see the column `error`; --resume tries them again\n")
