"""The fit of a kernel's entry in a cost table to shapes that were measured."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.figures import Duration, Efficiency, Figure
from simulator.kernel_times import Beside, Device, KernelCosts, Shape, ShapeEffects, roofline

FloatArray = NDArray[np.float64]

TILE_ROWS: Final = 64  # rows of Hopper's matrix instruction (wgmma m64nNk16, PTX ISA 8.0)
_ALONE: Final = Beside(1.0, 1.0)


class Parameter(NamedTuple):
    """A constant that is fitted: where the search starts, and its bounds."""

    start: float
    least: float
    most: float


LAUNCH_US: Final = Parameter(2.5, 0.0, 20.0)
BANDWIDTH: Final = Parameter(0.9, 0.05, 1.0)
ARITHMETIC: Final = Parameter(0.7, 0.05, 1.0)
BLEND: Final = Parameter(2.0, 1.0, 30.0)
RAMP_HUNDREDS: Final = Parameter(2.5, 0.0, 30.0)  # of the depth
# The constants of a kernel, in the order of `_entry`: of one that only moves bytes, of attention, of products.
OF_STREAMING: Final = (LAUNCH_US, BANDWIDTH)
OF_ATTENTION: Final = (*OF_STREAMING, ARITHMETIC, BLEND)
OF_PRODUCTS: Final = (*OF_ATTENTION, RAMP_HUNDREDS)


def fit(shapes: Sequence[Shape], device: Device, parameters: Sequence[Parameter], source: str) -> KernelCosts:
    """Return the entry whose roofline comes closest to the shapes, by the sum of squared logarithms of ratios.

    device: on which they were measured; parameters: `OF_STREAMING`, `OF_ATTENTION` or `OF_PRODUCTS`
    """
    from scipy.optimize import least_squares  # of the extra `calibrate`

    measured_s = np.array([shape.seconds_on(device) for shape in shapes])

    def misses(values: FloatArray) -> FloatArray:
        entry = _entry(values, source)
        predicted_s = np.array([roofline(entry, shape.call, device, _ALONE).total_s for shape in shapes])
        missed: FloatArray = np.log(predicted_s / measured_s)
        return missed

    start, least, most = (np.array(column) for column in zip(*parameters, strict=True))
    found = least_squares(misses, start, bounds=(least, most))
    return _entry(found.x, source, float(np.abs(np.expm1(found.fun)).max()))


def _entry(values: FloatArray, source: str, largest_residual: float | None = None) -> KernelCosts:
    """Return an entry without listed shapes; values: as many of `OF_PRODUCTS` as the kernel has."""
    launch_us, bandwidth, *more = values.tolist()
    told: Any = {"how": "fitted", "source": source, "largest_residual": largest_residual}
    launch = Duration.model_validate({"value": f"{launch_us!r} us", **told})
    if not more:
        return KernelCosts(launch=launch, bandwidth=Efficiency(value=bandwidth, **told))
    arithmetic, blend, *ramp_hundreds = more
    ramp_depth = 100 * ramp_hundreds[0] if ramp_hundreds else 0.0
    return KernelCosts(
        launch=launch,
        arithmetic=Efficiency(value=arithmetic, **told),
        bandwidth=Efficiency(value=bandwidth, **told),
        effects=ShapeEffects(tile_rows=TILE_ROWS, ramp_depth=ramp_depth, blend=blend, **told),
    )


def rounded(entry: KernelCosts, digits: int = 3) -> KernelCosts:
    """Return a fitted entry with few digits; listed shapes, which it has none of yet, hold exactly all the same."""

    def few(value: float) -> float:
        return float(f"{value:.{digits}g}")

    def rounded_figure(figure: Figure) -> Figure:
        update = {name: few(value) for name, value in figure if isinstance(value, float)}
        if isinstance(figure, Duration):
            update["value"] = few(figure.value * 1e6) * 1e-6
        return figure.model_copy(update=update)

    return entry.model_copy(update={name: rounded_figure(figure) for name, figure in entry.figures().items()})


def stands_for(entry: KernelCosts, source: str) -> KernelCosts:
    """Return an entry's figures without listed shapes, assumed of another kernel."""

    def assumed(figure: Figure) -> Figure:
        return figure.model_copy(update={"how": "assumed", "source": source, "largest_residual": None})

    figures = {name: assumed(figure) for name, figure in entry.figures().items() if name != "listed"}
    return entry.model_copy(update={**figures, "listed": None})
