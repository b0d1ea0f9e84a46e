"""Graph files: what is written is read back, and what is no graph file is refused before it can do harm."""

import json
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from support.properties import tried_on
from topologies import NODES, Topology, build_cluster, check_graph, graph_file
from topologies.graph_file import SUFFIXES, line_in_file, read_graph, write_graph

SPECS: list[tuple[int, dict[str, Any]]] = [
    (1, {"kind": "none"}),
    (3, {"kind": "multi-plane-fat-tree", "switch_ports": 16, "planes": 2}),  # with parallel cables
    (5, {"kind": "multi-rail-fat-tree", "switch_ports": 16, "endpoints_per_leaf": 4, "link_profile": "roce"}),
    (9, {"kind": "three-layer-fat-tree", "switch_ports": 8}),
    (7, {"kind": "slim-fly", "q": 4}),
    (4, {"kind": "dragonfly", "switch_ports": 8}),  # with parallel cables between groups
]


def cluster(nodes: int, spec: dict[str, Any]) -> Any:
    return build_cluster(NODES["h800"], nodes, TypeAdapter(Topology).validate_python(spec))


def same(one: Any, other: Any) -> bool:
    """Return whether two graphs are equal in everything, types of values and order included."""

    def parts(graph: Any) -> str:
        return repr(
            (
                sorted(graph.graph.items()),
                [(vertex, sorted(data.items())) for vertex, data in graph.nodes(data=True)],
                [(*edge[:3], sorted(edge[3].items())) for edge in graph.edges(keys=True, data=True)],
            )
        )

    return type(one) is type(other) and parts(one) == parts(other)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("nodes", "spec"), SPECS, ids=str)
def test_what_is_written_is_read_back(tmp_path, nodes, spec, suffix):
    graph = cluster(nodes, spec)
    write_graph(graph, tmp_path / f"g{suffix}")
    again = read_graph(tmp_path / f"g{suffix}")
    check_graph(again)
    assert same(again, graph)
    # and the same graph is the same bytes
    before = (tmp_path / f"g{suffix}").read_bytes()
    write_graph(again, tmp_path / f"g{suffix}")
    assert (tmp_path / f"g{suffix}").read_bytes() == before


def test_nics_with_several_ports_come_back(tmp_path):
    # Such a NIC is in plane -1, and has a cable to a leaf of each plane.
    spec = TypeAdapter(Topology).validate_python({"kind": "multi-plane-fat-tree", "planes": 4})
    graph = build_cluster(NODES["h800"].model_copy(update={"nic_ports": 4}), 2, spec)
    write_graph(graph, tmp_path / "g.graphml")
    again = read_graph(tmp_path / "g.graphml")
    check_graph(again)
    assert again.nodes["node1/nic7"]["plane"] == -1
    assert same(again, graph)


@tried_on(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    capacity=st.floats(min_value=5e-324, allow_nan=False, allow_infinity=False),
    name=st.text(
        st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12
    ),  # no surrogates and no control characters
    suffix=st.sampled_from(SUFFIXES),
)
@example(capacity=0.1 + 0.2, name="a < b & \"c\" 'd'", suffix=".graphml")
def test_any_capacity_and_name_comes_back_exactly(tmp_path, capacity, name, suffix):
    graph: Any = nx.MultiDiGraph(family=name, num_nodes=1)
    graph.add_edge(name, "b", 0, capacity_bytes_per_s=capacity)
    write_graph(graph, tmp_path / f"g{suffix}")
    again = read_graph(tmp_path / f"g{suffix}")
    if name.strip() == name and "\ufffe" not in name and "\uffff" not in name:
        assert same(again, graph)


def test_networkx_reads_our_json(tmp_path):
    graph = cluster(*SPECS[1])
    write_graph(graph, tmp_path / "g.json")
    data = json.loads((tmp_path / "g.json").read_text())
    # `edges` is what networkx 3.6 calls it by default; earlier versions ask for it by other names.
    assert data["edges"] == nx.node_link_data(graph)["edges"]
    assert data["nodes"] == nx.node_link_data(graph)["nodes"]
    assert same(nx.node_link_graph(data), graph)


def test_an_undirected_file_holds_whole_cables(tmp_path):
    (tmp_path / "g.json").write_text(
        json.dumps(
            {
                "directed": False,
                "graph": {},
                "nodes": [{"id": "a"}, {"id": "b"}],
                "links": [{"source": "a", "target": "b", "kind": "x"}] * 2,
            }
        )
    )
    graph = read_graph(tmp_path / "g.json")
    assert sorted(graph.edges(keys=True)) == [("a", "b", 0), ("a", "b", 1), ("b", "a", 0), ("b", "a", 1)]
    assert {kind for _, _, kind in graph.edges(data="kind")} == {"x"}


