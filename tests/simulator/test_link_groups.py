"""Layers, planes and rails are told by a result's links alone, and loads add up to the bytes that moved."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from simulator.cables import Cables, LinkCosts
from simulator.link_groups import LinkGroups, layer_names, loads_over_time, place_of, rails, switch_layers
from topologies import NODES, ClusterGraph, Topology, build_cluster

TWO_LAYERS = {"kind": "two-layer-fat-tree", "switch_ports": 16}
PLANES = {"kind": "multi-plane-fat-tree"}
THREE_LAYERS = {"kind": "three-layer-fat-tree", "switch_ports": 8}
RAILS = {"kind": "multi-rail-fat-tree", "switch_ports": 16, "endpoints_per_leaf": 4}
ROUTERS = {"kind": "dragonfly", "endpoints_per_router": 2, "routers_per_group": 4, "global_ports": 2}


def links_of(topology: dict[str, Any], num_nodes: int) -> tuple[pd.DataFrame, ClusterGraph]:
    """Return the links of a cluster as results have them, without their bytes, and its graph."""
    graph = build_cluster(NODES["h800"], num_nodes, TypeAdapter(Topology).validate_python(topology))
    profiles = {data["profile"] for _, _, data in graph.edges(data=True)}
    cables = Cables.of_graph(graph, dict.fromkeys(profiles, LinkCosts(1.0, 0.0, 0.0)))
    columns = ("kind", "source", "target", "key", "plane", "node", "capacity_bytes_per_s")
    return pd.DataFrame(
        {"link": np.arange(len(cables)), **{name: getattr(cables, name) for name in columns}}
    ), graph


@pytest.mark.parametrize(
    ("topology", "num_nodes"), [(TWO_LAYERS, 8), (PLANES, 4), (THREE_LAYERS, 16), (ROUTERS, 9)]
)
def test_layers_are_those_of_the_graph(topology: dict[str, Any], num_nodes: int):
    links, graph = links_of(topology, num_nodes)
    in_graph = {name: data["layer"] for name, data in graph.nodes.items() if data["kind"] == "switch"}
    assert switch_layers(links) == in_graph
    named = dict(zip(links["link"], layer_names(links), strict=True))
    first = links[links["kind"] == "nic"].iloc[0]
    assert named[first["link"]].startswith("NIC to ")
    assert set(named.values()) >= {"GPU to NVSwitch", "NVSwitch to GPU", "host to PCIe switch"}


def test_rails_are_those_of_the_leaves():
    links, graph = links_of(RAILS, 8)
    rail_of = {name: data["rail"] for name, data in graph.nodes.items() if data.get("layer") == "leaf"}
    expected = [
        rail_of.get(source, rail_of.get(target, -1))
        for source, target in zip(links["source"], links["target"], strict=True)
    ]
    assert rails(links).tolist() == expected
    assert set(expected) == {-1, *range(8)}


@pytest.mark.parametrize("topology", [TWO_LAYERS, PLANES, ROUTERS | {"endpoints_per_router": 1}])
def test_networks_that_are_not_multi_rail_have_no_rails(topology: dict[str, Any]):
    assert set(rails(links_of(topology, 4)[0]).tolist()) == {-1}


def test_a_leaf_that_no_nic_is_on_is_told_by_its_spine():
    # leaf1 has no NIC; it hangs on the spine of leaf0, and on spine1, which nothing else does
    rows = [
        ("nic", "node0/nic0", "leaf0"),
        ("leaf_spine", "leaf1", "spine1"),
        ("leaf_spine", "leaf1", "spine0"),
    ]
    rows += [("leaf_spine", "leaf0", "spine0")]
    rows += [(kind, target, source) for kind, source, target in rows]
    links = pd.DataFrame(rows, columns=["kind", "source", "target"])
    assert switch_layers(links) == {"leaf0": "leaf", "leaf1": "leaf", "spine1": "spine", "spine0": "spine"}


def test_names_of_devices_are_read():
    assert place_of("node12/nic3") == (12, "nic", 3)
    assert place_of("node0/nvswitch") == (0, "nvswitch", 0)
    assert place_of("plane0/leaf0") is None


def test_loads_are_bytes_over_capacity_and_time():
    # Three links of 10 bytes/s in a group, one in none and one that is idle, over 3 s in bins
    # of 2 s: the last counts for 1 s.
    links = pd.DataFrame({"link": range(5), "capacity_bytes_per_s": [10.0] * 5})
    timeline = pd.DataFrame(
        [(0, 0.0, 2.0, 20.0), (0, 2.0, 4.0, 5.0), (1, 0.0, 2.0, 4.0), (1, 2.0, 4.0, 8.0), (3, 0.0, 2.0, 9.0)],
        columns=["link", "start_s", "end_s", "bytes"],
    )
    groups = LinkGroups(("three", "idle"), np.array([0, 0, 0, -1, 1]))
    loads = loads_over_time(timeline, links, groups, 3.0)
    assert loads.edges_s.tolist() == [0.0, 2.0, 3.0]
    assert loads.mean.tolist() == [pytest.approx([24 / 60, 13 / 30]), [0.0, 0.0]]
    assert loads.busiest.tolist() == [pytest.approx([1.0, 0.8]), [0.0, 0.0]]
    assert groups.counts.tolist() == [3, 1]


def test_groups_are_ordered_as_asked():
    keys = [2, None, 1, 2]
    assert LinkGroups.by(keys).labels == ("2", "1")
    assert LinkGroups.by(keys, order=True).of_link.tolist() == [1, -1, 0, 1]
