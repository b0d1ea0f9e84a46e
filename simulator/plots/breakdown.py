"""Where the step went, and how busy each kind of link was over the whole of it."""

from collections.abc import Mapping
from typing import Final

from matplotlib.axes import Axes

from simulator.plots.style import COLOURS, legend_above
from simulator.units import fitting_unit

_MOST_KINDS: Final = 6  # whose names have room side by side


def plot_breakdown(breakdown_s: Mapping[str, float], axes: Axes) -> Axes:
    """Draw the parts of a step as one bar each, with the values beside them."""
    unit, factor = fitting_unit(max(breakdown_s.values(), default=0.0), "time")
    values = [seconds / factor for seconds in breakdown_s.values()]
    bars = axes.barh(list(breakdown_s), values, color=COLOURS[0], height=0.6)
    axes.bar_label(bars, fmt="{:.4g}", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel(f"time ({unit})")
    axes.set_xlim(0, max(values, default=0.0) * 1.2 or 1.0)
    axes.grid(visible=False)
    return axes


def plot_kinds(kinds: Mapping[str, Mapping[str, float]], axes: Axes) -> Axes:
    """Draw the mean and the peak utilisation of each link kind as bars, in percent of the datasheet capacity."""
    names = list(kinds)
    for offset, (key, label) in enumerate(
        (("mean_utilisation", "mean"), ("peak_utilisation", "busiest link"))
    ):
        places = [place + (offset - 0.5) * 0.4 for place in range(len(names))]
        heights = [100 * kinds[name][key] for name in names]
        bars = axes.bar(places, heights, 0.38, label=label, color=COLOURS[offset])
        axes.bar_label(bars, fmt="{:.0f}", padding=2, fontsize=8)
    shown = names if len(names) <= _MOST_KINDS else [name.replace("_", "_\n") for name in names]
    axes.set_xticks(range(len(names)), shown, fontsize=9)
    axes.set_ylabel("utilisation (% of datasheet)")
    axes.set_ylim(0, 105)
    legend_above(axes)
    return axes
