"""The idealised limit: the paper's figures, through scenarios that run, and what does and does not move it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import load_scenario, simulate
from workloads.inference.limit import bandwidth_bytes_per_s, exchange_s
from workloads.models import load_model
from workloads.tasks import GpuLimits

DEEPSEEK = load_model("deepseek-v3", Path())
V2 = load_model("deepseek-v2", Path())
NIC, NVLINK = 50e9, 900e9

INFINIBAND = """
name: limit
cluster: {node: h800, topology: {kind: multi-plane-fat-tree, planes: 8}}
model: deepseek-v3
workload:
  kind: decode-step
  expert_parallel: 32
  batch_per_gpu: 64
  cached_tokens: 4096
  limit: true
"""
NVL72 = INFINIBAND.replace(
    "{node: h800, topology: {kind: multi-plane-fat-tree, planes: 8}}",
    "{node: gb200-nvl72, topology: {kind: none}}",
).replace("expert_parallel: 32", "expert_parallel: 72")


@pytest.fixture
def run(tmp_path):
    def ran(text, *overrides):
        path = tmp_path / "limit.yaml"
        path.write_text(text if "costs" in text else text + "costs: ideal\n")
        return simulate(load_scenario(path, overrides)).summary

    return ran


def test_an_exchange_on_infiniband_by_hand():
    # 32 tokens to 8 routed experts and the shared one, 7,000 values of 1 byte there and 2 back, 50 GB/s
    assert pytest.approx(120.96e-6, rel=1e-12) == 32 * 9 * 7000 * 3 / 50e9
    assert exchange_s(DEEPSEEK, 32, NIC) == pytest.approx(120.96e-6, rel=1e-12)


def test_the_papers_figures_on_infiniband(run):
    # arXiv 2505.09343, section 2.3.2: 120.96 us an exchange, twice that a layer, 61 layers: "14.76 ms", "67 tokens/s"
    summary = run(INFINIBAND)
    metrics = summary["metrics"]
    assert metrics["exchange_s"] == pytest.approx(120.96e-6, rel=1e-12)
    assert metrics["layer_s"] == pytest.approx(241.92e-6, rel=1e-12)
    assert summary["step_time_s"] == pytest.approx(61 * 241.92e-6, rel=1e-12)
    assert round(1e3 * metrics["tpot_s"], 3) == 14.757
    assert round(metrics["tokens_per_s_per_request"], 2) == 67.76
    assert metrics["tokens_per_s_per_gpu"] == pytest.approx(64 * metrics["tokens_per_s_per_request"])
    # nothing but exchanges
    assert summary["breakdown_s"]["exposed_communication"] == pytest.approx(summary["step_time_s"], rel=1e-12)
    assert "kernels" not in summary
    assert "memory" not in summary


def test_the_papers_figures_on_nvl72(run):
    # 900 GB/s: 6.72 us, "0.82 ms", about 1,200 tokens/s
    summary = run(NVL72)
    metrics = summary["metrics"]
    assert metrics["exchange_s"] == pytest.approx(6.72e-6, rel=1e-12)
    assert round(1e3 * metrics["tpot_s"], 4) == 0.8198
    assert round(metrics["tokens_per_s_per_request"]) == 1220


@pytest.mark.parametrize(("acceptance", "times"), [(0.8, 1.8), (0.9, 1.9), (0.0, 1.0), (1.0, 2.0)])
def test_mtp_gives_more_tokens_in_the_same_step(run, acceptance, times):
    alone, drafted = run(INFINIBAND), run(INFINIBAND, f"workload.mtp_acceptance={acceptance}")
    assert drafted["step_time_s"] == alone["step_time_s"]
    for name in ("tokens_per_s_per_request", "tokens_per_s_per_gpu", "tokens_per_s_per_node"):
        assert drafted["metrics"][name] == pytest.approx(times * alone["metrics"][name], rel=1e-12)


def test_what_is_asked_for_of_experts_counts(run):
    # 4 routed experts and the shared one for 8 and the shared one
    fewer = run(INFINIBAND, "workload.experts_per_token=4")
    assert fewer["step_time_s"] == pytest.approx(5 / 9 * run(INFINIBAND)["step_time_s"], rel=1e-12)


def test_nothing_else_moves_the_limit(run):
    usual = run(INFINIBAND)["step_time_s"]
    for override in (
        "workload.cached_tokens=100000",
        "workload.expert_parallel=128",
        "workload.cache_format=fp8",
        "workload.gate={kind: lognormal, sigma: 1.0}",
        "workload.shared_experts=dispatched",
        "cluster.topology={kind: multi-rail-fat-tree}",
        "cluster.nodes=8",
    ):
        assert run(INFINIBAND, override)["step_time_s"] == usual, override


def test_the_bandwidth_is_that_of_the_widest_step_of_a_group():
    # of 8 GPUs a node, groups up to 8 stay on NVLink
    gpu = GpuLimits(80e9, 1e15, nvlink_bytes_per_s=NVLINK, nic_bytes_per_s=NIC)
    assert [bandwidth_bytes_per_s(gpu, size, 8) for size in (2, 8, 16, 320)] == [NVLINK, NVLINK, NIC, NIC]


def test_the_hidden_size_is_in_whole_thousands():
    # DeepSeek-V2: 5,120 values, 6 routed experts and 2 shared
    assert exchange_s(V2, 10, NIC) == pytest.approx(10 * 8 * 5000 * 3 / NIC, rel=1e-12)


@given(st.integers(1, 10**6), st.floats(1.0, 1e3), st.integers(2, 50))
@settings(max_examples=30, deadline=None)
def test_the_limit_scales(tokens, faster, more):
    # with tokens and against bandwidth, so that no faster link makes it longer
    once = exchange_s(DEEPSEEK, tokens, NIC)
    assert exchange_s(DEEPSEEK, more * tokens, NIC) == pytest.approx(more * once, rel=1e-12)
    assert exchange_s(DEEPSEEK, tokens, faster * NIC) == pytest.approx(once / faster, rel=1e-12)


LINKS = ("nvlink", "pcie", "nic")


@given(st.dictionaries(st.sampled_from(LINKS), st.floats(1.0, 10.0), min_size=1))
@settings(max_examples=6, deadline=None)
@pytest.mark.parametrize("degree", [8, 16])
def test_no_faster_link_makes_a_limit_longer(tmp_path_factory, degree, faster):
    rates = {"nvlink": 200, "pcie": 64, "nic": 50}
    path = tmp_path_factory.getbasetemp() / "limit.yaml"

    def step_s(of):
        node = {"gpus": 8, **{link: f"{of[link]} GB/s" for link in LINKS}}
        gpu = "{name: H, architecture: hopper, memory: 80 GB, memory_bandwidth: 3 TB/s, peak_bf16: 990 TFLOP/s, "
        gpu += "peak_fp8: 1980 TFLOP/s}"
        inline = ", ".join(f"{name}: {value}" for name, value in node.items())
        text = INFINIBAND.replace("node: h800", f"node: {{gpu: {gpu}, {inline}}}")
        path.write_text(text.replace("expert_parallel: 32", f"expert_parallel: {degree}") + "costs: ideal\n")
        return simulate(load_scenario(path)).step_time_s

    assert step_s({link: rates[link] * faster.get(link, 1.0) for link in LINKS}) <= step_s(rates)
