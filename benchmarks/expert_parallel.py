"""A sweep of expert-parallel degrees on two networks: how long it takes, and what it says.

`python benchmarks/expert_parallel.py` runs scenarios/expert_parallel_normal.yaml with a lognormal gate at eight
degrees, under a multi-plane and a multi-rail fat-tree: sixteen points, on as many processes as there are cores.
`--kernel low-latency` sweeps scenarios/expert_parallel_low_latency.yaml.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, Final

from simulator import load_scenario, simulate

SCENARIOS: Final = Path(__file__).parents[1] / "scenarios"
DEGREES: Final = (8, 16, 32, 64, 72, 128, 144, 320)
TOPOLOGIES: Final = {
    "multi-plane": "{kind: multi-plane-fat-tree, planes: 8}",
    "multi-rail": "{kind: multi-rail-fat-tree}",
}
SKEW: Final = "workload.gate={kind: lognormal, sigma: 0.5}"


def run_point(kernel: str, degree: int, topology: str) -> dict[str, Any]:
    """Return what one point of the sweep says, and the seconds that it took."""
    begin_s = time.perf_counter()
    overrides = (f"workload.expert_parallel={degree}", f"cluster.topology={TOPOLOGIES[topology]}", SKEW)
    scenario = SCENARIOS / f"expert_parallel_{kernel.replace('-', '_')}.yaml"
    summary = simulate(load_scenario(scenario, overrides)).summary
    return {
        "degree": degree,
        "topology": topology,
        **summary["metrics"],
        "waits": summary["waits"][0]["slowest_link_kind"],
        "wall_s": time.perf_counter() - begin_s,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", choices=("normal", "low-latency"), default="normal")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args(arguments)
    points = [(options.kernel, degree, topology) for degree, topology in product(DEGREES, TOPOLOGIES)]
    points.reverse()  # the longest first, so that no core is left with them at the end
    begin_s = time.perf_counter()
    with ProcessPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(run_point, *zip(*points, strict=True)))
    wall_s = time.perf_counter() - begin_s
    head = ("degree", "topology", "dispatch", "combine", "GB/s", "GB/s", "waits for", "took")
    print("{:>6} {:12} {:>12} {:>12} {:>8} {:>8} {:10} {:>7}".format(*head))
    for row in reversed(rows):
        print(
            f"{row['degree']:6} {row['topology']:12} "
            f"{row['dispatch_s'] * 1e6:9.1f} us {row['combine_s'] * 1e6:9.1f} us "
            f"{row['dispatch_logical_bytes_per_s'] / 1e9:8.2f} {row['combine_logical_bytes_per_s'] / 1e9:8.2f} "
            f"{row['waits']:10} {row['wall_s']:5.1f} s"
        )
    print(f"{len(rows)} points in {wall_s:.1f} s on {options.jobs} processes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
