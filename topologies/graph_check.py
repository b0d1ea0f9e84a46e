"""Checks that a cluster graph keeps to the vocabulary of `topologies.schema`, one function a rule.

`check_graph` is the only judge: whoever makes a graph, a builder of ours or a file of a user's, ends there.
"""

import math
import reprlib
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, Final, TypeAlias, cast

from topologies.schema import (
    EDGE_ATTRIBUTES,
    EDGE_KINDS,
    GRAPH_ATTRIBUTES,
    VERTEX_KINDS,
    Attribute,
    ClusterGraph,
)

_Cables: TypeAlias = dict[int, dict[str, Any]]  # key -> attributes, of the cables from one vertex to another

# The ends that a kind of cable may have, each pair both ways round.
_ENDS: Final = {
    name: frozenset(pair for one, other in kind.joins for pair in ((one, other), (other, one)))
    for name, kind in EDGE_KINDS.items()
}
_TYPE_NAMES: Final = {int: "a whole number", float: "a number", str: "text"}
_EDGE_VALUES: Final = itemgetter(*(attribute.name for attribute in EDGE_ATTRIBUTES))


class GraphError(ValueError):
    """A graph breaks a rule; at: the vertex that does, or the ends of the edge; empty for the graph as a whole."""

    def __init__(self, message: str, *at: str) -> None:
        super().__init__(message)
        self.at = at


def check_graph(graph: ClusterGraph) -> None:
    """Raise GraphError, naming the offender and the remedy, unless `graph` keeps to the vocabulary."""
    # Each rule may rely on those before it: ends are looked up only after every vertex is known to be complete.
    check_graph_type(graph)
    check_graph_attributes(graph)
    check_vertex_kinds(graph)
    check_vertex_attributes(graph)
    check_vertex_names(graph)
    check_edges(graph)
    check_cables_within_nodes(graph)
    check_cables(graph)
    check_ports(graph)
    check_gpus(graph)
    check_groups(graph)
    check_planes(graph)
    check_nics(graph)


def check_graph_type(graph: ClusterGraph) -> None:
    """Edges have a direction, and there may be several between two vertices."""
    if not (graph.is_directed() and graph.is_multigraph()):
        msg = f"the graph is a networkx.{type(graph).__name__}; it must be a networkx.MultiDiGraph"
        raise GraphError(msg)


def check_graph_attributes(graph: ClusterGraph) -> None:
    """Family and size of the cluster are stated."""
    _check_attributes("the graph", GRAPH_ATTRIBUTES, graph.graph, ())


def check_vertex_kinds(graph: ClusterGraph) -> None:
    """Every vertex is of a known kind."""
    for vertex, attributes in graph.nodes(data=True):
        kind = attributes.get("kind")
        if not isinstance(kind, str) or kind not in VERTEX_KINDS:
            msg = f"vertex {vertex!r} has kind {kind!r}; known kinds are {', '.join(VERTEX_KINDS)}"
            raise GraphError(msg, vertex)


def check_vertex_attributes(graph: ClusterGraph) -> None:
    """Every vertex has the attributes of its kind, with the right types."""
    for vertex, attributes in graph.nodes(data=True):
        required = VERTEX_KINDS[attributes["kind"]].attributes
        _check_attributes(f"vertex {vertex!r}", required, attributes, (vertex,))


def check_vertex_names(graph: ClusterGraph) -> None:
    """Ids are strings, and those of a node's devices say which they are."""
    for vertex, attributes in graph.nodes(data=True):
        if not isinstance(vertex, str):
            msg = f"vertex {vertex!r} has an id that is no text; name it {str(vertex)!r}"
            raise GraphError(msg)
        if not vertex.isprintable():
            msg = f"vertex {vertex!r} has a character that cannot be printed; leave it out of the id"
            raise GraphError(msg, vertex)
        name = VERTEX_KINDS[attributes["kind"]].name.format_map(attributes)
        if name and vertex != name:
            msg = f"vertex {vertex!r} must be called {name!r}, after its kind, node and index"
            raise GraphError(msg, vertex)


