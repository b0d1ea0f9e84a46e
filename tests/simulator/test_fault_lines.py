"""Lines of a scenario that say what fails: what they may name, how they are told, and what a run makes of them."""

import numpy as np
import pytest
from rich.console import Console

from simulator import load_scenario, simulate
from simulator.faults import check_faults, describe_faults
from simulator.input_error import InputError
from simulator.report.terminal import print_report
from simulator.routing import NoPathError
from simulator.units import FieldError
from support.clusters import network, node
from support.faults import UPLINK, end_s, parse, start
from topologies import MultiPlaneFatTree, NoNetwork, build_cluster
from workloads.tasks import Transfers


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        ({"kind": "nic", "node": 2, "index": 0}, "0.node", "no node 2; the cluster has 2, numbered from 0"),
        ({"kind": "gpu", "node": 1, "index": 8}, "0.index", "no GPU of a node 8; the cluster has 8"),
        ({"kind": "plane", "plane": 8}, "0.plane", "no plane 8; the cluster has 8"),
        ({"kind": "switch", "name": "plane0/leaf1"}, "0.name", "did you mean 'plane0/leaf0'"),
        ({"kind": "switch", "name": "node0/nic0"}, "0.name", "no switch 'node0/nic0'"),
        (
            {"kind": "link", "between": ["plane0/leaf0", "plane0/spine7"]},
            "0.between.1",
            "no device 'plane0/spine7'; did you mean 'plane0/spine0'",
        ),
        (
            {"kind": "link", "between": ["plane0/leaf0", "node0/nic1"]},
            "0.between",
            "'plane0/leaf0' is joined to node0/nic0, node1/nic0, plane0/spine0",
        ),
        (
            {"kind": "link", "between": ["plane0/leaf0", "plane0/spine0"], "cable": 32},
            "0.cable",
            "the cluster has 32, numbered from 0",
        ),
    ],
)
def test_what_is_not_there_cannot_fail(line, field, message):
    graph = build_cluster(node(), 2, MultiPlaneFatTree(kind="multi-plane-fat-tree"))
    with pytest.raises(FieldError, match=message) as raised:
        check_faults(parse(line), 2, 8, graph)
    assert raised.value.field == field


def test_without_a_network_no_nic_fails():
    graph = build_cluster(node(), 1, NoNetwork(kind="none"))
    with pytest.raises(FieldError, match="the cluster has no network"):
        check_faults(parse({"kind": "nic", "node": 0, "index": 0}), 1, 8, graph)
    with pytest.raises(FieldError, match="the cluster has none"):
        check_faults(parse({"kind": "plane", "plane": 0}), 1, 8, graph)


def test_one_of_parallel_cables_can_fail():
    # Two leaves with 32 uplinks each and one spine of 64 ports: 32 parallel cables. One dead of them: 31 are left.
    compiled, layout = network(64, gpus=1, planes=1, bundle=False, rates={"nic": "10 B/s", "pcie": "1 kB/s"})
    transfers = Transfers.point_to_point(np.arange(32), np.arange(32, 64), np.full(32, 40.0))
    line = {"kind": "link", "between": ["plane0/spine0", "plane0/leaf0"], "cable": 5}
    assert end_s(compiled, layout, transfers, line) == pytest.approx(4 * 32 / 31, rel=1e-12)


def test_faults_are_told_in_words():
    lines = parse(
        {**UPLINK, "cable": 1, "capacity": 0.5},
        {"kind": "plane", "plane": 2, "at": "1 s", "for": "2 s"},
        {"kind": "straggler", "node": 3, "index": 5, "slower": 1.3, "at": "9 s"},
        {"kind": "gpu", "node": 3, "index": 5, "at": "9 s"},
    )
    told = describe_faults(lines, 8.0)
    assert [row["fault"] for row in told] == [
        "link plane0/leaf0 - plane0/spine1 (cable 1) has 0.5 of its capacity",
        "plane 2 is dead",
        "GPU 5 of node 3 takes 1.3 times as long",
        "GPU 5 of node 3 dies",
    ]
    assert [(row["begin_s"], row["end_s"]) for row in told] == [(0, None), (1, 3), (9, None), (9, None)]
    assert [row["happened"] for row in told] == [True, True, False, False]


SCENARIO = """
name: faults
cluster:
  node: h800
  nodes: 2
  topology: {kind: multi-plane-fat-tree, planes: 8}
workload: {kind: collective, operation: all-to-all, size: 1 GiB, ranks: all}
"""


