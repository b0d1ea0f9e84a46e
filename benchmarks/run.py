"""Runs `replay_flows` and SimGrid side by side, compares them flow by flow, and prints tables (Markdown).

python benchmarks/run.py [--cases NAME,...] [--limit-simgrid SECONDS] [--quick] [--large] [--seed N]

Exit status: 1 if the two differ by more than 1e-9 of a flow's finish time on any case, else 0.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from cases import Flows
from known import known_cases
from large import GPUS
from oracle import HOW_TO_INSTALL, SimGridRun, build_driver, run_simgrid
from rates import Rate, event_loop_rates, simpy_ceiling
from table import NEVER_SLOWER_S, ROWS, Row
from timing import Timing, timed
from tolerance import inexact_replays

from simulator.replay import Replay, replay_flows

AGREEMENT: Final = 1e-9  # relative difference of finish times that counts as equal
_SHORT_S: Final = 1.0  # SimGrid runs three times where it takes less
_LARGE_LIMIT_S: Final = 1800  # ten times what the largest case may take
_LARGE_MUST: Final = "180 s, 8 GiB"
_GIBIBYTE: Final = 2**30
_HEADER: Final = (
    ("case", -47), ("flows", 7), ("ours (s)", 9), ("median (s)", 10), ("solves", 8), ("SimGrid (s)", 11),
    ("ratio", 8), ("must", 5), ("aim", 5), ("met", 4), ("difference", 10),
)  # fmt: skip
_RATES_HEADER: Final = (("what", -55), ("ends/s", 10), ("of SimPy's ceiling", 18), ("solves/s", 10))
_TOLERANCE_HEADER: Final = (
    ("with a tolerance", -35), ("tolerance", 9), ("faster", 7), ("solves", 7), ("merged", 7), ("stale share", 11),
    ("largest error", 13),
)  # fmt: skip
_LARGE_HEADER: Final = (
    ("case", -35), ("flows", 9), ("ours (s)", 9), ("solves", 9), ("peak memory (GiB)", 17), ("must", 12), ("aim", 5),
)  # fmt: skip

Columns = Sequence[tuple[str, int]]  # titles and widths, negative to align left


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row that has run. simgrid is None where SimGrid is missing or took longer than simgrid_limit_s."""

    row: Row
    flows: Flows
    ours: Timing[Replay]
    simgrid: SimGridRun | None
    simgrid_limit_s: int | None

    @property
    def ratio(self) -> float | None:
        """Return how many times as fast as SimGrid the replay is; at least, where SimGrid hit its limit."""
        simgrid_s = self.simgrid.wall_s if self.simgrid else self.simgrid_limit_s
        return None if simgrid_s is None else simgrid_s / self.ours.best_s

    @property
    def difference(self) -> float | None:
        """Return the largest difference of a flow's finish times, relative to SimGrid's."""
        if self.simgrid is None:
            return None
        theirs_s = self.simgrid.finish_s
        return float((np.abs(self.ours.value.finish_s - theirs_s) / theirs_s).max())

    @property
    def must(self) -> float | None:
        """Return the ratio that the row must reach: its own, or 1 where SimGrid is not quick itself."""
        simgrid_s = self.simgrid.wall_s if self.simgrid else self.simgrid_limit_s
        slow = simgrid_s is not None and simgrid_s > NEVER_SLOWER_S
        return self.row.must or (1.0 if slow else None)

    @property
    def met(self) -> str:
        """Return what the ratio reaches: the aim, what it must, or neither; `?` if SimGrid was stopped too early."""
        if self.ratio is None or self.must is None:
            return "-"
        if self.row.aim is not None and self.ratio >= self.row.aim:
            return "aim"
        if self.ratio >= self.must:
            return "must"
        return "NO" if self.simgrid else "?"


