"""What all networks of switches share: their ports, the profile of their cables, and how NICs are plugged in."""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import networkx as nx
from pydantic import Field

from simulator.units import FieldError, Spec
from topologies.cables import CableType, add_cable
from topologies.node import NodeSpec, add_node, nic_name
from topologies.schema import ClusterGraph

MAX_PORTS: Final = 1024


class SwitchedNetwork(Spec):
    """What all networks of switches may choose; a family adds its `kind` and its shape."""

    switch_ports: int = Field(default=64, ge=2, le=MAX_PORTS, description="number of ports of every switch")
    link_profile: Literal["infiniband", "roce"] = Field(
        default="infiniband",
        description="row of the cost table that gives the cables' efficiency and latency",
    )


def check_at_least_one_node(num_nodes: int) -> None:
    """Raise FieldError for a cluster of no nodes."""
    if num_nodes < 1:
        msg = f"a cluster has at least 1 node, not {num_nodes:,}"
        raise FieldError("nodes", msg)


def check_one_port(node: NodeSpec, kind: str) -> None:
    """Raise FieldError for NICs with several ports, in a network of `kind`, which has one plane."""
    if node.nic_ports > 1:
        msg = (
            f"a {kind} has one plane, and each of the {node.nic_ports} ports of a NIC joins another; write "
            "nic_ports: 1, or choose a multi-plane-fat-tree"
        )
        raise FieldError("node.nic_ports", msg)


def network_cable(kind: str, spec: SwitchedNetwork, node: NodeSpec) -> CableType:
    """Return the cable of a kind: all cables of a network run at the rate of a NIC's port."""
    return CableType(kind, spec.link_profile, node.nic_port_bytes_per_s)


def nodes_without_network(
    family: str, node: NodeSpec, num_nodes: int, plane_of_nic: Sequence[int], planes: int = 1
) -> ClusterGraph:
    """Return a graph of all the nodes, to which a builder adds its network.

    plane_of_nic: [gpus] the plane that each NIC will join, -1 for several; planes: number of planes.
    """
    graph: ClusterGraph = nx.MultiDiGraph(
        family=family, num_nodes=num_nodes, gpus_per_node=node.gpus, planes=planes
    )
    for number in range(num_nodes):
        add_node(graph, node, number, plane_of_nic)
    return graph


def all_nics(node: NodeSpec, num_nodes: int) -> list[str]:
    """Return the names of all NICs in the order of nodes, and within a node of NICs."""
    return [nic_name(number, index) for number in range(num_nodes) for index in range(node.gpus)]


def add_switches(
    graph: ClusterGraph,
    names: Iterable[str],
    layer: str,
    ports: int,
    *,
    plane: int = 0,
    rail: int = -1,
    group: int = -1,
    first_index: int = 0,
) -> None:
    """Add the switches of one layer, of one plane, rail and group, numbered on from `first_index`."""
    for index, name in enumerate(names, first_index):
        graph.add_node(
            name, kind="switch", layer=layer, plane=plane, rail=rail, group=group, index=index, ports=ports
        )


def add_endpoints(
    graph: ClusterGraph, nics: Sequence[str], switches: Sequence[str], per_switch: int, cable: CableType
) -> None:
    """Cable `nics` to leaves or routers, filling one after the other."""
    for endpoint, nic in enumerate(nics):
        add_cable(graph, nic, switches[endpoint // per_switch], cable)
