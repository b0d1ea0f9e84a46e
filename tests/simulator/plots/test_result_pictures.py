"""Every kind of run has the pictures that it has something for: readable, and the same from a saved folder."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from simulator import simulate
from simulator.plots import Picture, result_pictures, save_figure
from simulator.plots.picture import PICTURE_NAMES
from simulator.plots.saving import rendered
from simulator.result import Result
from support.params import mostly_slow
from support.tiny_scenarios import CASES, tiny_scenario

MOVES = ["overview", "network_load", "gpu_links", "utilisation_map", "utilisation_lines"]
EXPECTED = {
    "collective": MOVES,
    "expert-parallel": MOVES,
    "flows": MOVES,
    "kernels": ["overview", "roofline"],
    "decode-step": [*MOVES, "roofline"],
    "training-step": ["overview", "schedule", *MOVES[1:], "roofline"],
}


SAVED_DPI = 150  # layouts are made at another


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, Result]:
    return {kind: simulate(tiny_scenario(kind, tmp_path_factory.mktemp(kind))) for kind in EXPECTED}


@pytest.fixture(scope="module")
def pictures(results) -> dict[str, list[Picture]]:
    return {kind: result_pictures(result) for kind, result in results.items()}


def texts_of(figure: Figure) -> Iterator[Text]:
    """Yield the texts that a reader sees."""
    FigureCanvasAgg(figure)
    figure.set_dpi(SAVED_DPI)
    with rendered():
        figure.draw_without_rendering()
    yield from (text for text in figure.texts if text.get_text())
    yield from (text for legend in figure.legends for text in legend.get_texts())
    for axes in figure.axes:
        (left, right), (bottom, top) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
        ticks = [
            *(tick.label1 for tick in axes.xaxis.get_major_ticks() if left <= tick.get_loc() <= right),
            *(tick.label1 for tick in axes.yaxis.get_major_ticks() if bottom <= tick.get_loc() <= top),
        ]
        of_ticks = {id(label) for axis in (axes.xaxis, axes.yaxis) for label in axis.findobj(Text)} - {
            id(axes.xaxis.label),
            id(axes.yaxis.label),
        }
        shown = [text for text in axes.findobj(Text) if id(text) not in of_ticks]
        for text in [*shown, *(ticks if axes.axison else [])]:
            if text.get_visible() and text.get_text().strip():
                yield text


def check_readable(figure: Figure) -> None:
    """Assert that texts neither meet nor leave the picture, and that all axes show something."""
    texts = {id(text): text for text in texts_of(figure)}
    with rendered():
        boxes = {key: text.get_window_extent() for key, text in texts.items()}
    width, height = figure.get_size_inches() * figure.dpi
    for key, box in boxes.items():
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, texts[key].get_text()
    for (one, box), (other, near) in combinations(boxes.items(), 2):
        across = min(box.x1, near.x1) - max(box.x0, near.x0)
        along = min(box.y1, near.y1) - max(box.y0, near.y0)
        assert across <= 1 or along <= 1, (texts[one].get_text(), texts[other].get_text())
    for axes in figure.axes:
        assert axes.has_data() or axes.texts or axes.get_label() == "<colorbar>", axes


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_run_has_the_pictures_that_it_has_something_for(kind: str, pictures):
    assert [picture.name for picture in pictures[kind]] == EXPECTED[kind]
    assert [name for name in PICTURE_NAMES if name in EXPECTED[kind]] == EXPECTED[kind]
    assert all(picture.caption.endswith(".") for picture in pictures[kind])


@pytest.mark.no_cover
@pytest.mark.parametrize("kind", mostly_slow(EXPECTED.keys(), "flows", "training-step"))
def test_every_picture_is_readable(kind: str, pictures):
    for picture in pictures[kind]:
        check_readable(picture.figure)


@pytest.mark.parametrize("kind", EXPECTED)
def test_every_axis_names_its_unit(kind: str, pictures):
    for picture in pictures[kind]:
        for axes in picture.figure.axes:
            numbers = [label for label in (axes.get_xlabel(), axes.get_ylabel()) if label]
            for label in numbers:
                assert "(" in label or label == "pipeline rank", (picture.name, label)


def test_a_saved_folder_gives_equal_pictures(results, pictures, tmp_path: Path):
    # of all kinds of pictures: tests/simulator/report/page/test_report_page.py, by the pages that hold them
    results["kernels"].save(tmp_path)
    for live, loaded in zip(pictures["kernels"], result_pictures(Result.load(tmp_path)), strict=True):
        assert live[:2] == loaded[:2]
        paths = [tmp_path / f"{name}.png" for name in ("live", "loaded")]
        for path, picture in zip(paths, (live, loaded), strict=True):
            save_figure(picture.figure, path)
        assert paths[0].read_bytes() == paths[1].read_bytes(), live.name


def test_a_folder_of_an_older_version_has_pictures_without_a_roofline(results):
    summary = results["kernels"].summary
    kernels = {name: value for name, value in summary["kernels"].items() if name != "peaks"}
    older = replace(results["kernels"], summary=summary | {"kernels": kernels})
    assert [picture.name for picture in result_pictures(older)] == ["overview"]


def test_long_names_with_dollars_on_routers_are_readable(tmp_path: Path):
    routers = "{kind: dragonfly, endpoints_per_router: 1, routers_per_group: 8, global_ports: 2}"
    result = simulate(tiny_scenario("collective", tmp_path, routers))
    result.summary["scenario"] = "a name that holds $\\frac$, which is no formula, " + 70 * "x "
    for picture in result_pictures(result):
        check_readable(picture.figure)


def test_every_kind_of_workload_is_here_or_draws_what_another_does():
    alike = {"prefill-step": "decode-step", "nccl-tests": "collective"}
    assert set(CASES) == set(EXPECTED) | set(alike)
