"""A training step at several sizes: whether time grows with the work, and what the largest takes in time and memory.

python benchmarks/training.py [--sizes 1,2,4] [--large]

Each size multiplies micro-batches and pipeline stages of scenarios/training_2048_multi_plane.yaml, cut to one
expert-parallel group a pipeline rank; `--large` runs that scenario, and the one with rails, whole. Every run is a
process of its own, after one that has compiled what is compiled. Exit status: 1 if time grows by more than the work
does and a fifth, else 0.
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

SCENARIOS: Final = Path(__file__).parents[1] / "scenarios"
MULTI_PLANE: Final = "training_2048_multi_plane.yaml"
MULTI_RAIL: Final = "training_2048_multi_rail.yaml"
_KIBIBYTE: Final = 1024  # ru_maxrss counts these on Linux
_GIBIBYTE: Final = 2**30
_SLACK: Final = 1.2
# Of size 1: pipeline ranks, and micro-batches of each data-parallel rank.
_STAGES: Final = 4
_MICRO_BATCHES: Final = 16
_HEAD: Final = (
    "case",
    "GPUs",
    "work",
    "tasks",
    "collectives",
    "solved",
    "wall",
    "CPU",
    "peak",
    "CPU by work",
)


def overrides(size: int) -> list[str]:
    """Return what makes the scenario one of a size: as many layers, stages and micro-batches in proportion."""
    stages, micro_batches = _STAGES * size, _MICRO_BATCHES * size
    return [
        f"cluster.nodes={8 * stages}",
        f"workload.pipeline_parallel={stages}",
        f"workload.sequences_per_step={64 * micro_batches}",
        "workload.ignore_memory=true",
    ]


def run_one(scenario: str, sets: Sequence[str]) -> dict[str, Any]:
    """Return what a run takes, in a process of its own."""
    command = [sys.executable, __file__, "--one", scenario, *sets]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def one(scenario: str, sets: Sequence[str]) -> None:
    """Run a scenario, and print what it took as one JSON object."""
    from simulator import load_scenario, simulate  # here, so that the parent process stays small

    begin_s = time.perf_counter()
    result = simulate(load_scenario(SCENARIOS / scenario, sets))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    simulation = result.summary["simulation"]
    report = {
        "wall_s": time.perf_counter() - begin_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * _KIBIBYTE,
        "tasks": len(result.tasks),
        "solved": simulation["collectives_solved"],
        "reused": simulation["collectives_reused"],
        "gpus": int(result.tasks.groupby("rank")["ranks"].first().sum()),
        "step_time_s": result.step_time_s,
    }
    sys.stdout.write(json.dumps(report) + "\n")


def row(name: str, work: float, found: dict[str, Any]) -> str:
    """Return a row of the table; work: micro-batches x layers, the first size being 1, over all stages."""
    cells = (
        name,
        f"{found['gpus']:,}",
        f"{work:g}",
        f"{found['tasks']:,}",
        f"{found['solved'] + found['reused']:,}",
        f"{found['solved']:,}",
        f"{found['wall_s']:.1f} s",
        f"{found['cpu_s']:.1f} s",
        f"{found['peak_bytes'] / _GIBIBYTE:.2f} GiB",
        f"{found['cpu_s'] / work:.2f} s",
    )
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="1,2,4", help="multiples of stages and micro-batches")
    parser.add_argument("--large", action="store_true", help="run both scenarios of 2,048 GPUs as well")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        one(options.one[0], options.one[1:])
        return 0
    sizes = [int(size) for size in options.sizes.split(",")]
    run_one(MULTI_PLANE, overrides(1))  # compiles
    print(f"| {' | '.join(_HEAD)} |\n|{' --- |' * len(_HEAD)}")
    per_work = []
    for size in sizes:
        # The model's layers are divided over the stages: a group has micro-batches x layers / stages to do, and
        # there are as many groups as stages.
        found, work = run_one(MULTI_PLANE, overrides(size)), size / sizes[0]
        print(
            row(f"{_STAGES * size} stages x {_MICRO_BATCHES * size} micro-batches", work, found), flush=True
        )
        per_work.append(found["cpu_s"] / work)
    if options.large:
        for name in (MULTI_PLANE, MULTI_RAIL):
            print(row(f"`{name}`", float("nan"), run_one(name, ())), flush=True)
    return int(max(per_work) > _SLACK * per_work[0])


if __name__ == "__main__":
    sys.exit(main())
