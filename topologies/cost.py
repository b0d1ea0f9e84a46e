"""What a network costs: a price a switch and a price a cable, fitted to published totals.

    cost = switch x switches + link x cables between switches + endpoint_link x cables to endpoints

A cable's price is that of the cable with the transceivers at both of its ends. NICs are the node's, and not counted.

Table 3 of arXiv 2505.09343 gives the totals of five networks but no prices, and leaves the split open: per endpoint
its two kinds of fat-tree differ by 1/32 switch and one cable, and two-layer trees, Slim Fly and Dragonfly add almost
nothing to that. Any switch price up to 82 kUSD meets every figure within 1.5%. So the switch's price is set to a
round one, and the two cables' are fitted to it by relative least squares and rounded to 50 USD.
`python -m topologies.cost` prints the fit and what it leaves.
"""

import sys
from typing import Final, NamedTuple

import numpy as np
from pydantic import Field

from simulator.units import Dollars, Spec
from topologies.counts import NetworkCounts

FIT_SOURCE: Final = (
    "fitted: to the cost column of Table 3 of arXiv 2505.09343v2, five networks of 64-port 400G switches, "
    "for an assumed price of 30 kUSD a switch"
)
ASSUMED_SOURCE: Final = (
    "assumed: 30 kUSD a switch, a round price; with cables fitted to it any up to 82 kUSD meets Table 3 of arXiv "
    "2505.09343v2, which leaves the split open"
)
GIVEN_SOURCE: Final = "given: cluster.prices"

FITTED_PORTS: Final = 64  # ports of the switches of Table 3
# Assumed: see the head of this module. Table 3 does not tell it from the prices of the cables.
SWITCH_USD: Final = 30_000.0
# What `fit_cables(SWITCH_USD)` gives, rounded to _ROUNDED_TO_USD.
LINK_USD: Final = 2_150.0
ENDPOINT_LINK_USD: Final = 850.0
_ROUNDED_TO_USD: Final = 50.0


class PublishedCost(NamedTuple):
    """A row of Table 3: its counts and what is printed of its cost, in millions and thousands of US dollars."""

    counts: NetworkCounts
    cost_musd: float
    per_endpoint_kusd: float


# arXiv 2505.09343v2, Table 3; an endpoint has one cable, which the table does not count.
TABLE_3: Final[dict[str, PublishedCost]] = {
    "FT2": PublishedCost(NetworkCounts(2_048, 96, 2_048, 2_048), 9, 4.39),
    "MPFT": PublishedCost(NetworkCounts(16_384, 768, 16_384, 16_384), 72, 4.39),
    "FT3": PublishedCost(NetworkCounts(65_536, 5_120, 131_072, 65_536), 491, 7.5),
    "SF": PublishedCost(NetworkCounts(32_928, 1_568, 32_928, 32_928), 146, 4.4),
    "DF": PublishedCost(NetworkCounts(261_632, 16_352, 384_272, 261_632), 1522, 5.8),
}


class Prices(Spec):
    """What the parts of a network cost; one table serves all families."""

    switch: Dollars = Field(
        default=SWITCH_USD,
        description="price of a switch, whatever its ports; the default is a 64-port 400G one",
    )
    link: Dollars = Field(
        default=LINK_USD,
        description="price of a cable between two switches, with the transceivers at both ends",
    )
    endpoint_link: Dollars = Field(
        default=ENDPOINT_LINK_USD,
        description="price of a cable from a NIC to its switch, with the transceivers at both ends",
    )

    @property
    def sources(self) -> dict[str, str]:
        """Return where each price comes from, by the name of its field."""
        of_defaults = {"switch": ASSUMED_SOURCE, "link": FIT_SOURCE, "endpoint_link": FIT_SOURCE}
        defaults = Prices()
        return {
            name: source if getattr(self, name) == getattr(defaults, name) else GIVEN_SOURCE
            for name, source in of_defaults.items()
        }


def cost_usd(counts: NetworkCounts, prices: Prices) -> float:
    """Return what a network of these counts costs, in US dollars."""
    return (
        prices.switch * counts.switches
        + prices.link * counts.links
        + prices.endpoint_link * counts.endpoint_links
    )


def fit_cables(switch_usd: float) -> tuple[float, float]:
    """Return the prices of a link and of an endpoint link that fit Table 3 best, for a price of a switch.

    Least squares of relative deviations over the ten printed figures; neither price is negative.
    """
    weights = _shares_of_figures()
    rest = 1.0 - weights[:, 0] * switch_usd
    fits = [np.linalg.lstsq(weights[:, columns], rest, rcond=None)[0] for columns in ([1, 2], [1], [2])]
    both, link_only, endpoint_only = (fit.tolist() for fit in fits)
    if min(both) >= 0.0:
        return both[0], both[1]
    # The best fit with a price at zero: of the two, the one that leaves less.
    candidates = [(max(link_only[0], 0.0), 0.0), (0.0, max(endpoint_only[0], 0.0))]
    return min(candidates, key=lambda pair: float(np.sum((weights[:, 1:] @ pair - rest) ** 2)))


def deviations(prices: Prices) -> dict[str, tuple[float, float]]:
    """Return, for each row of Table 3, how far cost and cost per endpoint are from what is printed (0.01: 1%)."""
    computed = _shares_of_figures() @ np.array([prices.switch, prices.link, prices.endpoint_link]) - 1.0
    pairs = computed.reshape(-1, 2).tolist()
    return {name: (total, each) for name, (total, each) in zip(TABLE_3, pairs, strict=True)}


def _shares_of_figures() -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Return [2 x rows, 3]: the share of each printed figure that one dollar of each price makes up."""
    shares = []
    for counts, cost_musd, per_endpoint_kusd in TABLE_3.values():
        parts = np.array([counts.switches, counts.links, counts.endpoint_links], float)
        shares += [parts / (cost_musd * 1e6), parts / (counts.endpoints * per_endpoint_kusd * 1e3)]
    return np.array(shares)


def fit_report() -> str:
    """Return the fit as text: the prices, and how far they are from each figure of Table 3."""
    link_usd, endpoint_link_usd = fit_cables(SWITCH_USD)
    lines = [
        f"switch {SWITCH_USD:,.0f} USD (assumed); fitted: link {link_usd:,.0f}, endpoint link "
        f"{endpoint_link_usd:,.0f} USD; rounded to {_ROUNDED_TO_USD:.0f}: {LINK_USD:,.0f} and "
        f"{ENDPOINT_LINK_USD:,.0f}",
        f"{'Table 3':8}{'cost':>9}{'a endpoint':>12}",
    ]
    lines += [f"{name:8}{total:>+9.2%}{each:>+12.2%}" for name, (total, each) in deviations(Prices()).items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{fit_report()}\n")
