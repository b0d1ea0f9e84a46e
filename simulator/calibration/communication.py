"""What the constants of communication kernels are fitted to, how far the cost table misses it, and the fit itself.

`python -m simulator.calibration.communication` runs every shipped scenario that stands for a published measurement
and prints what comes out beside it, as the table of docs/calibration.md; `--write FILE` writes that table anew,
`--fit` fits the constants and prints them.

Waiting beside computation is left out of those runs: the training trace has it as kernels of its own (`waits_s`).
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.calibration.published_gemms import published
from simulator.costs import CostTable, load_cost_table
from simulator.reference import markdown_table, refresh
from simulator.run import simulate
from simulator.scenario import load_scenario

FloatArray = NDArray[np.float64]

SCENARIOS: Final = Path("scenarios")
TABLE: Final = "h800-published"


class Target(NamedTuple):
    """A published measurement: the shipped scenario, with overrides, of which it is this metric, in SI units."""

    name: str
    scenario: str
    overrides: tuple[str, ...]
    metric: str
    value: float
    source: str

    @property
    def is_beside_compute(self) -> bool:
        """Return whether the ranks computed all the while."""
        return "workload.beside_compute=true" in self.overrides


class Constant(NamedTuple):
    """A constant that is fitted: where it is in the table, and between which bounds it may lie, in SI units."""

    path: tuple[str, ...]
    least: float
    most: float


# Efficiency: 46 to 49 of 50 GB/s, NVIDIA/nccl-tests issues 267 and 290. Times: 0 and more. A gap for each message on
# InfiniBand is not among them: at one number of tokens the measurements cannot tell it from a start-up.
ALONE: Final = (
    Constant(("link_efficiency", "infiniband"), 0.92, 0.98),
    Constant(("communication", "normal", "start_up"), 0.0, 1e-3),
    Constant(("communication", "normal", "per_message", "nvlink"), 0.0, 1e-7),
    Constant(("communication", "low-latency", "start_up"), 0.0, 1e-4),
    Constant(("communication", "low-latency", "per_message", "nvlink"), 0.0, 1e-7),
)
BESIDE_COMPUTE: Final = (
    Constant(("beside_compute", "dispatch"), 1.0, 4.0),
    Constant(("beside_compute", "combine"), 1.0, 4.0),
)
# The mean of `waits_s`, which needs no search and so no bounds but that it is a time.
WAIT: Final = Constant(("communication", "normal", "wait_beside_compute"), 0.0, np.inf)


def read_targets() -> tuple[Target, ...]:
    """Return the published measurements that constants are fitted to."""
    text = (files("simulator.calibration") / "communication.json").read_text("utf-8")
    return tuple(Target(**row | {"overrides": tuple(row["overrides"])}) for row in json.loads(text))


def waits_s() -> FloatArray:
    """Return for how long dispatch and combine of the training trace waited, in its order: [8] seconds.

    Of two layers, forward and backward. Each of their kernels that move bytes has a `comm_notify` before it, in which
    ranks meet: that is mostly waiting for those that are not there yet.
    """
    rows = published("h800_train_main_kernels.csv")
    return np.array([float(row["dur_us"]) * 1e-6 for row in rows if row["kernel_class"] == "comm_notify"])


def without_waiting(table: CostTable) -> CostTable:
    """Return a table with which no kernel waits for ranks that compute, as none of the targets' times has that."""
    kernels = {
        name: costs.model_copy(update={"wait_beside_compute": None})
        for name, costs in table.communication.items()
    }
    return table.model_copy(update={"communication": kernels})


def predict(targets: Sequence[Target], table: CostTable, folder: Path = SCENARIOS) -> FloatArray:
    """Return what comes out for each target with a cost table: [num_targets], in the targets' units.

    Targets are times of kernels that move bytes, so that what is waited before them beside computation is left out.
    """
    table = without_waiting(table)
    metrics: dict[tuple[str, tuple[str, ...]], Mapping[str, float]] = {}
    for target in targets:
        run = (target.scenario, target.overrides)
        if run not in metrics:
            loaded = replace(load_scenario(folder / target.scenario, target.overrides), costs=table)
            metrics[run] = simulate(loaded).summary["metrics"]
    return np.array([metrics[target.scenario, target.overrides][target.metric] for target in targets])


