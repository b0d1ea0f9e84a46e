"""Faults of every kind, on devices and cables that a drawn cluster has."""

from typing import Any

from hypothesis import strategies as st

from fuzz.strategies_cluster import DrawnCluster
from fuzz.strategies_text import one_in, quantities, some_of

NEVER = "100 s"  # long after any of these steps
_TIMES = quantities("time", 1e-6, 1e-2)
_SLICE = {"at": _TIMES, "for": _TIMES}


@st.composite
def faults(draw: st.DrawFn, cluster: DrawnCluster) -> list[dict[str, Any]]:
    """Draw up to three faults; most leave some capacity, or heal, so that few runs end with an error."""
    graph = cluster.graph
    if graph is None:
        return []
    switches = sorted(name for name, data in graph.nodes.items() if data["kind"] == "switch")
    kinds = ["straggler", "gpu", "link"]
    if switches:
        kinds += ["switch", "plane", "nic"]
    return [
        draw(_fault(kind, cluster, switches))
        for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))
    ]


@st.composite
def _fault(draw: st.DrawFn, kind: str, cluster: DrawnCluster, switches: list[str]) -> dict[str, Any]:
    place = {
        "node": draw(st.integers(0, cluster.num_nodes - 1)),
        "index": draw(st.integers(0, cluster.gpus - 1)),
    }
    if kind == "gpu":
        # a GPU that dies with work to do ends the run
        return {"kind": kind, **place, "at": NEVER if not draw(one_in(8)) else draw(_TIMES)}
    if kind == "straggler":
        return {
            "kind": kind,
            **place,
            "slower": draw(st.sampled_from([1.0, 1.5, 4])),
            **draw(some_of(_SLICE, 2)),
        }
    found: dict[str, Any] = {"kind": kind} | draw(some_of({"at": _TIMES}, 2))
    if draw(one_in(2)):
        found["for"] = draw(_TIMES)
        found |= draw(some_of({"capacity": st.sampled_from([0.0, 0.5, 1e-3])}, 2))
    else:
        found["capacity"] = draw(st.sampled_from([0.5, 0.01, 0.999]))
    graph = cluster.graph
    assert graph is not None
    if kind == "nic":
        return found | place
    if kind == "plane":
        return found | {"plane": draw(st.integers(0, graph.graph["planes"] - 1))}
    if kind == "switch":
        return found | {"name": draw(st.sampled_from(switches))}
    ends = draw(st.sampled_from(sorted({(one, other) for one, other in graph.edges()})))
    if draw(one_in(3)):
        found["cable"] = draw(st.integers(0, len(graph[ends[0]][ends[1]]) - 1))
    return found | {"between": list(ends)}
