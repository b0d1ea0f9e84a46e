"""What a training step adds to the report: what each pipeline rank did, and what its GPUs need to hold."""

from collections.abc import Sequence
from typing import Any, Final

from rich.table import Table

from simulator.report_tables import plain_table
from simulator.units import fitting_unit, show_quantity

_MOST_RANKS: Final = 32  # rows of a table in the terminal; the summary has all
# Columns are narrow: heads that say less than the names do.
_HEADS: Final = {
    "forward_backward": "pairs",
    "exposed_communication": "exposed",
    "communication_buffers": "buffers",
}


def pipeline_ranks_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return where the time of each pipeline rank went; rows: `pipeline_ranks` of the summary."""
    parts = _parts(rows, "_s")
    unit, factor = fitting_unit(max(row[f"{part}_s"] for row in rows for part in parts), "time")
    title = _title(f"Pipeline ranks, mean over their groups ({unit})", rows)
    table = _narrow_table("Rank", "stages", *map(_head, parts), title=title)
    for row in rows[:_MOST_RANKS]:
        times = (f"{row[f'{part}_s'] / factor:.4g}" for part in parts)
        table.add_row(str(row["pipeline_rank"]), row["stages"], *times)
    return table


def memory_table(rows: Sequence[dict[str, Any]], gpu_memory_bytes: float) -> Table:
    """Return what a GPU of each pipeline rank needs when it needs most; rows: `memory` of the summary."""
    parts = _parts(rows, "_bytes")
    unit, factor = fitting_unit(max(row[f"{part}_bytes"] for row in rows for part in parts), "bytes")
    title = f"Memory of a GPU ({unit}), which has {show_quantity(gpu_memory_bytes, 'bytes')}"
    table = _narrow_table("Rank", *map(_head, parts), "of GPU", title=_title(title, rows))
    for row in rows[:_MOST_RANKS]:
        sizes = (f"{row[f'{part}_bytes'] / factor:.3g}" for part in parts)
        share = f"{row['total_bytes'] / gpu_memory_bytes:.0%}"
        table.add_row(str(row["pipeline_rank"]), *sizes, share)
    return table


def _parts(rows: Sequence[dict[str, Any]], ending: str) -> list[str]:
    """Return what the columns that end so are of."""
    return [name.removesuffix(ending) for name in rows[0] if name.endswith(ending)]


def _narrow_table(*columns: str, title: str) -> Table:
    """Return an empty table whose columns stand close, for there are many."""
    table = plain_table(*columns, title=title)
    table.padding = (0, 1, 0, 0)
    return table


def _head(part: str) -> str:
    return _HEADS.get(part, part)


def _title(title: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return a table's title, which says so if there are more rows than it has."""
    if len(rows) <= _MOST_RANKS:
        return title
    return f"{title}: the first {_MOST_RANKS} of {len(rows)}, the others in summary.json"
