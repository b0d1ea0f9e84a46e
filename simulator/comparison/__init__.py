"""Results side by side: where they differ, what bounds each, and what was changed."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from simulator.comparison.fields import assumptions_table, cautions, fields_table
from simulator.comparison.figures import figures_table
from simulator.comparison.links import curves_table, kinds_table, links_table, places_table
from simulator.comparison.sides import Side, Source, read_sides
from simulator.comparison.verdict import verdict
from simulator.durable import naming, write_file
from simulator.whole_folder import WholeFolder

__all__ = ["TABLES", "Comparison", "compare"]

# the tables of a comparison, by the names of their files
TABLES: Final = ("figures", "fields", "kinds", "places", "links", "curves", "assumptions")
COMPARISON_KIND: Final = "compare"  # what a folder of a comparison calls the command that writes such
COMPARISON_FILES: Final = (
    "comparison.json",
    *(f"{name}.{suffix}" for name in TABLES for suffix in ("parquet", "csv")),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several results side by side; differences are from the first.

    sides: what is compared; verdict: where they differ and why, cautions: what makes them unlike, a sentence each;
    figures, fields, kinds, places, links, curves, assumptions: see `docs/compare.md`
    """

    sides: tuple[Side, ...]
    figures: pd.DataFrame
    fields: pd.DataFrame
    kinds: pd.DataFrame
    places: pd.DataFrame
    links: pd.DataFrame
    curves: pd.DataFrame
    assumptions: pd.DataFrame
    verdict: list[str]
    cautions: list[str]

    @property
    def labels(self) -> list[str]:
        """Return what the scenarios are called, in their order."""
        return [side.label for side in self.sides]

    @property
    def table(self) -> pd.DataFrame:
        """Return the figures with a column per scenario, and one per difference from the first, in percent."""
        wide = self.figures.pivot(
            index=["group", "figure"], columns="scenario", values=["value", "difference"]
        )
        order = pd.MultiIndex.from_frame(self.figures[["group", "figure"]].drop_duplicates())
        columns = {label: wide["value"][label] for label in self.labels}
        columns |= {f"{label}: difference (%)": 100 * wide["difference"][label] for label in self.labels[1:]}
        return pd.DataFrame(columns).loc[order]

    def summary(self) -> dict[str, Any]:
        """Return what `railplane compare --json` prints."""
        return {
            "scenarios": [
                {
                    "name": side.label,
                    "scenario": side.summary["scenario"],
                    "question": side.summary["question"],
                    "step_time_s": side.summary["step_time_s"],
                    "provenance": {
                        key: side.summary["provenance"][key] for key in ("version", "seed", "scenario_sha256")
                    },
                }
                for side in self.sides
            ],
            "verdict": self.verdict,
            "cautions": self.cautions,
            **{name: _rows(getattr(self, name)) for name in TABLES if name != "curves"},
        }

    def to_json(self) -> str:
        """Return the summary as one line of JSON."""
        return json.dumps(self.summary(), allow_nan=False)

    def save(self, folder: Path) -> None:
        """Make this the comparison that a folder holds, all at once; the folder is made if need be.

        An earlier one in it is replaced, files of others are left alone. Raises OSError, and FolderRefused (a
        ValueError) if the folder holds something else; it then holds what it held before.
        """
        with WholeFolder(folder, COMPARISON_KIND, COMPARISON_FILES).replaced() as new:
            self.write(new)

    def write(self, folder: Path) -> None:
        """Write `comparison.json`, and each table as Parquet and CSV; raise OSError."""
        text = json.dumps(self.summary(), allow_nan=False, indent=2)
        write_file(folder / "comparison.json", f"{text}\n".encode())
        for name in TABLES:
            table = getattr(self, name)
            with naming(folder / f"{name}.parquet"):
                table.to_parquet(folder / f"{name}.parquet", index=False)
            write_file(folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n").encode())


def compare(
    scenarios: Sequence[Source] | Mapping[str, Source],
    overrides: Sequence[str] = (),
    *,
    jobs: int | None = None,
    any_path: bool = False,
    any_size: bool = False,
    say: Callable[[str], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Comparison:
    """Return two or more results side by side.

    scenarios: of each, a scenario file, which is run, a scenario that `load_scenario` gave, likewise, or a folder
    that `railplane run --out` wrote; a mapping gives each a name, otherwise they have those of the scenarios, or, if
    two of these are equal, their paths. overrides: each `PATH=VALUE`, set in every scenario file; folders refuse
    them. jobs: how many run at once, each in a process of its own (None: as many as there are cores). any_path:
    whether scenarios may name files outside their folders. any_size: whether they may take more memory than there
    is, by their estimates; otherwise fewer run at once if as many do not fit, and `say` is called with a sentence if
    so. progress: called with the share of runs that have ended.
    InputError if any is not what it should be, before any is run; RunKilled if one of the processes is killed.
    """
    sides = read_sides(scenarios, overrides, jobs, progress, say, any_path=any_path, any_size=any_size)
    tables = {
        "figures": figures_table(sides),
        "fields": fields_table(sides),
        "kinds": kinds_table(sides),
        "places": places_table(sides),
        "links": links_table(sides),
        "curves": curves_table(sides),
        "assumptions": assumptions_table(sides),
    }
    said = verdict(sides, tables["figures"], tables["kinds"], tables["fields"])
    return Comparison(sides=sides, **tables, verdict=said, cautions=cautions(sides))


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON has them: what is not a number is null."""
    rows = table.to_dict("records")
    return [
        {key: None if isinstance(cell, float) and math.isnan(cell) else cell for key, cell in row.items()}
        for row in rows
    ]
