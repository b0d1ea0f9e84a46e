"""Faults as a scenario writes them: what each line means, what can be wrong with it, what it does on the clock."""

import difflib
from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, create_model

from simulator.cables import Cables
from simulator.fault_clock import CableFault, Death, Faults, Slowdown
from simulator.units import FieldError, Seconds, Spec
from topologies.schema import EDGE_KINDS, ClusterGraph

IntArray = NDArray[np.int64]

Spans: TypeAlias = Sequence[tuple[float, float]]  # seconds: from, to

LEAST_SHARE: Final = (
    1e-6  # of a capacity that is left: less is as good as nothing, and products of it could become 0
)
_MOST_NAMED: Final = 8  # neighbours of a device, in a message

if TYPE_CHECKING:
    _Timed = Spec
else:
    # A field called `for` cannot be written as an attribute.
    _Timed = create_model(
        "_Timed",
        __base__=Spec,
        at=(Seconds, Field(default=0.0, description="when it happens, from the start of the step")),
        **{
            "for": (
                Annotated[Seconds, Field(gt=0)] | None,
                Field(default=None, description="how long it lasts (default to the end)"),
            )
        },
    )


class _Fault(_Timed):
    """What all faults have in common: when they happen, and for how long."""

    @property
    def begin_s(self) -> float:
        """Return when it happens."""
        return float(getattr(self, "at"))  # noqa: B009  (pydantic makes the field, of which mypy does not know)

    @property
    def end_s(self) -> float:
        """Return when it is over, infinite if it never is."""
        lasting_s = getattr(self, "for")
        return inf if lasting_s is None else self.begin_s + float(lasting_s)


def _no_less_than_tiny(share: float) -> float:
    if 0.0 < share < LEAST_SHARE:
        msg = f"{share:g} is neither 0, dead, nor at least {LEAST_SHARE:g}"
        raise ValueError(msg)
    return share


class _CableFault(_Fault):
    """A fault that takes capacity from cables."""

    capacity: Annotated[float, AfterValidator(_no_less_than_tiny)] = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="share of the capacity that is left, 0.000001 or more; 0: dead (default 0)",
    )


class LinkFault(_CableFault):
    """A cable between two devices, or all parallel ones, in both directions."""

    kind: Literal["link"] = Field(description="cables between two devices")
    between: tuple[str, str] = Field(
        strict=False,  # a list is how YAML writes a tuple
        description="names of the two devices in the cluster graph, such as `[plane0/leaf0, plane0/spine1]`",
    )
    cable: int | None = Field(
        default=None,
        ge=0,
        description="number of one of several parallel cables, from 0 (default all of them)",
    )


class SwitchFault(_CableFault):
    """A network switch: all of its cables."""

    kind: Literal["switch"] = Field(description="a network switch")
    name: str = Field(description="name of the switch in the cluster graph, such as `plane0/spine1`")


class PlaneFault(_CableFault):
    """A whole plane: all cables of the network in it."""

    kind: Literal["plane"] = Field(description="a whole plane of the network")
    plane: int = Field(ge=0, description="number of the plane, from 0")


class NicFault(_CableFault):
    """A network card: its cables to the network and to PCIe."""

    kind: Literal["nic"] = Field(description="a network card (NIC)")
    node: int = Field(ge=0, description="number of the node, from 0")
    index: int = Field(ge=0, description="index of the NIC within its node, that of the GPU it serves")


class GpuFault(Spec):
    """A GPU that dies: the run ends with an error if it had work left."""

    kind: Literal["gpu"] = Field(description="a GPU that dies")
    node: int = Field(ge=0, description="number of the node, from 0")
    index: int = Field(ge=0, description="index of the GPU within its node")
    at: Seconds = Field(default=0.0, description="when it dies, from the start of the step")


