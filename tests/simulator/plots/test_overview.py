"""The overview has a panel for what a run has, and none for what it has not."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from simulator.plots import draw_overview, plot_computing
from simulator.plots.breakdown import plot_kinds
from simulator.plots.lines import plot_over_time
from simulator.result import Result
from support.phase_tables import phase_table

NONE = (-1, -1, -1)


def result_of(link_bytes: float, phases: pd.DataFrame) -> Result:
    """Return the result of a step of 4 s in which rank 0 computes for the first, and one link carries bytes."""
    links = pd.DataFrame(
        {"link": [0], "kind": ["nic"], "capacity_bytes_per_s": [10.0], "bytes": [link_bytes]}
    )
    used = links[links["bytes"] > 0.0]
    timeline = pd.DataFrame({"link": used["link"], "start_s": 0.0, "end_s": 4.0, "bytes": used["bytes"]})
    tasks = pd.DataFrame({"rank": [0], "ranks": [1], "stream": ["compute"], "start_s": [0.0], "end_s": [1.0]})
    kinds = {"nic": {"mean_utilisation": link_bytes / 40.0, "peak_utilisation": link_bytes / 40.0}}
    summary = {
        "scenario": "s",
        "question": "q",
        "step_time_s": 4.0,
        "breakdown_s": {"all": 4.0},
        "links": kinds,
    }
    return Result(summary, tasks, phases, pd.DataFrame(), links, timeline, "")


PHASES = phase_table([(0, 1, "forward", 0, 0, 0, *NONE, 0.0, 1.0)])


@pytest.mark.parametrize(
    ("link_bytes", "phases", "panels"),
    [
        (8.0, PHASES, ["time (s)", "", "time (s)", "time (s)"]),
        (8.0, PHASES.iloc[:0], ["time (s)", "", "time (s)"]),
        (0.0, PHASES, ["time (s)", "time (s)"]),
        (0.0, PHASES.iloc[:0], ["time (s)"]),
    ],
)
def test_panels_of_nothing_are_left_out(link_bytes: float, phases: pd.DataFrame, panels: list[str]):
    figure = draw_overview(result_of(link_bytes, phases))
    drawn = [axes for axes in figure.axes if axes.get_ylabel() != "GPU computes (% of the time)"]
    assert [axes.get_xlabel() for axes in drawn] == panels
    assert all(axes.has_data() for axes in drawn)
    assert len(figure.axes) - len(drawn) == len(phases)  # the scale of colours


def test_the_panel_of_computation_shows_shares_in_percent():
    figure = draw_overview(result_of(0.0, PHASES))
    (image,) = (image for axes in figure.axes for image in axes.images)
    percent = np.asarray(image.get_array())
    assert percent.tolist() == [
        pytest.approx([100.0] * (percent.shape[1] // 4) + [0.0] * (3 * percent.shape[1] // 4))
    ]


def test_many_pipeline_ranks_are_named_as_far_as_there_is_room():
    axes = plot_computing(np.zeros((40, 2)), 1.0, Figure().add_subplot())
    assert axes.get_yticks().tolist() == list(range(0, 40, 3))


def test_kinds_of_links_that_are_equally_busy_share_a_line():
    links = pd.DataFrame(
        {"link": range(3), "kind": ["pcie", "pcie_nic", "nic"], "capacity_bytes_per_s": [10.0, 10.0, 20.0]}
    )
    timeline = pd.DataFrame({"link": range(3), "start_s": 0.0, "end_s": 4.0, "bytes": [20.0, 20.0, 20.0]})
    axes = plot_over_time(timeline, links, 4.0, Figure().add_subplot())
    assert {line.get_label(): line.get_ydata()[0] for line in axes.lines} == {"pcie, pcie_nic": 50, "nic": 25}


def test_names_of_many_kinds_are_broken():
    kinds = ["nvlink", "pcie_host", "pcie", "pcie_nic", "nic", "router_local", "router_global"]
    values = {kind: {"mean_utilisation": 0.5, "peak_utilisation": 0.6} for kind in kinds}
    axes = plot_kinds(values, Figure().add_subplot())
    assert [label.get_text() for label in axes.get_xticklabels()][-1] == "router_\nglobal"
