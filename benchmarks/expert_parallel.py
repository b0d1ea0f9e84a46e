"""A sweep of expert-parallel degrees on two networks: how long it takes, and what it says.

`python benchmarks/expert_parallel.py` runs scenarios/expert_parallel_normal.yaml with a lognormal gate at eight
degrees, under a multi-plane and a multi-rail fat-tree: sixteen points, on as many processes as there are cores.
`--kernel low-latency` sweeps scenarios/expert_parallel_low_latency.yaml.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from simulator import sweep

SCENARIOS: Final = Path(__file__).parents[1] / "scenarios"
OVER: Final = {
    "workload.expert_parallel": (8, 16, 32, 64, 72, 128, 144, 320),
    "cluster.topology": ({"kind": "multi-plane-fat-tree", "planes": 8}, {"kind": "multi-rail-fat-tree"}),
}
SKEW: Final = "workload.gate={kind: lognormal, sigma: 0.5}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", choices=("normal", "low-latency"), default="normal")
    parser.add_argument("--jobs", type=int, help="processes; by default as many as there are cores")
    options = parser.parse_args(arguments)
    scenario = SCENARIOS / f"expert_parallel_{options.kernel.replace('-', '_')}.yaml"
    begin_s = time.perf_counter()
    table = sweep(scenario, OVER, overrides=[SKEW], jobs=options.jobs)
    wall_s = time.perf_counter() - begin_s
    if wrong := table["error"][table["error"] != ""].to_list():
        sys.exit("\n".join(wrong))
    print(
        "{:>6} {:40} {:>12} {:>12} {:>8} {:>8}".format(
            "degree", "topology", "dispatch", "combine", "GB/s", "GB/s"
        )
    )
    for row in table.to_dict("records"):
        print(
            f"{row['workload.expert_parallel']:6} {row['cluster.topology']:40} "
            f"{row['dispatch_s'] * 1e6:9.1f} us {row['combine_s'] * 1e6:9.1f} us "
            f"{row['dispatch_logical_bytes_per_s'] / 1e9:8.2f} {row['combine_logical_bytes_per_s'] / 1e9:8.2f}"
        )
    print(f"{len(table)} points in {wall_s:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
