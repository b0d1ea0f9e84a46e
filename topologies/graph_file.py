"""Cluster graphs as files: GraphML (.graphml) and node-link JSON (.json), out and back unchanged.

A file is data: GraphML may declare no document type and so no entities, nothing in a file is run or fetched, and its
size is bounded before it is read into memory. What the graph must hold is `topologies.schema`'s; here it is only
brought into the form that the schema judges. A graph that says it is undirected, or that has no parallel edges, is
taken as one whose edges are whole cables: each becomes both directions, with keys from 0.
"""

import io
import json
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import ParseError

import networkx as nx

from simulator.durable import write_file
from simulator.input_error import FieldPath, InputError
from simulator.json_places import JsonFile, parse_json
from simulator.regular_file import read_regular, why
from topologies.graphml_check import GraphmlError, check_graphml, line_of
from topologies.schema import ClusterGraph

SUFFIXES: Final = (".graphml", ".json")
# A GraphML file of 196,608 edges (16,384 GPUs) takes 12 s and 1 GB to read (measured; networkx keeps all of its
# XML), one of this many some 30 s and 2.5 GB. Chosen.
MAX_EDGES: Final = 500_000
MAX_FILE_BYTES: Final = 2**28

_MAX_ELEMENTS: Final = 6 * MAX_EDGES  # an edge and its three attributes, and the devices
_NO_XML_TEXT: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What networkx raises for files that are XML but no GraphML: it looks up and converts without asking.
_NOT_GRAPHML: Final = (nx.NetworkXException, ParseError, ValueError, KeyError, TypeError, AttributeError)


def write_graph(graph: ClusterGraph, path: Path) -> None:
    """Write a cluster's graph; the suffix of `path` chooses the format.

    Raises ValueError for another suffix, for more than MAX_EDGES edges, or for names that XML cannot hold, and
    OSError if the file cannot be written; what was there is there still.
    """
    suffix = _suffix(path)
    if graph.number_of_edges() > MAX_EDGES:
        msg = (
            f"the graph has {graph.number_of_edges():,} edges (both directions of each cable), and a graph file at "
            f"most {MAX_EDGES:,}; write a cluster of fewer nodes"
        )
        raise ValueError(msg)
    write_file(path, _json_bytes(graph) if suffix == ".json" else _graphml_bytes(graph))


def read_graph(path: Path) -> ClusterGraph:
    """Return the graph of a file, not yet checked by `topologies.graph_check.check_graph`.

    Raises InputError, naming the file, and its line where there is one, if it holds no graph of that format.
    """
    name = str(path)
    try:
        suffix = _suffix(path)
        raw = read_regular(path, MAX_FILE_BYTES)
        graph = _from_json(raw, name) if suffix == ".json" else _from_graphml(raw)
        if graph.number_of_edges() > MAX_EDGES:
            raise _too_many_edges(graph.number_of_edges())
    except GraphmlError as error:
        raise InputError(name, error.line, None, str(error)) from error
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(name, None, None, why(error, "a .graphml or .json file")) from error
    return graph


def line_in_file(path: Path, at: tuple[str, ...]) -> int | None:
    """Return the line on which a file lists a vertex, or an edge given by its ends, of the graph that it holds."""
    raw = read_regular(path, MAX_FILE_BYTES)
    if _suffix(path) != ".json":
        return line_of(raw, at)
    read = parse_json(raw, str(path))
    names, entries = (("id",), "nodes") if len(at) == 1 else (("source", "target"), _edges_name(read.data))
    for number, entry in enumerate(read.data[entries]):
        if tuple(entry[name] for name in names) in {at, at[::-1]}:
            return read.line_of((entries, number))
    return None


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        msg = f"a graph file ends in {' or '.join(SUFFIXES)}, which {path.name!r} does not"
        raise ValueError(msg)
    return suffix


def _too_many_edges(count: int) -> ValueError:
    return ValueError(f"the graph has {count:,} edges, and a graph file at most {MAX_EDGES:,}")


# GraphML


def _graphml_bytes(graph: ClusterGraph) -> bytes:
    for vertex in graph:
        if _NO_XML_TEXT.search(vertex):
            msg = f"vertex {vertex!r} has a character that XML cannot hold; write the graph as .json"
            raise ValueError(msg)
    stream = io.BytesIO()
    nx.write_graphml_xml(graph, stream)
    return stream.getvalue()


def _from_graphml(raw: bytes) -> ClusterGraph:
    check_graphml(raw, _MAX_ELEMENTS)
    try:
        with warnings.catch_warnings():
            # of keys without a type, which are text: the schema asks for types
            warnings.simplefilter("ignore")
            graph = nx.read_graphml(io.BytesIO(raw), node_type=str, edge_key_type=int, force_multigraph=True)
    except (StopIteration, *_NOT_GRAPHML) as error:
        said = f": {error}" if isinstance(error, nx.NetworkXException) else ""
        msg = f"this is not GraphML as http://graphml.graphdrawing.org describes it{said}"
        raise ValueError(msg) from error
    _apply_defaults(graph)
    return _as_cluster_graph(graph)


