"""Constants of cost tables, each with its source and how it was obtained."""

from typing import Any, Final, Literal

from pydantic import Field

from simulator.units import Seconds, Spec

How = Literal["measured", "published", "fitted", "assumed"]
_LEAST_EFFICIENCY: Final = 1e-6
HOWS: Final[tuple[How, ...]] = ("measured", "published", "fitted", "assumed")


class Figure(Spec):
    """How a constant was obtained.

    how: measured, published, fitted (to calibration figures only) or assumed; source: where it is from
    largest_residual: of a fitted constant, the largest share by which what it was fitted to is missed
    """

    how: How
    source: str = Field(min_length=1)
    largest_residual: float | None = None

    def describe(self) -> str:
        """Return how the constant was obtained and from what, as text."""
        missed = (
            ""
            if self.largest_residual is None
            else f", which it misses by {self.largest_residual:.1%} at most"
        )
        return f"{self.how}: {self.source}{missed}"


class Efficiency(Figure):
    """Share of a datasheet figure that payload reaches: more than 0, at most 1."""

    value: float

    def model_post_init(self, _context: Any) -> None:
        """Refuse values that no link can reach."""
        if not _LEAST_EFFICIENCY <= self.value <= 1:
            msg = f"an efficiency of {self.value} is not between {_LEAST_EFFICIENCY:g} and 1"
            raise ValueError(msg)


class Latency(Figure):
    """End-to-end latency of a small message.

    same_leaf: through one switch; cross_leaf: through a leaf, a spine and a leaf, that is two switches more
    (absent where a profile has a single switch)
    """

    same_leaf: Seconds
    cross_leaf: Seconds | None = None

    @property
    def switch_s(self) -> float:
        """Return what each switch beyond the first adds: seconds."""
        return 0.0 if self.cross_leaf is None else (self.cross_leaf - self.same_leaf) / 2


class Duration(Figure):
    """A time that is paid once for something: 0 or more."""

    value: Seconds


class Slowdown(Figure):
    """How many times longer something takes: 1 or more."""

    value: float

    def model_post_init(self, _context: Any) -> None:
        """Refuse what would make it faster."""
        if not 1.0 <= self.value <= 1000.0:
            msg = f"a slowdown of {self.value} is not between 1 and 1000"
            raise ValueError(msg)