def main() -> int:
    """Run what the arguments ask for; return the exit status."""
    arguments = _parse()
    rows = [row for row in ROWS if _wanted(row, arguments)]
    driver = build_driver()
    if driver is None:
        sys.stdout.write(f"{HOW_TO_INSTALL}\n\n")
    _check_known()
    outcomes = []
    _write_header(_HEADER)
    for row in rows:
        outcome = _run(row, driver, arguments.limit_simgrid, arguments.seed)
        outcomes.append(outcome)
        _write_line(_HEADER, _cells(outcome))
    if arguments.large:
        _run_large(arguments.seed)
    if arguments.cases is None:
        _write_rates(outcomes)
        _write_tolerances(arguments.seed)
    differences = [outcome.difference for outcome in outcomes if outcome.difference is not None]
    return int(any(not difference <= AGREEMENT for difference in differences))


def _parse() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description="Compare replay_flows with SimGrid, flow by flow.")
    names = [row.name for row in ROWS]
    parser.add_argument("--cases", help=f"only these, by comma: {', '.join(names)}", metavar="NAME,...")
    parser.add_argument(
        "--limit-simgrid", type=int, default=120, metavar="SECONDS", help="let SimGrid run so long (120)"
    )
    parser.add_argument("--quick", action="store_true", help="only cases that take seconds")
    parser.add_argument("--large", action="store_true", help=f"also {GPUS:,} GPUs, in a process of its own")
    parser.add_argument("--seed", type=int, default=1, help="of sizes, starts, hashes and random paths (1)")
    arguments = parser.parse_args()
    unknown = sorted(set((arguments.cases or names[0]).split(",")) - set(names))
    if unknown:
        parser.error(f"no case is called {', '.join(unknown)}; there are {', '.join(names)}")
    if arguments.limit_simgrid < 1 or arguments.seed < 0:
        parser.error("--limit-simgrid must be at least 1, and --seed at least 0")
    return arguments


def _wanted(row: Row, arguments: argparse.Namespace) -> bool:
    """Return whether the arguments ask for a row."""
    if arguments.cases is not None:
        return row.name in arguments.cases.split(",")
    return row.quick or not arguments.quick


def _replay(flows: Flows) -> Replay:
    """Return what ours makes of the flows; what is timed is this call, all preparation included."""
    return replay_flows(
        flows.capacity_bytes_per_s, flows.path_offsets, flows.path_links, flows.size_bytes, flows.start_s
    )


def _check_known() -> None:
    """Raise RuntimeError unless ours gets the cases right that can be solved by hand."""
    for known in known_cases():
        finish_s = _replay(known.flows).finish_s
        if not np.allclose(finish_s, known.finish_s, rtol=AGREEMENT, atol=0.0):
            msg = f"replay_flows errs on {known.name!r}: {finish_s} s, and should {known.finish_s} s"
            raise RuntimeError(msg)


def _run(row: Row, driver: Path | None, limit_s: int, seed: int) -> Outcome:
    """Return a row's outcome: ours after an untimed call on a small case, then SimGrid."""
    flows = row.make(row.scale, seed)
    _replay(row.make(row.warm_scale, seed))
    ours = timed(lambda: _replay(flows))
    if driver is None:
        return Outcome(row, flows, ours, None, None)
    simgrid = run_simgrid(driver, flows, limit_s)
    if simgrid is not None and simgrid.wall_s < _SHORT_S:
        again = (run_simgrid(driver, flows, limit_s) for _ in range(2))
        simgrid = min([simgrid, *filter(None, again)], key=lambda run: run.wall_s)
    return Outcome(row, flows, ours, simgrid, limit_s)


def _cells(outcome: Outcome) -> list[str]:
    """Return a row of the comparison as text."""
    ours, simgrid, ratio, must = outcome.ours, outcome.simgrid, outcome.ratio, outcome.must
    more = "> " if simgrid is None else ""
    limit_s = outcome.simgrid_limit_s
    return [
        outcome.row.name,
        f"{len(outcome.flows):,}",
        f"{ours.best_s:.4f}",
        f"{ours.median_s:.4f}",
        f"{ours.value.solves:,}",
        f"{simgrid.wall_s:.3f}" if simgrid else "-" if limit_s is None else f"> {limit_s}",
        "-" if ratio is None else f"{more}{ratio:.4g}x",
        "-" if must is None else f"{must:g}x",
        "-" if outcome.row.aim is None else f"{outcome.row.aim:g}x",
        outcome.met,
        "-" if outcome.difference is None else f"{outcome.difference:.1e}",
    ]


