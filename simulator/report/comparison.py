"""A comparison as a person likes to read it in a terminal: where results differ, why, and what was changed."""

import math
import string
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simulator.comparison import Comparison
from simulator.comparison.links import are_alike
from simulator.metric_texts import show_metric
from simulator.report.parts import MOST_ROWS, ReportList, ReportTable
from simulator.report.tables import print_block
from simulator.units import show_quantity

_TITLES: Final = {
    "step": "Step",
    "breakdown": "Breakdown",
    "metrics": "Metrics",
    "memory": "Memory of a GPU",
    "links": "Links",
    "kernels": "Kernels, on all ranks",
    "network": "Network",
}
_COUNTED_TO: Final = 1e7  # whole numbers are shown to the last digit up to this
_UNEVEN_FROM: Final = 0.01  # utilisation


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the scenarios, the verdict, what differs in figures, fields and links, and what is equal in all."""
    letters = dict(zip(comparison.labels, _letters(len(comparison.labels)), strict=True))
    _print_scenarios(comparison, letters, console)
    _print_lines("Where they differ, and why", comparison.verdict, console)
    if comparison.cautions:
        print_block(ReportList("Beware", comparison.cautions), console)
    for title, rows in comparison.figures.groupby("group", sort=False):
        if not rows["equal"].all():
            print_block(_figures(_TITLES[str(title)], rows, letters), console)
    if len(comparison.fields):
        print_block(_fields(comparison.fields, letters), console)
    if rows_of_places := _places(comparison.places, letters):
        heads = ("Links", *letters.values())
        title = "Links by plane and rail: count, mean utilisation, busiest link's"
        print_block(
            ReportTable(_with_count(title, rows_of_places), heads, rows_of_places[:MOST_ROWS]), console
        )
    if len(comparison.links):
        print_block(_links(comparison.links, letters, comparison.labels[0]), console)
    if equal := _equal_lines(comparison.figures):
        print_block(ReportList("Equal in all", equal), console)
    if len(comparison.assumptions):
        print_block(
            ReportList("Assumptions that not all rest on", _assumptions(comparison, letters)), console
        )


def show_figure(figure: str, value: float) -> str:
    """Return the value of a row of `Comparison.figures` as text, in the unit that its name says."""
    name = figure.rpartition(".")[2]
    if math.isnan(value):
        return "absent"
    if name.endswith(("utilisation", "_fraction")):
        return f"{value:.1%}"
    if name.endswith("_usd"):
        return show_quantity(value, "dollars")
    if name in {"seconds", "bytes"}:
        return show_quantity(value, "time" if name == "seconds" else "bytes")
    return show_metric(name, int(value) if value.is_integer() and abs(value) < _COUNTED_TO else value)


def show_difference(fraction: float, *, exact: bool = False) -> str:
    """Return a difference from the first scenario as text; exact: whether a rounding error is shown too."""
    if math.isnan(fraction):
        return ""
    if not exact and abs(fraction) <= 1e-9:
        return "="
    return f"{fraction:+.2%}" if abs(fraction) < 10 else f"x{1 + fraction:,.3g}"


def _letters(count: int) -> list[str]:
    """Return what columns are called: names are long."""
    letters = string.ascii_uppercase
    return [letters[place] if count <= len(letters) else str(place + 1) for place in range(count)]


def _print_scenarios(comparison: Comparison, letters: dict[str, str], console: Console) -> None:
    """Print what each letter stands for, and the steps."""
    listed = Table.grid(padding=(0, 2))
    for side in comparison.sides:
        step = show_quantity(side.summary["step_time_s"], "time")
        listed.add_row(
            Text(letters[side.label], style="bold"),
            Text.assemble((side.label, "bold"), "\n", (side.summary["question"], "dim")),
            Text(step, style="bold green"),
        )
    console.print()
    console.print(listed, highlight=False)
    console.print()


def _print_lines(title: str, lines: Sequence[str], console: Console) -> None:
    """Print sentences, an item each, as what the reader came for."""
    console.print(Text(title, style="bold"))
    listed = Table.grid(padding=(0, 1))
    for line in lines:
        listed.add_row(" -", Text(line))
    console.print(listed, highlight=False)
    console.print()


def _figures(title: str, rows: pd.DataFrame, letters: dict[str, str]) -> ReportTable:
    """Return the figures of a group that are not equal in all, and how far they are from the first scenario's."""
    others = list(letters)[1:]
    first = next(iter(letters.values()))
    heads = ["Figure", *letters.values(), *(f"{letters[label]} to {first}" for label in others)]
    shown = []
    for figure, of_figure in rows[~rows["equal"]].groupby("figure", sort=False):
        by_label = of_figure.set_index("scenario")
        values = [show_figure(str(figure), by_label["value"][label]) for label in letters]
        apart = [show_difference(by_label["difference"][label]) for label in others]
        shown.append((str(figure), *values, *apart))
    return ReportTable(title, tuple(heads), shown, is_wide=True)


