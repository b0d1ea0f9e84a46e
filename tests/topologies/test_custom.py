"""Custom networks: a file's graph in place of a builder's, and one clear message for each thing that can be wrong."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from pydantic import TypeAdapter

from simulator.units import FieldError
from topologies import NODES, CustomNetwork, NoNetwork, Topology, build_cluster
from topologies.graph_file import write_graph

H800 = NODES["h800"]
TREE = TypeAdapter(Topology).validate_python(
    {"kind": "multi-plane-fat-tree", "switch_ports": 16, "planes": 2}
)


def written(folder: Path, change: Callable[[Any], object] = lambda graph: None, name: str = "g.json") -> Any:
    """Return the spec of a file with the graph of three nodes, changed."""
    graph = build_cluster(H800, 3, TREE)
    change(graph)
    write_graph(graph, folder / name)
    return CustomNetwork(kind="custom", path=name).located(folder)


def fault(spec: Any, node: Any = H800, num_nodes: int = 3) -> FieldError:
    with pytest.raises(FieldError) as caught:
        spec.check(node, num_nodes)
    with pytest.raises(FieldError):
        spec.build(node, num_nodes)
    with pytest.raises(FieldError):
        spec.counts(node, num_nodes)
    return caught.value


@pytest.mark.parametrize("name", ["g.json", "g.graphml"])
def test_the_graph_is_the_files(tmp_path, name):
    graph, spec = build_cluster(H800, 3, TREE), written(tmp_path, name=name)
    again = build_cluster(H800, 3, spec)
    assert list(again.nodes(data=True)) == list(graph.nodes(data=True))
    assert list(again.edges(keys=True, data=True)) == list(graph.edges(keys=True, data=True))
    assert (spec.num_nodes, spec.family, spec.link_profile) == (3, "multi-plane-fat-tree", "infiniband")


def test_counts_are_the_graphs(tmp_path):
    # Two planes, each with 3 x 4 = 12 NICs: two leaves of 8 with 8 uplinks each, on one spine of 16 ports.
    counts = written(tmp_path).counts(H800, 3)
    assert (counts.endpoints, counts.switches, counts.links, counts.endpoint_links) == (24, 6, 32, 24)


def test_a_single_node_has_nothing_to_count(tmp_path):
    write_graph(build_cluster(H800, 1, NoNetwork(kind="none")), tmp_path / "g.json")
    spec = CustomNetwork(kind="custom", path="g.json").located(tmp_path)
    counts = spec.counts(H800, 1)
    assert (counts.endpoints, counts.switches, counts.links, counts.endpoint_links) == (0, 0, 0, 0)
    assert spec.link_profiles == frozenset()


def test_profiles_are_those_in_use(tmp_path):
    def roce(graph: Any) -> None:
        for *_, data in graph.edges(data=True):
            data["profile"] = "roce" if data["kind"] == "leaf_spine" else data["profile"]

    assert written(tmp_path, roce).link_profiles == {"infiniband", "roce"}


def test_a_whole_capacity_is_a_float(tmp_path):
    def whole(graph: Any) -> None:
        for *_, data in graph.edges(data=True):
            data["capacity_bytes_per_s"] = int(data["capacity_bytes_per_s"])

    graph = build_cluster(H800, 3, written(tmp_path, whole))
    assert {type(capacity) for *_, capacity in graph.edges(data="capacity_bytes_per_s")} == {float}


def test_an_edited_file_is_read_again(tmp_path):
    spec = written(tmp_path)
    assert spec.num_nodes == 3
    write_graph(build_cluster(H800, 2, TREE), tmp_path / "g.json")
    os.utime(tmp_path / "g.json", ns=(1, 1))
    assert spec.num_nodes == 2


def test_the_graph_cannot_be_changed(tmp_path):
    with pytest.raises(nx.NetworkXError, match="rozen"):
        written(tmp_path).build(H800, 3).add_node("x")


def _unknown_kind(graph: Any) -> None:
    graph.nodes["plane0/leaf0"]["kind"] = "router"


def _no_capacity(graph: Any) -> None:
    for way in (("plane0/leaf0", "plane0/spine0"), ("plane0/spine0", "plane0/leaf0")):
        del graph.edges[*way, 0]["capacity_bytes_per_s"]


def _one_way(graph: Any) -> None:
    graph.remove_edge("plane0/spine0", "plane0/leaf0", 7)


def _set(name: str, value: Any) -> Callable[[Any], object]:
    return lambda graph: graph.graph.update({name: value})


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "an unknown kind": (_unknown_kind, "vertex 'plane0/leaf0' has kind 'router'; known kinds are gpu,"),
    "a link without capacity": (_no_capacity, "has no 'capacity_bytes_per_s'; add it: datasheet capacity"),
    "one direction": (_one_way, "has no way back; add"),
    "no family": (lambda graph: graph.graph.clear(), "the graph has no 'family'; add it"),
    "too few nodes": (_set("num_nodes", 4), "'node3/gpu0' is missing"),
    "a number beyond all": (_set("num_nodes", 10**40), "the graph has num_nodes beyond any cluster"),
    "a vertex beyond all": (
        lambda graph: graph.nodes["plane0/leaf0"].update(index=10**40),
        "vertex 'plane0/leaf0' has index beyond",
    ),
    "planes beyond all": (_set("planes", 10**6), "has planes = 1000000 and 6 switches"),
    "a capacity beyond all": (
        lambda graph: graph.edges["plane0/leaf0", "plane0/spine0", 0].update(capacity_bytes_per_s=10**400),
        "has a capacity_bytes_per_s beyond any number",
    ),
    "a capacity without end": (
        lambda graph: [data.update(capacity_bytes_per_s=float("inf")) for *_, data in graph.edges(data=True)],
        "it must be finite",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_graph_outside_the_vocabulary_is_refused_with_its_file(tmp_path, case):
    change, words = CHANGES[case]
    error = fault(written(tmp_path, change))
    assert error.field == "topology.path"
    assert str(error).startswith(f"{tmp_path / 'g.json'}:")
    lines = (tmp_path / "g.json").read_text().splitlines()
    line = re.match(r":(\d+): ", str(error).removeprefix(str(tmp_path / "g.json")))
    # a fault of the graph as a whole has no line; else the vertex or the edge is named on it
    assert line is None or any(
        end in lines[int(line[1]) - 1] for end in ("plane0/leaf0", "plane0/spine0", "node0/")
    )
    assert (line is None) == words.startswith(("the graph", "has planes", "'node3"))
    assert words in str(error)


def test_nodes_and_gpus_are_the_clusters(tmp_path):
    spec = written(tmp_path)
    error = fault(spec, num_nodes=4)
    assert error.field == "nodes"
    assert str(error) == ("g.json holds num_nodes = 3, and nodes is 4; make them equal, or write nodes: auto")
    error = fault(spec, NODES["gb200-nvl72"])
    assert error.field == "node"
    assert "has gpus_per_node = 8, and the cluster's node has 72 GPUs" in str(error)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.json", "missing.json: there is no such file"),
        (".", "ends in .graphml or .json"),
        ("x" * 300 + ".json", "File name too long"),
        ("x\0.json", "no file can have such a name"),
        ("g.txt", "ends in .graphml or .json"),
        ("bad.json", "this is not JSON"),
    ],
)
def test_a_path_that_leads_to_no_graph(tmp_path, path, words):
    (tmp_path / "g.txt").write_text("")
    (tmp_path / "bad.json").write_text("{")
    error = fault(CustomNetwork(kind="custom", path=path).located(tmp_path))
    assert error.field == "topology.path"
    assert words in str(error)
