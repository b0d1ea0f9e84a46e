"""Ctrl-C and SIGTERM, sent to real processes: one line that is true, a status, and a folder that is old or new."""

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import typer

from simulator.cli.stopping import stoppable, stopped_by_signals
from simulator.result import Result
from support.command_line import railplane
from support.processes import Command
from support.sweep_folders import contents

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what processes do")

QUICK = """\
name: quick
cluster: {node: h800, nodes: 1, topology: {kind: none}}
workload: {kind: collective, operation: all-reduce, size: 1 MiB, ranks: all}
"""
LONG = """\
name: long
cluster: {node: h800, nodes: 8, topology: {kind: multi-plane-fat-tree}}
workload: {kind: flows, path: flows.csv}
"""
SIGNALS = [(signal.SIGINT, 130, "Stopped by Ctrl-C"), (signal.SIGTERM, 143, "Stopped by SIGTERM")]
# of each pair of tests one is quick enough for every day
BY_CTRL_C = [SIGNALS[0], pytest.param(*SIGNALS[1], marks=pytest.mark.slow)]
BY_SIGTERM = [pytest.param(*SIGNALS[0], marks=pytest.mark.slow), SIGNALS[1]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scenario that takes a moment, and two that compute, mostly in compiled code, for minutes."""
    folder = tmp_path_factory.mktemp("interrupts")
    (folder / "quick.yaml").write_text(QUICK)
    (folder / "long.yaml").write_text(LONG)
    (folder / "rails.yaml").write_text(LONG.replace("multi-plane", "multi-rail").replace("long", "rails"))
    drawn = random.Random(1)
    rows = []
    for _ in range(150_000):
        source, hop = drawn.randrange(64), drawn.randrange(1, 64)
        rows.append(f"{source},{(source + hop) % 64},{drawn.randrange(10**6, 10**9)},{drawn.random():.6f}\n")
    (folder / "flows.csv").write_text("source,destination,size_bytes,start_s\n" + "".join(rows))
    return folder


@pytest.fixture(scope="module")
def result(work: Path) -> Path:
    """A folder with a result."""
    with pytest.MonkeyPatch.context() as patch:
        assert railplane(patch, "run", work / "quick.yaml", "--out", work / "result") == 0
    return work / "result"


def copy(folder: Path, target: Path) -> dict[str, bytes]:
    """Copy a folder; return what it holds."""
    for name, content in contents(folder).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    return contents(target)


@pytest.mark.parametrize(("sent", "status", "line"), BY_SIGTERM)
def test_a_run_that_is_stopped_as_it_computes_leaves_the_earlier_result(
    work, result, tmp_path, sent, status, line
):
    out = tmp_path / "out"
    before = copy(result, out)
    with Command("run", work / "long.yaml", "--json", "--out", out) as command:
        command.wait_until(lambda: command.cpu_s() > 4)  # its imports and its flow file take three
        said = command.stop(sent, group=sent == signal.SIGINT)
    assert said == (status, "", f"{line}: {out} holds the earlier result, unchanged\n")
    assert contents(out) == before
    assert Result.load(out).summary["scenario"] == "quick"


def test_a_run_that_is_stopped_before_it_wrote_anything_leaves_nothing(work, tmp_path):
    out = tmp_path / "deep/out"
    with Command("run", work / "long.yaml", "--out", out) as command:
        command.wait_until(out.exists)
        said = command.stop(signal.SIGTERM)
    assert said == (143, "", "Stopped by SIGTERM: nothing was written\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("sent", "status", "line"), BY_CTRL_C)
def test_a_run_that_is_stopped_as_it_saves_leaves_the_earlier_result(
    work, result, tmp_path, sent, status, line
):
    out = tmp_path / "out"
    before = copy(result, out)
    (out / "notes.md").write_text("mine")
    with Command("run", work / "quick.yaml", "--set", "name=other", "--json", "--out", out) as command:
        command.wait_until(
            (out / ".railplane/new/files/links.parquet").exists
        )  # pictures are still to be drawn
        said = command.stop(sent)
    assert said == (status, "", f"{line}: {out} holds the earlier result, unchanged\n")
    assert contents(out) == before | {"notes.md": b"mine"}


@pytest.mark.slow  # a sweep's processes are ended in the same way
@pytest.mark.parametrize(("sent", "status", "line"), SIGNALS)
def test_processes_of_a_comparison_end_with_it(work, tmp_path, sent, status, line):
    out = tmp_path / "out"
    files = (work / "long.yaml", work / "rails.yaml")
    with Command("compare", *files, "--jobs", 2, "--json", "--out", out) as command:
        # two of its processes compute, at least: imports take two seconds
        command.wait_until(lambda: sum(command.cpu_s(child) > 3 for child in command.started()) >= 2)
        said = command.stop(
            sent, group=sent == signal.SIGINT
        )  # a terminal tells all of them, others the first
    assert said == (status, "", f"{line}: nothing was written\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize(("sent", "status", "line"), BY_SIGTERM)
def test_a_sweep_that_is_stopped_keeps_its_points_and_says_how_to_go_on(
    work, tmp_path, sent, status, line, jobs
):
    out = tmp_path / "out"
    sizes = ",".join(f"{size} KiB" for size in range(1, 201))
    swept = ("--over", f"workload.size={sizes}", "--jobs", jobs)
    with Command("sweep", work / "quick.yaml", *swept, "--json", "--out", out) as command:
        command.wait_until(lambda: len(list((out / "points").glob("0*.json"))) >= 4)
        said = command.stop(sent, group=sent == signal.SIGINT)
    kept = f"what is done is in {out}; the same command with --resume goes on"
    assert said == (status, "", f"{line}: {kept}\n")
    done = contents(out)
    assert 4 < len(done) < 201
    assert not [name for name in done if name.endswith(".tmp")]


@pytest.mark.parametrize(("sent", "status", "line"), SIGNALS)
def test_a_library_may_make_an_error_of_its_own_of_an_interrupt(sent, status, line, capsys):
    # As pydantic's core does, when a signal arrives while it builds the validator of a class that is being imported.
    def build() -> None:
        try:
            os.kill(os.getpid(), sent)
        except KeyboardInterrupt as stop:
            raise ValueError(str(stop)) from None

    with stopped_by_signals(), pytest.raises(typer.Exit) as ended, stoppable(lambda: "nothing was written"):
        build()
    assert (ended.value.exit_code, capsys.readouterr().err) == (status, f"{line}: nothing was written\n")


@pytest.mark.parametrize(("sent", "status", "line"), SIGNALS)
def test_a_signal_that_meets_no_command_is_told_too(monkeypatch, capsys, sent, status, line):
    # as options are read, or once a command has ended
    monkeypatch.setattr("simulator.cli.app", lambda: os.kill(os.getpid(), sent))
    assert railplane(monkeypatch, "--version") == status
    assert capsys.readouterr().err == f"{line}\n"

    def end() -> None:
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), sent)
        raise SystemExit(0)

    monkeypatch.setattr("simulator.cli.app", end)
    assert railplane(monkeypatch, "--version") == status
    assert capsys.readouterr().err == f"{line}\n"


def test_a_signal_that_is_swallowed_is_heard_at_the_next_step(monkeypatch, capsys, work, tmp_path):
    # as by a callback of the compiler's library, from which nothing can be raised
    def load(*_: object, **__: object) -> None:
        ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.SIGTERM))()

    monkeypatch.setattr("simulator.scenario.load_scenario", load)
    monkeypatch.setattr("simulator.run.simulate", lambda *_: pytest.fail("it ran"))
    assert railplane(monkeypatch, "run", work / "quick.yaml", "--out", tmp_path / "out") == 143
    assert capsys.readouterr().err == "Stopped by SIGTERM: nothing was written\n"


def test_a_signal_within_a_text_that_is_run_leaves_the_status_as_it_is(tmp_path):
    # of a program that is a module, which CPython ends otherwise than one that is a file
    (tmp_path / "stopped_program.py").write_text(
        "import os, signal, sys, typer\n"
        "import simulator.cli as cli\n"
        "from simulator.cli.stopping import stoppable\n"
        "def app():\n"
        "    try:\n"
        "        with stoppable(str):\n"
        "            exec('os.kill(os.getpid(), signal.SIGTERM)')\n"
        "    except typer.Exit as end:\n"
        "        sys.exit(end.exit_code)\n"
        "cli.app = app\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "stopped_program"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (143, "Stopped by SIGTERM\n")


def test_an_error_is_no_interrupt_though_one_came_to_an_earlier_command():
    with stopped_by_signals(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    with stopped_by_signals(), pytest.raises(ValueError, match="wrong"), stoppable(str):
        raise ValueError("wrong")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_a_run_may_be_stopped_at_any_moment(work, result, tmp_path, seed):
    # at a moment that is drawn, of a run that takes some three seconds of its processor's time
    out, drawn = tmp_path / "out", random.Random(seed)
    before = copy(result, out)
    sent, status, line = SIGNALS[seed % 2]
    with Command("run", work / "quick.yaml", "--set", "name=other", "--json", "--out", out) as command:
        moment_s = drawn.uniform(0.6, 4.0)
        command.wait_until(lambda: command.process.poll() is not None or command.cpu_s() > moment_s)
        code, printed, said = command.stop(sent)
    is_done = said.startswith(f"Wrote {out}\n")
    if is_done:  # and nothing is left but to end, in which the signal may meet it
        assert json.loads(printed)["scenario"] == "other"
        assert (code, said.count("\n")) in {(0, 1), (-sent, 1), (status, 2)}, (code, said)
    else:
        assert code == status, (said, printed[:50])
        assert said in {
            f"{line}\n",  # before the command knew of its options
            f"{line}: {out} holds the earlier result, unchanged\n",
            f"{line}: {out} holds the new result\n",
        }
        assert (contents(out) == before) == (not said.endswith("new result\n"))
    assert Result.load(out).summary["scenario"] == ("other" if "new result" in said or is_done else "quick")
