"""A result's account of its kernels: how much of the step rests on which kind of figure."""

from pathlib import Path

import numpy as np
import pytest

from simulator import load_scenario, simulate
from simulator.kernel_shares import kernel_columns, kernel_summary
from simulator.kernel_times import KernelCost
from workloads.kernel_call import CallSequence
from workloads.kernels import Gemm
from workloads.streaming_kernels import Norm
from workloads.tasks import ComputeKernel, Stream, Task, TaskGraph, TaskTimes

GEMMS = [
    "{kind: gemm, format: fp8, rows: 4096, columns: 7168, depth: 16384}",  # listed
    "{kind: gemm, format: fp8, rows: 3000, columns: 7168, depth: 8000}",  # within the list
    "{kind: gemm, format: fp8, rows: 3000, columns: 7168, depth: 20000}",  # beyond it
]
NORM = "{kind: norm, rows: 4096, width: 7168}"


def run(tmp_path: Path, calls: list[str], *overrides: str):
    (tmp_path / "s.yaml").write_text(
        "name: s\ncluster: {node: h800, topology: {kind: none}}\n"
        f"workload: {{kind: kernels, calls: [{', '.join(calls)}]}}\n"
    )
    return simulate(load_scenario(tmp_path / "s.yaml", overrides))


def test_calls_follow_one_another_and_the_step_is_their_sum(tmp_path):
    result = run(tmp_path, [*GEMMS, NORM])
    tasks = result.tasks
    assert tasks["kernel"].tolist() == ["gemm-fp8"] * 3 + ["norm"]
    assert tasks["cost_basis"].tolist() == ["tabulated", "interpolated", "extrapolated", "roofline"]
    assert tasks["cost_how"].tolist() == ["published", "fitted", "fitted", "assumed"]
    took_s = (tasks["end_s"] - tasks["start_s"]).tolist()
    assert tasks["start_s"].tolist() == pytest.approx([0.0, *tasks["end_s"].tolist()[:-1]])
    assert result.step_time_s == pytest.approx(sum(took_s))
    # DeepGEMM's 1,426 TFLOP/s at the listed shape
    assert 2 * 4096 * 7168 * 16384 / took_s[0] == pytest.approx(1426e12, rel=1e-5)
    assert result.summary["breakdown_s"] == pytest.approx({"gemm-fp8": sum(took_s[:3]), "norm": took_s[3]})


def test_shares_add_up_and_name_what_they_rest_on(tmp_path):
    result = run(tmp_path, [*GEMMS, NORM])
    kernels, step_s = result.summary["kernels"], result.step_time_s
    took_s = (result.tasks["end_s"] - result.tasks["start_s"]).tolist()
    assert kernels["step_share_by_basis"] == pytest.approx(
        dict(
            zip(
                ["tabulated", "interpolated", "extrapolated", "roofline"],
                [seconds / step_s for seconds in took_s],
                strict=True,
            )
        )
    )
    assert kernels["step_share_by_how"] == pytest.approx(
        {"published": took_s[0] / step_s, "fitted": sum(took_s[1:3]) / step_s, "assumed": took_s[3] / step_s}
    )
    gemms = kernels["by_kernel"]["gemm-fp8"]
    assert gemms["calls"] == 3
    assert gemms["step_share"] == pytest.approx(sum(took_s[:3]) / step_s)
    assert kernels["by_kernel"]["norm"]["bytes_per_s"] == pytest.approx(
        4 * 2 * 4096 * 7168 / took_s[3], rel=1e-3
    )
    assert [kernels["by_kernel"][name]["arithmetic"] for name in ("gemm-fp8", "norm")] == ["fp8", None]
    # an H800: H100's dense peaks and its memory (topologies/node.py)
    assert kernels["peaks"] == pytest.approx(
        {"fp8_flops_per_s": 1978.9e12, "bf16_flops_per_s": 989.4e12, "memory_bytes_per_s": 3.35e12}, rel=1e-3
    )


