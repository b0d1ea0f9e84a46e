"""The slow twin of `simulator.fairness`: the same definition in exact fractions, link by link, never shipped."""

from fractions import Fraction

Bill = dict[int, Fraction]


def exact_rates(capacity: list[Fraction], bills: list[Bill], weights: list[Fraction]) -> list[Fraction]:
    """Return weighted max-min fair rates: raise all levels together, fix the flows of the link that fills first."""
    rates: dict[int, Fraction] = {}
    while len(rates) < len(bills):
        unfixed = [flow for flow in range(len(bills)) if flow not in rates]
        levels = {}
        for link, full in enumerate(capacity):
            demand = sum(
                (bills[flow].get(link, Fraction(0)) * weights[flow] for flow in unfixed), Fraction(0)
            )
            taken = sum(
                (bills[flow].get(link, Fraction(0)) * rate for flow, rate in rates.items()), Fraction(0)
            )
            if demand > 0:
                levels[link] = (full - taken) / demand
        lowest = min(levels.values())
        for link, level in levels.items():
            if level == lowest:
                rates |= {flow: lowest * weights[flow] for flow in unfixed if link in bills[flow]}
    return [rates[flow] for flow in range(len(bills))]
