"""The graph vocabulary: which vertices and cables a cluster graph may hold, written as data.

A cluster is a `networkx.MultiDiGraph`. A cable is two directed edges, one each way, with the same key; parallel
cables have the keys 0, 1, ... Vertices of a node are named after it (`node3/gpu5`); switches may have any name.
`topologies.graph_check` holds graphs to it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

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
    """A kind of cable and the pairs of devices it may join: kinds of vertices, and for switches their layer."""

    meaning: str
    joins: tuple[tuple[str, str], ...]
    within_node: bool


_NODE: Final = Attribute("node", int, "number of the node, from 0", least=0)
_GPU_INDEX: Final = Attribute("index", int, "index within the node, that of the GPU it serves", least=0)
_PLANE: Final = Attribute("plane", int, "number of the plane, from 0", least=0)
_NIC_PLANE: Final = Attribute(
    "plane", int, "number of the plane, from 0; -1 of a NIC with ports in several planes", least=-1
)

VERTEX_KINDS: Final[dict[str, VertexKind]] = {
    "gpu": VertexKind("a GPU", (_NODE, _GPU_INDEX), "node{node}/gpu{index}"),
    "nvswitch": VertexKind("the NVSwitches of a node, as one", (_NODE,), "node{node}/nvswitch"),
    "pcie_switch": VertexKind("the PCIe switch of a GPU", (_NODE, _GPU_INDEX), "node{node}/pcie{index}"),
    "host": VertexKind("the CPUs of a node and their memory, as one", (_NODE,), "node{node}/host"),
    "nic": VertexKind("a network card", (_NODE, _GPU_INDEX, _NIC_PLANE), "node{node}/nic{index}"),
    "switch": VertexKind(
        "a network switch",
        (
            Attribute(
                "layer",
                str,
                "layer of the network; a router holds endpoints and joins others like it",
                choices=("leaf", "spine", "core", "router"),
            ),
            _PLANE,
            Attribute("rail", int, "number of the rail of a multi-rail leaf, else -1", least=-1),
            Attribute(
                "group",
                int,
                "number of the group of a router, or of the pod of a three-layer tree's leaf or spine, else -1",
                least=-1,
            ),
            Attribute("index", int, "number within its layer, its plane and its rail", least=0),
            Attribute("ports", int, "number of ports: cables that can be plugged in", least=1),
        ),
    ),
}

EDGE_KINDS: Final[dict[str, EdgeKind]] = {
    "nvlink": EdgeKind("a GPU's NVLink port", (("gpu", "nvswitch"),), within_node=True),
    "pcie": EdgeKind("a GPU's PCIe port", (("gpu", "pcie_switch"),), within_node=True),
    "pcie_nic": EdgeKind("a NIC's PCIe port", (("pcie_switch", "nic"),), within_node=True),
    "pcie_host": EdgeKind("a PCIe switch's way to the host", (("pcie_switch", "host"),), within_node=True),
    "nic": EdgeKind(
        "a network cable of a NIC, one for each of its ports",
        (("nic", "leaf"), ("nic", "router")),
        within_node=False,
    ),
    "leaf_spine": EdgeKind("a cable between a leaf and a spine", (("leaf", "spine"),), within_node=False),
    "spine_core": EdgeKind("a cable between a spine and a core", (("spine", "core"),), within_node=False),
    "router_local": EdgeKind(
        "a cable between two routers of a group", (("router", "router"),), within_node=False
    ),
    "router_global": EdgeKind(
        "a cable between routers of two groups", (("router", "router"),), within_node=False
    ),
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
