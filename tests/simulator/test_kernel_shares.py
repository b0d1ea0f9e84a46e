"""A result's account of its kernels: how much of the step rests on which kind of figure."""

from pathlib import Path

import pytest

from simulator import load_scenario, simulate

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
