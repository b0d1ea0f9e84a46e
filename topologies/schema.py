"""The graph vocabulary: which vertices and cables a cluster graph may hold, written as data and checked.

A cluster is a `networkx.MultiDiGraph`. A cable is two directed edges, one each way, with the same key; parallel
cables have the keys 0, 1, ... Vertices of a node are named after it (`node3/gpu5`); switches may have any name.
`check_graph` is the only judge: whoever makes a graph, a builder of ours or a file of a user's, ends there.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import networkx as nx

ClusterGraph: TypeAlias = "nx.MultiDiGraph[str]"


@dataclass(frozen=True, slots=True)
class Attribute:
    """A required attribute: its type, what it means and in which unit, and the values that it may take."""

    name: str
    type: type[int] | type[float] | type[str]
    meaning: str
    least: int | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VertexKind:
    """A kind of device; `name` is the form of its id, and empty where any id will do."""

    meaning: str
    attributes: tuple[Attribute, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class EdgeKind:
    """A kind of cable and the two devices it joins: kinds of vertices, and for switches their layer."""

    meaning: str
    joins: tuple[str, str]
    within_node: bool


_NODE: Final = Attribute("node", int, "number of the node, from 0", least=0)
_GPU_INDEX: Final = Attribute("index", int, "index within the node, that of the GPU it serves", least=0)
_PLANE: Final = Attribute("plane", int, "number of the plane, from 0", least=0)

VERTEX_KINDS: Final[dict[str, VertexKind]] = {
    "gpu": VertexKind("a GPU", (_NODE, _GPU_INDEX), "node{node}/gpu{index}"),
    "nvswitch": VertexKind("the NVSwitches of a node, as one", (_NODE,), "node{node}/nvswitch"),
    "pcie_switch": VertexKind("the PCIe switch of a GPU", (_NODE, _GPU_INDEX), "node{node}/pcie{index}"),
    "host": VertexKind("the CPUs of a node and their memory, as one", (_NODE,), "node{node}/host"),
    "nic": VertexKind("a network card", (_NODE, _GPU_INDEX, _PLANE), "node{node}/nic{index}"),
    "switch": VertexKind(
        "a network switch",
        (
            Attribute("layer", str, "layer of the network", choices=("leaf", "spine")),
            _PLANE,
            Attribute("rail", int, "number of the rail of a multi-rail leaf, else -1", least=-1),
            Attribute("index", int, "number within its layer, its plane and its rail", least=0),
            Attribute("ports", int, "number of ports: cables that can be plugged in", least=1),
        ),
    ),
}

EDGE_KINDS: Final[dict[str, EdgeKind]] = {
    "nvlink": EdgeKind("a GPU's NVLink port", ("gpu", "nvswitch"), within_node=True),
    "pcie": EdgeKind("a GPU's PCIe port", ("gpu", "pcie_switch"), within_node=True),
    "pcie_nic": EdgeKind("a NIC's PCIe port", ("pcie_switch", "nic"), within_node=True),
    "pcie_host": EdgeKind("a PCIe switch's way to the host", ("pcie_switch", "host"), within_node=True),
    "nic": EdgeKind("a NIC's network cable", ("nic", "leaf"), within_node=False),
    "leaf_spine": EdgeKind("a cable between switches", ("leaf", "spine"), within_node=False),
}

EDGE_ATTRIBUTES: Final = (
    Attribute("kind", str, "what it joins", choices=tuple(EDGE_KINDS)),
    Attribute(
        "profile",
        str,
        "the row of a cost table that gives efficiency and latency",
        choices=("nvlink", "pcie", "infiniband", "roce"),
    ),
    Attribute("capacity_bytes_per_s", float, "datasheet capacity of one direction, bytes per second"),
)

GRAPH_ATTRIBUTES: Final = (
    Attribute("family", str, "kind of the topology that built the graph"),
    Attribute("num_nodes", int, "number of nodes", least=1),
    Attribute("gpus_per_node", int, "number of GPUs of each node", least=1),
    Attribute("planes", int, "number of planes, 0 without a network", least=0),
)


def check_graph(graph: ClusterGraph) -> None:
    """Raise ValueError, naming the offender and the remedy, unless `graph` keeps to the vocabulary."""
    # Each rule may rely on those before it: ends are looked up only after every vertex is known to be complete.
    check_graph_type(graph)
    check_graph_attributes(graph)
    check_vertex_kinds(graph)
    check_vertex_attributes(graph)
    check_vertex_names(graph)
    check_edge_attributes(graph)
    check_capacities(graph)
    check_edge_ends(graph)
    check_cables_within_nodes(graph)
    check_cable_directions(graph)
    check_cable_keys(graph)
    check_ports(graph)
    check_gpus(graph)
    check_planes(graph)
    check_nics(graph)


def check_graph_type(graph: ClusterGraph) -> None:
    """Edges have a direction, and there may be several between two vertices."""
    if not (graph.is_directed() and graph.is_multigraph()):
        msg = f"the graph is a networkx.{type(graph).__name__}; it must be a networkx.MultiDiGraph"
        raise ValueError(msg)


def check_graph_attributes(graph: ClusterGraph) -> None:
    """Family and size of the cluster are stated."""
    _check_attributes("the graph", GRAPH_ATTRIBUTES, graph.graph)


def check_vertex_kinds(graph: ClusterGraph) -> None:
    """Every vertex is of a known kind."""
    for vertex, attributes in graph.nodes.items():
        kind = attributes.get("kind")
        if not isinstance(kind, str) or kind not in VERTEX_KINDS:
            msg = f"vertex {vertex!r} has kind {kind!r}; known kinds are {', '.join(VERTEX_KINDS)}"
            raise ValueError(msg)


def check_vertex_attributes(graph: ClusterGraph) -> None:
    """Every vertex has the attributes of its kind, with the right types."""
    for vertex, attributes in graph.nodes.items():
        _check_attributes(f"vertex {vertex!r}", VERTEX_KINDS[attributes["kind"]].attributes, attributes)


def check_vertex_names(graph: ClusterGraph) -> None:
    """Ids are strings, and those of a node's devices say which they are."""
    for vertex, attributes in graph.nodes.items():
        if not isinstance(vertex, str):
            msg = f"vertex {vertex!r} has an id that is no text; name it {str(vertex)!r}"
            raise ValueError(msg)
        name = VERTEX_KINDS[attributes["kind"]].name.format_map(attributes)
        if name and vertex != name:
            msg = f"vertex {vertex!r} must be called {name!r}, after its kind, node and index"
            raise ValueError(msg)


