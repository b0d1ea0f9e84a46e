"""Changes to a scenario that must change nothing, or nothing but rounding."""

import random
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from fuzz.budget import drawn
from fuzz.invariants_twins import same
from fuzz.strategies import scenarios
from fuzz.strategies_costs import shipped
from fuzz.strategies_text import Drawn
from simulator import load_scenario
from simulator.input_error import InputError
from simulator.result import Result
from simulator.run import simulate
from support.observed import Observed, observe
from topologies import NODES
from topologies.graph_file import read_graph, write_graph
from workloads.tasks import Collective, Task, TaskGraph, Transfers

_TABLES = ("tasks", "phases", "flows", "links", "link_timeline")
TREE = {"kind": "two-layer-fat-tree", "switch_ports": 8, "endpoints_per_leaf": 4, "uplinks_per_leaf": 2}


def run_file(folder: Path, scenario: Drawn, name: str = "drawn.yaml") -> Result | None:
    """Return the result of a scenario that is written into a folder; None if it is refused."""
    try:
        return simulate(load_scenario(scenario.write(folder, name)))
    except InputError:
        return None


# How it is written


def shuffled(value: Any, order: random.Random) -> Any:
    """Return plain data with the fields of every mapping in another order."""
    if isinstance(value, list):
        return [shuffled(item, order) for item in value]
    if not isinstance(value, dict):
        return value
    names = list(value)
    order.shuffle(names)
    return {name: shuffled(value[name], order) for name in names}


@drawn(quick=3, share=0.1)
@given(scenarios(), st.randoms(use_true_random=False))
def test_the_order_of_fields_changes_nothing(scenario: Drawn, order: random.Random):
    with TemporaryDirectory() as folder:
        one = run_file(Path(folder), scenario)
        other = run_file(Path(folder), replace(scenario, data=shuffled(scenario.data, order)), "other.yaml")
    assert (one is None) == (other is None)
    if one is None or other is None:
        return
    assert one.to_json() == other.to_json()
    assert one.scenario_text == other.scenario_text
    for name in _TABLES:
        assert getattr(one, name).equals(getattr(other, name)), name


@drawn(quick=3, share=0.1)
@given(scenarios())
def test_what_a_name_stands_for_may_be_written_out(scenario: Drawn):
    # A node of the catalogue as a whole node, a cost table of it as a file, the number of nodes for `auto`.
    with TemporaryDirectory() as folder:
        one = run_file(Path(folder), scenario)
        if one is None:
            return
        loaded = load_scenario(Path(folder) / "drawn.yaml")
        data = {**scenario.data, "cluster": {**scenario.data["cluster"], "nodes": loaded.num_nodes}}
        if isinstance(data["cluster"]["node"], str):
            data["cluster"]["node"] = NODES[data["cluster"]["node"]].model_dump(mode="json")
        files = scenario.files
        if (named := data.get("costs", "h800-published")) != "costs.json":
            data["costs"], files = "table.json", {**files, "table.json": shipped(named).encode()}
        other = run_file(Path(folder), Drawn(data, files), "other.yaml")
    assert other is not None
    told, again = one.summary, other.summary
    for part in ("step_time_s", "metrics", "breakdown_s", "links", "bounds_s", "waits"):
        assert told[part] == again[part], part
    for name in _TABLES:
        assert getattr(one, name).equals(getattr(other, name)), name


# Names and numbers of what is alike


def flows_of(rows: list[tuple[int, int, float, float]]) -> bytes:
    """Return a list of flows: source, destination, bytes, seconds."""
    lines = [f"{source},{destination},{size!r},{start!r}" for source, destination, size, start in rows]
    return "\n".join(["source,destination,size_bytes,start_s", *lines, ""]).encode()


def cluster_of(topology: dict[str, Any], nodes: int, gpus: int, routing: str = "adaptive") -> dict[str, Any]:
    """Return a cluster of H800 nodes with so many GPUs each."""
    node = {**NODES["h800"].model_dump(mode="json"), "gpus": gpus}
    return {"node": node, "nodes": nodes, "topology": topology, "routing": routing}


def flows_on(cluster: dict[str, Any], rows: list[tuple[int, int, float, float]], **more: Any) -> Drawn:
    """Return a scenario of flows."""
    workload = {"kind": "flows", "path": "flows.csv"}
    data = {"name": "flows", "cluster": cluster, "workload": workload, **more}
    return Drawn(data, {"flows.csv": flows_of(rows)})