def check_edges(graph: ClusterGraph) -> None:
    """Every edge has a known kind and profile and a capacity, and joins devices that its kind may join."""
    roles = {vertex: _role(attributes) for vertex, attributes in graph.nodes(data=True)}
    # Edges are many and their values few, so that each combination of values and ends is judged once. Its type is
    # part of a number here: True equals 1.
    right: set[tuple[object, ...]] = set()
    for source, targets in _adjacency(graph).items():
        role = roles[source]
        for target, cables in targets.items():
            ends = (role, roles[target])
            for key, attributes in cables.items():
                try:
                    values = _EDGE_VALUES(attributes)
                    if (*values, type(values[-1]), ends) in right:
                        continue
                except (KeyError, TypeError):  # left out, or of a type that no set holds
                    values = ()
                _check_edge(_edge(source, target, key), attributes, ends, (source, target))
                right.add((*values, type(values[-1]), ends))


def _check_edge(
    owner: str, attributes: Mapping[str, Any], ends: tuple[str, str], at: tuple[str, str]
) -> None:
    """Raise GraphError, naming the owner, unless an edge has its attributes and joins what it may."""
    _check_attributes(owner, EDGE_ATTRIBUTES, attributes, at)
    kind, capacity = attributes["kind"], attributes["capacity_bytes_per_s"]
    if not 0 < capacity < math.inf:
        msg = (
            f"{owner} has capacity_bytes_per_s {capacity!r}; it must be finite and more than 0: leave out a cable "
            "that carries nothing"
        )
        raise GraphError(msg, *at)
    if ends not in _ENDS[kind]:
        may = ", or ".join(f"{one} and {other}" for one, other in EDGE_KINDS[kind].joins)
        msg = f"{owner} of kind {kind!r} runs from {ends[0]} to {ends[1]}; it may join only {may}"
        raise GraphError(msg, *at)


def check_cables_within_nodes(graph: ClusterGraph) -> None:
    """NVLink and PCIe stay within a node."""
    adjacency = _adjacency(graph)
    node_of = {vertex: attributes.get("node") for vertex, attributes in graph.nodes(data=True)}
    # One end of every such cable is an NVSwitch or a PCIe switch, and these have no others.
    for source, attributes in graph.nodes(data=True):
        if attributes["kind"] not in {"nvswitch", "pcie_switch"}:
            continue
        for target in adjacency[source]:
            if node_of[source] != node_of[target]:
                key, data = next(iter(adjacency[source][target].items()))
                msg = (
                    f"{_edge(source, target, key)} of kind {data['kind']!r} joins nodes {node_of[source]} and "
                    f"{node_of[target]}; such a cable stays within its node"
                )
                raise GraphError(msg, source, target)


def check_cables(graph: ClusterGraph) -> None:
    """Every cable has both directions, alike in kind, profile and capacity; parallel ones have the keys 0, 1, ..."""
    adjacency = _adjacency(graph)
    for source, targets in adjacency.items():
        for target, cables in targets.items():
            back = adjacency[target].get(source, {})
            if back != cables:
                _check_directions(source, target, cables, back)
            if (len(cables) > 1 or 0 not in cables) and set(cables) != set(range(len(cables))):
                msg = (
                    f"the {len(cables)} cables from {source!r} to {target!r} have the keys "
                    f"{', '.join(map(repr, cables))}; number them from 0"
                )
                raise GraphError(msg, source, target)


