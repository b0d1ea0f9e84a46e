"""What was changed: the fields in which scenarios differ, and what else tells their results apart."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from simulator.comparison.sides import Side


def fields_table(sides: Sequence[Side]) -> pd.DataFrame:
    """Return a row per field that is not alike in all scenarios, but for their names, and scenario.

    Columns: field (dotted, items of lists by their number), scenario, value (as text; None: has no such field, or
    none but null). A list or mapping that is empty in one and not in another is told by what the other holds.
    """
    by_side = [dict(_leaves(side.scenario, ())) | _contents(side) for side in sides]
    fields = dict.fromkeys(field for leaves in by_side for field in leaves)
    wholes = {field[:end] for field in fields for end in range(len(field)) if field[end] == "."}
    rows = []
    for field in fields:
        values = [leaves.get(field) for leaves in by_side]
        if field != "name" and field not in wholes and len(set(values)) > 1:
            rows += [(field, side.label, value) for side, value in zip(sides, values, strict=True)]
    return pd.DataFrame(rows, columns=["field", "scenario", "value"])


def _contents(side: Side) -> dict[str, str]:
    """Return what tells the files apart that a scenario names, by field; older results do not say."""
    digests = side.summary["provenance"].get("files", {})
    return {field: f"a file of SHA-256 {digest[:12]}..." for field, digest in digests.items()}


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield every value below a field but null, as text, with its dotted path."""
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _leaves(below, (*path, str(key)))
    elif isinstance(value, list) and value:
        for place, below in enumerate(value):
            yield from _leaves(below, (*path, str(place)))
    elif value is not None:
        yield ".".join(path), value if isinstance(value, str) else json.dumps(value)


def cautions(sides: Sequence[Side]) -> list[str]:
    """Return what makes a comparison less than one of like with like, a sentence each."""
    lines = []
    kinds = {side.label: str(side.scenario["workload"]["kind"]) for side in sides}
    if len(set(kinds.values())) > 1:
        lines.append(
            f"Workloads are not alike: {_each(kinds)}. Figures that only some have are absent elsewhere."
        )
    versions = {side.label: str(side.summary["provenance"]["version"]) for side in sides}
    if len(set(versions.values())) > 1:
        lines.append(f"Versions of railplane differ: {_each(versions)}. Run all with one.")
    tables = {side.label: str(side.scenario["costs"]) for side in sides}
    if len(set(tables.values())) > 1:
        lines.append(
            f"Cost tables differ: {_each(tables)}. Part of each difference is that of their constants."
        )
    if changed := _other_sources(sides):
        lines.append(f"Constants are not from one source in all: {', '.join(changed)}.")
    if len({json.dumps(side.scenario["cluster"].get("prices"), sort_keys=True) for side in sides}) > 1:
        lines.append("Prices differ, so that costs do not tell networks alone apart.")
    gpus = {side.label: side.network["gpus"] for side in sides if side.network}
    if len(set(gpus.values())) > 1:
        lines.append(f"GPUs are not as many: {_each({name: f'{count:,}' for name, count in gpus.items()})}.")
    lines += [
        f"Figures of the network of {side.label} are absent: {side.unknown_network}."
        for side in sides
        if side.unknown_network
    ]
    return lines


def _each(values: dict[str, str]) -> str:
    return ", ".join(f"{value} in {label}" for label, value in values.items())


def _other_sources(sides: Sequence[Side]) -> list[str]:
    """Return the constants that several results rest on, but with different sources."""
    by_side = [side.summary["provenance"]["cost_sources"] for side in sides]
    names = dict.fromkeys(name for sources in by_side for name in sources)
    return [name for name in names if len({sources[name] for sources in by_side if name in sources}) > 1]


def assumptions_table(sides: Sequence[Side]) -> pd.DataFrame:
    """Return a row per assumption that only some results rest on, and scenario that does.

    Columns: assumption, scenario.
    """
    by_side = {side.label: side.summary["provenance"]["assumptions"] for side in sides}
    lines = dict.fromkeys(line for assumptions in by_side.values() for line in assumptions)
    rows = [
        (line, label)
        for line in lines
        for label, assumptions in by_side.items()
        if line in assumptions and not all(line in others for others in by_side.values())
    ]
    return pd.DataFrame(rows, columns=["assumption", "scenario"])