def rows_between(num_ranks: int) -> st.SearchStrategy[list[tuple[int, int, float, float]]]:
    """Draw flows between different ranks of so many."""
    pair = st.tuples(st.integers(0, num_ranks - 1), st.integers(1, num_ranks - 1))
    row = st.builds(
        lambda ends, size, start: (ends[0], sum(ends) % num_ranks, size, start),
        pair,
        st.sampled_from([1e6, 2.5e6, 4e7]),
        st.sampled_from([0.0, 0.0, 1e-4, 3e-4]),
    )
    return st.lists(row, min_size=1, max_size=30)


def flow_times(folder: str, scenario: Drawn, name: str = "drawn.yaml") -> pd.DataFrame:
    """Return when the flows of a scenario ran, in the order of their list."""
    return simulate(load_scenario(scenario.write(Path(folder) / Path(name).stem, name))).flows[
        ["start_s", "end_s"]
    ]


def assert_same_times(one: pd.DataFrame, other: pd.DataFrame) -> None:
    step_s = float(one["end_s"].max())
    for column in ("start_s", "end_s"):
        same(one[column], other[column], step_s)


@drawn(quick=2, share=0.2)
@given(
    rows_between(16), st.permutations(range(4)), st.lists(st.permutations(range(2)), min_size=12, max_size=12)
)
def test_ranks_that_are_alike_may_change_places(rows: Any, leaves: list[int], within: list[list[int]]):
    # 8 nodes of 2 GPUs, 2 nodes under each of 4 leaves, sprayed: leaves may change places, nodes of a leaf, and GPUs
    # of a node. Flows that are permuted alike take as long.
    place = {}
    for leaf in range(4):
        for node in range(2):
            for gpu in range(2):
                there = 2 * (2 * leaves[leaf] + within[leaf][node]) + within[4 + 2 * leaf + node][gpu]
                place[2 * (2 * leaf + node) + gpu] = there
    assert sorted(place.values()) == list(range(16))
    moved = [(place[source], place[destination], size, start) for source, destination, size, start in rows]
    cluster = cluster_of(TREE, 8, 2)
    with TemporaryDirectory() as folder:
        assert_same_times(
            flow_times(folder, flows_on(cluster, rows)),
            flow_times(folder, flows_on(cluster, moved), "moved.yaml"),
        )


NETWORKS = [
    TREE,
    {"kind": "multi-plane-fat-tree", "switch_ports": 8},
    {"kind": "multi-rail-fat-tree", "switch_ports": 8},
    {"kind": "three-layer-fat-tree", "switch_ports": 4},
    {"kind": "dragonfly", "switch_ports": 11},
    {"kind": "slim-fly", "q": 3},
]


@drawn(quick=3, share=0.2)
@given(
    st.sampled_from(NETWORKS),
    st.sampled_from(["adaptive", "adaptive", "static", "ecmp", "least-loaded"]),
    rows_between(12),
    st.randoms(use_true_random=False),
)
def test_switches_may_have_other_names(
    topology: dict[str, Any], routing: str, rows: Any, order: random.Random
):
    # Whatever the names are: flows take as long, by every policy, if devices stand in the file in the same order.
    with TemporaryDirectory() as folder:
        loaded = load_scenario(flows_on(cluster_of(topology, 6, 2, routing), rows).write(Path(folder)))
        graph = loaded.scenario.cluster.topology.build(loaded.node, 6)
        switches = [name for name, data in graph.nodes.items() if data["kind"] == "switch"]
        names = [f"switch {number}" for number in range(len(switches))]
        order.shuffle(names)
        renamed = nx.relabel_nodes(graph, dict(zip(switches, names, strict=True)))
        custom = cluster_of({"kind": "custom", "path": "cluster.json"}, 6, 2, routing)
        times = []
        for each in (graph, renamed):
            write_graph(each, Path(folder) / "cluster.json")
            assert nx.utils.graphs_equal(read_graph(Path(folder) / "cluster.json"), each)
            content = (Path(folder) / "cluster.json").read_bytes()
            scenario = flows_on(custom, rows)
            times.append(
                flow_times(folder, replace(scenario, files={**scenario.files, "cluster.json": content}))
            )
        assert times[0].equals(
            flow_times(folder, flows_on(cluster_of(topology, 6, 2, routing), rows), "own.yaml")
        )
        assert times[0].equals(times[1])


# What nobody uses


