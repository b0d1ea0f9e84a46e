"""A scenario in a world k times as fast: every rate k times what it was, every time one k-th.

Rates and times are found by their units, wherever they stand: in the scenario as resolved, in its node, written
inline, and in its cost table, written beside it. Graph files and lists of flows have theirs without units.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from simulator.scenario import LoadedScenario
from simulator.units import UNITS
from topologies import CustomNetwork
from topologies.graph_file import read_graph, write_graph
from workloads.flows import FlowsSpec

_RATES = ("bytes per second", "flop per second")


def write_scaled(loaded: LoadedScenario, k: float, name: str = "scaled.yaml") -> Path:
    """Write a scenario, and what it names, in a world k times as fast beside it; return its path."""
    data = loaded.scenario.model_dump(mode="json")
    data["cluster"]["node"] = loaded.node.model_dump(mode="json")
    table = loaded.costs.model_dump(mode="json", exclude_none=False)
    (loaded.folder / "scaled-costs.json").write_text(
        json.dumps(scaled_quantities(table, k), ensure_ascii=False), "utf-8"
    )
    data["costs"] = "scaled-costs.json"
    if isinstance(loaded.scenario.cluster.topology, CustomNetwork):
        data["cluster"]["topology"]["path"] = _scaled_graph(
            loaded.folder, data["cluster"]["topology"]["path"], k
        )
    if isinstance(loaded.scenario.workload, FlowsSpec):
        data["workload"]["path"] = _scaled_flows(loaded.folder, loaded.scenario.workload.path, k)
    path = loaded.folder / name
    path.write_text(json.dumps(scaled_quantities(data, k), ensure_ascii=False), "utf-8")
    return path


def scaled_quantities(value: Any, k: float) -> Any:
    """Return plain data with each text that is a rate k times, and each that is a time one k-th of what it was."""
    if isinstance(value, dict):
        return {name: scaled_quantities(item, k) for name, item in value.items()}
    if isinstance(value, list):
        return [scaled_quantities(item, k) for item in value]
    return _scaled(value, k) if isinstance(value, str) else value


def _scaled(text: str, k: float) -> str:
    number, _, unit = text.partition(" ")
    factors = {**dict.fromkeys(UNITS["time"], 1 / k), **{name: k for each in _RATES for name in UNITS[each]}}
    try:
        return f"{float(number) * factors[unit]!r} {unit}"
    except (ValueError, KeyError):  # a text of another kind
        return text


def _scaled_graph(folder: Path, name: str, k: float) -> str:
    graph = read_graph(folder / name)
    for _, _, cable in graph.edges(data=True):
        cable["capacity_bytes_per_s"] *= k
    write_graph(graph, folder / f"scaled-{name}")
    return f"scaled-{name}"


def _scaled_flows(folder: Path, name: str, k: float) -> str:
    path = folder / name
    text = {"source": str, "destination": str}
    flows = pd.read_csv(path, dtype=text) if path.suffix == ".csv" else pd.read_parquet(path).astype(text)
    if "start_s" in flows:
        flows["start_s"] = flows["start_s"].astype(float) / k
    flows.to_csv(folder / "scaled-flows.csv", index=False)
    return "scaled-flows.csv"
