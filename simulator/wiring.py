"""How GPUs hang on the network: the ports of their NICs, their NVLink cables, and the switches behind.

Compiled from a cluster graph with arrays, since the largest have millions of cables; what belongs to one GPU is put
together when it is first asked for.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.cables import Cables, Texts
from simulator.routing import ONE_GLOBAL_CABLE, Fabric
from simulator.rows import csr_offsets
from topologies.schema import ClusterGraph

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

# Policies that cross at most one cable between two groups of a Dragonfly, or at most one on either side of a place.
_BY_GROUPS: Final = frozenset({"minimal", "valiant"})


@dataclass(frozen=True, slots=True)
class Port:
    """A GPU's way into the fabric through a port of its NIC.

    out_cables, in_cables: from the GPU to the switch, and back
    number: the port's place among all ports, counted switch by switch
    """

    switch: int
    number: int
    profile: str
    out_cables: tuple[int, ...]
    in_cables: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wiring:
    """The switches, and how each GPU reaches them and its node's NVSwitch.

    fabric: the switches and the cables between them
    nvlink: [num_endpoints, 2] the NVLink cables out of and into every GPU
    from_host: [num_endpoints, 2] the cables on the way from the host's memory: to the GPU's PCIe switch, to the GPU
    Ports are columns in order of GPU, then switch: [num_ports] each, those of GPU e from offsets[e] on.
    """

    fabric: Fabric
    nvlink: IntArray
    from_host: IntArray
    _offsets: IntArray
    _switch: IntArray
    _number: IntArray
    _out_cables: IntArray  # [num_ports, 3]: the GPU's, the NIC's to PCIe, the NIC's to the switch
    _in_cables: IntArray
    _profile: Texts
    _known: dict[int, tuple[Port, ...]] = field(default_factory=dict)

    @classmethod
    def of_graph(cls, graph: ClusterGraph, cables: Cables, policy: str) -> "Wiring":
        """Return the wiring of a graph that keeps the vocabulary of `topologies.schema`."""
        vertices = _Vertices.of_graph(graph)
        source, target = cables.source_vertex, cables.target_vertex
        endpoint = vertices.node * int(graph.graph["gpus_per_node"]) + vertices.index
        num_endpoints = int(graph.graph["num_nodes"]) * int(graph.graph["gpus_per_node"])
        back = _ways_back(source, target, cables.key)
        gpu_ports = np.flatnonzero(vertices.is_a("gpu", source) & vertices.is_a("pcie_switch", target))
        nic_ports = np.flatnonzero(vertices.is_a("pcie_switch", source) & vertices.is_a("nic", target))
        wires = np.flatnonzero(vertices.is_a("nic", source) & vertices.is_a("switch", target))
        # A NIC hangs on one PCIe switch and that on one GPU, so that the cable to each is known by its end.
        to_vertex = np.full(len(vertices.kind), -1)
        to_vertex[target[gpu_ports]] = gpu_ports
        to_vertex[target[nic_ports]] = nic_ports
        to_nic = to_vertex[source[wires]]
        to_pcie = to_vertex[source[to_nic]]
        gpu, switch = endpoint[source[to_pcie]], vertices.switch_number[target[wires]]
        number = np.empty(len(wires), np.int64)
        number[np.lexsort((wires, gpu, switch))] = np.arange(len(wires))
        order = np.lexsort((wires, switch, gpu))
        out = np.stack([to_pcie, to_nic, wires], axis=1)[order]
        nvlink = np.full((num_endpoints, 2), -1)
        leaving = np.flatnonzero((cables.kind == "nvlink") & vertices.is_a("gpu", source))
        nvlink[endpoint[source[leaving]]] = np.stack([leaving, back[leaving]], axis=1)
        from_host = np.full((num_endpoints, 2), -1)
        to_host = np.flatnonzero(vertices.is_a("pcie_switch", source) & vertices.is_a("host", target))
        above = to_vertex[source[to_host]]
        from_host[endpoint[source[above]]] = np.stack([back[to_host], back[above]], axis=1)
        return cls(
            fabric=_fabric(graph, vertices, source, target, policy),
            nvlink=nvlink,
            from_host=from_host,
            _offsets=csr_offsets(np.bincount(gpu, minlength=num_endpoints)),
            _switch=switch[order],
            _number=number[order],
            _out_cables=out,
            _in_cables=back[out],
            _profile=cables.profile[wires[order]],
        )

    def ports_of(self, endpoint: int) -> tuple[Port, ...]:
        """Return the ports of a GPU's NIC that hang on switches, in order of these."""
        if endpoint not in self._known:
            self._known[endpoint] = tuple(
                Port(
                    switch=int(self._switch[row]),
                    number=int(self._number[row]),
                    profile=str(self._profile[row]),
                    out_cables=tuple(self._out_cables[row].tolist()),
                    in_cables=tuple(self._in_cables[row].tolist()),
                )
                for row in range(int(self._offsets[endpoint]), int(self._offsets[endpoint + 1]))
            )
        return self._known[endpoint]


@dataclass(frozen=True, slots=True)
class _Vertices:
    """The vertices of a graph, in its order: arrays of shape [num_vertices].

    node, index: -1 where a vertex has none; switch_number: the place of a switch among all, else -1
    """

    kind: NDArray[np.str_]
    node: IntArray
    index: IntArray
    switch_number: IntArray

    @classmethod
    def of_graph(cls, graph: ClusterGraph) -> "_Vertices":
        data = [attributes for _, attributes in graph.nodes(data=True)]
        kind = np.array([attributes["kind"] for attributes in data], np.str_)
        is_switch = kind == "switch"
        return cls(
            kind=kind,
            node=np.array([attributes.get("node", -1) for attributes in data], np.int64),
            index=np.array([attributes.get("index", -1) for attributes in data], np.int64),
            switch_number=np.where(is_switch, np.cumsum(is_switch) - 1, -1),
        )

    def is_a(self, kind: str, vertices: IntArray) -> BoolArray:
        """Return whether each of some vertices is of a kind."""
        return np.asarray((self.kind == kind)[vertices])


def _ways_back(source: IntArray, target: IntArray, key: IntArray) -> IntArray:
    """Return the other direction of each cable: [num_cables]."""
    back = np.empty(len(source), np.int64)
    back[np.lexsort((key, target, source))] = np.lexsort((key, source, target))
    return back


def _fabric(
    graph: ClusterGraph, vertices: _Vertices, source: IntArray, target: IntArray, policy: str
) -> Fabric:
    """Return the switches and the cables between them."""
    number = vertices.switch_number
    between = np.flatnonzero((number[source] >= 0) & (number[target] >= 0))
    here, there = number[source[between]], number[target[between]]
    order = np.lexsort((between, there, here))
    pairs = list(zip(between[order].tolist(), there[order].tolist(), strict=True))
    num_switches = int(number.max(initial=-1)) + 1
    offsets = csr_offsets(np.bincount(here, minlength=num_switches)).tolist()
    cables_from = [pairs[offsets[switch] : offsets[switch + 1]] for switch in range(num_switches)]
    if graph.graph["family"] != "dragonfly" or policy not in _BY_GROUPS:
        return Fabric(cables_from)
    groups = [int(data["group"]) for _, data in graph.nodes(data=True) if data["kind"] == "switch"]
    return Fabric(cables_from, groups, ONE_GLOBAL_CABLE)
