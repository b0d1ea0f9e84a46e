"""Two workers against one: how much faster a sweep of points of a second or more gets.

python benchmarks/sweep.py [--jobs 1,2] [--points 24]

Each sweep is a process of its own, after one that has compiled what is compiled. Its rate is that of the points after
the first two of each worker, when all workers have started; `start` is what passes until then beyond that rate. CPU
time is that of the process and its workers together: where the machine does other work besides, it tells what running
in parallel costs. Exit status: 1 if the last of --jobs has less than 1.7 times the rate of the first, else 0.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from joblib.externals.loky import get_reusable_executor

SCENARIO: Final = Path(__file__).parents[1] / "scenarios" / "expert_parallel_normal.yaml"
_DEGREE: Final = "workload.expert_parallel=64"  # over a second a point
_LEAST_RATIO: Final = 1.7
_FEWEST: Final = 3  # of a single worker, of which the first two only warm it up


def run_one(jobs: int, points: int) -> dict[str, Any]:
    """Return what a sweep takes, in a process of its own."""
    command = [sys.executable, __file__, "--one", str(jobs), "--points", str(points)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def one(jobs: int, points: int) -> dict[str, Any]:
    """Sweep in this process and its children; return wall time, CPU time and rate."""
    from simulator import sweep

    ended_s: list[float] = []
    begin_s = time.perf_counter()
    table = sweep(
        SCENARIO,
        {"seed": range(1, points + 1)},
        overrides=[_DEGREE],
        jobs=jobs,
        progress=lambda done, _all: ended_s.append(time.perf_counter()) if done else None,
    )
    wall_s = time.perf_counter() - begin_s
    assert (table["outcome"] == "ran").all()
    if jobs > 1:  # the time of children is known once they have ended
        get_reusable_executor().shutdown()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    warm = 2 * jobs
    return {
        "jobs": jobs,
        "wall_s": wall_s,
        "cpu_s": sum(each.ru_utime + each.ru_stime for each in used),
        "rate": (points - warm) / (ended_s[-1] - ended_s[warm - 1]),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", default="1,2", help="processes of each sweep, divided by commas")
    parser.add_argument("--points", type=int, default=24, help="points of a sweep")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one is not None:
        print(json.dumps(one(options.one, options.points)))
        return 0
    processes = [int(jobs) for jobs in options.jobs.split(",")]
    if options.points <= 2 * max(processes):
        parser.error(f"--points must be over {2 * max(processes)}: the first two of each worker do not count")
    run_one(1, _FEWEST)
    rows = [run_one(jobs, options.points) for jobs in processes]
    print("| workers | points | wall | start | points a second | points per CPU second | ratio |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['jobs']} | {options.points} | {row['wall_s']:.1f} s | "
            f"{row['wall_s'] - options.points / row['rate']:.1f} s | {row['rate']:.2f} | "
            f"{options.points / row['cpu_s']:.2f} | {row['rate'] / rows[0]['rate']:.2f} x |"
        )
    return int(rows[-1]["rate"] < _LEAST_RATIO * rows[0]["rate"])


if __name__ == "__main__":
    sys.exit(main())
