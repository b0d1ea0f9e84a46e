"""Tables and lists in a terminal: what all reports are made of."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table


def print_list(title: str, lines: Sequence[str], console: Console) -> None:
    """Print sentences as a list with hanging indents."""
    console.print(f"[bold]{title}[/bold]")
    listed = Table.grid(padding=(0, 1))
    for line in lines:
        listed.add_row(" -", line)
    console.print(listed, style="dim", highlight=False)
    console.print()


def plain_table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table: the first column to the left, the others, numbers, to the right."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    return table
