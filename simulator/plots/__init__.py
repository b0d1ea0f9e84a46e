"""Pictures of a result's tables. Plots take tables and return axes or figures; they never compute results."""

from simulator.plots.computing_map import plot_computing
from simulator.plots.overview import draw_overview
from simulator.plots.picture import PICTURE_NAMES, Picture
from simulator.plots.result_pictures import result_pictures
from simulator.plots.saving import save_figure, save_pictures
from simulator.plots.sweep import draw_sweep

__all__ = [
    "PICTURE_NAMES",
    "Picture",
    "draw_overview",
    "draw_sweep",
    "plot_computing",
    "result_pictures",
    "save_figure",
    "save_pictures",
]
