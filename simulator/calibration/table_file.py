"""Cost tables written as JSON that a person can read."""

import json
from pathlib import Path
from typing import Any

from simulator.costs import CostTable
from simulator.durable import write_file
from simulator.figures import Figure
from simulator.kernel_times import Shape


def write_table(table: CostTable, path: Path) -> None:
    """Write a cost table as JSON, without what it leaves at its default; shapes one to a line.

    Raises OSError if it cannot be written; an earlier table is there still.
    """
    data: dict[str, Any] = table.model_dump(mode="json", exclude_defaults=True)
    for name, entry in data.get("kernels", {}).items():
        for shape, listed in zip(
            entry.get("listed", {}).get("shapes", ()), listed_shapes(table, name), strict=True
        ):
            shape["call"] = {"kind": listed.call.kind, **shape["call"]}
    write_file(path, f"{_json(data)}\n".encode())


def listed_shapes(table: CostTable, name: str) -> tuple[Shape, ...]:
    """Return the shapes that a table lists of a kernel."""
    listed = table.kernels[name].listed
    return () if listed is None else listed.shapes


def _json(value: Any, indent: int = 0) -> str:
    """Return indented JSON in which what holds a kernel call, or no more than numbers, takes one line."""
    inner = " " * (indent + 2)
    if isinstance(value, dict):  # the figure itself before where it is from
        value = dict(sorted(value.items(), key=lambda item: item[0] in Figure.model_fields))
    if isinstance(value, dict) and "call" not in value and value:
        items = [f"{inner}{json.dumps(key)}: {_json(item, indent + 2)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + "\n" + " " * indent + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return (
            "[\n" + ",\n".join(inner + _json(item, indent + 2) for item in value) + "\n" + " " * indent + "]"
        )
    return json.dumps(value, ensure_ascii=False)