def _fields(fields: pd.DataFrame, letters: dict[str, str]) -> ReportTable:
    """Return the fields in which the scenarios differ."""
    rows = [
        (str(field), *("absent" if pd.isna(value) else str(value) for value in of_field["value"]))
        for field, of_field in fields.groupby("field", sort=False)
    ]
    title = _with_count("Fields of the scenarios that differ", rows)
    words = frozenset(range(1, len(letters) + 1))
    return ReportTable(title, ("Field", *letters.values()), rows[:MOST_ROWS], words=words, is_wide=True)


def _with_count(title: str, rows: Sequence[Any]) -> str:
    """Return the title of a table, which says so if it shows the first rows only."""
    return title if len(rows) <= MOST_ROWS else f"{title}: the first {MOST_ROWS} of {len(rows)}"


def _places(places: pd.DataFrame, letters: dict[str, str]) -> list[tuple[str, ...]]:
    """Return the use of links by plane and by rail where their use is uneven; equal neighbours as one row."""
    found: list[tuple[str, str, int, int, tuple[str, ...]]] = []
    for (kind, by), of_kind in places.groupby(["kind", "by"], sort=True):
        if not _is_uneven(of_kind):
            continue
        for number, rows in of_kind.groupby("number", sort=True):
            if are_alike(rows, len(letters)):
                continue
            by_label = {row["scenario"]: row for row in rows.to_dict("records")}
            cells = tuple(_use(by_label.get(label)) for label in letters)
            last = found[-1] if found else None
            if last is not None and (last[0], last[1], last[3] + 1, last[4]) == (kind, by, number, cells):
                found[-1] = (*last[:3], int(number), cells)
            else:
                found.append((str(kind), str(by), int(number), int(number), cells))
    return [
        (f"{kind}, {by} {first}" if first == last else f"{kind}, {by}s {first} to {last}", *cells)
        for kind, by, first, last, cells in found
    ]


def _is_uneven(places: pd.DataFrame) -> bool:
    """Return whether in some scenario the planes, or rails, of a kind of links differ by more than a percent."""
    utilisation = places.groupby("scenario")[["mean_utilisation", "peak_utilisation"]]
    return bool((utilisation.max() - utilisation.min()).to_numpy().max() > _UNEVEN_FROM)


def _use(row: dict[str, Any] | None) -> str:
    if row is None:
        return "absent"
    return f"{row['count']:,}: {row['mean_utilisation']:.1%}, {row['peak_utilisation']:.1%}"


def _links(links: pd.DataFrame, letters: dict[str, str], first: str) -> ReportTable:
    """Return the links whose utilisation differs most from the first scenario's."""
    rows = [
        (
            f"{row['source']} -> {row['target']}",
            str(row["kind"]),
            letters[row["scenario"]],
            f"{row['utilisation']:.1%}",
            f"{row['first_utilisation']:.1%}",
            show_quantity(row["bytes"], "bytes"),
            show_quantity(row["first_bytes"], "bytes"),
        )
        for row in links.to_dict("records")
    ]
    heads = ("Link", "kind", "in", "use", f"in {letters[first]}", "bytes", f"in {letters[first]}")
    title = _with_count("Links whose use differs most", rows)
    return ReportTable(title, heads, rows[:MOST_ROWS], words=frozenset({1, 2}), is_wide=True)


def _equal_lines(figures: pd.DataFrame) -> list[str]:
    """Return the figures that are equal in all, a line a group."""
    lines = []
    for group, rows in figures[figures["equal"]].groupby("group", sort=False):
        values = rows.groupby("figure", sort=False)["value"].first()
        named = ", ".join(f"{figure} {show_figure(str(figure), value)}" for figure, value in values.items())
        lines.append(f"{_TITLES[str(group)]}: {named}.")
    return lines


def _assumptions(comparison: Comparison, letters: dict[str, str]) -> list[str]:
    return [
        f"{', '.join(letters[label] for label in rows['scenario'])}: {line}"
        for line, rows in comparison.assumptions.groupby("assumption", sort=False)
    ]