def _check_directions(source: str, target: str, there: _Cables, back: _Cables) -> None:
    """Raise GraphError unless the cables there have ways back that are like them; other attributes may differ."""
    for key, one in there.items():
        other = back.get(key)
        if other is None:
            msg = f"{_edge(source, target, key)} has no way back; add {_edge(target, source, key)}"
            raise GraphError(msg, source, target)
        for attribute in EDGE_ATTRIBUTES:
            if one[attribute.name] != other[attribute.name]:
                msg = (
                    f"{_edge(source, target, key)} has {attribute.name} {one[attribute.name]!r}, the way back "
                    f"has {other[attribute.name]!r}; make both directions of a cable alike"
                )
                raise GraphError(msg, source, target)


def check_ports(graph: ClusterGraph) -> None:
    """No switch has more cables than ports."""
    for vertex, targets in _adjacency(graph).items():
        attributes = graph.nodes[vertex]
        if attributes["kind"] != "switch":
            continue
        cables = sum(map(len, targets.values()))
        if cables > attributes["ports"]:
            msg = (
                f"switch {vertex!r} has {attributes['ports']} ports and {cables} cables; "
                "remove cables or use a switch with more ports"
            )
            raise GraphError(msg, vertex)


def check_gpus(graph: ClusterGraph) -> None:
    """Nodes are numbered 0 .. num_nodes - 1, and each has the GPUs 0 .. gpus_per_node - 1."""
    num_nodes, gpus_per_node = graph.graph["num_nodes"], graph.graph["gpus_per_node"]
    for vertex, attributes in graph.nodes(data=True):
        if attributes.get("node", 0) >= num_nodes:
            msg = f"vertex {vertex!r} is in a node beyond num_nodes = {num_nodes}; nodes are numbered from 0"
            raise GraphError(msg, vertex)
        if attributes["kind"] == "gpu" and attributes["index"] >= gpus_per_node:
            msg = f"vertex {vertex!r} is beyond gpus_per_node = {gpus_per_node}; GPUs are numbered from 0"
            raise GraphError(msg, vertex)
    for node in range(num_nodes):
        for index in range(gpus_per_node):
            if f"node{node}/gpu{index}" not in graph:
                msg = (
                    f"'node{node}/gpu{index}' is missing; add it, or correct num_nodes = {num_nodes} "
                    f"and gpus_per_node = {gpus_per_node}"
                )
                raise GraphError(msg)


def check_groups(graph: ClusterGraph) -> None:
    """Every router is in a group, and its cables say rightly whether they leave it."""
    adjacency = _adjacency(graph)
    group_of = {vertex: data["group"] for vertex, data in graph.nodes(data=True) if _role(data) == "router"}
    for source, group in group_of.items():
        if group < 0:
            msg = f"router {source!r} has group {group}; number the groups of routers from 0"
            raise GraphError(msg, source)
        for target, cables in adjacency[source].items():
            if target not in group_of:
                continue
            right = "router_local" if group_of[target] == group else "router_global"
            for key, data in cables.items():
                if data["kind"] != right:
                    msg = (
                        f"{_edge(source, target, key)} of kind {data['kind']!r} joins the groups {group} and "
                        f"{group_of[target]}; router_local stays within a group, router_global leaves it"
                    )
                    raise GraphError(msg, source, target)


def check_planes(graph: ClusterGraph) -> None:
    """Planes are numbered 0 .. planes - 1 and share no switch: only a NIC with plane -1 has ports in several."""
    planes = graph.graph["planes"]
    plane_of = {
        vertex: data["plane"] for vertex, data in graph.nodes(data=True) if data["kind"] in {"nic", "switch"}
    }
    for vertex, plane in plane_of.items():
        if plane >= planes:
            msg = f"vertex {vertex!r} is in plane {plane}, the graph has planes = {planes}, numbered from 0"
            raise GraphError(msg, vertex)
    ports: dict[str, list[int]] = {vertex: [] for vertex, plane in plane_of.items() if plane == -1}
    adjacency = _adjacency(graph)
    for source, plane in plane_of.items():
        if plane == -1:
            continue
        for target, cables in adjacency[source].items():
            # What is no NIC and no switch has no plane: the NIC's PCIe switch.
            other = plane_of.get(target, plane)
            if other == -1:
                ports[target].extend([plane] * len(cables))
            elif other != plane:
                msg = (
                    f"{_edge(source, target, next(iter(cables)))} joins planes {plane} and {other}; "
                    "planes share no switch: move one end"
                )
                raise GraphError(msg, source, target)
    _check_ports_of_planes(ports)


