"""Values of metrics as text, in the unit that their names say."""

from typing import Final

from simulator.metric_units import dimension_of, is_share
from simulator.units import show_count, show_quantity

_COUNTED_FROM: Final = 1e4  # smaller ones keep four digits


def show_metric(name: str, value: float) -> str:
    """Return a metric's value as text, in the unit that its name says; shares in percent."""
    if dimension := dimension_of(name):
        return show_quantity(value, dimension)
    if is_share(name):
        return f"{value:.1%}"
    if isinstance(value, int):
        return f"{value:,}"
    return show_count(value) if value >= _COUNTED_FROM else f"{value:.4g}"
