"""What a report says of links: use by kind, the busiest ones, what was waited for, and what balancing did."""

from typing import Any, Final

import pandas as pd

from simulator.report.parts import ReportTable
from simulator.units import show_quantity

_BUSIEST: Final = 8


def kinds_table(kinds: dict[str, dict[str, float]]) -> ReportTable:
    """Return the utilisation by link kind; kinds: `links` of the summary."""
    rows = [
        (
            kind,
            f"{row['count']:,}",
            show_quantity(row["bytes"], "bytes"),
            f"{row['mean_utilisation']:.1%}",
            f"{row['peak_utilisation']:.1%}",
            f"{row['saturated_fraction']:.1%}",
        )
        for kind, row in kinds.items()
    ]
    heads = ("Links", "count", "bytes", "mean use", "busiest", "of it saturated")
    return ReportTable("Utilisation by link kind", heads, rows)


def busiest_table(links: pd.DataFrame) -> ReportTable:
    """Return the links that had the most to do, by the time that they need at their effective capacity."""
    used = links[links["bytes"] > 0.0]
    busy_s = (used["bytes"] / used["effective_bytes_per_s"]).sort_values(ascending=False, kind="stable")
    rows = [
        (
            str(row.source),
            str(row.target),
            str(row.kind),
            show_quantity(row.bytes, "bytes"),
            f"{row.utilisation:.1%}",
            f"{row.saturated_fraction:.1%}",
        )
        for row in used.loc[busy_s.index[:_BUSIEST]].itertuples()
    ]
    heads = ("From", "to", "kind", "bytes", "use", "saturated")
    return ReportTable("Busiest links", heads, rows, words=frozenset({1, 2}))


def wait_line(row: dict[str, Any]) -> str:
    """Return what the last rank of a collective waited for as text; row: one of `waits` of the summary."""
    line = f"{row['collective']}: {row['slowest_sender']} to {row['slowest_receiver']}"
    if row["slowest_link"] is not None:
        line += (
            f", held up most by {row['slowest_link']} ({row['slowest_link_kind']}), which is busy "
            f"{row['slowest_link_busy_fraction']:.0%} of the time"
        )
    return f"{line}; a rank waits {show_quantity(row['mean_wait_s'], 'time')} for the last on average."


def balance_table(kinds: dict[str, dict[str, float]]) -> ReportTable:
    """Return the loads of links before and after balancing; kinds: `balance` of the summary."""
    loads = ("max_bytes_before", "max_bytes_after", "mean_bytes_before", "mean_bytes_after")
    rows = [(kind, *(show_quantity(row[load], "bytes") for load in loads)) for kind, row in kinds.items()]
    heads = ("Links", "fullest before", "after", "mean before", "after")
    return ReportTable("Loads of links by balancing", heads, rows)
