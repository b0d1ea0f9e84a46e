"""The command line in processes of its own that hear signals, and what becomes of those that they start."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 240  # with a machine that has much else to do


class Command:
    """A running command of railplane, with a process group of its own, as a terminal gives it one."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "simulator.cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
            preexec_fn=_hear_signals,  # noqa: PLW1509 - no threads run in these tests
        )

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Wait for something that the command does; fail if it ends before."""
        end_s = time.monotonic() + PATIENCE_S
        while not happened():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end_s
            time.sleep(0.03)

    def stop(self, number: signal.Signals, *, group: bool = False) -> tuple[int, str, str]:
        """Send a signal, to all processes if `group`; return status, standard output and standard error.

        Whatever the command has started must end as well.
        """
        started = self.started()
        if self.process.poll() is None:
            (os.killpg if group else os.kill)(self.process.pid, number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        end_s = time.monotonic() + PATIENCE_S
        while any(_runs(child) for child in started):
            assert time.monotonic() < end_s, started
            time.sleep(0.05)
        return self.process.returncode, out, err

    def started(self) -> list[int]:
        """Return the processes that the command has started and that run still."""
        found = []
        for place in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # the thread has ended meanwhile
                found += map(int, place.read_text().split())
        return found

    def cpu_s(self, process: int | None = None) -> float:
        """Return for how long a process has computed, by default the command's first."""
        fields = Path(f"/proc/{process or self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def _hear_signals() -> None:
    """Undo that jobs in a shell's background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
