"""What an inference step adds to the report: what a GPU needs to hold, part by part, and the bound of a token."""

from collections.abc import Sequence
from typing import Any

from simulator.report.parts import ReportTable
from simulator.units import show_quantity


def memory_by_part_table(rows: Sequence[dict[str, Any]], gpu_memory_bytes: float) -> ReportTable:
    """Return what a GPU needs, all GPUs being alike; rows: `memory` of the summary, one for each part."""

    def amount(size_bytes: float) -> tuple[str, str]:
        return show_quantity(size_bytes, "bytes"), f"{size_bytes / gpu_memory_bytes:.1%}"

    return ReportTable(
        title=f"Memory of a GPU, which has {show_quantity(gpu_memory_bytes, 'bytes')}",
        columns=("Part", "bytes", "of GPU"),
        rows=[(str(row["part"]), *amount(row["size_bytes"])) for row in rows],
        total=("total", *amount(sum(row["size_bytes"] for row in rows))),
    )


def limit_line(metrics: dict[str, float]) -> str:
    """Return as text how far a decode step is from the idealised limit of its exchanges."""
    token, limit = metrics["tpot_s"], metrics["limit_tpot_s"]
    compared = f", {limit / token:.0%} of that" if token else ""
    return (
        f"A token takes {show_quantity(token, 'time')}; the idealised limit of its exchanges is "
        f"{show_quantity(limit, 'time')}{compared}."
    )
