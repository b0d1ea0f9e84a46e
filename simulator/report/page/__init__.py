"""A result as one self-contained page: no request to anywhere, no script, and what scenarios say is escaped."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from simulator.report.page.answer import answer_sentences, key_figures
from simulator.report.page.images import Image, read_images
from simulator.report.page.provenance import provenance_rows
from simulator.report.parts import ReportList, ReportSentence, ReportTable
from simulator.report.sections import report_sections
from simulator.result import Result

__all__ = ["Image", "read_images", "report_page"]

_FOLDED: Final = frozenset({"constants"})  # sections that are read by few: closed until asked for
_PAGE_WIDTH: Final = (
    1016  # of text on a large screen, in CSS pixels: `max-width` in the style, less the padding
)
_AFTER: Final = "breakdown"  # the section that pictures follow


def report_page(result: Result, images: Sequence[Image]) -> str:
    """Return the report of a result as HTML; the same result and images give the same text.

    What it says beside the answer, pictures and provenance is what `simulator.report.terminal` prints.
    """
    style = (files("simulator.report.page") / "templates" / "style.css").read_text("utf-8")
    environment = Environment(
        loader=PackageLoader("simulator.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = _breakable
    environment.tests |= {
        "table": lambda block: isinstance(block, ReportTable),
        "list": lambda block: isinstance(block, ReportList),
        "sentence": lambda block: isinstance(block, ReportSentence),
    }
    return environment.get_template("page.html.jinja").render(
        summary=result.summary,
        style=Markup(style),
        policy=_policy(style),
        answer=answer_sentences(result),
        figures=key_figures(result),
        sections=report_sections(result),
        folded=_FOLDED,
        pictures_after=_AFTER,
        images=images,
        page_width=_PAGE_WIDTH,
        provenance=provenance_rows(result.summary),
        scenario_text=result.scenario_text,
    )


def _breakable(name: str) -> Markup:
    """Return a name that may be broken after its underscores."""
    return escape(name).replace("_", Markup("_<wbr>"))


def _policy(style: str) -> str:
    """Return the Content-Security-Policy of the page: pictures that it holds, its own style, and nothing else."""
    digest = b64encode(sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
