"""Disks without room, real ones: a limit on the size of files, a small file system in memory, and /dev/full."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import support.full_disk
from simulator.result import Result
from support.command_line import railplane
from support.sweep_folders import contents

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what there is of limits differs")

QUICK = """\
name: quick
cluster: {node: h800, nodes: 1, topology: {kind: none}}
workload: {kind: collective, operation: all-reduce, size: 1 MiB, ranks: all}
"""


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK)
    return path


@pytest.fixture
def limit(monkeypatch):
    """What sets the most bytes that a file may have; more give EFBIG, inside whichever library writes them."""
    # Python takes a cut file of bytecode for whole, and so would every later import of that module
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_run_whose_files_find_no_room_leaves_the_earlier_result(
    monkeypatch, capsys, quick, tmp_path, limit
):
    out = tmp_path / "out"
    assert railplane(monkeypatch, "run", quick, "--out", out) == 0
    (out / "notes.md").write_text("mine")
    before = contents(out)
    sizes = {name: len(content) for name, content in before.items()}
    capsys.readouterr()
    # the first file that is too large is, in the order of writing: a table (pyarrow's own code writes it), a picture
    for name in ("tasks.parquet", "overview.png"):
        limit(sizes[name] - 1)
        status = railplane(monkeypatch, "run", quick, "--set", "name=other", "--json", "--out", out)
        limit(resource.RLIM_INFINITY)
        said = capsys.readouterr()
        assert (status, said.out) == (2, "")
        reason = f"cannot write there: File too large; {out} holds the earlier result, unchanged"
        assert said.err == f"{out}/{name}: {reason}\n"
        assert contents(out) == before
    assert Result.load(out).summary["scenario"] == "quick"


ACCEPTED = ("--accept", "network-only", "--accept", "bundled-cables")


@pytest.mark.parametrize(
    ("arguments", "most", "name"),
    [
        (("compare", "{quick}", "{other}", "--jobs", "1", "--out", "{out}"), 3_000, "comparison.json"),
        (("export", "{tree}", "--format", "goal", "--out", "{out}"), 10, "schedule.goal"),
        (
            ("export", "{tree}", "--format", "hpcc", *ACCEPTED, "--out", "{out}"),
            10,
            "topology.txt",
        ),
    ],
)
def test_other_folders_are_whole_or_not_at_all_too(
    monkeypatch, capsys, quick, tmp_path, limit, arguments, most, name
):
    out, other, tree = (tmp_path / each for each in ("out", "other.yaml", "tree.yaml"))
    other.write_text(QUICK.replace("quick", "other"))
    tree.write_text(TREE)
    (tmp_path / "flows.csv").write_text("source,destination,size_bytes,start_s\n0,8,1000000,0\n")
    filled = [argument.format(quick=quick, other=other, tree=tree, out=out) for argument in arguments]
    limit(most)
    status = railplane(monkeypatch, *filled)
    limit(resource.RLIM_INFINITY)
    assert (status, capsys.readouterr().err) == (
        2,
        f"{out}/{name}: cannot write there: File too large; nothing was written\n",
    )
    assert contents(out) in ({}, {".railplane/lock": b""})


TREE = """\
name: tree
cluster: {node: h800, nodes: 2, topology: {kind: two-layer-fat-tree}, routing: ecmp}
workload: {kind: flows, path: flows.csv}
"""


def test_files_that_find_no_room_are_as_they_were(monkeypatch, capsys, quick, tmp_path, limit):
    for option, name in (("--plot", "x.png"), ("--plot", "x.svg"), ("--graphml", "x.graphml")):
        path = tmp_path / name
        path.write_bytes(b"earlier")
        limit(1_000)
        status = railplane(monkeypatch, "topology", quick, option, path)
        limit(resource.RLIM_INFINITY)
        assert (status, capsys.readouterr().err) == (2, f"{path}: cannot write there: File too large\n")
        assert path.read_bytes() == b"earlier"
    assert not list(tmp_path.glob(".*"))


def test_a_sweep_without_room_keeps_its_points(monkeypatch, capsys, quick, tmp_path, limit):
    out = tmp_path / "out"
    swept = ("sweep", quick, "--over", "seed=1,2", "--jobs", "1", "--out", out)
    assert railplane(monkeypatch, *swept[:-1], tmp_path / "whole") == 0
    sizes = {name: len(content) for name, content in contents(tmp_path / "whole").items()}
    largest = max(size for name, size in sizes.items() if name.endswith(".json"))
    assert largest < sizes["sweep.parquet"]
    capsys.readouterr()
    limit(largest)
    status = railplane(monkeypatch, *swept)
    limit(resource.RLIM_INFINITY)
    said = capsys.readouterr().err
    reason = "cannot write there: File too large; the points that are done are kept, and --resume goes on"
    assert (status, said) == (2, f"{out}/sweep.parquet: {reason}\n")
    assert {name for name in contents(out) if not name.startswith("points/")} == {"sweep.json"}
    assert railplane(monkeypatch, *swept, "--resume") == 0


def test_a_disk_with_less_and_less_room_holds_the_old_result_or_the_new_one(tmp_path):
    try:
        probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", tmp_path], check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if probe.returncode != 0:
        pytest.skip("this machine lets nobody make a file system of their own")
    driver = Path(support.full_disk.__file__)
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, driver, tmp_path, "8192"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout)
    full = [each for each in rounds if each["said"]]
    for each in rounds:
        assert each["loads"] == ("old" if each["said"] else "new"), each
        assert each["unchanged"] == (each["said"] is not None), each
    assert {each["said"][0] for each in full} == {"No space left on device"}
    # the disk is full in pyarrow's own writes as well as in those of Python
    assert {"tasks.parquet", "link_timeline.parquet"} <= {each["said"][1] for each in full}
    assert 4 < len(full) < len(rounds)


def test_standard_output_that_is_full_is_one_line(quick):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "simulator.cli", "run", quick],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
    reason = "standard output, or a temporary file: cannot write there: No space left on device"
    assert done.returncode == 2
    assert done.stderr in {f"{reason}\n", f"{reason}; nothing was written\n"}


def test_memory_that_does_not_suffice_is_one_line(monkeypatch, capsys, quick, tmp_path):
    def too_large(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("simulator.run.simulate", too_large)
    assert railplane(monkeypatch, "run", quick, "--out", tmp_path / "out") == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "Stopped, since memory did not suffice: nothing was written\n")
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_name_is_none(monkeypatch, capsys, quick):
    monkeypatch.setenv("COLUMNS", "200")
    for command in (
        ("run", quick),
        ("compare", quick, quick),
        ("sweep", quick, "--over", "seed=1"),
        ("export", quick, "--format", "goal"),
    ):
        assert railplane(monkeypatch, *command, "--out", "") == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "it is empty; give a folder, or . for the one that you are in" in said.err


@pytest.mark.parametrize("command", ["run", "compare", "export", "sweep", "topology"])
def test_a_place_that_cannot_be_written_is_told_before_anything_runs(
    monkeypatch, capsys, quick, tmp_path, command
):
    # `run` comes last: a module that takes `simulate` from there as it is first imported would keep what stands there
    for name in (
        "simulator.interchange.Case.of",
        "simulator.comparison.sides.simulate",
        "simulator.survey.survey",
        "simulator.run.simulate",
    ):
        monkeypatch.setattr(name, lambda *_: pytest.fail("it ran"))
    place = quick / "deep"
    arguments = {
        "run": ("run", quick, "--out", place),
        "compare": ("compare", quick, tmp_path / "other.yaml", "--out", place),
        "export": ("export", quick, "--format", "goal", "--out", place),
        "sweep": ("sweep", quick, "--over", "seed=1", "--out", place),
        "topology": ("topology", quick, "--plot", f"{place}.png/x.png"),
    }[command]
    (tmp_path / "other.yaml").write_text(QUICK)
    assert railplane(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "Not a directory" in said.err or "No such file" in said.err or "--out names a file" in said.err
