"""A real Dask scheduler and two workers on this machine, of which one is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from simulator import sweep
from simulator.input_error import InputError
from simulator.sweeps import cluster
from support.sweep_folders import contents

distributed = pytest.importorskip("distributed")

OVER = {"workload.size": [f"{size} MiB" for size in range(1, 21)], "workload.ranks": ["all", [1000]]}
_PATIENCE_S = 120


@contextmanager
def started(*arguments: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `dask ARGUMENTS` until the end of the block."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (folder / f"{arguments[0]}.log").open("ab") as log:
        command = [sys.executable, "-m", "dask", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]], subprocess.Popen[bytes]]]:
    """Yield the address of a scheduler, the processes of its two workers, and its own."""
    at = tmp_path / "scheduler.json"
    local = ("--host", "127.0.0.1", "--no-dashboard")
    with ExitStack() as stack:
        scheduler = stack.enter_context(
            started("scheduler", *local, "--port", "0", "--scheduler-file", str(at), folder=tmp_path)
        )
        worker = ("worker", *local, "--scheduler-file", str(at), "--nthreads", "1", "--no-nanny")
        until(at.exists)
        workers = [stack.enter_context(started(*worker, folder=tmp_path)) for _ in range(2)]
        with distributed.Client(scheduler_file=str(at), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=_PATIENCE_S)
            address = client.scheduler.address
        yield address, workers, scheduler


def until(holds) -> None:
    end_s = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_a_worker_killed_in_mid_sweep_costs_nothing(quick, tmp_path, dask):
    address, workers, scheduler = dask
    here, there = tmp_path / "here", tmp_path / "there"
    table = sweep(quick, OVER, jobs=1, out=here)

    def kill_one(done: int, _all: int) -> None:
        if done == 25:  # 20 points are refused before any runs, so that 15 of 20 are left
            workers[0].send_signal(signal.SIGKILL)
            workers[0].wait()

    swept = sweep(quick, OVER, cluster=address, out=there, progress=kill_one)
    assert workers[0].returncode == -signal.SIGKILL
    assert workers[1].poll() is None
    assert swept.equals(table)
    assert contents(here) == contents(there)

    # when the scheduler goes too, the sweep stops, what is done stays, and it can be gone on with elsewhere
    cut = tmp_path / "cut"

    def kill_the_scheduler(done: int, _all: int) -> None:
        if done == 25:
            scheduler.send_signal(signal.SIGKILL)
            scheduler.wait()

    with pytest.raises(cluster.SweepStopped):
        sweep(quick, OVER, cluster=address, out=cut, progress=kill_the_scheduler)
    assert 25 <= len(list((cut / "points").glob("0*.json"))) < 40
    sweep(quick, OVER, jobs=1, out=cut, resume=True)
    assert contents(here) == contents(cut)


def test_an_address_at_which_nothing_answers_is_named(quick, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_TIMEOUT_S", 0.5)
    for address in ("tcp://127.0.0.1:1", "nonsense://x"):
        with pytest.raises(InputError, match="no Dask scheduler answers there") as caught:
            sweep(quick, OVER, cluster=address)
        assert caught.value.file == f"--cluster {address}"


def test_without_dask_the_message_says_what_to_install(quick, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"railplane\[cluster\]"):
        sweep(quick, OVER, cluster="tcp://127.0.0.1:1")
