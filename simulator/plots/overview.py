"""The picture of a run that answers first: breakdown, utilisation, and when GPUs compute."""

from typing import Final

from matplotlib.figure import Figure

from simulator.computing import computing_shares
from simulator.plots.breakdown import plot_breakdown, plot_kinds
from simulator.plots.computing_map import plot_computing
from simulator.plots.lines import plot_over_time
from simulator.plots.style import new_figure, styled
from simulator.result import Result

_TIME_BINS: Final = 400
_ROW_IN: Final = 3.05
_HEAD_IN: Final = 0.5


def draw_overview(result: Result) -> Figure:
    """Return the picture of a run: its breakdown, utilisation by link kind and over time, and when GPUs compute.

    What the run has nothing of is left out: links that carry nothing, pipeline ranks.
    """
    summary = result.summary
    moves_bytes = bool(result.links["bytes"].any())
    shares = computing_shares(result.tasks, result.phases, result.step_time_s, _TIME_BINS)
    below = [name for name, shown in (("links", moves_bytes), ("computing", bool(shares.any()))) if shown]
    with styled():
        figure = new_figure(summary["scenario"], summary["question"], _HEAD_IN + _ROW_IN * (1 + len(below)))
        grid = figure.add_gridspec(1 + len(below), 2)
        plot_breakdown(summary["breakdown_s"], figure.add_subplot(grid[0, 0] if moves_bytes else grid[0, :]))
        if moves_bytes:
            plot_kinds(summary["links"], figure.add_subplot(grid[0, 1]))
        for place, panel in enumerate(below, start=1):
            axes = figure.add_subplot(grid[place, :])
            if panel == "links":
                plot_over_time(result.link_timeline, result.links, result.step_time_s, axes)
            else:
                plot_computing(shares, result.step_time_s, axes)
    return figure
