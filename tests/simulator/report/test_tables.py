"""Tables and lists of a report in a terminal: as loose as they fit, and their texts are never markup."""

import io

import pytest
from rich.console import Console

from simulator.report.parts import Block, ReportList, ReportSentence, ReportTable
from simulator.report.tables import print_block


def printed(block: Block, width: int = 80) -> list[str]:
    shown = io.StringIO()
    print_block(block, Console(width=width, file=shown))
    return [line.rstrip() for line in shown.getvalue().splitlines() if line.strip()]


# Columns of 4 characters. Between two of them lie 3 blanks, where those do not fit 2, where those do not fit 1.
# With a blank at either end: 2 + 2 * 4 + 3 = 13, then 12, then 11.
@pytest.mark.parametrize(("width", "blanks"), [(14, 3), (13, 3), (12, 2), (11, 1)])
def test_columns_move_together_until_they_fit(width: int, blanks: int):
    lines = printed(ReportTable("", ("Head", "head"), [("aaaa", "bbbb")]), width)
    assert lines[0] == " Head" + " " * blanks + "head"
    assert lines[-1] == " aaaa" + " " * blanks + "bbbb"


def test_wide_tables_are_close_where_there_is_room():
    lines = printed(ReportTable("", ("Head", "head"), [("aaaa", "bbbb")], is_wide=True))
    assert lines[-1] == " aaaa  bbbb"


def test_words_stand_on_the_left_and_numbers_on_the_right():
    rows = [("a", "b", "1"), ("aaa", "bbb", "100")]
    block = ReportTable("", ("X", "y", "z"), rows, total=("c", "d", "2"), words=frozenset({1}))
    assert [line for line in printed(block) if "─" not in line] == [
        " X     y       z",
        " a     b       1",
        " aaa   bbb   100",
        " c     d       2",
    ]


def test_shares_are_bars_of_24_cells():
    block = ReportTable("", ("X", "y"), [("a", "1"), ("b", "2"), ("c", "3")], shares=(1.0, 0.25, 0.0))
    assert [line.count("█") for line in printed(block)[-3:]] == [24, 6, 0]


@pytest.mark.parametrize(
    "block",
    [
        ReportTable("T", ("A", "b"), [("[/bold]", "x[red]y")], total=("[b]", "[/]")),
        ReportList("[/b]", ["[/bold]", "x[red]y", "[b]", "[/]"]),
        ReportSentence("[/bold] x[red]y [b] [/]"),
    ],
)
def test_texts_are_no_markup(block: Block):
    text = " ".join(printed(block))
    assert all(word in text for word in ("[/bold]", "x[red]y", "[b]", "[/]"))
