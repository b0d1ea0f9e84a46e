"""Tables and lists in a terminal: what all reports are made of."""

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from simulator.report.parts import Block, ReportList, ReportSentence, ReportTable

_BAR_CELLS: Final = 24
_UNBOUNDED: Final = 10_000  # columns; rich takes no infinity
# Blanks to the left and right of a cell, from loose to tight.
_PADDINGS: Final = ((1, 1), (0, 1), (0, 0))


def print_block(block: Block, console: Console) -> None:
    """Print a part of a report; of a table's spacings the loosest, unless it is wide, that the terminal holds."""
    match block:
        case ReportTable():
            table = _table(block)
            unbounded = console.options.update(max_width=_UNBOUNDED)
            for left, right in _PADDINGS[block.is_wide :]:
                table.padding = (0, right, 0, left)
                if Measurement.get(console, unbounded, table).maximum <= console.width:
                    break
            console.print(table)
        case ReportList():
            print_list(block.title, block.lines, console)
        case ReportSentence():
            console.print(f"{block.line}\n", markup=False)


def print_list(title: str, lines: Sequence[str], console: Console) -> None:
    """Print sentences as a list with hanging indents."""
    console.print(Text(title, style="bold"))
    listed = Table.grid(padding=(0, 1))
    for line in lines:
        listed.add_row(" -", Text(line))
    console.print(listed, style="dim", highlight=False)
    console.print()


def plain_table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table: the first column to the left, the others, numbers, to the right."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    return table


def _table(block: ReportTable) -> Table:
    """Return a table of a report for the terminal; what it holds may come from users, and is not markup."""
    table = plain_table(*block.columns, title=block.title or None)
    for place in block.words:
        table.columns[place].justify = "left"
    if block.shares:
        table.add_column("", no_wrap=True)
    for place, row in enumerate(block.rows):
        bar = ["█" * round(block.shares[place] * _BAR_CELLS)] if block.shares else []
        table.add_row(*map(Text, [*row, *bar]))
    if block.total:
        table.add_section()
        table.add_row(*map(Text, block.total), style="bold")
    return table
