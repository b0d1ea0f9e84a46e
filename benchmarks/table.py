"""The rows of the comparison: which cases are run, and how many times as fast as SimGrid they must and should be."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cases import FatTrees, Flows, all_to_all, equal, multi_plane, multi_rail, random_network

Make = Callable[[int, int], Flows]  # (scale, seed) -> flows
# Rows without a ratio of their own must never be slower than SimGrid where that needs longer than this.
NEVER_SLOWER_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Row:
    """A case: what makes it, for how many GPUs (or flows, of a random network), and the wanted ratios.

    warm_scale: of the small case of the same kind that runs untimed before
    """

    kind: str
    make: Make
    scale: int
    warm_scale: int
    must: float | None = None
    aim: float | None = None
    quick: bool = False

    @property
    def name(self) -> str:
        """Return the name by which `--cases` selects the row."""
        return f"{self.kind}-{self.scale}"


def _each_to_each(network: Callable[[int], FatTrees], **options: Any) -> Make:
    return lambda num_gpus, seed: all_to_all(network(num_gpus), seed=seed, **options)


def _four_nodes_a_leaf(num_gpus: int) -> FatTrees:
    return multi_plane(num_gpus, nodes_per_leaf=4, spines=4)


def _wide_rails(num_gpus: int) -> FatTrees:
    """As `multi-rail-fat-tree` is by default, with 64-port switches: 32 uplinks, however few nodes a leaf has."""
    return multi_rail(num_gpus, uplinks=32)


_NETWORKS: Final[dict[str, tuple[Callable[[int], FatTrees], bool]]] = {  # name -> network, ecmp
    "multi-plane-static": (multi_plane, False),
    "multi-plane-ecmp": (_four_nodes_a_leaf, True),
    "multi-rail-static": (multi_rail, False),
    "multi-rail-ecmp": (multi_rail, True),
    "multi-rail-ecmp-32-uplinks": (_wide_rails, True),
}
_TRAFFIC: Final[dict[str, dict[str, Any]]] = {
    "lognormal": {},
    "staggered": {"staggered": True},
    "equal": {"sizes": equal},
}
_WARM_GPUS: Final = 64  # the fewest that make two leaves of four nodes


def _row(traffic: str, network: str, scale: int, must: float | None = None, aim: float | None = None) -> Row:
    trees, ecmp = _NETWORKS[network]
    make = _each_to_each(trees, ecmp=ecmp, **_TRAFFIC[traffic])
    return Row(f"{traffic}-{network}", make, scale, _WARM_GPUS, must, aim, quick=scale <= 64)


def _random(num_flows: int, seed: int) -> Flows:
    return random_network(num_flows, seed=seed)


def _random_together(num_flows: int, seed: int) -> Flows:
    return random_network(num_flows, together=True, seed=seed)


ROWS: Final = (
    _row("lognormal", "multi-plane-static", 128, 300, 1000),
    _row("lognormal", "multi-plane-ecmp", 128, 100, 500),
    _row("lognormal", "multi-rail-static", 128, 20, 100),
    _row("lognormal", "multi-rail-ecmp", 64, 6, 30),
    _row("staggered", "multi-plane-static", 64, 10, 50),
    _row("staggered", "multi-plane-static", 128, 10, 50),
    _row("equal", "multi-plane-static", 256, 30, 100),
    Row("random-starts", _random, 3500, 200, 8, 30, quick=True),
    _row("lognormal", "multi-plane-static", 64),
    _row("lognormal", "multi-plane-ecmp", 64),
    _row("lognormal", "multi-rail-static", 64),
    _row("lognormal", "multi-rail-ecmp", 128),
    _row("lognormal", "multi-rail-ecmp-32-uplinks", 64),
    _row("staggered", "multi-plane-ecmp", 64),
    _row("staggered", "multi-plane-ecmp", 128),
    _row("staggered", "multi-rail-static", 64),
    _row("staggered", "multi-rail-ecmp", 64),
    _row("staggered", "multi-rail-ecmp", 128),
    _row("equal", "multi-plane-static", 128),
    _row("equal", "multi-plane-ecmp", 128),
    _row("equal", "multi-rail-static", 128),
    _row("equal", "multi-rail-ecmp", 64),
    _row("equal", "multi-rail-ecmp", 128),
    Row("random-together", _random_together, 3500, 200, quick=True),
)
