"""The page as text: well formed, whole, escaped, and the same each time. `test_in_browser.py` opens it."""

import io
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element

import html5lib
import pytest
from rich.console import Console

from simulator.plots import Picture, result_pictures, save_pictures
from simulator.report.page import read_images, report_page
from simulator.report.page.images import MAX_SVG_BYTES
from simulator.report.parts import ReportList, ReportSentence, ReportTable
from simulator.report.sections import report_sections
from simulator.report.terminal import print_report
from simulator.result import Result
from support.params import mostly_slow

NAMES = ["training", "decode", "flows"]
FolderOf = Callable[[str], Path]
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


def page_of(folder: Path) -> Element:
    """Return the page as a browser would read it; anything that is not HTML as the standard has it is an error."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse((folder / "report.html").read_text("utf-8"))


def words_of(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def cells_of(table: Element) -> Iterator[list[str]]:
    """Yield the rows of a table as words, without the bars that some have."""
    for row in table.iter("tr"):
        yield [words_of(cell) for cell in row if cell.get("class") != "bar"]


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_well_formed_and_can_be_read_by_all(folder_of: FolderOf, name: str):
    page = page_of(folder_of(name))
    assert page.get("lang") == "en"
    levels = [HEADINGS.index(element.tag) for element in page.iter() if element.tag in HEADINGS]
    assert levels[0] == 0
    assert levels.count(0) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    targets = {link.get("href", "")[1:] for link in page.iter("a")}
    assert targets
    assert targets <= set(ids)
    for table in page.iter("table"):
        assert table.get("aria-labelledby") in ids
        assert all(head.get("scope") in ("row", "col") for head in table.iter("th"))
    assert all(image.get("alt") for image in page.iter("img"))
    for figure in page.iter("figure"):
        assert words_of(next(figure.iter("figcaption")))


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_the_terminal_says(folder_of: FolderOf, name: str):
    result, page = Result.load(folder_of(name)), page_of(folder_of(name))
    shown = io.StringIO()
    print_report(result, Console(width=1000, file=shown))
    in_terminal, in_page = " ".join(shown.getvalue().split()), words_of(page)
    tables = []
    for section in report_sections(result):
        assert any(element.get("id") == section.key for element in page.iter("section"))
        for block in section.blocks:
            match block:
                case ReportTable():
                    total = [block.total] if block.total else []
                    tables.append([list(row) for row in (block.columns, *block.rows, *total)])
                    for row in (*block.rows, *total):
                        assert " ".join(" ".join(row).split()) in in_terminal
                case ReportList():
                    for line in block.lines:
                        assert line in in_terminal
                        assert line in in_page
                case ReportSentence():
                    assert block.line in in_terminal
                    assert block.line in in_page
    assert [list(cells_of(table)) for table in page.iter("table")] == tables


@pytest.mark.parametrize(
    ("name", "sections", "absent"),
    [
        ("training", {"pipeline-ranks", "memory", "kernels", "links", "waits", "constants"}, {"faults"}),
        ("decode", {"memory", "kernels", "links", "waits", "constants"}, {"pipeline-ranks", "faults"}),
        ("flows", {"links", "faults"}, {"memory", "kernels", "pipeline-ranks"}),
    ],
)
def test_the_page_has_a_section_for_what_the_run_has(
    folder_of: FolderOf, name: str, sections: set[str], absent: set[str]
):
    always = {"answer", "breakdown", "pictures", "metrics", "assumptions", "provenance"}
    ids = {section.get("id") for section in page_of(folder_of(name)).iter("section")}
    assert ids >= sections | always
    assert not ids & absent


def test_the_answer_has_its_bounds(folder_of: FolderOf):
    summary = Result.load(folder_of("decode")).summary
    answer = next(s for s in page_of(folder_of("decode")).iter("section") if s.get("id") == "answer")
    share = summary["bounds_s"]["busiest_link"] / summary["step_time_s"]
    assert f"for its bytes, {share:.0%} of the step: with these routes no schedule" in words_of(answer)
    assert "the idealised limit of its exchanges is 14.76 ms" in words_of(answer)
    # 2 GPUs of 660.9 and 633.5 GB for 84.94: it does not fit, and the page must say so
    training = next(s for s in page_of(folder_of("training")).iter("section") if s.get("id") == "answer")
    assert "Memory of a GPU: too little" in words_of(training)
    assert "too little" not in words_of(answer)


def test_the_page_can_be_had_again_from_what_it_says(folder_of: FolderOf):
    result, page = Result.load(folder_of("training")), page_of(folder_of("training"))
    provenance = next(section for section in page.iter("section") if section.get("id") == "provenance")
    assert [("".join(code.itertext())) for pre in provenance.iter("pre") for code in pre] == [
        result.scenario_text
    ]
    for name in ("version", "seed", "scenario_sha256"):
        assert str(result.summary["provenance"][name]) in words_of(provenance)


def test_what_a_scenario_says_is_text_and_no_markup(folder_of: FolderOf):
    page = page_of(folder_of("flows"))
    assert words_of(next(page.iter("h1"))) == "<script>alert(1)</script>"
    assert words_of(next(page.iter("title"))) == "<script>alert(1)</script>: railplane report"
    assert not list(page.iter("script"))
    assert not list(page.iter("b"))
    assert "<b>&flows.csv" in words_of(page)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_reaches_for_nothing(folder_of: FolderOf, name: str):
    page = page_of(folder_of(name))
    assert not list(page.iter("script"))
    assert not [key for element in page.iter() for key in element.attrib if key.startswith("on")]
    for element in page.iter():
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            assert element.get(key, "#").startswith(("#", "data:"))
    style = "".join("".join(element.itertext()) for element in page.iter("style"))
    assert "url(" not in style
    assert "@import" not in style
    policy = next(
        meta.get("content")
        for meta in page.iter("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


@pytest.mark.no_cover
@pytest.mark.parametrize("name", mostly_slow(NAMES, "training"))
def test_a_saved_folder_gives_the_same_page(folder_of: FolderOf, name: str, tmp_path: Path):
    result = Result.load(folder_of(name))
    pictures = result_pictures(result)
    save_pictures(pictures, tmp_path)
    page = report_page(result, read_images(pictures, tmp_path)).encode()
    assert page == (folder_of(name) / "report.html").read_bytes()
    assert len(page) < 3_000_000


def test_of_large_drawings_the_page_holds_the_pixels(folder_of: FolderOf, tmp_path: Path):
    figure = result_pictures(Result.load(folder_of("flows")))[0].figure
    (tmp_path / "small.png").write_bytes(b"not read")
    (tmp_path / "small.svg").write_bytes(b"x" * MAX_SVG_BYTES)
    (tmp_path / "large.png").write_bytes(b"read")
    (tmp_path / "large.svg").write_bytes(b"x" * (MAX_SVG_BYTES + 1))
    small, large = read_images([Picture(name, "", figure) for name in ("small", "large")], tmp_path)
    assert small.address.startswith("data:image/svg+xml;base64,eHh4")
    assert large.address == "data:image/png;base64,cmVhZA=="


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour: WCAG 2.2."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1])  # light, dark
@pytest.mark.parametrize("ink", ["ink", "soft", "accent", "bad"])
def test_text_stands_out_from_what_is_behind_it(folder_of: FolderOf, ink: str, scheme: int):
    style = next(page_of(folder_of("flows")).iter("style")).text or ""
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", style.split(":root {")[1 + scheme]))
    for behind in ("paper", "raised"):
        dark, light = sorted((luminance(colours[ink]), luminance(colours[behind])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.2, success criterion 1.4.3