def test_the_sources_of_kernels_that_ran_are_told_and_no_others(tmp_path):
    sources = run(tmp_path, [NORM], "workload.communication_sms=20").summary["provenance"]["cost_sources"]
    told = {name for name in sources if name.startswith(("kernels.", "beside_communication."))}
    assert told == {
        "kernels.streaming.launch",
        "kernels.streaming.bandwidth",
        "beside_communication.norm",
    }
    assert sources["beside_communication.norm"].startswith("fitted: deepseek-ai/profile-data")


def test_a_straggler_computes_slower(tmp_path):
    plain = run(tmp_path, [NORM] * 4)
    slow = run(tmp_path, [NORM] * 4, "faults=[{kind: straggler, node: 0, index: 0, slower: 2.0}]")
    assert slow.step_time_s == pytest.approx(2 * plain.step_time_s)
    assert slow.summary["faults"][0]["happened"]


def test_workloads_without_kernels_have_no_account(tmp_path):
    (tmp_path / "f.csv").write_text("source,destination,size_bytes\n0,1,1e6\n")
    (tmp_path / "s.yaml").write_text(
        "name: s\ncluster: {node: h800, nodes: 1, topology: {kind: none}}\nworkload: {kind: flows, path: f.csv}\n"
    )
    result = simulate(load_scenario(tmp_path / "s.yaml"))
    assert "kernels" not in result.summary
    assert result.tasks["kernel"].eq("").all()


def gemm() -> Gemm:
    return Gemm(rows=8, columns=8, depth=8, format="fp8")


def cost_of(kernel: ComputeKernel) -> KernelCost:
    """Return 2 s for a matrix product, 1 s for a norm, 3 s for one after the other."""
    match kernel.call:
        case Gemm():
            return KernelCost(2.0, "published", "tabulated")
        case Norm():
            return KernelCost(1.0, "assumed", "roofline")
        case _:
            return KernelCost(3.0, "published", "tabulated")


def test_a_task_of_a_fold_counts_for_each_of_its_ranks():
    # Ranks 0 to 2 are a fold, rank 3 is alone. Each runs a product and a norm as one; rank 3, a straggler, takes
    # twice as long, and then runs another product.
    norm = Norm(rows=8, width=8)
    both = ComputeKernel(CallSequence("both", (gemm(), norm)))
    kernels = [(0, both), (3, both), (3, ComputeKernel(gemm()))]
    tasks = tuple(Task("t", rank, Stream.COMPUTE, kernel=kernel) for rank, kernel in kernels)
    graph = TaskGraph(4, (*tasks, Task("barrier", 0, None)), (), leader_of_rank=np.array([0, 0, 0, 3]))
    times = TaskTimes(np.array([0.0, 0.0, 6.0, 8.0]), np.array([3.0, 6.0, 8.0, 8.0]))
    told = kernel_summary(graph, times, cost_of)
    # products: 3 x 2 s in the fold, 4 s and 2 s on rank 3; norms: 3 x 1 s and 2 s; of four ranks' 8 s
    products, norms = told["by_kernel"]["gemm-fp8"], told["by_kernel"]["norm"]
    assert (products["calls"], products["seconds"], products["step_share"]) == (5, 12.0, 12 / 32)
    assert (norms["calls"], norms["seconds"], norms["step_share"]) == (4, 5.0, 5 / 32)
    assert products["flops_per_s"] == pytest.approx(5 * 2 * 8**3 / 12)
    assert norms["bytes_per_s"] == pytest.approx(4 * norm.moved_bytes / 5)
    assert told["step_share_by_basis"] == {"tabulated": 12 / 32, "roofline": 5 / 32}


def test_equal_kernels_need_not_be_one_object():
    shared = ComputeKernel(gemm())
    times = TaskTimes(np.zeros(2), np.full(2, 2.0))
    graphs = [
        TaskGraph(
            2, tuple(Task("t", rank, Stream.COMPUTE, kernel=kernel) for rank, kernel in enumerate(pair)), ()
        )
        for pair in ((shared, shared), (ComputeKernel(gemm()), ComputeKernel(gemm())))
    ]
    one, two = (kernel_summary(graph, times, cost_of) for graph in graphs)
    assert one == two
    assert one["by_kernel"]["gemm-fp8"]["calls"] == 2
    assert [kernel_columns(graph, cost_of)["kernel"].tolist() for graph in graphs] == [["gemm-fp8"] * 2] * 2
