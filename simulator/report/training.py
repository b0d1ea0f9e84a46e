"""What a training step adds to the report: what each pipeline rank did, and what its GPUs need to hold."""

from collections.abc import Sequence
from typing import Any, Final

from simulator.report.parts import ReportTable, first_rows
from simulator.units import fitting_unit, show_quantity

# Columns are narrow: heads that say less than the names do.
_HEADS: Final = {
    "forward_backward": "pairs",
    "exposed_communication": "exposed",
    "communication_buffers": "buffers",
}


def pipeline_ranks_table(rows: Sequence[dict[str, Any]]) -> ReportTable:
    """Return where the time of each pipeline rank went; rows: `pipeline_ranks` of the summary."""
    parts = _parts(rows, "_s")
    unit, factor = fitting_unit(max(row[f"{part}_s"] for row in rows for part in parts), "time")
    title, shown = first_rows(f"Pipeline ranks, mean over their groups ({unit})", rows)
    texts = [
        (
            str(row["pipeline_rank"]),
            str(row["stages"]),
            *(f"{row[f'{part}_s'] / factor:.4g}" for part in parts),
        )
        for row in shown
    ]
    return ReportTable(title, ("Rank", "stages", *map(_head, parts)), texts, is_wide=True)


def memory_table(rows: Sequence[dict[str, Any]], gpu_memory_bytes: float) -> ReportTable:
    """Return what a GPU of each pipeline rank needs when it needs most; rows: `memory` of the summary."""
    parts = _parts(rows, "_bytes")
    unit, factor = fitting_unit(max(row[f"{part}_bytes"] for row in rows for part in parts), "bytes")
    has = show_quantity(gpu_memory_bytes, "bytes")
    title, shown = first_rows(f"Memory of a GPU ({unit}), which has {has}", rows)
    texts = [
        (
            str(row["pipeline_rank"]),
            *(f"{row[f'{part}_bytes'] / factor:.3g}" for part in parts),
            f"{row['total_bytes'] / gpu_memory_bytes:.0%}",
        )
        for row in shown
    ]
    return ReportTable(title, ("Rank", *map(_head, parts), "of GPU"), texts, is_wide=True)


def _parts(rows: Sequence[dict[str, Any]], ending: str) -> list[str]:
    """Return what the columns that end so are of."""
    return [name.removesuffix(ending) for name in rows[0] if name.endswith(ending)]


def _head(part: str) -> str:
    return _HEADS.get(part, part)
