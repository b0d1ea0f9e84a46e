"""What a report says, as text, whatever shows it: sections of tables, lists and sentences.

`simulator.report.sections` makes them of a result, `simulator.report.terminal` prints them in a terminal and
`simulator.report.page` writes them as a page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

MOST_ROWS: Final = 32  # of a long table; the summary has all
Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table of texts.

    title: empty if the section's says it all; columns: [num_columns] heads; rows: [num_rows][num_columns];
    total: one more row, set off from the others, empty for none; words: columns besides the first that hold words and
    not numbers; shares: [num_rows] of 1, drawn as bars beside the rows, empty for none; is_wide: has many columns
    """

    title: str
    columns: Row
    rows: Sequence[Row]
    total: Row = ()
    words: frozenset[int] = frozenset()
    shares: tuple[float, ...] = ()
    is_wide: bool = False


@dataclass(frozen=True, slots=True)
class ReportList:
    """Sentences, one item each."""

    title: str
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class ReportSentence:
    """A sentence that stands alone."""

    line: str


Block = ReportTable | ReportList | ReportSentence


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks about one thing; key: its name among the sections of a report."""

    key: str
    title: str
    blocks: tuple[Block, ...]


def first_rows(title: str, rows: Sequence[dict[str, Any]]) -> tuple[str, Sequence[dict[str, Any]]]:
    """Return the rows that a table shows, and its title, which says so if there are more."""
    if len(rows) <= MOST_ROWS:
        return title, rows
    return f"{title}: the first {MOST_ROWS} of {len(rows)}, the others in summary.json", rows[:MOST_ROWS]