def check_edge_attributes(graph: ClusterGraph) -> None:
    """Every edge has a known kind and profile, and a capacity."""
    for source, target, key, attributes in graph.edges(keys=True, data=True):
        # Named only when it is wrong: this runs for every edge of the cluster.
        if _first_fault(EDGE_ATTRIBUTES, attributes):
            _check_attributes(_edge(source, target, key), EDGE_ATTRIBUTES, attributes)


def check_capacities(graph: ClusterGraph) -> None:
    """Every capacity is finite and positive."""
    for source, target, key, attributes in graph.edges(keys=True, data=True):
        capacity = attributes["capacity_bytes_per_s"]
        if not 0 < capacity < math.inf:
            msg = (
                f"{_edge(source, target, key)} has capacity_bytes_per_s {capacity!r}; it must be finite and more "
                "than 0: leave out a cable that carries nothing"
            )
            raise ValueError(msg)


def check_edge_ends(graph: ClusterGraph) -> None:
    """Every edge joins the devices that its kind may join."""
    roles = {vertex: _role(attributes) for vertex, attributes in graph.nodes.items()}
    for source, target, key, data in graph.edges(keys=True, data=True):
        kind = data["kind"]
        one, other = EDGE_KINDS[kind].joins
        found = (roles[source], roles[target])
        if found not in {(one, other), (other, one)}:
            msg = (
                f"{_edge(source, target, key)} of kind {kind!r} runs from {found[0]} to {found[1]}; "
                f"it may join only {one} and {other}"
            )
            raise ValueError(msg)


def check_cables_within_nodes(graph: ClusterGraph) -> None:
    """NVLink and PCIe stay within a node."""
    node_of = {vertex: attributes.get("node") for vertex, attributes in graph.nodes.items()}
    for source, target, key, data in graph.edges(keys=True, data=True):
        kind = data["kind"]
        if EDGE_KINDS[kind].within_node and node_of[source] != node_of[target]:
            msg = (
                f"{_edge(source, target, key)} of kind {kind!r} joins nodes {node_of[source]} and "
                f"{node_of[target]}; such a cable stays within its node"
            )
            raise ValueError(msg)


def check_cable_directions(graph: ClusterGraph) -> None:
    """Every cable has both directions, alike in kind, profile and capacity."""
    neighbours = dict(graph.adjacency())
    for source, target, key, there in graph.edges(keys=True, data=True):
        back = neighbours[target].get(source, {}).get(key)
        if back is None:
            msg = f"{_edge(source, target, key)} has no way back; add {_edge(target, source, key)}"
            raise ValueError(msg)
        for attribute in EDGE_ATTRIBUTES:
            if there[attribute.name] != back[attribute.name]:
                msg = (
                    f"{_edge(source, target, key)} has {attribute.name} {there[attribute.name]!r}, the way back "
                    f"has {back[attribute.name]!r}; make both directions of a cable alike"
                )
                raise ValueError(msg)


def check_cable_keys(graph: ClusterGraph) -> None:
    """Parallel cables have the keys 0, 1, ..."""
    for source, targets in graph.adjacency():
        for target, cables in targets.items():
            keys: set[object] = set(cables)
            if keys != set(range(len(cables))):
                msg = (
                    f"the {len(cables)} cables from {source!r} to {target!r} have the keys "
                    f"{', '.join(map(repr, cables))}; number them from 0"
                )
                raise ValueError(msg)


