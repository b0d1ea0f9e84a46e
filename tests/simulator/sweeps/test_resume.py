import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import support.killed_sweeps
from simulator import load_scenario, sweep
from simulator import scenario as scenario_module
from simulator.input_error import InputError
from simulator.machine_memory import MemoryLimit
from support.sweep_folders import contents

OVER = {"workload.size": ["1 MiB", "2 MiB"], "workload.ranks": ["all", [1000]]}


@pytest.mark.parametrize("number", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_sweeps_killed_at_any_moment_go_on_to_the_same_bytes(quick: Path, tmp_path: Path, number: int):
    # Sweeps of twelve points, of which three are refused. Whatever SIGKILL leaves, a resumed sweep adds what
    # is missing, touches no point that is there, and ends in the bytes of a sweep that was never stopped.
    driver = Path(support.killed_sweeps.__file__)
    arguments = [sys.executable, str(driver), str(quick), str(tmp_path / "swept"), str(number), "7"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout)
    assert len(rounds) == number
    for each in rounds:
        assert each["equal"], each
        assert each["torn"] == [], each
        assert each["redone"] == 0, each
    assert sum(each["killed"] for each in rounds) >= number / 2  # those that kill themselves, at least
    # the moments differ: some sweeps had begun and not ended
    assert len({each["done"] for each in rounds if each["killed"]}) >= 3


def test_a_write_that_is_cut_off_leaves_nothing_that_counts(quick, tmp_path, monkeypatch):
    out = tmp_path / "out"
    sweep(quick, OVER, jobs=1, out=out)
    whole = contents(out)
    (out / "points/000001.json").unlink()
    (out / "points/.railplane-0badcafe.tmp").write_text("{half")
    (out / ".railplane-deadbeef.tmp").write_text("half")
    others = out / ".others.tmp"
    others.write_text("not the sweep's")
    sweep(quick, OVER, jobs=1, out=out, resume=True)
    others.unlink()
    assert contents(out) == whole

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    other = tmp_path / "other"
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot write there: No space left on device"):
        sweep(quick, OVER, jobs=1, out=other)
    assert contents(other) == {}


def test_failed_points_run_again_and_refused_ones_do_not(quick, tmp_path, monkeypatch):
    from simulator import run

    whole, out = tmp_path / "whole", tmp_path / "out"
    sweep(quick, OVER, jobs=1, out=whole)
    simulate, calls = run.simulate, []

    def at_fault(loaded):
        calls.append(loaded)
        msg = "ours"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr(run, "simulate", at_fault)
    table = sweep(quick, OVER, jobs=1, out=out)
    assert len(calls) == 2  # two of the four points can be loaded
    assert list(table["outcome"]) == ["failed", "refused", "failed", "refused"]
    assert table["error"][0] == "ZeroDivisionError: ours"
    assert "at_fault" in json.loads((out / "points/000000.json").read_text())["traceback"]
    assert table["step_time_s"].isna().all()
    monkeypatch.setattr(run, "simulate", lambda loaded: (calls.append(loaded), simulate(loaded))[1])
    sweep(quick, OVER, jobs=1, out=out, resume=True)
    assert len(calls) == 4
    assert contents(out) == contents(whole)
    sweep(quick, OVER, jobs=1, out=out, resume=True)
    assert len(calls) == 4  # nothing was missing


def test_points_that_are_too_large_here_run_where_there_is_more_memory(quick, tmp_path, monkeypatch):
    # The first point takes more than the second. Seeds are swept too, and the plan tells the first point's, whichever
    # points run: it is the same on both machines.
    quick.write_text(quick.read_text().replace("kind: none", "kind: multi-plane-fat-tree"))
    over = {"seed": [5, 6], "cluster.nodes": [4, 2]}
    whole, out = tmp_path / "whole", tmp_path / "out"
    sweep(quick, over, jobs=1, out=whole)
    sizes = [load_scenario(quick, [f"cluster.nodes={nodes}"]).size.total_bytes for nodes in (4, 2)]
    assert sizes[0] > sizes[1]
    limit = MemoryLimit(sizes[0] - 1, "this machine has")
    with monkeypatch.context() as smaller:
        smaller.setattr(scenario_module, "this_process", lambda: limit)
        table = sweep(quick, over, jobs=1, out=out)
    assert list(table["outcome"]) == ["too-large", "ran", "too-large", "ran"]
    assert table["error"][0].startswith("cluster.nodes: this run would take about")
    assert (out / "sweep.json").read_bytes() == (whole / "sweep.json").read_bytes()
    ran = (out / "points/000001.json").stat().st_mtime_ns
    sweep(quick, over, jobs=1, out=out, resume=True)
    assert contents(out) == contents(whole)
    assert (out / "points/000001.json").stat().st_mtime_ns == ran  # it was kept


def test_only_the_same_sweep_goes_on(quick, tmp_path, monkeypatch):
    table_file = tmp_path / "flows.csv"
    table_file.write_text("source,destination,size_bytes,start_s\n0,1,1000000,0\n")
    quick.write_text(quick.read_text() + "seed: 3\n")
    out = tmp_path / "out"
    sweep(quick, OVER, jobs=1, out=out)
    before = contents(out)

    def refused(why: str, *, over=OVER, resume=True, **options):
        with pytest.raises(InputError, match=why) as caught:
            sweep(quick, over, jobs=1, out=out, resume=resume, **options)
        assert caught.value.file == str(out)
        assert contents(out) == before

    refused("holds this sweep already; go on with --resume", resume=False)
    refused("differs in --over and what the scenario", over={"workload.size": ["1 MiB", "3 MiB"]})
    refused("differs in --over", over=dict(reversed(OVER.items())))
    refused("differs in --set", overrides=["name=other"])
    refused("holds another sweep", overrides=["name=other"], resume=False)
    monkeypatch.setattr("simulator.sweeps.plan.__version__", "99")
    refused("differs in the version of railplane")
    monkeypatch.undo()
    text = quick.read_text()
    quick.write_text(text.replace("all-reduce", "all-gather"))
    refused("differs in what the scenario or a file that it names says")
    quick.write_text(text.replace("seed: 3", "seed: 4"))
    refused("differs in the seed and what the scenario")
    quick.write_text("# a comment changes nothing\n" + text)
    sweep(quick, OVER, jobs=1, out=out, resume=True)
    assert contents(out) == before


def test_a_file_that_the_scenario_names_belongs_to_the_sweep(tmp_path):
    scenario, flows = tmp_path / "flows.yaml", tmp_path / "flows.csv"
    scenario.write_text(
        "name: f\ncluster: {node: h800, nodes: 1, topology: {kind: none}}\nworkload: {kind: flows, path: flows.csv}\n"
    )
    flows.write_text("source,destination,size_bytes,start_s\n0,1,1000000,0\n")
    out = tmp_path / "out"
    sweep(scenario, {"seed": [1, 2]}, jobs=1, out=out)
    flows.write_text("source,destination,size_bytes,start_s\n0,1,2000000,0\n")
    with pytest.raises(InputError, match="what the scenario or a file that it names says"):
        sweep(scenario, {"seed": [1, 2]}, jobs=1, out=out, resume=True)


def test_a_record_that_someone_changed_is_named(quick, tmp_path):
    out = tmp_path / "out"
    sweep(quick, OVER, jobs=1, out=out)
    record = (out / "points/000002.json").read_text()
    unknown = record.replace('"outcome": "ran"', '"outcome": "well"')
    for wrong in ("", "[]", "\udcff", unknown, (out / "points/000000.json").read_text()):
        (out / "points/000002.json").write_text(wrong, "utf-8", errors="surrogateescape")
        with pytest.raises(InputError, match="not the record that the sweep wrote; delete it") as caught:
            sweep(quick, OVER, jobs=1, out=out, resume=True)
        assert caught.value.file == str(out / "points/000002.json")


def test_tables_read_back_as_they_were_returned(quick, tmp_path):
    out = tmp_path / "out"
    table = sweep(quick, OVER, jobs=1, out=out)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "sweep.parquet"), table)
    text = pd.read_csv(out / "sweep.csv", keep_default_na=False, dtype=str)
    assert list(text.columns) == list(table.columns)
    assert list(text["step_time_s"]) == ["" if pd.isna(cell) else repr(cell) for cell in table["step_time_s"]]