def _apply_defaults(graph: Any) -> None:
    """Write out the values that the file's keys give to vertices and edges which have none of their own."""
    of_vertices, of_edges = graph.graph.pop("node_default", {}), graph.graph.pop("edge_default", {})
    for attributes in graph.nodes.values():
        attributes.update(of_vertices | attributes)
    for _, _, attributes in graph.edges(data=True):
        attributes.update(of_edges | attributes)


# Node-link JSON


def _json_bytes(graph: ClusterGraph) -> bytes:
    """Return what networkx's `node_link_data` makes of the graph, an entry a line."""
    nodes = [{**attributes, "id": vertex} for vertex, attributes in graph.nodes.items()]
    edges = [
        {**attributes, "source": source, "target": target, "key": key}
        for source, target, key, attributes in graph.edges(keys=True, data=True)
    ]
    head = f'{{"directed": true, "multigraph": true, "graph": {json.dumps(graph.graph)}'
    lists = (
        f',\n"{name}": [\n' + ",\n".join(map(json.dumps, entries)) + "\n]"
        for name, entries in (("nodes", nodes), ("edges", edges))
    )
    return f"{head}{''.join(lists)}}}\n".encode()


def _from_json(raw: bytes, name: str) -> ClusterGraph:
    read = parse_json(raw, name)
    data = read.data
    is_whole = isinstance(data, dict) and isinstance(data.get("nodes"), list)
    if not (
        is_whole and isinstance(data.get(_edges_name(data)), list) and isinstance(data.get("graph", {}), dict)
    ):
        raise InputError(name, None, None, f"this is no node-link JSON: {_EXPECTED_JSON}")
    if len(data[_edges_name(data)]) > MAX_EDGES:
        raise _too_many_edges(len(data[_edges_name(data)]))
    directed = data.get("directed", False)
    if not isinstance(directed, bool):
        raise read.error(("directed",), "expected true or false")
    graph: Any = nx.MultiDiGraph() if directed else nx.MultiGraph()
    graph.graph.update(data.get("graph", {}))
    _add_vertices(graph, read)
    _add_edges(graph, read)
    return _as_cluster_graph(graph)


def _edges_name(data: dict[str, Any]) -> str:
    """Return what a file calls its edges; `links` is networkx's older name."""
    return "links" if "links" in data and "edges" not in data else "edges"


def _add_vertices(graph: Any, read: JsonFile) -> None:
    """Add the vertices of node-link JSON; raise InputError for one without an id, or with another's."""
    for number, node in enumerate(read.data["nodes"]):
        vertex = _id_in(read, node, ("nodes", number), "id")
        if vertex in graph:
            message = f"vertex {vertex!r} is listed more than once, the second time as node {number}"
            raise read.error(("nodes", number), message)
        graph.add_nodes_from([(vertex, _without(node, "id"))])


def _add_edges(graph: Any, read: JsonFile) -> None:
    """Add the edges of node-link JSON; raise InputError for ends that are no vertices, or an edge listed twice."""
    name = _edges_name(read.data)
    for number, edge in enumerate(read.data[name]):
        path = (name, number)
        source, target = (_id_in(read, edge, path, end) for end in ("source", "target"))
        for vertex in (source, target):
            if vertex not in graph:
                message = (
                    f"edge {number} joins {vertex!r}, which is no node; add it to nodes, or correct the edge"
                )
                raise read.error(path, message)
        key = edge.get("key")
        if isinstance(key, int) and graph.has_edge(source, target, key):
            message = f"edge {number}, {source!r} to {target!r} with key {key}, is listed more than once"
            raise read.error(path, message)
        number_of_cable = key if isinstance(key, int) else None
        graph.add_edges_from([(source, target, number_of_cable, _without(edge, "source", "target", "key"))])


_EXPECTED_JSON: Final = (
    'write {"directed": true, "multigraph": true, "graph": {...}, "nodes": [{"id": ..., ...}, ...], '
    '"edges": [{"source": ..., "target": ..., "key": 0, ...}, ...]}'
)


def _id_in(read: JsonFile, entry: object, path: FieldPath, name: str) -> str:
    """Return the id that the entry of the file at a path gives under `name`."""
    if not isinstance(entry, dict) or not isinstance(entry.get(name), str):
        raise read.error((*path, name), f"give {name!r} here, the id of a vertex, as text")
    return str(entry[name])


def _without(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in names}


# Both


def _as_cluster_graph(graph: Any) -> ClusterGraph:
    """Return the graph with both directions of each cable; edges without whole-numbered keys get some from 0."""
    numbered = all(isinstance(key, int) for _, _, key in graph.edges(keys=True))
    if graph.is_directed() and numbered:
        ready: ClusterGraph = graph
        return ready
    whole: Any = nx.MultiDiGraph()
    whole.graph.update(graph.graph)
    whole.add_nodes_from(graph.nodes(data=True))
    parallel: Counter[tuple[str, str]] = Counter()
    for source, target, attributes in graph.edges(data=True):
        ways = [(source, target)] if graph.is_directed() else [(source, target), (target, source)]
        for way in ways:
            # Not by keyword: an attribute of the file may have the name of one of networkx's own arguments.
            whole.add_edges_from([(*way, parallel[way], dict(attributes))])
            parallel[way] += 1
    cables: ClusterGraph = whole
    return cables
