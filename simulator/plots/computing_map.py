"""When the GPUs of each pipeline rank compute."""

from typing import Final

from matplotlib.axes import Axes

from simulator.computing import FloatArray
from simulator.units import fitting_unit

_MOST_NAMES: Final = 16  # of lines, beside a picture of many


def plot_computing(shares: FloatArray, step_time_s: float, axes: Axes) -> Axes:
    """Draw how much each pipeline rank computes over time, darker for more.

    shares: [num_pipeline_ranks, num_bins] of each bin, as `simulator.computing` has them
    """
    unit, factor = fitting_unit(step_time_s, "time")
    num_ranks = len(shares)
    image = axes.imshow(
        100 * shares,
        cmap="Blues",
        vmin=0,
        vmax=100,
        aspect="auto",
        interpolation="nearest",
        extent=(0, step_time_s / factor or 1.0, num_ranks - 0.5, -0.5),
    )
    axes.set_yticks(range(0, num_ranks, -(-num_ranks // _MOST_NAMES)))
    axes.set_ylabel("pipeline rank")
    axes.set_xlabel(f"time ({unit})")
    axes.grid(visible=False)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.colorbar(image, ax=axes, label="GPU computes (% of the time)", pad=0.01)
    return axes
