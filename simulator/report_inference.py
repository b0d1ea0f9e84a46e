"""What an inference step adds to the report: what a GPU needs to hold, part by part."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from simulator.report_tables import plain_table
from simulator.units import show_quantity


def memory_by_part_table(rows: Sequence[dict[str, Any]], gpu_memory_bytes: float) -> Table:
    """Return what a GPU needs, all GPUs being alike; rows: `memory` of the summary, one for each part."""
    title = f"Memory of a GPU, which has {show_quantity(gpu_memory_bytes, 'bytes')}"
    table = plain_table("Part", "bytes", "of GPU", title=title)
    for row in rows:
        table.add_row(row["part"], *_amount(row["size_bytes"], gpu_memory_bytes))
    table.add_section()
    total = sum(row["size_bytes"] for row in rows)
    table.add_row("total", *_amount(total, gpu_memory_bytes), style="bold")
    return table


def _amount(size_bytes: float, gpu_memory_bytes: float) -> tuple[str, str]:
    return show_quantity(size_bytes, "bytes"), f"{size_bytes / gpu_memory_bytes:.1%}"