@drawn(quick=2, share=0.1)
@given(st.integers(1, 3), rows_between(8), st.sampled_from(["dead", "slow"]))
def test_planes_that_nobody_uses_change_nothing(used: int, rows: Any, fault: str):
    # 4 nodes of 4 GPUs with a plane for each NIC: flows among the GPUs with the index `used` take as long as on nodes
    # of one GPU with one plane, and as long with all the other planes dead or slow.
    rows = [(source % 4, destination % 4, size, start) for source, destination, size, start in rows]
    rows = [row for row in rows if row[0] != row[1]] or [(0, 1, 1e6, 0.0)]
    moved = [
        (4 * source + used, 4 * destination + used, size, start) for source, destination, size, start in rows
    ]
    planes = {"kind": "multi-plane-fat-tree", "switch_ports": 8, "endpoints_per_leaf": 2}
    others = [
        {"kind": "plane", "plane": plane, "capacity": 0.0 if fault == "dead" else 0.25}
        for plane in range(4)
        if plane != used
    ]
    with TemporaryDirectory() as folder:
        alone = flow_times(folder, flows_on(cluster_of(planes, 4, 1), rows))
        among = flow_times(folder, flows_on(cluster_of(planes, 4, 4), moved), "among.yaml")
        broken = flow_times(folder, flows_on(cluster_of(planes, 4, 4), moved, faults=others), "broken.yaml")
    assert_same_times(alone, among)
    assert_same_times(alone, broken)


@drawn(quick=3, share=0.2)
@given(scenarios(), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=6))
def test_transfers_of_no_bytes_that_nobody_waits_for_change_nothing(
    scenario: Drawn, pairs: list[tuple[int, int]]
):
    with TemporaryDirectory() as folder:
        try:
            run = observe(load_scenario(scenario.write(Path(folder))))
        except InputError:
            return
    more = run.again(with_nothing_sent(run, pairs))
    count = len(run.graph.tasks)
    same(more.times.start_s[:count], run.recording.times.start_s, run.step_s)
    same(more.times.end_s[:count], run.recording.times.end_s, run.step_s)
    np.testing.assert_allclose(more.meter.bytes, run.recording.meter.bytes, rtol=1e-9, atol=1e-6)


def with_nothing_sent(run: Observed, pairs: list[tuple[int, int]]) -> TaskGraph:
    """Return the graph of a run with a collective of transfers of no bytes beside it, between leaders of folds."""
    leaders = np.unique(run.leader_of_rank)
    source, destination = (leaders[[pair[end] % len(leaders) for pair in pairs]] for end in (0, 1))
    nothing = Collective("nothing", Transfers.point_to_point(source, destination, np.zeros(len(pairs))))
    number = len(run.graph.collectives)
    tasks = [Task("nothing", int(rank), None, collective=number) for rank in np.union1d(source, destination)]
    return replace(
        run.graph, tasks=(*run.graph.tasks, *tasks), collectives=(*run.graph.collectives, nothing), phases=()
    )


@drawn(quick=3, share=0.1)
@given(
    st.sampled_from(NETWORKS),
    st.sampled_from(["adaptive", "static", "ecmp", "least-loaded"]),
    rows_between(12),
    st.data(),
)
def test_a_fault_that_heals_before_traffic_starts_changes_nothing(
    topology: dict[str, Any], routing: str, rows: Any, data: st.DataObject
):
    rows = [(source, destination, size, start + 1e-3) for source, destination, size, start in rows]
    cluster = cluster_of(topology, 6, 2, routing)
    with TemporaryDirectory() as folder:
        loaded = load_scenario(flows_on(cluster, rows).write(Path(folder)))
        graph = loaded.scenario.cluster.topology.build(loaded.node, 6)
        switches = sorted(name for name, each in graph.nodes.items() if each["kind"] == "switch")
        cables = sorted({(one, other) for one, other in graph.edges()})
        where = data.draw(
            st.one_of(
                st.sampled_from(switches).map(lambda name: {"kind": "switch", "name": name}),
                st.sampled_from(cables).map(lambda ends: {"kind": "link", "between": list(ends)}),
                st.just({"kind": "plane", "plane": 0}),
                st.just({"kind": "nic", "node": 1, "index": 1}),
                st.just({"kind": "straggler", "node": 0, "index": 0, "slower": 3.0}),
            )
        )
        times = data.draw(
            st.sampled_from([{"for": "1 us"}, {"at": "0.25 ms", "for": "0.5 ms"}, {"for": "1 ms"}])
        )
        healed = flows_on(cluster, rows, faults=[{**where, **times}])
        assert_same_times(
            flow_times(folder, flows_on(cluster, rows)), flow_times(folder, healed, "healed.yaml")
        )
