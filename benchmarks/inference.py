"""Decoding at several expert-parallel degrees on two networks: what a sweep says, and how long it takes.

python benchmarks/inference.py [--jobs N] [--large]

Runs scenarios/decode_ep128.yaml with 32 requests a GPU and a lognormal gate at six degrees, under a multi-plane and a
multi-rail fat-tree: twelve points, on as many processes as there are cores. `--large` runs
scenarios/decode_ep320.yaml as well, one run after the other: with loads that are drawn once for all layers, and for
each layer anew. The tables are Markdown; what is compiled has been before the clock starts.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, Final

from simulator import load_scenario, simulate

SCENARIOS: Final = Path(__file__).parents[1] / "scenarios"
DEGREES: Final = (16, 32, 64, 128, 144, 320)
TOPOLOGIES: Final = {
    "multi-plane": "{kind: multi-plane-fat-tree, planes: 8}",
    "multi-rail": "{kind: multi-rail-fat-tree}",
}
_SWEPT: Final = ("workload.batch_per_gpu=32", "workload.gate={kind: lognormal, sigma: 0.5}")
_HEAD: Final = (
    "case",
    "GPUs",
    "per token",
    "limit",
    "tokens/s of a node",
    "dispatch",
    "combine",
    "not hidden",
    "memory",
    "collectives",
    "solved",
    "took",
)


def run_point(name: str, scenario: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Return what one run says, and the seconds that it took."""
    begin_s = time.perf_counter()
    loaded = load_scenario(SCENARIOS / scenario, overrides)
    summary = simulate(loaded).summary
    simulation = summary["simulation"]
    return {
        "case": name,
        "gpus": loaded.setting.num_ranks,
        **summary["metrics"],
        "exposed": summary["breakdown_s"]["exposed_communication"] / summary["step_time_s"],
        "solved": simulation["collectives_solved"],
        "collectives": simulation["collectives_solved"] + simulation["collectives_reused"],
        "wall_s": time.perf_counter() - begin_s,
    }


def sweep(jobs: int) -> list[dict[str, Any]]:
    """Return the points of the sweep, run on so many processes."""
    points = [
        (
            f"EP {degree}, {topology}",
            "decode_ep128.yaml",
            (f"workload.expert_parallel={degree}", f"cluster.topology={TOPOLOGIES[topology]}", *_SWEPT),
        )
        for degree, topology in product(DEGREES, TOPOLOGIES)
    ]
    points.reverse()  # the longest first, so that no core is left with them at the end
    with ProcessPoolExecutor(jobs) as pool:
        rows = list(pool.map(run_point, *zip(*points, strict=True)))
    return rows[::-1]


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Return a Markdown table, a line a run."""
    lines = [f"| {' | '.join(_HEAD)} |", f"|{' --- |' * len(_HEAD)}"]
    for row in rows:
        cells = (
            row["case"],
            f"{row['gpus']:,}",
            f"{row['tpot_s'] * 1e3:.2f} ms",
            f"{row['limit_tpot_s'] * 1e3:.2f} ms",
            f"{row['tokens_per_s_per_node']:,.0f}",
            f"{row['dispatch_s'] * 1e6:.1f} us",
            f"{row['combine_s'] * 1e6:.1f} us",
            f"{row['exposed']:.1%}",
            f"{row['memory_bytes_per_gpu'] / 1e9:.1f} GB",
            f"{row['collectives']:,}",
            f"{row['solved']:,}",
            f"{row['wall_s']:.1f} s",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes of the sweep")
    parser.add_argument("--large", action="store_true", help="run the scenario of 320 GPUs as well")
    options = parser.parse_args(arguments)
    run_point("compile", "decode_ep128.yaml", ("workload.expert_parallel=16", *_SWEPT))
    begin_s = time.perf_counter()
    rows = sweep(options.jobs)
    wall_s = time.perf_counter() - begin_s
    print(f"{table(rows)}\n\n{len(rows)} points in {wall_s:.1f} s on {options.jobs} processes", flush=True)
    if options.large:
        changes = ("never", "per-layer")
        large = [
            run_point(
                f"`decode_ep320.yaml`, loads {change}",
                "decode_ep320.yaml",
                (f"workload.load_changes={change}",),
            )
            for change in changes
        ]
        print(f"\n{table(large)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
