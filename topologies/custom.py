"""A network of the user's own: the whole cluster's graph, read from a file."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import networkx as nx
from pydantic import Field, PrivateAttr

from simulator.input_error import InputError
from simulator.input_files import InputPath
from simulator.regular_file import why
from simulator.units import FieldError, Spec
from topologies.counts import NetworkCounts
from topologies.graph_check import GraphError, check_graph
from topologies.graph_file import line_in_file, read_graph
from topologies.node import NodeSpec
from topologies.schema import ClusterGraph

_MOST: Final = 2**31  # what a whole number of a file stays below: it becomes an index or a count
_NETWORK_PROFILES: Final = frozenset({"infiniband", "roce"})


class CustomNetwork(Spec):
    """A cluster's graph in a file: GraphML (.graphml) or node-link JSON (.json), in the vocabulary of docs/graph.md.

    The file holds the nodes' devices too, and its capacities stand: of the scenario's node only the GPUs' own
    properties count. Relative paths start at the folder of `located`, by default the current one.
    """

    kind: Literal["custom"] = Field(description="the cluster's graph, read from a file")
    path: InputPath = Field(
        description="GraphML (.graphml) or node-link JSON (.json) file of the whole cluster, from the scenario's "
        "folder; `railplane topology --graphml` writes such files",
    )
    _folder: Path = PrivateAttr(default_factory=Path)

    def located(self, folder: Path) -> "CustomNetwork":
        """Return the spec with the folder at which its path starts."""
        copy = self.model_copy()
        copy._folder = folder
        return copy

    def check(self, node: NodeSpec, num_nodes: int) -> None:
        """Raise FieldError, its path starting at the cluster, unless the file holds a graph of such nodes."""
        attributes = self._graph().graph
        if attributes["num_nodes"] != num_nodes:
            msg = (
                f"{self.path} holds num_nodes = {attributes['num_nodes']:,}, and nodes is {num_nodes:,}; make them "
                "equal, or write nodes: auto"
            )
            raise FieldError("nodes", msg)
        if attributes["gpus_per_node"] != node.gpus:
            msg = (
                f"{self.path} has gpus_per_node = {attributes['gpus_per_node']:,}, and the cluster's node has "
                f"{node.gpus:,} GPUs; choose a node of as many GPUs"
            )
            raise FieldError("node", msg)

    def build(self, node: NodeSpec, num_nodes: int) -> ClusterGraph:
        """Return the cluster's graph, which cannot be changed; raise FieldError like `check`."""
        self.check(node, num_nodes)
        return self._graph()

    def counts(self, node: NodeSpec, num_nodes: int) -> NetworkCounts:
        """Return the counts of the file's graph; raise FieldError like `check`."""
        self.check(node, num_nodes)
        graph = self._graph()
        kinds = [data["kind"] for data in graph.nodes.values()]
        switches = {vertex for vertex, data in graph.nodes.items() if data["kind"] == "switch"}
        between = sum(source in switches and target in switches for source, target in graph.edges())
        to_endpoints = sum(data["kind"] == "nic" for _, _, data in graph.edges(data=True))
        return NetworkCounts(
            endpoints=kinds.count("nic"),
            switches=len(switches),
            links=between // 2,
            endpoint_links=to_endpoints // 2,
        )

    @property
    def num_nodes(self) -> int:
        """Return the file's number of nodes; raise FieldError if it holds no valid graph."""
        return int(self._graph().graph["num_nodes"])

    @property
    def family(self) -> str:
        """Return the family that the file names; raise FieldError if it holds no valid graph."""
        return str(self._graph().graph["family"])

    @property
    def link_profiles(self) -> frozenset[str]:
        """Return the network's rows of the cost table; raise FieldError if the file holds no valid graph."""
        found = {data["profile"] for _, _, data in self._graph().edges(data=True)}
        return frozenset(found & _NETWORK_PROFILES)

    @property
    def link_profile(self) -> str:
        """Return the first of `link_profiles`, for those who know only one."""
        return min(self.link_profiles, default="infiniband")

    def _graph(self) -> ClusterGraph:
        """Return the checked graph; FieldError at the path, naming the file and its line, if there is none."""
        path = self._folder / self.path
        try:
            status = path.stat()
            return _read_checked(path, status.st_mtime_ns, status.st_size)
        except InputError as error:
            raise FieldError("topology.path", str(error)) from error
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            msg = f"{path}: {why(error, 'a .graphml or .json file')}"
            raise FieldError("topology.path", msg) from error


@lru_cache(maxsize=1)
def _read_checked(path: Path, _mtime_ns: int, _size: int) -> ClusterGraph:
    """Return the checked, frozen graph of a file, kept while the file is as it was; InputError if it holds none."""
    graph = read_graph(path)
    try:
        _check_sizes(graph)
        check_graph(graph)
        _check_planes(graph)
    except GraphError as error:
        line = line_in_file(path, error.at) if error.at else None
        raise InputError(str(path), line, None, str(error)) from error
    frozen: ClusterGraph = nx.freeze(graph)
    return frozen


def _check_planes(graph: ClusterGraph) -> None:
    """Raise GraphError for more planes than switches."""
    num_switches = sum(data["kind"] == "switch" for data in graph.nodes.values())
    if graph.graph["planes"] > max(num_switches, 1):
        msg = f"the graph has planes = {graph.graph['planes']} and {num_switches} switches; a plane has at least one"
        raise GraphError(msg)


def _check_sizes(graph: ClusterGraph) -> None:
    """Raise GraphError for a whole number beyond any cluster; make every capacity a float."""
    _check_size("the graph", graph.graph)
    for vertex, attributes in graph.nodes.items():
        _check_size(f"vertex {vertex!r}", attributes, vertex)
    for source, target, attributes in graph.edges(data=True):
        capacity = attributes.get("capacity_bytes_per_s")
        if isinstance(capacity, int) and not isinstance(capacity, bool):
            try:
                attributes["capacity_bytes_per_s"] = float(capacity)
            except OverflowError:
                msg = (
                    f"edge {source!r} -> {target!r} has a capacity_bytes_per_s beyond any number; correct it"
                )
                raise GraphError(msg, source, target) from None


def _check_size(owner: str, attributes: Mapping[str, Any], *at: str) -> None:
    for name, value in attributes.items():
        if isinstance(value, int) and abs(value) >= _MOST:
            msg = f"{owner} has {name} beyond any cluster; it must be below {_MOST:,}"
            raise GraphError(msg, *at)