def _run_large(seed: int) -> None:
    """Run and write the largest case, alone in its process."""
    sys.stdout.write("\n")
    _write_header(_LARGE_HEADER)
    name = f"lognormal-multi-plane-static-{GPUS}"
    command = [sys.executable, str(Path(__file__).with_name("large.py")), str(GPUS), str(seed)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LARGE_LIMIT_S)
    except subprocess.TimeoutExpired:
        cells = [name, f"{GPUS * (GPUS - 1):,}", f"> {_LARGE_LIMIT_S}", "-", "-", _LARGE_MUST, "60 s"]
        _write_line(_LARGE_HEADER, cells)
        return
    if ended.returncode:
        msg = f"the largest case ended with status {ended.returncode}:\n{ended.stderr[-2000:]}"
        raise RuntimeError(msg)
    report = json.loads(ended.stdout)
    if not report["finish_s"] >= report["busiest_link_s"] * (1.0 - AGREEMENT):
        msg = f"{name} ends at {report['finish_s']} s, before its busiest link can: {report['busiest_link_s']} s"
        raise RuntimeError(msg)
    peak = f"{report['peak_bytes'] / _GIBIBYTE:.2f}"
    cells = [name, f"{report['flows']:,}", f"{report['wall_s']:.1f}", f"{report['solves']:,}", peak]
    _write_line(_LARGE_HEADER, [*cells, _LARGE_MUST, "60 s"])


def _write_rates(outcomes: list[Outcome]) -> None:
    """Write the solver's rates on the cases that ran, and those of the event loop, against SimPy's ceiling."""
    ceiling = simpy_ceiling()
    rates = [ceiling, *event_loop_rates()]
    for outcome in outcomes:
        best_s = outcome.ours.best_s
        ends_per_s, solves_per_s = len(outcome.flows) / best_s, outcome.ours.value.solves / best_s
        rates.append(Rate(f"flows: {outcome.row.name}", ends_per_s, solves_per_s))
    sys.stdout.write("\n")
    _write_header(_RATES_HEADER)
    for rate in rates:
        share = f"{rate.ends_per_s / ceiling.ends_per_s:.3g}x"
        solves = "-" if rate.solves_per_s is None else f"{rate.solves_per_s:,.0f}"
        _write_line(_RATES_HEADER, [rate.what, f"{rate.ends_per_s:,.0f}", share, solves])


def _write_tolerances(seed: int) -> None:
    """Write what tolerances save, and their errors."""
    sys.stdout.write("\n")
    _write_header(_TOLERANCE_HEADER)
    for inexact in inexact_replays(seed):
        replay = inexact.replay
        counts = [f"{inexact.faster:.1f}x", f"{replay.solves:,}", f"{replay.merged:,}"]
        shares = [f"{replay.stale_share:.2%}", f"{inexact.error:.1e}"]
        _write_line(_TOLERANCE_HEADER, [inexact.case, f"{inexact.tolerance:g}", *counts, *shares])


def _write_header(columns: Columns) -> None:
    """Write the titles of a table, and the line below them."""
    _write_line(columns, [title for title, _ in columns])
    rules = ["-" * (abs(width) - 1) + ("-" if width < 0 else ":") for _, width in columns]
    _write_line(columns, rules)


def _write_line(columns: Columns, cells: Sequence[str]) -> None:
    """Write a line of a table at once, so that a long run can be watched."""
    aligned = (
        cell.ljust(-width) if width < 0 else cell.rjust(width)
        for cell, (_, width) in zip(cells, columns, strict=True)
    )
    sys.stdout.write(f"| {' | '.join(aligned)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
