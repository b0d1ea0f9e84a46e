"""What a run of `nccl-tests` adds to the report: predicted beside measured, size by size."""

from collections.abc import Sequence
from typing import Any

from simulator.report.parts import ReportTable
from simulator.units import show_quantity


def measured_table(rows: Sequence[dict[str, Any]]) -> ReportTable:
    """Return times and bus bandwidths; rows: `nccl_tests` of the summary, one for each size."""
    return ReportTable(
        title="Error: predicted over measured time, less 1",
        columns=("Size", "predicted", "measured", "error", "predicted busbw", "measured busbw"),
        rows=[
            (
                show_quantity(row["size_bytes"], "bytes"),
                show_quantity(row["predicted_s"], "time"),
                show_quantity(row["measured_s"], "time"),
                f"{row['time_error']:+.1%}",
                show_quantity(row["predicted_busbw_bytes_per_s"], "bytes per second"),
                show_quantity(row["measured_busbw_bytes_per_s"], "bytes per second"),
            )
            for row in rows
        ],
    )
