"""Fits what everything that a run holds costs in memory, and sets estimates beside the peaks of shipped scenarios.

python benchmarks/size.py              # all: the fit, then shipped scenarios; half an hour
python benchmarks/size.py --shipped    # only how far the estimates of shipped scenarios are from their peaks

Every scenario runs in a process of its own, whose peak of resident memory is taken. The fit is least squares of
relative errors, no cost being negative; `simulator/size.py` holds it, rounded. Exit status: 1 if a shipped scenario
that takes more than half a gibibyte is estimated at less than three quarters of its peak or more than twice it.
"""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.optimize import nnls

from simulator.scenario import load_scenario
from simulator.size import BASE_BYTES, BYTES, Counts

_KIBIBYTE: Final = 1024  # ru_maxrss counts these on Linux
_GIBIBYTE: Final = 2**30
_SCENARIOS: Final = Path(__file__).parent.parent / "scenarios"
_WARMING: Final = ("all_to_all_128", "dispatch_64_multi_plane", "training_schedules")
_PLANES: Final = {"kind": "multi-plane-fat-tree"}
_RAILS: Final = {"kind": "multi-rail-fat-tree"}
_GROUPS: Final = {
    "kind": "dragonfly",
    "endpoints_per_router": 16,
    "routers_per_group": 32,
    "global_ports": 16,
    "groups": 9,
}
_NOTHING: Final = {"kind": "kernels", "calls": [{"kind": "copy", "size_bytes": 100}]}
_COLLECTIVE: Final = {"kind": "collective", "size": "1 GB"}
_EXPERTS: Final = {"kind": "expert-parallel", "tokens_per_rank": 128}
_TRAINING: Final = {"kind": "training-step", "sequence_length": 1024, "ignore_memory": True}
_DECODING: Final = {"kind": "decode-step", "batch_per_gpu": 64, "cached_tokens": 1024}


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield series of sizes of each kind: names, and scenarios."""
    for nodes in (1, 64, 256, 1024, 2048):
        yield f"network of {nodes} nodes", _scenario(_NOTHING, nodes)
    yield "rails of 245 nodes", _scenario(_NOTHING, 245, _RAILS)
    yield "unbundled network of 2048 nodes", _scenario(_NOTHING, 2048, routing="static")
    yield "Dragonfly of 512 nodes", _scenario(_NOTHING, 512, _GROUPS)
    for nodes, topology, routing in (
        (8, _PLANES, "adaptive"),
        (16, _PLANES, "adaptive"),
        (32, _PLANES, "adaptive"),
        (64, _PLANES, "adaptive"),
        (48, _PLANES, "static"),
        (32, _RAILS, "ecmp"),
    ):
        work = _COLLECTIVE | {"operation": "all-to-all"}
        yield f"all-to-all of {nodes} nodes, {routing}", _scenario(work, nodes, topology, routing)
    yield "all-reduce of 512 nodes", _scenario(_COLLECTIVE | {"operation": "all-reduce"}, 512)
    for kernel, degree, layers, changes in (
        ("normal", 256, 1, "never"),
        ("normal", 512, 1, "never"),
        ("normal", 256, 16, "per-layer"),
        ("low-latency", 256, 1, "never"),
        ("low-latency", 448, 1, "never"),
        ("low-latency", 128, 16, "per-layer"),
        ("low-latency", 64, 58, "never"),
    ):
        fields = {"kernel": kernel, "expert_parallel": degree, "layers": layers, "load_changes": changes}
        yield f"{kernel} of {degree}, {layers} layers, {changes}", _scenario(_EXPERTS | fields)
    for pipeline, degree, schedule, batches, nodes in (
        (8, 8, "1f1b", 64, "auto"),
        (8, 8, "1f1b", 128, "auto"),
        (16, 32, "dualpipe", 64, 64),
        (16, 8, "dualpipe", 64, 128),
    ):
        members = (nodes * 8 if isinstance(nodes, int) else pipeline * degree) // pipeline
        fields = {"pipeline_parallel": pipeline, "expert_parallel": degree, "schedule": schedule}
        work = _TRAINING | fields | {"sequences_per_step": batches * members}
        yield f"{schedule} of {members * pipeline} ranks, {batches} micro-batches", _scenario(work, nodes)
    for degree in (64, 160):
        yield f"decoding at {degree}", _scenario(_DECODING | {"expert_parallel": degree})


def _scenario(
    workload: dict[str, Any], nodes: int | str = "auto", topology: Any = _PLANES, routing: str = "adaptive"
) -> dict[str, Any]:
    cluster = {"node": "h800", "nodes": nodes, "topology": topology, "routing": routing}
    return {"name": "size", "cluster": cluster, "model": "deepseek-v3", "workload": workload}


def main() -> int:
    """Run all cases; return the exit status."""
    for name in _WARMING:  # compiles what is not kept yet, which takes memory of its own
        measured(_SCENARIOS / f"{name}.yaml", "")
    if "--shipped" not in sys.argv:
        with tempfile.TemporaryDirectory() as folder:
            print_fit([measured(_written(Path(folder), scenario), name) for name, scenario in cases()])
    row = "| {:32} | {:>10} | {:>14} | {:>14} |\n".format
    sys.stdout.write(row("shipped scenario", "peak (GiB)", "estimate (GiB)", "estimate/peak"))
    sys.stdout.write(row("-" * 32, *(f"{'-' * (width - 1)}:" for width in (10, 14, 14))))
    all_met = True
    for path in sorted(_SCENARIOS.glob("*.yaml")):
        peak, counts = measured(path, "")
        estimated = BASE_BYTES + sum(a * b for a, b in zip(counts, BYTES, strict=True))
        ratio = estimated / peak
        all_met = all_met and (0.75 <= ratio <= 2.0 or peak < _GIBIBYTE / 2)
        sys.stdout.write(
            row(path.stem, f"{peak / _GIBIBYTE:.2f}", f"{estimated / _GIBIBYTE:.2f}", f"{ratio:.2f}")
        )
        sys.stdout.flush()
    return int(not all_met)


def print_fit(found: list[tuple[int, Counts]]) -> None:
    """Print what the base and each thing that is counted cost, in bytes, and how far off they leave the cases."""
    peaks = np.array([peak for peak, _ in found], float)
    counted = np.array([(1, *counts) for _, counts in found], float)
    costs, _ = nnls(counted / peaks[:, None], np.ones(len(peaks)))
    for name, cost in zip(("base", *Counts._fields), costs.tolist(), strict=True):
        sys.stdout.write(f"{name:12} {cost:14,.1f} bytes\n")
    off = counted @ costs / peaks
    sys.stdout.write(f"fitted over peak: {off.min():.2f} to {off.max():.2f}\n\n")


def _written(folder: Path, scenario: dict[str, Any]) -> Path:
    path = folder / "size.yaml"
    path.write_text(json.dumps(scenario))  # which YAML includes
    return path


def measured(path: Path, name: str) -> tuple[int, Counts]:
    """Return the peak of a run in a process of its own, in bytes, and what is counted of it."""
    command = [sys.executable, str(Path(__file__)), "--run", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(ended.stdout)
    counts = Counts(**report["counts"])
    if name:
        sys.stdout.write(f"{name:48} {report['peak_bytes'] / _GIBIBYTE:8.2f} GiB\n")
        sys.stdout.flush()
    return report["peak_bytes"], counts


def run_alone(path: Path) -> dict[str, Any]:
    """Return the peak of a run of this process, in bytes, and what is counted of it."""
    from simulator.run import simulate

    loaded = load_scenario(path, any_size=True)
    counts = loaded.size.counts
    simulate(loaded)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIBIBYTE
    return {"peak_bytes": peak_bytes, "counts": counts._asdict()}


if __name__ == "__main__":
    if "--run" in sys.argv:
        sys.stdout.write(json.dumps(run_alone(Path(sys.argv[-1]))) + "\n")
    else:
        sys.exit(main())
