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
from xml.parsers import expat

import networkx as nx

from topologies.schema import ClusterGraph

SUFFIXES: Final = (".graphml", ".json")
# A GraphML file of 196,608 edges (16,384 GPUs) takes 12 s and 1 GB to read (measured; networkx keeps all of its
# XML), one of this many some 30 s and 2.5 GB. Chosen.
MAX_EDGES: Final = 500_000
MAX_FILE_BYTES: Final = 2**28

_MAX_ELEMENTS: Final = 6 * MAX_EDGES  # an edge and its three attributes, and the devices
_MAX_DEPTH: Final = 32
_NO_XML_TEXT: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What networkx raises for files that are XML but no GraphML: it looks up and converts without asking.
_NOT_GRAPHML: Final = (nx.NetworkXException, ParseError, ValueError, KeyError, TypeError, AttributeError)


def write_graph(graph: ClusterGraph, path: Path) -> None:
    """Write a cluster's graph; the suffix of `path` chooses the format.

    Raises ValueError for another suffix, for more than MAX_EDGES edges, or for names that XML cannot hold, and
    OSError if the file cannot be written.
    """
    suffix = _suffix(path)
    if graph.number_of_edges() > MAX_EDGES:
        msg = (
            f"the graph has {graph.number_of_edges():,} edges (both directions of each cable), and a graph file at "
            f"most {MAX_EDGES:,}; write a cluster of fewer nodes"
        )
        raise ValueError(msg)
    path.write_bytes(_json_bytes(graph) if suffix == ".json" else _graphml_bytes(graph))


def read_graph(path: Path) -> ClusterGraph:
    """Return the graph of a file, not yet checked by `topologies.graph_check.check_graph`.

    Raises ValueError, naming what is wrong, if it is no graph of that format, and OSError if it cannot be read.
    """
    suffix = _suffix(path)
    with path.open("rb") as stream:
        raw = stream.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        msg = f"the file is larger than {MAX_FILE_BYTES:,} bytes, more than a graph file may have"
        raise ValueError(msg)
    graph = _from_json(raw) if suffix == ".json" else _from_graphml(raw)
    if graph.number_of_edges() > MAX_EDGES:
        raise _too_many_edges(graph.number_of_edges())
    return graph


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
    _check_xml(raw)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of keys without a type, which are text: the schema asks for types
            graph = nx.read_graphml(io.BytesIO(raw), node_type=str, edge_key_type=int, force_multigraph=True)
    except StopIteration:
        graph = None
    except _NOT_GRAPHML as error:
        msg = f"this is not GraphML: {str(error) or type(error).__name__}"
        raise ValueError(msg) from error
    if graph is None:
        msg = "this is not GraphML: it holds no <graph>"
        raise ValueError(msg)
    _apply_defaults(graph)
    return _as_cluster_graph(graph)


def _apply_defaults(graph: Any) -> None:
    """Write out the values that the file's keys give to vertices and edges which have none of their own."""
    of_vertices, of_edges = graph.graph.pop("node_default", {}), graph.graph.pop("edge_default", {})
    for attributes in graph.nodes.values():
        attributes.update(of_vertices | attributes)
    for _, _, attributes in graph.edges(data=True):
        attributes.update(of_edges | attributes)


def _check_xml(raw: bytes) -> None:
    """Raise ValueError unless `raw` is XML without a document type, of bounded size and depth."""
    count = depth = 0

    def refuse_doctype(*_: object) -> None:
        msg = "the file declares a document type (<!DOCTYPE ...>), which a graph file may not; remove it"
        raise ValueError(msg)

    def start(*_: object) -> None:
        nonlocal count, depth
        count, depth = count + 1, depth + 1
        if count > _MAX_ELEMENTS or depth > _MAX_DEPTH:
            msg = f"the file has more than {_MAX_ELEMENTS:,} elements, or more than {_MAX_DEPTH} within each other"
            raise ValueError(msg)

    def end(*_: object) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse_doctype
    parser.EntityDeclHandler = refuse_doctype
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    try:
        parser.Parse(raw, True)
    except (expat.ExpatError, LookupError) as error:  # LookupError: an encoding that there is none of
        msg = f"this is not XML: {error}"
        raise ValueError(msg) from error


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


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a mapping; raise ValueError for a key that stands in it twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        msg = f"the key {key!r} stands twice in one object; keep one"
        raise ValueError(msg)
    return found


def _from_json(raw: bytes) -> ClusterGraph:
    try:
        data = json.loads(raw, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, not UTF-8, or a number without end
        msg = f"this is not JSON: {error}"
        raise ValueError(msg) from error
    if not isinstance(data, dict):
        msg = f"this is no node-link JSON: {_EXPECTED_JSON}"
        raise ValueError(msg)
    nodes, edges = data.get("nodes"), data.get("edges", data.get("links"))
    attributes = data.get("graph", {})
    if not (isinstance(nodes, list) and isinstance(edges, list) and isinstance(attributes, dict)):
        msg = f"this is no node-link JSON: {_EXPECTED_JSON}"
        raise ValueError(msg)
    if len(edges) > MAX_EDGES:
        raise _too_many_edges(len(edges))
    directed = data.get("directed", False) is True
    graph: Any = nx.MultiDiGraph() if directed else nx.MultiGraph()
    graph.graph.update(attributes)
    _add_vertices(graph, nodes)
    _add_edges(graph, edges)
    return _as_cluster_graph(graph)


def _add_vertices(graph: Any, nodes: list[Any]) -> None:
    """Add the vertices of node-link JSON; raise ValueError for one without an id, or with another's."""
    for number, node in enumerate(nodes):
        vertex = _id_in(node, "id", f"node {number}")
        if vertex in graph:
            msg = f"vertex {vertex!r} is listed more than once, the second time as node {number}"
            raise ValueError(msg)
        graph.add_nodes_from([(vertex, _without(node, "id"))])


def _add_edges(graph: Any, edges: list[Any]) -> None:
    """Add the edges of node-link JSON; raise ValueError for ends that are no vertices, or an edge listed twice."""
    for number, edge in enumerate(edges):
        source, target = (_id_in(edge, end, f"edge {number}") for end in ("source", "target"))
        for vertex in (source, target):
            if vertex not in graph:
                msg = (
                    f"edge {number} joins {vertex!r}, which is no node; add it to nodes, or correct the edge"
                )
                raise ValueError(msg)
        key = edge.get("key")
        if isinstance(key, int) and graph.has_edge(source, target, key):
            msg = f"edge {number}, {source!r} to {target!r} with key {key}, is listed more than once"
            raise ValueError(msg)
        graph.add_edges_from(
            [
                (
                    source,
                    target,
                    key if isinstance(key, int) else None,
                    _without(edge, "source", "target", "key"),
                )
            ]
        )


_EXPECTED_JSON: Final = (
    'write {"directed": true, "multigraph": true, "graph": {...}, "nodes": [{"id": ..., ...}, ...], '
    '"edges": [{"source": ..., "target": ..., "key": 0, ...}, ...]}'
)


def _id_in(entry: object, name: str, owner: str) -> str:
    """Return the id that an entry of the file gives under `name`."""
    if not isinstance(entry, dict) or not isinstance(entry.get(name), str):
        msg = f"{owner} has no {name!r}; give it the id of a vertex, as text"
        raise ValueError(msg)
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
