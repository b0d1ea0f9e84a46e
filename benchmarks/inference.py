"""Decoding at several expert-parallel degrees on two networks: what a sweep says, and how long it takes.

python benchmarks/inference.py [--jobs N] [--large]

Runs scenarios/decode_ep128.yaml with 32 requests a GPU and a lognormal gate at six degrees, under a multi-plane and a
multi-rail fat-tree: twelve points, on as many processes as there are cores. `--large` runs
scenarios/decode_ep320.yaml as well, one run after the other: with loads that are drawn once for all layers, and for
each layer anew. The tables are Markdown; what is compiled has been before the clock starts.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from simulator import load_scenario, simulate, sweep

SCENARIOS: Final = Path(__file__).parents[1] / "scenarios"
OVER: Final = {
    "workload.expert_parallel": (16, 32, 64, 128, 144, 320),
    "cluster.topology": ({"kind": "multi-plane-fat-tree", "planes": 8}, {"kind": "multi-rail-fat-tree"}),
}
_SWEPT: Final = ("workload.batch_per_gpu=32", "workload.gate={kind: lognormal, sigma: 0.5}")
_HEAD: Final = (
    "case",
    "per token",
    "limit",
    "tokens/s of a node",
    "dispatch",
    "combine",
    "not hidden",
    "memory",
)
_HEAD_OF_RUNS: Final = (*_HEAD, "collectives", "solved", "took")


def cells_of(case: str, figures: Mapping[str, Any], exposed_s: float) -> list[str]:
    """Return the cells of `_HEAD`, from metrics and step time by name."""
    return [
        case,
        f"{figures['tpot_s'] * 1e3:.2f} ms",
        f"{figures['limit_tpot_s'] * 1e3:.2f} ms",
        f"{figures['tokens_per_s_per_node']:,.0f}",
        f"{figures['dispatch_s'] * 1e6:.1f} us",
        f"{figures['combine_s'] * 1e6:.1f} us",
        f"{exposed_s / figures['step_time_s']:.1%}",
        f"{figures['memory_bytes_per_gpu'] / 1e9:.1f} GB",
    ]


def run_one(case: str, scenario: str, overrides: Sequence[str]) -> list[str]:
    """Return the cells of one run, and how it went."""
    begin_s = time.perf_counter()
    summary = simulate(load_scenario(SCENARIOS / scenario, overrides)).summary
    wall_s = time.perf_counter() - begin_s
    figures = {**summary["metrics"], "step_time_s": summary["step_time_s"]}
    solved, reused = (summary["simulation"][f"collectives_{how}"] for how in ("solved", "reused"))
    cells = cells_of(case, figures, summary["breakdown_s"]["exposed_communication"])
    return [*cells, f"{solved + reused:,}", f"{solved:,}", f"{wall_s:.1f} s"]


def rows_of(swept: pd.DataFrame) -> list[list[str]]:
    """Return the cells of each point of a sweep."""
    return [
        cells_of(
            f"EP {row['workload.expert_parallel']}, {row['cluster.topology']}",
            row,
            row["breakdown_s.exposed_communication"],
        )
        for row in swept.to_dict("records")
    ]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--jobs", type=int, help="processes of the sweep; by default as many as there are cores"
    )
    parser.add_argument("--large", action="store_true", help="run the scenario of 320 GPUs as well")
    options = parser.parse_args(arguments)
    run_one("compile", "decode_ep128.yaml", ("workload.expert_parallel=16", *_SWEPT))
    begin_s = time.perf_counter()
    swept = sweep(SCENARIOS / "decode_ep128.yaml", OVER, overrides=_SWEPT, jobs=options.jobs)
    wall_s = time.perf_counter() - begin_s
    if wrong := swept["error"][swept["error"] != ""].to_list():
        sys.exit("\n".join(wrong))
    print(f"{table(_HEAD, rows_of(swept))}\n\n{len(swept)} points in {wall_s:.1f} s", flush=True)
    if options.large:
        large = [
            run_one(
                f"`decode_ep320.yaml`, loads {change}",
                "decode_ep320.yaml",
                (f"workload.load_changes={change}",),
            )
            for change in ("never", "per-layer")
        ]
        print(f"\n{table(_HEAD_OF_RUNS, large)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
