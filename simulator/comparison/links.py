"""Which links differ: by kind, by plane and rail, and one by one."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from simulator.comparison.figures import are_equal
from simulator.comparison.sides import Side
from simulator.result import ROUNDING

_MOST_OF_A_KIND: Final = 3  # links listed one by one
_CURVE_POINTS: Final = 200
_IN_NODE: Final = r"^node\d+/"
# A link of a node serves the GPU whose index its device has, and NICs of one index are a rail; leaves are named so.
_RAIL: Final = r"(?:^rail|/(?:gpu|pcie|nic))(\d+)"


def kinds_table(sides: Sequence[Side]) -> pd.DataFrame:
    """Return a row per link kind and scenario that has it, kinds in the order of their first appearance.

    Columns: kind, scenario, count, used (links that carry anything), bytes, mean_utilisation, peak_utilisation,
    saturated_fraction (of the link that is at its effective capacity longest), busiest_s (the longest time that a
    link's bytes take at its effective capacity), busiest_source, busiest_target (that link's ends).
    """
    rows = []
    for side in sides:
        links = side.links.assign(needs_s=side.links["bytes"] / side.links["effective_bytes_per_s"])
        for kind, of_kind in links.groupby("kind", sort=False):
            busiest = of_kind.loc[of_kind["needs_s"] >= of_kind["needs_s"].max() * (1.0 - ROUNDING)].iloc[0]
            rows.append(
                {
                    "kind": str(kind),
                    "scenario": side.label,
                    "count": len(of_kind),
                    "used": int((of_kind["bytes"] > 0.0).sum()),
                    "bytes": float(of_kind["bytes"].sum()),
                    "mean_utilisation": float(of_kind["utilisation"].mean()),
                    "peak_utilisation": float(of_kind["utilisation"].max()),
                    "saturated_fraction": float(of_kind["saturated_fraction"].max()),
                    "busiest_s": float(busiest["needs_s"]),
                    "busiest_source": str(busiest["source"]),
                    "busiest_target": str(busiest["target"]),
                }
            )
    return _by_kind(pd.DataFrame(rows))


def are_alike(rows: pd.DataFrame, num_scenarios: int) -> bool:
    """Return whether all scenarios have as many links, as busy and as long saturated.

    rows: those of `kinds_table`, or of `places_table`, of one kind or place
    """
    figures = ("count", "mean_utilisation", "peak_utilisation", "saturated_fraction")
    return len(rows) == num_scenarios and all(are_equal(list(rows[name])) for name in figures)


def _by_kind(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the rows of each kind together, kinds in the order of their first appearance."""
    order = {kind: place for place, kind in enumerate(dict.fromkeys(table["kind"]))}
    return table.sort_values("kind", key=lambda kinds: kinds.map(order), kind="stable", ignore_index=True)


def places_table(sides: Sequence[Side]) -> pd.DataFrame:
    """Return a row per link kind, plane and scenario, and one per kind, rail and scenario.

    A link of a node is in the rail of the GPU that it serves, another in that of its leaf, if leaves have rails.
    Columns: kind, by (`plane` or `rail`), number, scenario, count, bytes, mean_utilisation, peak_utilisation,
    saturated_fraction (of the link that is at its effective capacity longest).
    """
    tables = []
    for side in sides:
        rail = side.links["source"].str.extract(_RAIL)[0].fillna(side.links["target"].str.extract(_RAIL)[0])
        for by, number in (("plane", side.links["plane"]), ("rail", rail.fillna("-1").astype("int64"))):
            placed = side.links.assign(number=number)[number >= 0]
            table = placed.groupby(["kind", "number"]).agg(
                count=("link", "size"),
                bytes=("bytes", "sum"),
                mean_utilisation=("utilisation", "mean"),
                peak_utilisation=("utilisation", "max"),
                saturated_fraction=("saturated_fraction", "max"),
            )
            tables.append(table.reset_index().assign(by=by, scenario=side.label))
    found = pd.concat(tables, ignore_index=True).sort_values(["kind", "by", "number"], kind="stable")
    first = ["kind", "by", "number", "scenario"]
    return found[first + [name for name in found if name not in first]].reset_index(drop=True)


def links_table(sides: Sequence[Side]) -> pd.DataFrame:
    """Return the links whose utilisation differs most from the first scenario's: three per kind and scenario.

    Links are the same if they join the same devices; those from and to a node if they are the same one of that
    device, whatever switch it is plugged into. Links that only one scenario has are left out, and so are those that
    are equal to 1e-9 of the datasheet capacity. Columns: kind, scenario, source, target (as in that scenario),
    bytes, utilisation, first_bytes, first_utilisation (the first scenario's).
    """
    first = _keyed(sides[0].links).rename(
        columns={"bytes": "first_bytes", "utilisation": "first_utilisation"}
    )
    tables = []
    for side in sides[1:]:
        both = _keyed(side.links).merge(
            first.drop(columns=["source", "target"]), on=["kind", "from", "to", "nth"]
        )
        apart = (both["utilisation"] - both["first_utilisation"]).abs()
        both = both.assign(scenario=side.label, apart=apart)[apart > ROUNDING]
        # equal but for rounding are those of one ninth decimal: of them the first is listed
        both["apart"] = both["apart"].round(9)
        most = both.sort_values("apart", ascending=False, kind="stable").groupby("kind", sort=False)
        tables.append(most.head(_MOST_OF_A_KIND))
    columns = [
        "kind", "scenario", "source", "target", "bytes", "utilisation", "first_bytes", "first_utilisation",
    ]  # fmt: skip
    return _by_kind(pd.concat(tables, ignore_index=True))[columns]


def _keyed(links: pd.DataFrame) -> pd.DataFrame:
    """Return links with what they are known by in any network: the columns from, to and nth."""
    at_node = links["source"].str.contains(_IN_NODE) | links["target"].str.contains(_IN_NODE)
    ends = {
        name: links[end].mask(at_node & ~links[end].str.contains(_IN_NODE), "network")
        for name, end in (("from", "source"), ("to", "target"))
    }
    keyed = links[["kind", "source", "target", "bytes", "utilisation"]].assign(**ends)
    return keyed.assign(nth=keyed.groupby(["kind", "from", "to"], sort=False).cumcount())


def curves_table(sides: Sequence[Side]) -> pd.DataFrame:
    """Return the utilisation of each kind's links, busiest first, at 200 links at most, evenly chosen.

    Columns: kind, scenario, rank_fraction (0: the busiest link, 1: the idlest), utilisation.
    """
    tables = []
    for side in sides:
        for kind, of_kind in side.links.groupby("kind", sort=False):
            falling = np.sort(of_kind["utilisation"].to_numpy())[::-1]
            chosen = np.unique(np.linspace(0, len(falling) - 1, _CURVE_POINTS).round().astype(np.int64))
            tables.append(
                pd.DataFrame(
                    {
                        "kind": str(kind),
                        "scenario": side.label,
                        "rank_fraction": chosen / max(len(falling) - 1, 1),
                        "utilisation": falling[chosen],
                    }
                )
            )
    return _by_kind(pd.concat(tables, ignore_index=True))
