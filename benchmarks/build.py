"""Builds and compiles the largest networks, each in a process of its own, and prints a table (Markdown).

python benchmarks/build.py

Building is the graph with its checks, compiling the arrays that flows run on. Exit status: 1 if a network takes more
time or memory than it may, else 0.
"""

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_KIBIBYTE: Final = 1024  # ru_maxrss counts these on Linux
_GIBIBYTE: Final = 2**30


@dataclass(frozen=True, slots=True)
class Case:
    """A network of H800 nodes, and what building and compiling it may take."""

    topology: dict[str, Any]
    num_nodes: int
    most_s: float
    most_bytes: float


CASES: Final = {
    "multi-plane fat-tree": Case(
        {"kind": "multi-plane-fat-tree", "planes": 8, "switch_ports": 64}, 2048, 10, 6 * _GIBIBYTE
    ),
    "Dragonfly": Case(
        {
            "kind": "dragonfly",
            "endpoints_per_router": 16,
            "routers_per_group": 32,
            "global_ports": 16,
            "groups": 511,
        },
        32704,
        60,
        6 * _GIBIBYTE,
    ),
}


def main() -> int:
    """Run each case alone; return the exit status."""
    row = "| {:22} | {:>9} | {:>10} | {:>9} | {:>11} | {:>17} | {:>11} | {:>3} |\n".format
    titles = (
        "network",
        "endpoints",
        "cables",
        "build (s)",
        "compile (s)",
        "peak memory (GiB)",
        "must",
        "met",
    )
    sys.stdout.write(row(*titles))
    sys.stdout.write(row("-" * 22, *(f"{'-' * (width - 1)}:" for width in (9, 10, 9, 11, 17, 11, 3))))
    all_met = True
    for name, case in CASES.items():
        ended = subprocess.run(
            [sys.executable, str(Path(__file__)), name], capture_output=True, text=True, check=True
        )
        report = json.loads(ended.stdout)
        met = report["build_s"] + report["compile_s"] <= case.most_s
        met = met and report["peak_bytes"] <= case.most_bytes
        all_met = all_met and met
        sys.stdout.write(
            row(
                name,
                f"{report['endpoints']:,}",
                f"{report['cables']:,}",
                f"{report['build_s']:.1f}",
                f"{report['compile_s']:.1f}",
                f"{report['peak_bytes'] / _GIBIBYTE:.2f}",
                f"{case.most_s:g} s, {case.most_bytes / _GIBIBYTE:g} GiB",
                "yes" if met else "NO",
            )
        )
        sys.stdout.flush()
    return int(not all_met)


def run_alone(case: Case) -> dict[str, float]:
    """Return what it takes to build and compile a network."""
    from pydantic import TypeAdapter

    from simulator.cables import LinkCosts
    from simulator.network import Network
    from topologies import NODES, Topology, build_cluster

    spec = TypeAdapter(Topology).validate_python(case.topology)
    before_s = time.perf_counter()
    graph = build_cluster(NODES["h800"], case.num_nodes, spec)
    built_s = time.perf_counter()
    costs = {profile: LinkCosts(1.0, 0.0, 0.0) for profile in ("nvlink", "pcie", "infiniband")}
    network = Network(graph, costs)
    compiled_s = time.perf_counter()
    return {
        "endpoints": case.num_nodes * NODES["h800"].gpus,
        "cables": len(network.cables) // 2,
        "build_s": built_s - before_s,
        "compile_s": compiled_s - built_s,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIBIBYTE,
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(run_alone(CASES[sys.argv[1]])) + "\n")
    else:
        sys.exit(main())
