"""Points in parallel processes: those that are killed, and what a broken pool leaves."""

import os
import signal
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import pytest

from simulator import sweep
from simulator.sweeps import local
from simulator.sweeps.points import Job
from support.sweep_folders import contents

OVER = {"workload.size": [f"{size} MiB" for size in range(1, 13)]}


def workers() -> list[psutil.Process]:
    """Return the processes of joblib that descend from this one."""
    below = psutil.Process().children(recursive=True)
    return [each for each in below if "LokyProcess" in " ".join(each.cmdline())]


@pytest.mark.slow  # one of a cluster is killed every day (test_cluster.py)
def test_a_worker_that_is_killed_costs_nothing(quick: Path, tmp_path: Path):
    one, two, killed = tmp_path / "one", tmp_path / "two", []

    def kill_one(done: int, _all: int) -> None:
        if done == 3:
            victim = workers()[0]
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(victim.pid)

    sweep(quick, OVER, jobs=1, out=one)
    table = sweep(quick, OVER, jobs=2, out=two, progress=kill_one)
    assert len(killed) == 1
    assert list(table["outcome"]) == ["ran"] * 12
    assert contents(one) == contents(two)


def test_a_point_that_kills_its_process_fails_alone(monkeypatch, quick):
    # a pool that breaks whenever point 5 is under way, with two points more in its hands
    def pool(jobs, _processes, under_way):
        for place, job in enumerate(jobs):
            under_way.update(each.point for each in jobs[place : place + 3])
            if any(each.point == 5 for each in jobs[place : place + 3]):
                raise BrokenProcessPool
            yield job.point, f"record {job.point}"

    monkeypatch.setattr(local, "_in_processes", pool)
    monkeypatch.setattr(local, "_is_compiled", lambda: True)
    jobs = [Job(point, str(quick), (), "", {}) for point in range(9)]
    made = dict(local.run_here(jobs, 2))
    assert sorted(made) == list(range(9))
    assert [point for point, record in made.items() if record != f"record {point}"] == [5]
    assert '"outcome": "failed"' in made[5]
    assert "was killed, twice" in made[5]


def test_one_point_goes_first_where_nothing_is_compiled(monkeypatch, quick):
    # it runs in this process, and the pool begins when its machine code is on disk
    order = []
    monkeypatch.setattr(local, "_is_compiled", lambda: False)
    monkeypatch.setattr(local, "run_point", lambda job: order.append(job.point) or "here")
    monkeypatch.setattr(
        local, "_in_processes", lambda jobs, *_: ((job.point, "there") for job in jobs if order == [0])
    )
    jobs = [Job(point, str(quick), (), "", {}) for point in range(3)]
    assert list(local.run_here(jobs, 2)) == [(0, "here"), (1, "there"), (2, "there")]


def test_compiled_code_is_found_once_it_is_there(quick):
    sweep(quick, {"seed": [1]}, jobs=1)
    assert local._is_compiled()


def test_a_scenario_that_changes_while_the_sweep_runs_fails_its_points(quick, tmp_path):
    text = quick.read_text()

    def change(done: int, _all: int) -> None:
        if done == 2:
            quick.write_text(text.replace("all-reduce", "all-gather"))

    out = tmp_path / "out"
    table = sweep(quick, OVER, jobs=1, out=out, progress=change)
    assert (table["outcome"] == "ran").sum() == 2
    assert (table["outcome"] == "failed").sum() == 10
    assert table["error"].str.contains("is not what it was when the sweep began").sum() == 10
    quick.write_text("not: [closed")
    with pytest.raises(ValueError, match="not YAML"):
        sweep(quick, OVER, jobs=1, out=out, resume=True)
    quick.write_text(text)
    table = sweep(quick, OVER, jobs=1, out=out, resume=True)
    assert list(table["outcome"]) == ["ran"] * 12
