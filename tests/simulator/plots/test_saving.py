"""Pictures in files: the same at all resolutions, and none that are left from a run before."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from simulator.plots import Picture, save_figure, save_pictures
from simulator.plots.picture import PICTURE_NAMES
from simulator.plots.saving import rendered, settle
from simulator.plots.style import new_figure, styled


def figure() -> Figure:
    with styled():
        made = new_figure("no formula: $\\frac$", "q", 3.0)
        axes = made.add_subplot()
        axes.set_yticks(range(3), ["PCIe switch to NIC, plane 0", "one", "$another$"], fontsize=7.5)
    return made


@pytest.mark.parametrize("dpi", [72, 80, 150, 300])
def test_names_fit_at_all_resolutions(dpi: int):
    made = settle(figure())
    made.set_dpi(dpi)
    with rendered():
        made.draw_without_rendering()
        lefts = [label.get_window_extent().x0 / dpi for label in made.axes[0].get_yticklabels()]
    assert 0.0 < min(lefts) < 0.1  # inches: within the picture, and close to its edge


def test_the_same_picture_is_the_same_bytes(tmp_path: Path):
    for suffix in ("png", "svg"):
        paths = [tmp_path / f"{name}.{suffix}" for name in ("one", "other")]
        for path in paths:
            save_figure(figure(), path)
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_saving_again_moves_nothing(tmp_path: Path):
    made, path = figure(), tmp_path / "one.svg"
    save_figure(made, path)
    first = path.read_bytes()
    save_figure(made, path)
    assert path.read_bytes() == first


def test_letters_that_the_font_lacks_are_no_error(tmp_path: Path):
    made = figure()
    made.suptitle("\u4e2d")
    save_figure(made, tmp_path / "one.png")
    assert (tmp_path / "one.png").exists()


def test_pictures_of_a_run_before_are_removed_and_files_of_others_stay(tmp_path: Path):
    names = {f"{name}.{suffix}" for name in PICTURE_NAMES for suffix in ("png", "svg")}
    for name in names | {"mine.png"}:
        (tmp_path / name).touch()
    save_pictures([Picture("overview", "c", figure())], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"overview.png", "overview.svg", "mine.png"}
    assert (tmp_path / "overview.png").read_bytes().startswith(b"\x89PNG")
