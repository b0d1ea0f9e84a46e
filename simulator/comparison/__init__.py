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

__all__ = ["TABLES", "Comparison", "compare"]

# the tables of a comparison, by the names of their files
TABLES: Final = ("figures", "fields", "kinds", "places", "links", "curves", "assumptions")


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
        """Write `comparison.json`, and each table as Parquet and CSV, into a folder, made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.summary(), allow_nan=False, indent=2)
        (folder / "comparison.json").write_text(text + "\n", "utf-8")
        for name in TABLES:
            table = getattr(self, name)
            table.to_parquet(folder / f"{name}.parquet", index=False)
            table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def compare(
    scenarios: Sequence[Source] | Mapping[str, Source],
    overrides: Sequence[str] = (),
    *,
    jobs: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Comparison:
    """Return two or more results side by side.

    scenarios: of each, a scenario file, which is run, a scenario that `load_scenario` gave, likewise, or a folder
    that `railplane run --out` wrote; a mapping gives each a name, otherwise they have those of the scenarios, or, if
    two of these are equal, their paths. overrides: each `PATH=VALUE`, set in every scenario file; folders refuse
    them. jobs: how many run at once, each in a process of its own (None: as many as there are cores). progress:
    called with the share of runs that have ended. InputError if any is not what it should be, before any is run;
    RunKilled if one of the processes is killed.
    """
    sides = read_sides(scenarios, overrides, jobs, progress)
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