@pytest.fixture
def scenario(tmp_path):
    def load(faults: str):
        path = tmp_path / "scenario.yaml"
        path.write_text(SCENARIO + f"faults: {faults}\n")
        return load_scenario(path)

    return load


def test_a_scenario_with_faults_comes_back_from_its_resolved_text(scenario, tmp_path):
    loaded = scenario("[{kind: plane, plane: 2, at: 1 ms, for: 2 ms}, {kind: nic, node: 0, index: 3}]")
    result = simulate(loaded)
    path = tmp_path / "again.yaml"
    path.write_text(result.scenario_text)
    assert load_scenario(path).scenario == loaded.scenario
    assert [row["happened"] for row in result.summary["faults"]] == [True, True]
    assert result.summary["simulation"]["flows_rerouted"] > 0
    assert result.step_time_s > simulate(scenario("[]")).step_time_s


def test_a_slow_gpu_leaves_reuse_on_and_a_fault_of_cables_turns_it_off(scenario):
    whole = simulate(scenario("[]")).summary
    slow = simulate(scenario("[{kind: straggler, node: 0, index: 0, slower: 2}]")).summary
    assert slow["simulation"] == whole["simulation"]  # a collective alone has no kernels
    assert slow["step_time_s"] == whole["step_time_s"]
    assert slow["simulation"]["reuse"] == "on"
    assert not slow["faults"][0]["happened"]
    hurt = simulate(scenario("[{kind: nic, node: 0, index: 0, at: 100 s}]")).summary
    assert hurt["simulation"]["reuse"] == "off: cables have faults"
    assert not hurt["faults"][0]["happened"]
    assert hurt["step_time_s"] == pytest.approx(whole["step_time_s"], rel=1e-9)


def test_the_report_names_faults(scenario, capsys):
    faults = "[{kind: plane, plane: 2, at: 1 ms, for: 2 ms}, {kind: nic, node: 0, index: 3, at: 9 s}]"
    print_report(simulate(scenario(faults)), Console(width=200))
    text = capsys.readouterr().out
    assert "From 1 ms to 3 ms: plane 2 is dead." in text
    assert "From 9 s on: NIC 3 of node 0 is dead; the step did not see it." in text


def test_a_scenario_that_faults_leave_no_way_is_an_input_error(scenario):
    loaded = scenario("[{kind: gpu, node: 1, index: 2, at: 1 ms}]")
    with pytest.raises(InputError, match=r"faults: node1/gpu2 dies at 0.001 s"):
        simulate(loaded)
    lines = "[" + ", ".join(f"{{kind: plane, plane: {plane}, at: 1 ms}}" for plane in range(8)) + "]"
    with pytest.raises(
        InputError, match=r"faults: from 0.001 s on 128 of the flows have no way left: node0/gpu0"
    ):
        simulate(scenario(lines))


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ("[{kind: plan}]", r"faults.0.kind: unknown kind 'plan'; did you mean 'plane'"),
        ("[{plane: 1}]", r"faults.0.kind: this field is missing; add it: one of link, switch"),
        (
            "[{kind: nic, node: 0, index: 1, fro: 3 s}]",
            r"faults.0.fro: unknown field 'fro'; did you mean 'for'",
        ),
        ("[{kind: nic, node: 0, index: 1, at: 3}]", r"faults.0.at: 3 has no unit"),
        ("[{kind: nic, node: 0, index: 1, capacity: 2}]", r"faults.0.capacity: must be less than 1, not 2$"),
        ("[{kind: nic, node: 0, index: 1, for: 0 s}]", r"faults.0.for: must be more than 0"),
        (
            "[{kind: nic, node: 0, index: 1, capacity: 0.0000001}]",
            r"faults.0.capacity: 1e-07 is neither 0, dead, nor at least 1e-06",
        ),
        ("[{kind: nic, node: 7, index: 1}]", r":8: faults.0.node: there is no node 7"),
    ],
)
def test_faulty_lines_are_told(scenario, faults, message):
    with pytest.raises(InputError, match=message):
        scenario(faults)


def test_a_cluster_in_parts_is_an_error_of_the_topology():
    compiled, layout = network(2, gpus=2)
    compiled._wiring._known.update({2: (), 3: ()})
    with pytest.raises(NoPathError):
        start(compiled, layout, Transfers.point_to_point(np.array([0]), np.array([3]), np.ones(1)))
