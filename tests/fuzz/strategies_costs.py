"""Cost tables: those of the catalogue, and files whose figures are drawn anew."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from hypothesis import strategies as st

from fuzz.strategies_text import one_in, quantities
from simulator.units import parse_quantity

# where a figure of a table lies: the first of its keys -> what may stand in its place, by its last key but `value`
_TIMES = {
    "start_up": (1e-7, 1e-4),
    "wait_beside_compute": (1e-7, 1e-3),
    "launch": (1e-8, 1e-5),
    "per_message": (1e-10, 1e-7),
}


@cache
def shipped(name: str) -> str:
    """Return the text of a table of the catalogue."""
    return (files("simulator") / "kernel_costs" / f"{name}.json").read_text("utf-8")


@st.composite
def cost_tables(draw: st.DrawFn, *, is_hopper: bool) -> tuple[str | None, dict[str, bytes]]:
    """Draw a table: a catalogue name (None: the default), or the path of a file, and that file."""
    names = ["ideal", "roofline", *(["h800-published"] if is_hopper else [])]
    if not draw(one_in(3)):
        named = draw(st.sampled_from([*names, *([None] if is_hopper else [])]))
        return named, {}
    table = json.loads(shipped(draw(st.sampled_from(names))))
    _redraw(draw, table)
    return "costs.json", {"costs.json": json.dumps(table).encode()}


def _redraw(draw: st.DrawFn, table: dict[str, Any]) -> None:
    """Draw the figures of a table anew; those of kernels that list shapes stand, as the shapes bind them."""
    table["name"] = "drawn"
    for efficiency in table["link_efficiency"].values():
        efficiency["value"] = draw(st.sampled_from([1.0, 0.9, 0.5, 0.123]))
    for latency in table["link_latency"].values():
        latency["same_leaf"] = draw(quantities("time", 1e-7, 1e-5))
        if "cross_leaf" in latency:
            latency["cross_leaf"] = f"{parse_quantity(latency['same_leaf'], 'time') + 1e-6!r} s"
    for costs in table["communication"].values():
        _redraw_times(draw, costs)
        if draw(one_in(2)):
            costs["per_message"] = {
                profile: _figure(draw(quantities("time", *_TIMES["per_message"])))
                for profile in draw(st.sets(st.sampled_from(["nvlink", "infiniband", "roce"])))
            }
    for costs in table["kernels"].values():
        if "listed" not in costs:
            _redraw_times(draw, costs)
    for slowdowns in (table["beside_compute"], table["codec"]):
        for slowdown in slowdowns.values():
            slowdown["value"] = draw(st.sampled_from([1.0, 1.5, 3.25]))


def _redraw_times(draw: st.DrawFn, costs: dict[str, Any]) -> None:
    for name in sorted(_TIMES.keys() & costs.keys()):
        if "value" in costs[name]:
            costs[name] = _figure(draw(quantities("time", *_TIMES[name])))


def _figure(value: str) -> dict[str, Any]:
    return {"value": value, "how": "assumed", "source": "drawn"}