def _check_ports_of_planes(ports: Mapping[str, list[int]]) -> None:
    """Raise GraphError unless the NICs, all with plane -1, have several ports, each in another plane."""
    for vertex, planes in ports.items():
        if len(planes) < 2 or len(set(planes)) < len(planes):
            msg = (
                f"NIC {vertex!r} has plane -1 and ports in the planes {sorted(planes)}; plane -1 is for a NIC with "
                "several ports, each in another plane"
            )
            raise GraphError(msg, vertex)


def check_nics(graph: ClusterGraph) -> None:
    """Every NIC hangs on one PCIe switch, and that switch on one GPU: the NIC's GPU is never in doubt."""
    adjacency = _adjacency(graph)
    kind_of = {vertex: data["kind"] for vertex, data in graph.nodes(data=True)}

    def neighbours(vertex: str, kind: str) -> list[str]:
        """Return the devices of a kind at the vertex's cables, once a cable."""
        return [
            other for other, cables in adjacency[vertex].items() if kind_of[other] == kind for _ in cables
        ]

    for nic, kind in kind_of.items():
        if kind != "nic":
            continue
        switches = neighbours(nic, "pcie_switch")
        if len(switches) != 1:
            msg = f"NIC {nic!r} has {len(switches)} cables to PCIe switches; give it one"
            raise GraphError(msg, nic)
        gpus = neighbours(switches[0], "gpu")
        if len(gpus) != 1:
            msg = (
                f"NIC {nic!r} hangs on {switches[0]!r}, which serves {len(gpus)} GPUs; "
                "give each GPU a PCIe switch of its own"
            )
            raise GraphError(msg, nic)


def _role(attributes: Mapping[str, Any]) -> str:
    """Return what a vertex is to a cable: its kind, or the layer of a switch."""
    return str(attributes["layer"] if attributes["kind"] == "switch" else attributes["kind"])


def _adjacency(graph: ClusterGraph) -> dict[str, dict[str, _Cables]]:
    """Return source -> target -> key -> attributes: networkx's own dictionaries, walked in a third of its time."""
    return dict(cast("Iterable[tuple[str, dict[str, _Cables]]]", graph.adjacency()))


def _edge(source: str, target: str, key: object) -> str:
    return f"edge {source!r} -> {target!r} (key {key!r})"


def _check_attributes(
    owner: str, required: tuple[Attribute, ...], values: Mapping[str, Any], at: tuple[str, ...]
) -> None:
    fault = _first_fault(required, values)
    if fault:
        msg = f"{owner} {fault}"
        raise GraphError(msg, *at)


def _first_fault(required: tuple[Attribute, ...], values: Mapping[str, Any]) -> str:
    """Return what is wrong with the first attribute that is, and what would be right; empty if all are well."""
    for attribute in required:
        name = attribute.name
        if name not in values:
            return f"has no {name!r}; add it: {attribute.meaning}"
        value = values[name]
        # A whole number is a float to anyone who writes a file; True is an int only to Python.
        right_type = isinstance(value, attribute.type) or (attribute.type is float and isinstance(value, int))
        if not right_type or isinstance(value, bool):
            return f"has {name} {reprlib.repr(value)}; it must be {_TYPE_NAMES[attribute.type]}: {attribute.meaning}"
        if attribute.least is not None and value < attribute.least:
            return f"has {name} {value!r}; it must be at least {attribute.least}: {attribute.meaning}"
        if attribute.choices and value not in attribute.choices:
            return f"has {name} {reprlib.repr(value)}; known are {', '.join(attribute.choices)}"
    return ""