def seconds_missed(targets: Sequence[Target], predicted: FloatArray) -> FloatArray:
    """Return by which share of a measured time the predicted one is longer: [num_targets], below 0 where shorter."""
    measured = np.array([target.value for target in targets])
    is_rate = np.array([target.metric.endswith("_bytes_per_s") for target in targets])
    return np.where(is_rate, measured / predicted, predicted / measured) - 1.0


def value_of(table: CostTable, constant: Constant) -> float:
    """Return the value that a table has for a constant."""
    node: Any = table
    for name in constant.path:
        node = node[name] if isinstance(node, Mapping) else getattr(node, name)
    return float(node.value)


def with_values(table: CostTable, constants: Sequence[Constant], values: Iterable[float]) -> CostTable:
    """Return a table with other values for some constants."""
    data = table.model_dump(mode="json")
    for constant, value in zip(constants, values, strict=True):
        node: Any = data
        for name in constant.path:
            node = node[name]
        node["value"] = f"{value * 1e9:.17g} ns" if constant.path[0] == "communication" else float(value)
    return CostTable.model_validate_json(json.dumps(data))


def fit(table: CostTable, folder: Path = SCENARIOS) -> CostTable:
    """Return the table with its constants fitted: those of kernels that run alone, then what computation adds.

    What kernels wait for beside computation is a mean, and no other constant depends on it.
    """
    table, targets = with_values(table, (WAIT,), (waits_s().mean(),)), read_targets()
    for constants, is_beside in ((ALONE, False), (BESIDE_COMPUTE, True)):
        chosen = [target for target in targets if target.is_beside_compute == is_beside]
        table = least_missed(table, constants, partial(_missed, chosen, folder))
    return table


def _missed(targets: Sequence[Target], folder: Path, table: CostTable) -> FloatArray:
    return seconds_missed(targets, predict(targets, table, folder))


def least_missed(
    table: CostTable, constants: Sequence[Constant], missed: Callable[[CostTable], FloatArray]
) -> CostTable:
    """Return the table with the values of constants, within their bounds, for which the sum of squares is least.

    missed: returns [num_targets] by which share a table misses each target
    """
    from scipy.optimize import least_squares  # of the extra `calibrate`

    least = np.array([constant.least for constant in constants])
    width = np.array([constant.most for constant in constants]) - least
    start = (np.array([value_of(table, constant) for constant in constants]) - least) / width
    solved = least_squares(
        lambda share: missed(with_values(table, constants, least + share * width)),
        np.clip(start, 1e-3, 1 - 1e-3),
        bounds=(0.0, 1.0),
        diff_step=1e-3,
        xtol=1e-4,
        ftol=1e-6,
    )
    return with_values(table, constants, least + solved.x * width)


def residual_table(targets: Sequence[Target], predicted: FloatArray) -> str:
    """Return the measurements, what comes out, and by how much the time is missed, as Markdown."""
    head = ("measurement", "published", "railplane", "time missed by", "scenario", "source")
    rows = []
    for target, value, share in zip(targets, predicted, seconds_missed(targets, predicted), strict=True):
        unit, scale = ("GB/s", 1e-9) if target.metric.endswith("_bytes_per_s") else ("us", 1e6)
        sets = " ".join(f"`--set {override}`" for override in target.overrides)
        rows.append(
            (
                target.name,
                f"{target.value * scale:g} {unit}",
                f"{value * scale:.1f} {unit}",
                f"{share:+.1%}",
                f"`{target.scenario}` {sets}",
                target.source,
            )
        )
    return markdown_table(head, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m simulator.calibration.communication", description=__doc__
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the table of residuals into a document"
    )
    parser.add_argument("--fit", action="store_true", help="fit the constants anew and print them")
    parser.add_argument(
        "--scenarios", type=Path, default=SCENARIOS, help="the folder of the shipped scenarios"
    )
    options = parser.parse_args(arguments)
    table, targets = load_cost_table(TABLE, Path()), read_targets()
    if options.fit:
        table = fit(table, options.scenarios)
        for constant in (*ALONE, *BESIDE_COMPUTE, WAIT):
            print(f"{'.'.join(constant.path)}: {value_of(table, constant):.6g}", file=sys.stderr)
    rows = residual_table(targets, predict(targets, table, options.scenarios))
    if options.write:
        refresh(options.write, {"residuals": lambda: rows})
    else:
        print(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
