from pathlib import Path

import numpy as np
import pytest

from simulator import load_scenario, simulate, sweep
from simulator.input_error import InputError
from support.sweep_folders import contents

OVER = {"workload.size": ["1 MiB", "2 MiB"], "workload.ranks": ["all", [0, 1, 2], [1000]]}


def test_a_row_says_what_a_run_of_its_point_says(quick):
    table = sweep(quick, OVER, jobs=1)
    assert list(table["point"]) == list(range(6))
    assert list(table["workload.size"]) == ["1 MiB"] * 3 + ["2 MiB"] * 3  # the first is the slowest
    assert list(table["workload.ranks"]) == ["all", "[0, 1, 2]", "[1000]"] * 2
    summary = simulate(load_scenario(quick, ["workload.size=2 MiB", "workload.ranks=[0, 1, 2]"])).summary
    row = table.loc[4]
    expected = {
        "step_time_s": summary["step_time_s"],
        **summary["metrics"],
        **{f"breakdown_s.{part}": seconds for part, seconds in summary["breakdown_s"].items()},
        **{
            f"links.{kind}.{figure}": value
            for kind, figures in summary["links"].items()
            for figure, value in figures.items()
        },
    }
    assert {name: row[name] for name in expected} == expected
    assert list(table.columns) == ["point", *OVER, *expected, "outcome", "error"]
    assert row["outcome"] == "ran"
    assert row["error"] == ""


def test_a_point_that_is_wrong_is_a_row_with_its_message(quick):
    seen = []
    table = sweep(quick, OVER, jobs=1, progress=lambda done, all_points: seen.append((done, all_points)))
    refused = table[table["outcome"] == "refused"]
    assert list(refused["point"]) == [2, 5]
    assert refused["error"].str.startswith("workload.ranks: ").all()
    assert "at least 2 ranks" in refused["error"][2]
    assert refused["step_time_s"].isna().all()
    assert table["step_time_s"].notna().sum() == 4
    assert seen == [(done, 6) for done in range(7)]


def test_what_only_the_run_finds_wrong_is_a_row_too(tmp_path):
    # all planes but one die: the routes of a node are gone only once the clock runs
    path = tmp_path / "dies.yaml"
    path.write_text(
        "name: dies\ncluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree}}\n"
        "workload: {kind: collective, operation: all-to-all, size: 64 MiB, ranks: all}\n"
    )
    dead = [{"kind": "plane", "plane": plane, "at": "10 us"} for plane in range(8)]
    table = sweep(path, {"faults": [[], dead]}, jobs=1)
    assert list(table["outcome"]) == ["ran", "refused"]
    assert table["error"][1].startswith("faults: ")


def test_two_processes_give_the_bytes_of_one(quick, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    first = sweep(quick, OVER, jobs=1, out=one)
    second = sweep(quick, OVER, jobs=2, out=two)
    assert contents(one) == contents(two)
    assert first.equals(second)
    assert set(contents(one)) == {
        "sweep.json", "sweep.csv", "sweep.parquet", *(f"points/{point:06}.json" for point in range(6))
    }  # fmt: skip


def test_columns_have_the_type_of_their_values(quick):
    table = sweep(quick, {"cluster.nodes": [1], "seed": np.array([1, 2])}, jobs=1)
    assert table["cluster.nodes"].dtype == np.int64
    assert table["seed"].dtype == np.int64
    mapped = sweep(quick, {"cluster.topology": [{"kind": "none"}]}, jobs=1)
    assert list(mapped["cluster.topology"]) == ["{kind: none}"]
    assert str(mapped["error"].dtype) == "str"


def test_set_holds_in_every_point_and_before_what_is_swept(quick):
    table = sweep(quick, {"seed": [1]}, overrides=["workload.size=8 MiB"], jobs=1)
    alone = simulate(load_scenario(quick, ["workload.size=8 MiB"])).summary
    assert table["step_time_s"][0] == alone["step_time_s"]


@pytest.mark.parametrize(
    ("over", "overrides", "file", "message"),
    [
        ({"workload.rank": [1, 2]}, (), "--over workload.rank=1", "did you mean 'ranks'"),
        (
            {"cluster.topolgy.planes": [4, 8]},
            (),
            "--over cluster.topolgy.planes=4",
            "did you mean 'topology'",
        ),
        ({"seed": [1, 2]}, ("workload.rank=1",), "--set workload.rank=1", "did you mean 'ranks'"),
        ({"seed": [-1, "x"]}, (), "--over seed=-1", "none of the 2 points can run"),
        ({"seed": [-1]}, (), "--over seed=-1", "must be at least 0, not -1$"),
        ({"cluster.nodes.3": [1]}, (), "--over cluster.nodes.3=1", "which has no field '3'"),
    ],
)
def test_what_is_wrong_in_every_point_is_wrong_with_the_sweep(
    quick, tmp_path, over, overrides, file, message
):
    with pytest.raises(InputError, match=message) as caught:
        sweep(quick, over, overrides=overrides, jobs=1, out=tmp_path / "out")
    assert caught.value.file == file
    assert not (tmp_path / "out").exists()  # before anything runs, or is written


def test_a_scenario_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="there is no such file") as caught:
        sweep(tmp_path / "none.yaml", {"seed": [1]})
    assert caught.value.file == str(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "--jobs: at least 1 point"),
        ({"jobs": 2, "cluster": "tcp://127.0.0.1:1"}, "--jobs: the cluster's workers decide"),
        ({"resume": True}, "--resume: give --out as well"),
    ],
)
def test_options_that_do_not_go_together_are_refused(quick, options, message):
    with pytest.raises(InputError, match=message):
        sweep(quick, OVER, **options)


def test_out_must_be_a_folder(quick: Path):
    with pytest.raises(InputError, match="--out names a file"):
        sweep(quick, OVER, jobs=1, out=quick)
