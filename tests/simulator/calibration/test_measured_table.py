"""A table from samples: the constants that they were made with come back, and what was not measured says so."""

from pathlib import Path

import pytest

from simulator.calibration.gpu.samples import Measurement, read_samples, write_samples
from simulator.calibration.measured_table import KINDS, comparison, gpu_of, table_of
from simulator.calibration.table_file import write_table
from simulator.costs import load_cost_table
from simulator.kernel_times import KernelTimes
from support.samples import H200, ROOFLINE, made, sample


@pytest.fixture(scope="module")
def table():
    return table_of(made(), "h200-mine")


def test_stored_samples_give_back_the_constants_that_they_were_made_with(tmp_path, table):
    write_samples(made(), tmp_path / "samples.json")
    again = table_of(read_samples(tmp_path / "samples.json"), "h200-mine")
    assert again == table
    for kind in KINDS:
        expected = ROOFLINE.kernels[kind if kind in ROOFLINE.kernels else "streaming"]
        found = table.kernels[kind]
        assert found.launch.value == pytest.approx(expected.launch.value, rel=0.02)
        assert found.bandwidth.value == pytest.approx(expected.bandwidth.value, rel=0.01)
        if expected.arithmetic:
            assert found.arithmetic.value == pytest.approx(expected.arithmetic.value, rel=0.01)
        assert found.launch.largest_residual < 0.02
        assert found.launch.how == "fitted"


def test_measured_shapes_are_reproduced_on_the_device(table):
    measurement = made()
    times = KernelTimes(table.kernels, {}, table.device, gpu_of("NVIDIA H200"))
    for kind, how in KINDS.items():
        for one in [one for one in measurement.samples if one.kernel == how.sampled[0]]:
            cost = times.cost(how.call(one.shape))
            assert cost.seconds == pytest.approx(one.median_s, rel=1e-5), kind
            assert (cost.how, cost.basis) == ("measured", "tabulated")


def test_scales_by_blocks_are_preferred_and_scales_by_tensors_said(table):
    assert table.kernels["gemm-fp8"].launch.source.endswith(": gemm-fp8-block")
    blocks = ("gemm-fp8-block", "grouped-gemm-fp8-block")
    assert table_of(made(left_out=blocks), "x").kernels["gemm-fp8"].launch.source.endswith(": gemm-fp8")


def test_what_was_not_measured_is_assumed(table, tmp_path):
    assert table.kernels["streaming"].bandwidth.how == "assumed"
    assert "as copy" in table.kernels["streaming"].bandwidth.source
    assert table.kernels["attention"].listed is None
    assert table.link_efficiency == ROOFLINE.link_efficiency
    without = table_of(made(left_out=("mla-decode",)), "x")
    assert without.kernels["latent-attention"] == ROOFLINE.kernels["latent-attention"]
    write_table(table, tmp_path / "mine.json")
    assert load_cost_table("mine.json", tmp_path) == table


def test_the_comparison_has_each_efficiency(table):
    rows = comparison(table, load_cost_table("h800-published", Path())).splitlines()
    assert "| latent-attention | bandwidth | 0.896 | 0.896 | 1.00 |" in rows
    assert sum("| gemm-fp8 |" in row for row in rows) == 3


@pytest.mark.parametrize(
    ("name", "peak"), [("NVIDIA H200", 4.8e12), ("NVIDIA H100 80GB HBM3", 3.35e12), ("NVIDIA H800", 3.35e12)]
)
def test_devices_are_known_by_their_names(name: str, peak: float):
    assert gpu_of(name).memory_bandwidth == peak


def test_what_makes_no_table_is_refused():
    with pytest.raises(ValueError, match="the peaks of 'NVIDIA B300' are not known"):
        gpu_of("NVIDIA B300")
    with pytest.raises(ValueError, match="no samples of a kernel"):
        table_of(Measurement(H200, "2026-01-31", 1, (), (), ()), "x")
    fast = sample("copy", {"bytes": 10**9}, KINDS["copy"].call({"bytes": 10**9}), 1e-4)
    with pytest.raises(ValueError, match=r"copy .* of the GPU's peak"):
        table_of(Measurement(H200, "2026-01-31", 1, (), (), (fast,)), "x")
