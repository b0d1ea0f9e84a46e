"""How the strategies write things down: quantities with any unit, tables, scenarios with their files."""

import csv
import io
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from simulator.units import UNITS


@dataclass(frozen=True)
class Drawn:
    """A scenario as drawn: its fields, and the files that it names, by their paths from its folder."""

    data: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)

    def write(self, folder: Path, name: str = "drawn.yaml") -> Path:
        """Write the scenario and its files into a folder; return the scenario's path."""
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in self.files.items():
            (folder / path).write_bytes(content)
        # JSON is YAML 1.2, and says of every text that it is one
        (folder / name).write_text(json.dumps(self.data, indent=1, ensure_ascii=False), "utf-8")
        return folder / name


@cache
def quantities(dimension: str, least: float, most: float) -> st.SearchStrategy[str]:
    """Return texts of values of a dimension (a key of `simulator.units.UNITS`), spread evenly over the magnitudes."""
    units = sorted(unit for unit, factor in UNITS[dimension].items() if factor <= most)
    return st.builds(
        lambda share, unit: f"{least * (most / least) ** share / UNITS[dimension][unit]:.6g} {unit}",
        st.integers(0, 60).map(lambda step: step / 60),
        st.sampled_from(units),
    )


@cache
def one_in(count: int) -> st.SearchStrategy[bool]:
    """Return what is true once in so many draws, and becomes false when an example is made smaller."""
    return st.integers(0, count - 1).map(lambda number: number == count - 1)


@st.composite
def some_of(draw: st.DrawFn, fields: dict[str, st.SearchStrategy[Any]], share: int = 3) -> dict[str, Any]:
    """Draw a mapping that has each of the fields once in `share` draws."""
    return {name: draw(values) for name, values in fields.items() if draw(one_in(share))}


@st.composite
def table_files(draw: st.DrawFn, name: str, columns: dict[str, list[Any]]) -> tuple[str, bytes]:
    """Draw a file of a table: CSV, or Parquet, its columns in any order. Return its path and content."""
    order = draw(st.permutations(list(columns)))
    ordered = {column: columns[column] for column in order}
    suffix = draw(st.sampled_from(["csv", "csv", "parquet", "pq"]))
    if suffix == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator=draw(st.sampled_from(["\n", "\r\n"])))
        writer.writerow(order)
        writer.writerows(zip(*ordered.values(), strict=True))
        return f"{name}.csv", text.getvalue().encode()
    stream = io.BytesIO()
    # endpoints may be numbers and names at once, which Parquet has no column for
    made = {
        column: list(map(str, cells)) if any(isinstance(cell, str) for cell in cells) else cells
        for column, cells in ordered.items()
    }
    pq.write_table(pa.table(made), stream)
    return f"{name}.{suffix}", stream.getvalue()