class Straggler(_Fault):
    """A GPU that is slow: its kernels take longer; its links keep their capacity."""

    kind: Literal["straggler"] = Field(description="a GPU that is slow")
    node: int = Field(ge=0, description="number of the node, from 0")
    index: int = Field(ge=0, description="index of the GPU within its node")
    slower: float = Field(ge=1.0, description="how many times as long its kernels take")


Fault: TypeAlias = Annotated[
    LinkFault | SwitchFault | PlaneFault | NicFault | GpuFault | Straggler,
    Field(discriminator="kind", description="something that goes wrong during the run"),
]


def needs_graph(faults: Sequence[Fault]) -> bool:
    """Return whether checking these faults takes the cluster's graph: they name parts of its network."""
    return any(not isinstance(fault, (GpuFault, Straggler)) for fault in faults)


def check_faults(
    faults: Sequence[Fault], num_nodes: int, gpus_per_node: int, graph: "ClusterGraph | None"
) -> None:
    """Raise FieldError, its path starting at the list of faults, unless the cluster has what they name.

    graph: the cluster's; may be None where `needs_graph` says no
    """
    for number, fault in enumerate(faults):
        if isinstance(fault, (NicFault, GpuFault, Straggler)):
            _check_number(f"{number}.node", "node", fault.node, num_nodes)
            _check_number(f"{number}.index", "GPU of a node", fault.index, gpus_per_node)
        if graph is None:
            continue
        match fault:
            case NicFault():
                _check_vertex(graph, f"{number}.node", f"node{fault.node}/nic{fault.index}", "nic")
            case SwitchFault():
                _check_vertex(graph, f"{number}.name", fault.name, "switch")
            case PlaneFault():
                _check_number(f"{number}.plane", "plane", fault.plane, int(graph.graph["planes"]))
            case LinkFault():
                _check_link(graph, number, fault)


def on_the_clock(faults: Sequence[Fault], cables: Cables, gpus_per_node: int) -> Faults:
    """Return checked faults in the numbers of the compiled cluster."""
    cable_faults, slowdowns, deaths = [], [], []
    for fault in faults:
        found = _cables_of(fault, cables)
        match fault:
            case Straggler():
                endpoint = fault.node * gpus_per_node + fault.index
                slowdowns.append(Slowdown(endpoint, fault.slower, fault.begin_s, fault.end_s))
            case GpuFault():
                deaths.append(Death(fault.node * gpus_per_node + fault.index, fault.at))
                cable_faults.append(CableFault(found, 0.0, fault.at, inf))
            case _:
                cable_faults.append(CableFault(found, fault.capacity, fault.begin_s, fault.end_s))
    return Faults(tuple(cable_faults), tuple(slowdowns), tuple(deaths))


def touches_switch_cables(faults: Sequence[Fault]) -> bool:
    """Return whether cables between switches may become unlike by these faults, so that none may share a link."""
    return any(isinstance(fault, (LinkFault, SwitchFault, PlaneFault)) for fault in faults)


def describe_faults(
    faults: Sequence[Fault], step_time_s: float, kernels_s: Mapping[tuple[int, int], Spans] | None = None
) -> list[dict[str, Any]]:
    """Return a row per fault for the summary: what, from when to when, and whether the step saw it.

    kernels_s: (node, index) of a GPU -> when each of its kernels began and ended; a straggler without any while it is
    slow is not seen. Columns: fault, begin_s, end_s (null: never), happened.
    """
    kernels_s = kernels_s or {}
    rows: list[dict[str, Any]] = []
    for fault in faults:
        begin_s, end_s = (fault.at, inf) if isinstance(fault, GpuFault) else (fault.begin_s, fault.end_s)
        seen = begin_s < min(end_s, step_time_s)
        if isinstance(fault, Straggler):
            spans = kernels_s.get((fault.node, fault.index), ())
            seen = any(start_s < end_s and begin_s < stop_s for start_s, stop_s in spans)
        rows.append(
            {
                "fault": _text(fault),
                "begin_s": begin_s,
                "end_s": None if end_s == inf else end_s,
                "happened": seen,
            }
        )
    return rows


