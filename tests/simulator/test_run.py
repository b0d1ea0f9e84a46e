from dataclasses import replace
from pathlib import Path

import pytest

from simulator import load_scenario, simulate
from simulator.input_error import InputError
from simulator.kernel_times import KernelTimes
from workloads.kernel_list import KernelsSpec

FLOWS = """\
name: flows
cluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree}}
workload: {kind: flows, path: flows.csv}
costs: ideal
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    (tmp_path / "flows.csv").write_text("source,destination,size_bytes\n0,8,5e9\nnode0/gpu1,node0/gpu2,2e9\n")
    path = tmp_path / "flows.yaml"
    path.write_text(FLOWS)
    return path


def test_the_pipeline_end_to_end(scenario):
    # 5 GB over a 50 GB/s NIC take 0.1 s, 2 GB over a 200 GB/s port 0.01 s; nothing is shared.
    result = simulate(load_scenario(scenario))
    assert result.step_time_s == pytest.approx(0.1, rel=1e-12)
    assert result.flows["end_s"].tolist() == pytest.approx([0.1, 0.01], rel=1e-12)
    assert result.summary["bounds_s"]["busiest_link"] == pytest.approx(0.1, rel=1e-12)
    assert result.summary["links"]["nvlink"]["bytes"] == pytest.approx(2 * 2e9)
    assert result.summary["metrics"]["total_bytes"] == 7e9


def test_fields_can_be_set(scenario):
    # The published table: 46 GB/s of 50 on the wire, and 2.8 us through one leaf.
    result = simulate(load_scenario(scenario, ["costs=h800-published", "cluster.routing=static"]))
    assert result.step_time_s == pytest.approx(5e9 / 46e9 + 2.8e-6, rel=1e-12)


def test_a_file_that_changes_after_loading_is_the_user_s_fault_too(scenario):
    loaded = load_scenario(scenario)
    (scenario.parent / "flows.csv").write_text("source,destination,size_bytes\n0,99,1\n")
    with pytest.raises(InputError, match=r"workload.path: .*flows.csv, line 2, column destination"):
        simulate(loaded)


def test_no_link_is_named_as_slowest_where_cables_have_faults(scenario):
    # From the start on, so that nothing is re-routed: flows never took the ways of the whole network.
    healthy = simulate(load_scenario(scenario)).summary["waits"]
    faulty = simulate(load_scenario(scenario, ["faults=[{kind: nic, node: 0, index: 0, capacity: 0.5}]"]))
    assert healthy[0]["slowest_link"] is not None
    assert faulty.summary["waits"][0]["slowest_link"] is None
    assert (faulty.tasks["waited_for_link"] == -1).all()


def test_a_straggler_is_seen_where_its_own_gpu_computes_while_it_is_slow(tmp_path):
    path = tmp_path / "kernels.yaml"
    path.write_text(
        "name: s\ncluster: {node: h800, topology: {kind: none}}\n"
        "workload: {kind: kernels, calls: [{kind: norm, rows: 4096, width: 7168}]}\n"
    )
    slow = "{kind: straggler, node: 0, index: %d, slower: 2.0, at: %s}"
    lines = ", ".join(slow % line for line in ((0, "0 s"), (1, "0 s"), (0, "1 s")))
    # The kernel runs on GPU 0 alone, and has ended long before 1 s.
    faults = simulate(load_scenario(path, [f"faults=[{lines}]"])).summary["faults"]
    assert [fault["happened"] for fault in faults] == [True, False, False]


def test_each_kernel_object_is_priced_once(tmp_path, monkeypatch):
    path = tmp_path / "kernels.yaml"
    norm = "{kind: norm, rows: 4096, width: 7168}"
    path.write_text(
        f"name: s\ncluster: {{node: h800, topology: {{kind: none}}}}\nworkload: {{kind: kernels, calls: [{norm}]}}\n"
    )
    loaded, asked = load_scenario(path), []
    build, cost = KernelsSpec.build, KernelTimes.cost

    def build_many(*args):
        step = build(*args)
        return replace(step, graph=replace(step.graph, tasks=step.graph.tasks * 5))

    def counted(self, *kernel):
        asked.append(kernel)
        return cost(self, *kernel)

    monkeypatch.setattr(KernelsSpec, "build", build_many)
    monkeypatch.setattr(KernelTimes, "cost", counted)
    result = simulate(loaded)
    assert result.summary["kernels"]["by_kernel"]["norm"]["calls"] == 5
    # of the shared kernel, and of its one call for the summary
    assert len(asked) == 2


LIMIT = """\
name: limit
cluster: {node: gb200-nvl72, nodes: 1, topology: {kind: none}}
model: deepseek-v3
workload: {kind: decode-step, expert_parallel: 72, batch_per_gpu: 64, cached_tokens: 0, limit: %s}
costs: h800-published
"""


def test_the_limit_rests_on_no_cost_table_and_crosses_no_link(tmp_path):
    # The table is for Hopper, and a simulated step on Blackwell is refused.
    path = tmp_path / "limit.yaml"
    path.write_text(LIMIT % "false")
    with pytest.raises(InputError, match="for hopper GPUs, the cluster's are blackwell"):
        load_scenario(path)
    path.write_text(LIMIT % "true")
    summary = simulate(load_scenario(path)).summary
    # 32 tokens to nine experts, 7,000 values of 3 bytes each way together, at 900 GB/s; twice in each of 61 layers
    assert summary["step_time_s"] == pytest.approx(61 * 2 * 32 * 9 * 7000 * 3 / 900e9, rel=1e-12)
    assert summary["provenance"]["cost_sources"] == {}
    assert not any("fluid" in line for line in summary["provenance"]["assumptions"])
    assert summary["bounds_s"]["busiest_link"] == 0.0


def test_the_table_of_a_limit_must_still_be_one(tmp_path):
    path = tmp_path / "limit.yaml"
    path.write_text(LIMIT.replace("h800-published", "h900") % "true")
    with pytest.raises(InputError, match="unknown cost table 'h900'"):
        load_scenario(path)


def test_figures_of_links_are_named_where_something_crosses_one(scenario):
    sources = simulate(load_scenario(scenario)).summary["provenance"]["cost_sources"]
    assert {"link_efficiency.infiniband", "link_efficiency.nvlink", "link_efficiency.pcie"} <= set(sources)
