"""The tidy table of a sweep: a row a point, made from records alone."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from simulator.sweeps.grid import Grid

_NO_METRICS: Final = ("gpu_memory_bytes", "outcome", "error")
_FIGURES_OF_LINKS: Final = ("mean_utilisation", "peak_utilisation", "saturated_fraction", "bytes", "count")


def tidy_table(grid: Grid, records: Sequence[str]) -> pd.DataFrame:
    """Return a row a point, in the order of the grid, from the records of its points, as JSON.

    Columns: point; one per swept path, numbers where all its values are numbers, else as YAML; step_time_s; every
    metric; breakdown_s.PART; links.KIND.FIGURE; gpu_memory_bytes where any point has it; outcome (ran, refused,
    too-large, failed); error (text, empty if the point ran). What a point lacks is missing (NaN).
    """
    held = [json.loads(record) for record in records]
    summaries = [record["summary"] or {} for record in held]
    columns: dict[str, list[Any]] = {"point": [record["point"] for record in held]}
    for place, axis in enumerate(grid.axes):
        columns[axis.path] = _swept(axis.values, [texts[place] for texts in grid.points], axis.texts)
    columns["step_time_s"] = [summary.get("step_time_s") for summary in summaries]
    for cells in (
        [summary.get("metrics", {}) for summary in summaries],
        [_named("breakdown_s", summary.get("breakdown_s", {})) for summary in summaries],
        [_of_links(summary.get("links", {})) for summary in summaries],
        [_only(summary, "gpu_memory_bytes") for summary in summaries],
    ):
        for name in dict.fromkeys(name for row in cells for name in row):
            columns[name] = [row.get(name) for row in cells]
    for name in ("outcome", "error"):
        columns[name] = [record[name] for record in held]
    return pd.DataFrame({name: _array(values) for name, values in columns.items()})


def table_files(table: pd.DataFrame) -> dict[str, bytes]:
    """Return the table as Parquet and as CSV, by file name."""
    parquet = io.BytesIO()
    table.to_parquet(parquet, index=False)
    return {
        "sweep.parquet": parquet.getvalue(),
        "sweep.csv": table.to_csv(index=False, lineterminator="\n").encode(),
    }


def metric_names(table: pd.DataFrame) -> list[str]:
    """Return the columns that are metrics: those between the step time and its parts that no dot divides."""
    behind = list(table.columns)[list(table.columns).index("step_time_s") + 1 :]
    return [name for name in behind if "." not in name and name not in _NO_METRICS]


def json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as plain data; what is missing is None."""
    return [
        {name: None if isinstance(cell, float) and np.isnan(cell) else cell for name, cell in row.items()}
        for row in table.to_dict("records")
    ]


def _swept(values: Sequence[Any], cells: Sequence[str], texts: Sequence[str]) -> list[Any]:
    """Return a swept column: numbers or truths as such if all are, else YAML."""
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    kinds = {type(value) for value in plain}
    if kinds <= {int, float} or kinds == {bool}:
        value_of = dict(zip(texts, plain, strict=True))
        return [value_of[cell] for cell in cells]
    return list(cells)


def _named(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _of_links(links: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"links.{kind}.{figure}": figures[figure]
        for kind, figures in links.items()
        for figure in _FIGURES_OF_LINKS
    }


def _only(summary: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {name: summary[name]} if name in summary else {}


def _array(values: list[Any]) -> pd.Series:
    """Return a column with the type that its values have, missing numbers as NaN."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {str}:
        return pd.Series(values, dtype="str")
    if kinds == {bool}:
        return pd.Series(values, dtype=np.bool_)
    if kinds == {int} and None not in values:
        return pd.Series(values, dtype=np.int64)
    return pd.Series([np.nan if value is None else value for value in values], dtype=np.float64)
