"""Kill a sweep with SIGKILL at random moments, resume it to its end, and say what each round left: a JSON list.

python killed_sweeps.py SCENARIO FOLDER ROUNDS SEED

The process imports and compiles once; each sweep is a fork of it. Half of the rounds are killed from outside after a
random time, half by themselves at a random line of the code that writes files, so that every step of it is met
however fast the machine is.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from simulator import durable, sweep
from simulator.sweeps import store
from support.sweep_folders import contents

OVER = {"workload.size": ["1 MiB", "2 MiB", "4 MiB"], "workload.ranks": ["all", [0, 1, 2, 3], [0, 1], [1000]]}


class Lines:
    """Counts lines of the code that writes files as they run, and kills the process at one of them."""

    def __init__(self, fatal: int | None = None) -> None:
        self.count, self.fatal = 0, fatal

    def trace(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename not in {store.__file__, durable.__file__}:
            return None
        if event == "line":
            self.count += 1
            if self.count == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.trace


def forked(scenario: str, folder: Path, fatal_line: int | None = None, after_s: float | None = None) -> bool:
    """Run or resume a sweep in a child; return whether it was killed."""
    child = os.fork()
    if child == 0:
        if fatal_line is not None:
            sys.settrace(Lines(fatal_line).trace)
        sweep(scenario, OVER, jobs=1, out=folder, resume=True)
        os._exit(0)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def main(scenario: str, folder: str, rounds: str, seed: str) -> None:
    drawn = random.Random(int(seed))
    whole = Path(folder) / "whole"
    lines = Lines()
    sys.settrace(lines.trace)
    sweep(scenario, OVER, jobs=1, out=whole)
    sys.settrace(None)
    begin_s = time.perf_counter()
    forked(scenario, Path(folder) / "timed")
    takes_s = time.perf_counter() - begin_s
    expected = contents(whole)
    said = []
    for number in range(int(rounds)):
        out = Path(folder) / str(number)
        by_line = number % 2 == 0
        killed = forked(
            scenario,
            out,
            fatal_line=drawn.randint(1, lines.count) if by_line else None,
            after_s=None if by_line else drawn.uniform(0, takes_s),
        )
        points = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("points/0*.json")}
        torn = [
            path.name for path in points if path.read_bytes() != (whole / "points" / path.name).read_bytes()
        ]
        leftovers = len(list(out.rglob(".*")))
        assert not forked(scenario, out)
        redone = [
            path for path, was in points.items() if (path.stat().st_ino, path.stat().st_mtime_ns) != was
        ]
        said.append(
            {
                "killed": killed,
                "done": len(points),
                "torn": torn,
                "leftovers": leftovers,
                "redone": len(redone),
                "equal": contents(out) == expected,
            }
        )
        shutil.rmtree(out)
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