def _text(fault: Fault) -> str:
    """Return a fault in words."""
    match fault:
        case Straggler():
            return f"GPU {fault.index} of node {fault.node} takes {fault.slower:g} times as long"
        case GpuFault():
            return f"GPU {fault.index} of node {fault.node} dies"
        case NicFault():
            what = f"NIC {fault.index} of node {fault.node}"
        case SwitchFault():
            what = f"switch {fault.name}"
        case PlaneFault():
            what = f"plane {fault.plane}"
        case LinkFault():
            number = "" if fault.cable is None else f" (cable {fault.cable})"
            what = f"link {' - '.join(fault.between)}{number}"
    return f"{what} has {fault.capacity:.4g} of its capacity" if fault.capacity else f"{what} is dead"


def _cables_of(fault: Fault, cables: Cables) -> IntArray:
    """Return the cables, of either direction, that a fault is about."""
    source, target = cables.source, cables.target
    match fault:
        case Straggler():
            return np.zeros(0, np.int64)
        case PlaneFault():
            within = np.isin(cables.kind, [kind for kind, data in EDGE_KINDS.items() if data.within_node])
            return np.flatnonzero((cables.plane == fault.plane) & ~within)
        case LinkFault():
            one, other = fault.between
            found = ((source == one) & (target == other)) | ((source == other) & (target == one))
            return np.flatnonzero(found if fault.cable is None else found & (cables.key == fault.cable))
        case NicFault():
            name = f"node{fault.node}/nic{fault.index}"
        case GpuFault():
            name = f"node{fault.node}/gpu{fault.index}"
        case SwitchFault():
            name = fault.name
    return np.flatnonzero((source == name) | (target == name))


def _check_number(field: str, what: str, number: int, count: int) -> None:
    if number >= count:
        has = f"the cluster has {count:,}, numbered from 0" if count else "the cluster has none"
        msg = f"there is no {what} {number}; {has}"
        raise FieldError(field, msg)


def _check_vertex(graph: ClusterGraph, field: str, name: str, kind: str) -> None:
    """Raise FieldError unless the graph has a device of that name and kind."""
    if name in graph and graph.nodes[name]["kind"] == kind:
        return
    known = [vertex for vertex, data in graph.nodes(data=True) if data["kind"] == kind]
    word = {"nic": "NIC"}.get(kind, kind)
    if not known:
        msg = f"there is no {word} {name!r}: the cluster has no network"
        raise FieldError(field, msg)
    raise FieldError(field, f"there is no {word} {name!r}; {_nearest(name, known)}")


def _check_link(graph: ClusterGraph, number: int, fault: LinkFault) -> None:
    """Raise FieldError unless cables join the two devices that a fault names."""
    for place, name in enumerate(fault.between):
        if name not in graph:
            msg = f"there is no device {name!r}; {_nearest(name, list(graph))}"
            raise FieldError(f"{number}.between.{place}", msg)
    one, other = fault.between
    if not graph.has_edge(one, other):
        ends = sorted(graph.successors(one))
        more = ", ..." if len(ends) > _MOST_NAMED else ""
        msg = f"no cable joins {one!r} and {other!r}; {one!r} is joined to {', '.join(ends[:_MOST_NAMED])}{more}"
        raise FieldError(f"{number}.between", msg)
    if fault.cable is not None:
        _check_number(
            f"{number}.cable", f"cable from {one} to {other} with number", fault.cable, len(graph[one][other])
        )


def _nearest(name: str, known: Sequence[str]) -> str:
    """Return which known name may have been meant, and how many there are."""
    # names of large clusters are too many to compare with one by one, and most differ in length or beginning
    alike = [each for each in known if each[:1] == name[:1] and abs(len(each) - len(name)) <= 2]
    nearest = difflib.get_close_matches(name, alike[:10_000], n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{hint}there are {len(known):,}, from {known[0]!r} to {known[-1]!r}"