GRAPHML = """\
<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key id="k" for="node" attr.name="kind" attr.type="string"><default>switch</default></key>
  <key id="p" for="node" attr.name="ports" attr.type="int"/>
  <graph edgedefault="directed">
    <node id="a"><data key="p">64</data></node>
    <node id="b"><data key="k">nic</data></node>
    <edge id="e1" source="a" target="b"/>
    <edge id="e2" source="b" target="a"/>
    <edge id="e3" source="a" target="b"/>
  </graph>
</graphml>
"""


def test_graphml_of_other_tools(tmp_path):
    # Defaults of keys hold where an element has no value of its own; ids of edges that are names are no keys.
    (tmp_path / "g.graphml").write_text(GRAPHML)
    graph = read_graph(tmp_path / "g.graphml")
    assert dict(graph.nodes(data=True)) == {"a": {"kind": "switch", "ports": 64}, "b": {"kind": "nic"}}
    assert sorted(graph.edges(keys=True)) == [("a", "b", 0), ("a", "b", 1), ("b", "a", 0)]
    assert graph.graph == {}


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<graphml>&b;</graphml>"
)
OUTSIDE = '<!DOCTYPE x SYSTEM "file:///etc/passwd"><graphml/>'
WRONG: dict[str, tuple[str, bytes, str]] = {
    "entities": ("g.graphml", BOMB.encode(), "1: a document type is declared here"),
    "entities in UTF-16": ("g.graphml", BOMB.encode("utf-16"), "1: a document type is declared here"),
    "a file of others": ("g.graphml", OUTSIDE.encode(), "1: a document type is declared here"),
    "an unknown encoding": (
        "g.graphml",
        b'<?xml version="1.0" encoding="UTF-99"?><a/>',
        "unknown encoding: UTF-99",
    ),
    "no XML": ("g.graphml", b"name: x", "g.graphml:1: this is not XML: syntax error"),
    "nothing": ("g.graphml", b"", "this is not XML"),
    "other XML": ("g.graphml", b"<svg/>", "this is not GraphML"),
    "no graph": ("g.graphml", b'<graphml xmlns="http://graphml.graphdrawing.org/xmlns"/>', "not GraphML"),
    "a number that is none": (
        "g.graphml",
        GRAPHML.replace(">64<", ">many<").encode(),
        "6: the value 'many' is not a whole number",
    ),
    "an unknown type": (
        "g.graphml",
        GRAPHML.replace('type="int"', 'type="bytes"').encode(),
        "4: unknown attr.type",
    ),
    "an unknown key": (
        "g.graphml",
        GRAPHML.replace('data key="p"', 'data key="q"').encode(),
        "6: this value has the key 'q', which no <key>",
    ),
    "elements within elements": (
        "g.graphml",
        b"<a>\n" * 99 + b"</a>" * 99,
        "33: more than 3,000,000 elements, or 32",
    ),
    "no JSON": ("g.json", b"{", "this is not JSON"),
    "JSON without end": ("g.json", b"[" * 200_000, "nested too deeply"),
    "a list": ("g.json", b"[]", "no node-link JSON: write"),
    "no edges": ("g.json", b'{"nodes": []}', "no node-link JSON: write"),
    "no text as id": (
        "g.json",
        b'{"nodes": [{"id": 3}], "edges": []}',
        "g.json:1: nodes.0.id: give 'id' here",
    ),
    "a list as node": ("g.json", b'{"nodes": [[]], "edges": []}', "g.json:1: nodes.0.id: give 'id' here"),
    "an edge to nowhere": (
        "g.json",
        b'{"nodes": [{"id": "a"}],\n "edges": [\n{"source": "a", "target": "b"}]}',
        "g.json:3: edges.0: edge 0 joins 'b', which is no node",
    ),
    "a vertex twice": (
        "g.json",
        b'{"nodes": [{"id": "a"}, {"id": "a"}], "edges": []}',
        "vertex 'a' is listed more than once, the second time as node 1",
    ),
    "a node twice": (
        "g.graphml",
        GRAPHML.replace('id="b"', 'id="a"').encode(),
        "7: the node 'a' is listed more",
    ),
    "a node without an id": (
        "g.graphml",
        GRAPHML.replace('node id="b"', "node").encode(),
        "7: this node has no 'id'",
    ),
    "an edge without an end": (
        "g.graphml",
        GRAPHML.replace(' target="a"', "").encode(),
        "9: this edge has no 'target'",
    ),
    "an edge to no node": (
        "g.graphml",
        GRAPHML.replace('e2" source="b"', 'e2" source="c"').encode(),
        "9: this edge joins 'c', which is no node",
    ),
    "a value twice": (
        "g.graphml",
        GRAPHML.replace("64</data>", '64</data><data key="p">8</data>').encode(),
        "6: the value of the key 'p' is given twice",
    ),
    "a key declared twice": (
        "g.graphml",
        GRAPHML.replace('id="p"', 'id="k"').encode(),
        "4: the key 'k' is declared twice",
    ),
    "a key without a name": (
        "g.graphml",
        GRAPHML.replace('attr.name="ports"', "").encode(),
        "4: this <key> needs an 'id'",
    ),
    "two graphs": (
        "g.graphml",
        GRAPHML.replace("</graph>", "</graph>\n<graph/>").encode(),
        "12: a second <graph> starts here",
    ),
    "a hyperedge": (
        "g.graphml",
        GRAPHML.replace("</graph>", "<hyperedge/></graph>").encode(),
        "11: a <hyperedge> stands",
    ),
    "an edge twice": (
        "g.json",
        b'{"directed": true, "nodes": [{"id": "a"}, {"id": "b"}], "edges": ['
        b'{"source": "a", "target": "b", "key": 0}, {"source": "a", "target": "b", "key": 0}]}',
        "edge 1, 'a' to 'b' with key 0, is listed more than once",
    ),
    "a key twice": (
        "g.json",
        b'{"nodes": [], "nodes": [], "edges": []}',
        "g.json:1: nodes: this key stands twice",
    ),
    "another suffix": ("g.yaml", b"", "ends in .graphml or .json, which 'g.yaml' does not"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_graph_file_is_refused(tmp_path, case):
    name, content, words = WRONG[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_graph(tmp_path / name)
    assert words in str(caught.value)


def test_names_of_arguments_are_attributes_like_any_other(tmp_path):
    names = ("node_for_adding", "u_for_edge", "v_for_edge", "incoming_graph_data", "key", "attr")
    entry = dict.fromkeys(names, 1)
    data = {
        "graph": entry,
        "nodes": [{**entry, "id": "a"}, {**entry, "id": "b"}],
        "edges": [{**entry, "source": "a", "target": "b", "key": "x"}],
    }
    (tmp_path / "g.json").write_text(json.dumps(data))
    graph = read_graph(tmp_path / "g.json")
    assert graph.nodes["a"] == graph.graph == entry


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_and_graphs_are_bounded(tmp_path, monkeypatch, suffix):
    graph = cluster(*SPECS[1])
    path = tmp_path / f"g{suffix}"
    write_graph(graph, path)
    monkeypatch.setattr(graph_file, "MAX_EDGES", graph.number_of_edges())
    assert read_graph(path).number_of_edges() == graph.number_of_edges()
    monkeypatch.setattr(graph_file, "MAX_EDGES", graph.number_of_edges() - 1)
    with pytest.raises(ValueError, match="edges"):
        read_graph(path)
    with pytest.raises(ValueError, match="write a cluster of fewer nodes"):
        write_graph(graph, path)
    monkeypatch.setattr(graph_file, "MAX_FILE_BYTES", path.stat().st_size - 1)
    with pytest.raises(ValueError, match="larger than"):
        read_graph(path)


def test_elements_are_bounded(tmp_path, monkeypatch):
    (tmp_path / "g.graphml").write_text(GRAPHML)
    monkeypatch.setattr(graph_file, "_MAX_ELEMENTS", 11)  # the file has 12
    with pytest.raises(ValueError, match="10: more than 11 elements"):
        read_graph(tmp_path / "g.graphml")


def test_names_that_xml_cannot_hold_are_refused(tmp_path):
    graph: Any = nx.MultiDiGraph()
    graph.add_node("a\x01b")
    with pytest.raises(ValueError, match=r"write the graph as \.json"):
        write_graph(graph, tmp_path / "g.graphml")
    write_graph(graph, tmp_path / "g.json")
    assert list(read_graph(tmp_path / "g.json")) == ["a\x01b"]


@given(
    position=st.integers(0, 900),
    inserted=st.sampled_from(
        ["<", ">", "&", '"', "\x00", "<graph/>", "<!--", "é", "9" * 400, "<hyperedge/>", "\uff11"]
    ),
    deleted=st.integers(0, 12),
)
@tried_on(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, position, inserted, deleted):
    text = GRAPHML[:position] + inserted + GRAPHML[position + deleted :]
    (tmp_path / "g.graphml").write_text(text)
    try:
        graph = read_graph(tmp_path / "g.graphml")
    except ValueError:
        return  # and nothing else
    assert isinstance(graph, nx.MultiDiGraph)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_vertices_and_edges_have_lines(tmp_path, suffix):
    graph = cluster(*SPECS[1])
    path = tmp_path / f"g{suffix}"
    write_graph(graph, path)
    lines = path.read_text().splitlines()
    vertex = "node1/nic1"
    found = lines[line_in_file(path, (vertex,)) - 1]
    assert f'id="{vertex}"' in found or f'"id": "{vertex}"' in found
    source, target = next((source, target) for source, target in graph.edges() if source == vertex)
    for ends in ((source, target), (target, source)):
        found = lines[line_in_file(path, ends) - 1]
        assert source in found
        assert target in found
    assert line_in_file(path, ("nowhere",)) is None