def check_ports(graph: ClusterGraph) -> None:
    """No switch has more cables than ports."""
    for vertex, targets in graph.adjacency():
        attributes = graph.nodes[vertex]
        if attributes["kind"] != "switch":
            continue
        cables = sum(map(len, targets.values()))
        if cables > attributes["ports"]:
            msg = (
                f"switch {vertex!r} has {attributes['ports']} ports and {cables} cables; "
                "remove cables or use a switch with more ports"
            )
            raise ValueError(msg)


def check_gpus(graph: ClusterGraph) -> None:
    """Nodes are numbered 0 .. num_nodes - 1, and each has the GPUs 0 .. gpus_per_node - 1."""
    num_nodes, gpus_per_node = graph.graph["num_nodes"], graph.graph["gpus_per_node"]
    for vertex, attributes in graph.nodes.items():
        if attributes.get("node", 0) >= num_nodes:
            msg = f"vertex {vertex!r} is in a node beyond num_nodes = {num_nodes}; nodes are numbered from 0"
            raise ValueError(msg)
        if attributes["kind"] == "gpu" and attributes["index"] >= gpus_per_node:
            msg = f"vertex {vertex!r} is beyond gpus_per_node = {gpus_per_node}; GPUs are numbered from 0"
            raise ValueError(msg)
    for node in range(num_nodes):
        for index in range(gpus_per_node):
            if f"node{node}/gpu{index}" not in graph:
                msg = (
                    f"'node{node}/gpu{index}' is missing; add it, or correct num_nodes = {num_nodes} "
                    f"and gpus_per_node = {gpus_per_node}"
                )
                raise ValueError(msg)


def check_planes(graph: ClusterGraph) -> None:
    """Planes are numbered 0 .. planes - 1 and share no switch: no cable joins two of them."""
    planes = graph.graph["planes"]
    plane_of = {vertex: data["plane"] for vertex, data in graph.nodes.items() if "plane" in data}
    for vertex, plane in plane_of.items():
        if plane >= planes:
            msg = f"vertex {vertex!r} is in plane {plane}, the graph has planes = {planes}, numbered from 0"
            raise ValueError(msg)
    for source, target, key, data in graph.edges(keys=True, data=True):
        kind = data["kind"]
        if not EDGE_KINDS[kind].within_node and plane_of[source] != plane_of[target]:
            msg = (
                f"{_edge(source, target, key)} joins planes {plane_of[source]} and {plane_of[target]}; "
                "planes share no switch: move one end"
            )
            raise ValueError(msg)


def check_nics(graph: ClusterGraph) -> None:
    """Every NIC hangs on one PCIe switch, and that switch on one GPU: the NIC's GPU is never in doubt."""
    cables_of_nic: Counter[str] = Counter()
    gpus_of_switch: Counter[str] = Counter()
    switch_of_nic: dict[str, str] = {}
    for source, target, data in graph.edges(data=True):
        kind = data["kind"]
        if kind == "pcie_nic" and graph.nodes[source]["kind"] == "nic":
            cables_of_nic[source] += 1
            switch_of_nic[source] = target
        elif kind == "pcie" and graph.nodes[target]["kind"] == "pcie_switch":
            gpus_of_switch[target] += 1
    for vertex, attributes in graph.nodes.items():
        if attributes["kind"] != "nic":
            continue
        if cables_of_nic[vertex] != 1:
            msg = f"NIC {vertex!r} has {cables_of_nic[vertex]} cables to PCIe switches; give it one"
            raise ValueError(msg)
        gpus = gpus_of_switch[switch_of_nic[vertex]]
        if gpus != 1:
            msg = (
                f"NIC {vertex!r} hangs on {switch_of_nic[vertex]!r}, which serves {gpus} GPUs; "
                "give each GPU a PCIe switch of its own"
            )
            raise ValueError(msg)


def _role(attributes: Mapping[str, Any]) -> str:
    """Return what a vertex is to a cable: its kind, or the layer of a switch."""
    return str(attributes["layer"] if attributes["kind"] == "switch" else attributes["kind"])


def _edge(source: str, target: str, key: int) -> str:
    return f"edge {source!r} -> {target!r} (key {key!r})"


def _check_attributes(owner: str, required: tuple[Attribute, ...], values: Mapping[str, Any]) -> None:
    fault = _first_fault(required, values)
    if fault:
        msg = f"{owner} {fault}"
        raise ValueError(msg)


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
            return f"has {name} {value!r}; it must be of type {attribute.type.__name__}: {attribute.meaning}"
        if attribute.least is not None and value < attribute.least:
            return f"has {name} {value!r}; it must be at least {attribute.least}: {attribute.meaning}"
        if attribute.choices and value not in attribute.choices:
            return f"has {name} {value!r}; known are {', '.join(attribute.choices)}"
    return ""
