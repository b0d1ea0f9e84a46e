"""Curves of a sweep: a line a series at its values, crosses for points that did not run, memory with its limit."""

import numpy as np
import pandas as pd
import pytest

from simulator.plots import draw_sweep
from simulator.plots.sweep import short_label, swept_paths

NAN = float("nan")
PLANES, RAILS = "{kind: multi-plane-fat-tree, planes: 8}", "{kind: multi-rail-fat-tree}"


def table(**changed: object) -> pd.DataFrame:
    columns = {
        "point": range(6),
        "workload.batch": [16, 32, 64] * 2,
        "cluster.topology": [PLANES] * 3 + [RAILS] * 3,
        "step_time_s": [0.02, 0.03, 0.05, 0.021, 0.032, NAN],
        "memory_bytes_per_gpu": [40e9, 50e9, 70e9, 40e9, 50e9, NAN],
        "gpu_memory_bytes": [80e9] * 5 + [NAN],
        "error": [""] * 5 + ["does not fit"],
    }
    return pd.DataFrame({**columns, **changed})


def lines_of(axes, marker_is_x: bool):
    return [
        line for line in axes.lines if (line.get_marker() == "x") == marker_is_x and len(line.get_xdata())
    ]


def test_each_series_is_a_line_at_its_values_in_the_unit_of_the_axis():
    top, memory = draw_sweep(table(), "workload.batch").axes
    planes, rails = lines_of(top, marker_is_x=False)
    assert planes.get_label() == "multi-plane-fat-tree, planes 8"
    assert planes.get_xdata().tolist() == [16.0, 32.0, 64.0]
    assert planes.get_ydata().tolist() == pytest.approx([20, 30, 50])
    assert rails.get_ydata().tolist() == pytest.approx([21, 32, NAN], nan_ok=True)
    assert planes.get_marker() != rails.get_marker()
    assert (top.get_ylabel(), memory.get_ylabel()) == ("step_time_s\n(ms)", "memory_bytes_per_gpu\n(GB)")
    assert top.get_xscale() == "log"
    assert [label.get_text() for label in memory.get_xticklabels()] == ["16", "32", "64"]


def test_points_that_did_not_run_are_crosses_on_the_axis_of_their_series_colour():
    figure = draw_sweep(table(), "workload.batch")
    for axes in figure.axes:
        (cross,) = lines_of(axes, marker_is_x=True)
        assert list(cross.get_xdata()) == [64.0]
        assert cross.get_color() == lines_of(axes, marker_is_x=False)[1].get_color()
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["multi-plane-fat-tree, planes 8", "multi-rail-fat-tree", "did not run"]


def test_the_memory_of_the_gpu_is_the_limit():
    _, memory = draw_sweep(table(), "workload.batch").axes
    (limit,) = (line for line in memory.lines if line.get_linestyle() == "--" and line.get_marker() == "None")
    assert set(limit.get_ydata()) == {80.0}
    assert memory.get_ylim()[1] > 80.0
    assert [text.get_text() for text in memory.texts] == ["memory of the GPU: 80 GB"]


def test_a_table_without_memory_has_one_panel():
    assert len(draw_sweep(table().drop(columns="memory_bytes_per_gpu"), "workload.batch").axes) == 1


def test_a_metric_that_is_a_share_is_in_percent():
    (axes, _) = draw_sweep(
        table(mfu_causal=[0.1, 0.2, 0.3, 0.4, 0.5, NAN]), "workload.batch", "mfu_causal"
    ).axes
    assert axes.get_ylabel() == "mfu_causal\n(%)"
    assert lines_of(axes, marker_is_x=False)[0].get_ydata().tolist() == pytest.approx([10, 20, 30])


def test_values_that_are_no_numbers_stand_side_by_side():
    axes = draw_sweep(table(), "cluster.topology").axes[-1]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "multi-plane-fat-tree, planes 8",
        "multi-rail-fat-tree",
    ]
    assert axes.get_xscale() == "linear"
    assert len(lines_of(axes, marker_is_x=False)) == 3 + 1  # batches, and the memory's limit


def test_numbers_that_are_no_powers_of_two_keep_their_distance():
    changed = table(**{"workload.batch": [10, 20, 100] * 2})
    assert draw_sweep(changed, "workload.batch").axes[0].get_xscale() == "linear"


def test_names_that_would_touch_are_left_to_the_scale():
    changed = table(**{"workload.batch": [1000, 1001, 9000] * 2})
    axes = draw_sweep(changed, "workload.batch").axes[-1]
    assert 1001.0 not in axes.get_xticks()
    many = pd.DataFrame({"point": range(40), "x": [2**place for place in range(40)], "step_time_s": 1.0})
    scale = draw_sweep(many, "x").axes[0].xaxis
    assert scale.get_major_formatter().format_ticks([16.0, 1024.0]) == ["16", "1024"]  # no formulae


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (PLANES, "multi-plane-fat-tree, planes 8"),
        (64, "64"),
        (np.float64(0.5), "0.5"),
        (True, "true"),
        ("ecmp", "ecmp"),
    ],
)
def test_labels_are_short(value: object, label: str):
    assert short_label(value) == label


def test_the_swept_paths_are_told_by_their_place():
    assert swept_paths(table()) == ["workload.batch", "cluster.topology"]


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(
        ValueError, match=r"no column 'workload\.btach'; swept are workload\.batch, cluster\.topology"
    ):
        draw_sweep(table(), "workload.btach")
    with pytest.raises(ValueError, match="column 'error' holds no numbers"):
        draw_sweep(table(), "workload.batch", "error")
    with pytest.raises(ValueError, match="no point has a value of 'step_time_s'"):
        draw_sweep(table(step_time_s=[NAN] * 6), "workload.batch")
