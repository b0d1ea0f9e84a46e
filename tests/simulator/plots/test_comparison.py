"""The picture of a comparison shows the values of its tables, and nothing overlaps."""

from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from simulator import compare, load_scenario, simulate
from simulator.comparison import Comparison
from simulator.plots import save_figure
from simulator.plots.comparison import draw_comparison
from support.params import mostly_slow

TEXT = """\
name: a-scenario
cluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree}}
model: deepseek-v3
workload: {kind: expert-parallel, tokens_per_rank: 64, expert_parallel: 16}
"""
KERNELS = """\
name: kernels
cluster: {node: h800, nodes: 1, topology: {kind: none}}
workload: {kind: kernels, calls: [{kind: copy, size_bytes: 1048576}]}
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "scenario.yaml").write_text(TEXT)
    simulate(load_scenario(folder / "scenario.yaml")).save(folder / "saved")
    return folder / "saved"


def compared(saved: Path, count: int, length: int) -> Comparison:
    return compare({f"{number}-{'x' * length}": saved for number in range(count)})


def test_bars_have_the_lengths_that_the_tables_say(saved):
    comparison = compared(saved, 3, 10)
    figure = draw_comparison(comparison)
    parts = comparison.figures[comparison.figures["group"] == "breakdown"]
    bars = sorted(bar.get_width() for container in figure.axes[0].containers for bar in container)
    seconds = sorted(parts["value"])
    assert len(bars) == len(seconds) == 3 * 2
    assert [bar / bars[-1] for bar in bars] == pytest.approx([value / seconds[-1] for value in seconds])
    heights = {bar.get_height() for container in figure.axes[1].containers for bar in container}
    means = comparison.kinds[comparison.kinds["used"] > 0]["mean_utilisation"]
    assert sorted(heights) == pytest.approx(sorted(set(100 * means)))


def test_kinds_that_carry_nothing_are_left_out(saved):
    titles = [axes.get_title("left") for axes in draw_comparison(compared(saved, 2, 1)).axes]
    assert "nic links, busiest first" in titles
    assert not any("pcie_host" in title for title in titles)


def test_without_traffic_there_are_breakdowns_alone(tmp_path):
    (tmp_path / "kernels.yaml").write_text(KERNELS)
    loaded = load_scenario(tmp_path / "kernels.yaml")
    figure = draw_comparison(compare({"a": loaded, "b": loaded}, jobs=1))
    assert [len(axes.containers) for axes in figure.axes] == [2]
    save_figure(figure, tmp_path / "kernels.png")


@pytest.mark.no_cover
@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 6])
@pytest.mark.parametrize("length", [8, 90])
def test_labels_do_not_overlap(saved, count, length):
    figure = draw_comparison(compared(saved, count, length))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    whole = figure.bbox
    boxes = [figure.legends[0].get_window_extent(renderer)]
    for axes in figure.axes:
        boxes.append(axes.get_tightbbox(renderer))
        texts = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
        ticks = [tick.get_window_extent(renderer) for tick in axes.get_xticklabels() if tick.get_text()]
        for group in (texts, ticks):
            assert not any(one.overlaps(other) for one, other in combinations(group, 2))
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1
        assert whole.y0 <= box.y0
        assert box.y1 <= whole.y1


@pytest.mark.no_cover
@pytest.mark.parametrize("suffix", mostly_slow([".png", ".svg"], ".svg"))
def test_the_same_comparison_gives_the_same_bytes(saved, tmp_path, suffix):
    for name in ("a", "b"):
        save_figure(draw_comparison(compared(saved, 2, 8)), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
