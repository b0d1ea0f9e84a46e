"""A table from samples: the constants that they were made with come back, and what was not measured says so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.calibration.gpu.samples import write_samples
from simulator.calibration.gpu.samples_reader import read_samples
from simulator.calibration.known_gpus import gpu_of, peaks_of
from simulator.calibration.lawful_times import lawful
from simulator.calibration.measured_table import KINDS, comparison, table_of
from simulator.calibration.table_file import write_table
from simulator.costs import load_cost_table
from simulator.kernel_times import KernelTimes
from support.samples import CASES, H200, ROOFLINE, made, measurement_of, noisy, retimed, sample

GPU = gpu_of("NVIDIA H200")
COPIES = [one for one in made().samples if one.kernel == "copy"]


@pytest.fixture(scope="module")
def measured():
    return table_of(made(), "h200-mine")


@pytest.fixture(scope="module")
def table(measured):
    return measured.table


def test_stored_samples_give_back_the_constants_that_they_were_made_with(tmp_path, measured):
    write_samples(made(), tmp_path / "samples.json")
    again = table_of(read_samples(tmp_path / "samples.json"), "h200-mine")
    assert again == measured
    for kind in KINDS:
        expected = ROOFLINE.kernels[kind if kind in ROOFLINE.kernels else "streaming"]
        found = measured.table.kernels[kind]
        assert found.launch.value == pytest.approx(expected.launch.value, rel=0.02)
        assert found.bandwidth.value == pytest.approx(expected.bandwidth.value, rel=0.01)
        if expected.arithmetic:
            assert found.arithmetic.value == pytest.approx(expected.arithmetic.value, rel=0.01)
        assert found.launch.largest_residual < 0.02
        assert found.launch.how == "fitted"
        assert found.listed.largest_residual < 1e-9


def test_measured_shapes_are_reproduced_on_the_device(table):
    measurement = made()
    times = KernelTimes(table.kernels, {}, table.device, GPU)
    for kind, how in KINDS.items():
        for one in [one for one in measurement.samples if one.kernel == how.sampled[0]]:
            cost = times.cost(how.call(one.shape))
            assert cost.seconds == pytest.approx(one.median_s, rel=1e-5), kind
            assert (cost.how, cost.basis) == ("measured", "tabulated")


# --- noise ---


@pytest.mark.parametrize("deviation", [0.02, 0.05])
def test_with_noise_every_listed_share_is_reproduced_and_shifts_are_of_the_noises_size(tmp_path, deviation):
    exact = made()
    measurement = noisy(exact, deviation)
    write_table(table_of(measurement, "mine").table, tmp_path / "mine.json")
    table = load_cost_table("mine.json", tmp_path)
    times = KernelTimes(table.kernels, {}, table.device, GPU)
    largest = []
    for kind, how in KINDS.items():
        listed, offs = table.kernels[kind].listed, {}
        for one, true in zip(measurement.samples, exact.samples, strict=True):
            if one.kernel == how.sampled[0]:
                offs[how.call(one.shape)] = one.median_s, true.median_s
        shifts = []
        for shape in listed.shapes:
            seconds = shape.seconds_on(GPU)
            # Within the rounding of shares to six digits, of this shape and of the one that bounds it.
            assert times.cost(shape.call).seconds == pytest.approx(seconds, rel=2e-5), shape
            shifts.append(abs(seconds / offs[shape.call][0] - 1))
        largest_noise = max(abs(noisy_s / true_s - 1) for noisy_s, true_s in offs.values())
        assert listed.largest_residual == pytest.approx(max(shifts), rel=0.02, abs=2e-5)
        # Times without noise agree with the law, so that the least change is no larger than it.
        assert listed.largest_residual <= 1.1 * largest_noise, kind
        largest.append(listed.largest_residual)
        sizes, listed_s = (
            np.array([of(shape) for shape in listed.shapes], float)
            for of in (lambda shape: shape.call.sizes, lambda shape: shape.seconds_on(GPU))
        )
        assert breach(sizes, listed_s) < 2e-5, kind
    assert max(largest) > deviation / 2


def breach(sizes, seconds):
    """By what share a time is longer, at the most, than another allows it to be."""
    allowed = seconds[None, :] * np.maximum(sizes[:, None, :] / sizes[None, :, :], 1).prod(axis=2)
    return (seconds[:, None] / allowed).max() - 1


def test_lawful_times_are_the_least_change():
    # One size doubled: from 1 s to at most 2 s, and to no less than 1 s.
    sizes = np.array([[1.0], [2.0], [8.0]])
    np.testing.assert_array_equal(lawful(sizes, np.array([1.0, 1.5, 3.0])), [1.0, 1.5, 3.0])
    np.testing.assert_allclose(lawful(sizes[:2], np.array([1.0, 4.0])), [2**0.5, 2 * 2**0.5])
    np.testing.assert_allclose(lawful(sizes[:2], np.array([4.0, 1.0])), [2.0, 2.0])


def test_lawful_times_agree_with_the_law_whatever_was_measured():
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 9, (40, 3)).astype(float)
    measured_s = rng.uniform(0.5, 2.0, 40)
    assert breach(sizes, measured_s) > 0.5
    assert breach(sizes, lawful(sizes, measured_s)) < 1e-12


# --- what is left out, and said ---


def test_samples_beyond_a_peak_are_left_out_with_a_note():
    # A copy at 1.2 of the memory's bandwidth, and a product at 0.4 of its FLOPs and 1.5 of the bandwidth.
    copy = COPIES[0]
    bandwidth = GPU.memory_bandwidth
    fast = retimed(copy, copy.bytes / bandwidth / 1.2)
    thin = {"m": 64, "n": 4096, "k": 7168}
    call = KINDS["gemm-bf16"].call(thin)
    assert call.flops / GPU.peak_bf16 < 0.5 * call.moved_bytes / bandwidth
    products = [one for one in made().samples if one.kernel == "gemm-bf16" and one.shape != thin]
    thin_sample = sample("gemm-bf16", thin, call.moved_bytes / bandwidth / 1.5)
    found = table_of(measurement_of([fast, *COPIES[1:], *products, thin_sample]), "x")
    assert len(found.table.kernels["copy"].listed.shapes) == len(COPIES) - 1
    assert call not in [shape.call for shape in found.table.kernels["gemm-bf16"].listed.shapes]
    notes = [
        f"Samples of {kernel} left out, being faster than the GPU's peaks allow: {shape} of a peak)."
        for kernel, shape in (("copy", "bytes=2147483648 (1.20"), ("gemm-bf16", "m=64 n=4096 k=7168 (1.50"))
    ]
    assert list(found.notes) == notes
    assert all(note in found.table.description for note in notes)


def test_a_shift_takes_no_share_beyond_the_peak():
    # The smaller copy at its peak, the larger no slower: shifted to agree they would be faster than the memory.
    large, small = COPIES[0], COPIES[1]
    at_peak = [retimed(large, 1.02 * large.bytes / GPU.memory_bandwidth)]
    at_peak.append(retimed(small, 1.1 * large.bytes / GPU.memory_bandwidth))
    shapes = table_of(measurement_of([*at_peak, *COPIES[2:]]), "x").table.kernels["copy"].listed.shapes
    assert all(shape.share <= 1 for shape in shapes)


def test_loops_of_calls_are_neither_listed_nor_fitted(table, measured):
    assert all(shape.call.groups == 1 for shape in table.kernels["gemm-fp8"].listed.shapes)
    assert len(table.kernels["gemm-fp8"].listed.shapes) == len(CASES["gemm-fp8-block"])
    (note,) = measured.notes
    assert note.startswith(
        "Groups of products were timed as loops of calls, and are not listed: grouped-gemm-"
    )
    assert note in table.description
    loops = tuple(name for name in CASES if name.startswith("grouped"))
    without = table_of(made(left_out=loops), "h200-mine")
    assert without.table.kernels == table.kernels
    assert without.notes == ()


def test_scales_by_blocks_are_preferred_and_scales_by_tensors_said(table, measured):
    assert table.kernels["gemm-fp8"].launch.source.endswith(": gemm-fp8-block")
    blocks = ("gemm-fp8-block", "grouped-gemm-fp8-block")
    found = table_of(made(left_out=blocks), "x")
    said = "with one scale per tensor, not the model's blocks"
    entry = found.table.kernels["gemm-fp8"]
    for figure in (entry.launch, entry.listed):
        assert figure.source.endswith(f": gemm-fp8, {said}")
    assert any(
        note.startswith(f"gemm-fp8 is measured {said}, which cuBLAS has from 12.9") for note in found.notes
    )
    assert said not in table.description


def test_samples_of_what_was_not_verified_are_left_out():
    whole = made()
    wrong = tuple(
        replace(one, norm_error=1.0, why="the error's norm is 1") if one.kernel == "norm" else one
        for one in whole.verified
        if one.kernel != "combine"
    )
    found = table_of(replace(whole, verified=wrong), "x")
    assert "norm" not in found.table.kernels
    assert "reduce" not in found.table.kernels
    norms, combines = (len(CASES[name]) for name in ("norm", "combine"))
    assert (
        f"The samples of norm, {norms}, are left out: it failed its verification (the error's norm is 1)."
        in found.notes
    )
    assert f"The samples of combine, {combines}, are left out: it was not verified." in found.notes


@pytest.mark.parametrize(("count", "how"), [(1, "assumed"), (2, "assumed"), (3, "fitted")])
def test_too_few_shapes_set_no_constants(count, how):
    found = table_of(measurement_of(COPIES[:count]), "x")
    entry = found.table.kernels["copy"]
    assert (entry.launch.how, entry.bandwidth.how) == (how, how)
    assert len(entry.listed.shapes) == count
    if how == "fitted":
        assert found.notes == ()
        return
    assert entry.bandwidth == ROOFLINE.kernels["streaming"].bandwidth
    assert found.table.kernels["streaming"] == ROOFLINE.kernels["streaming"]
    (note,) = found.notes
    assert note.startswith(
        f"The constants of copy are those of roofline, assumed: 3 shapes at least set them, and there are {count}."
    )


def test_what_was_not_measured_is_assumed(table, tmp_path):
    assert table.kernels["streaming"].bandwidth.how == "assumed"
    assert "as copy" in table.kernels["streaming"].bandwidth.source
    assert table.kernels["attention"].listed is None
    assert table.link_efficiency == ROOFLINE.link_efficiency
    without = table_of(made(left_out=("mla-decode",)), "x").table
    assert without.kernels["latent-attention"] == ROOFLINE.kernels["latent-attention"]
    write_table(table, tmp_path / "mine.json")
    assert load_cost_table("mine.json", tmp_path) == table


def test_the_comparison_has_each_efficiency_and_how_it_was_obtained(table):
    published = load_cost_table("h800-published", Path())
    rows = comparison(table, published).splitlines()
    assert rows[0] == "| kernel | figure | how | h200-mine | h800-published | ratio |"
    assert "| latent-attention | bandwidth | fitted | 0.896 | 0.896 | 1.00 |" in rows
    assert sum("| gemm-fp8 |" in row for row in rows) == 3
    without = table_of(made(left_out=("mla-decode",)), "x").table
    assert "| latent-attention | bandwidth | assumed | 0.896 | 0.896 | 1.00 |" in comparison(
        without, published
    )


# --- which GPU ---


@pytest.mark.parametrize(
    ("name", "peak"), [("NVIDIA H200", 4.8e12), ("NVIDIA H100 80GB HBM3", 3.35e12), ("NVIDIA H800", 3.35e12)]
)
def test_devices_are_known_by_their_names(name: str, peak: float):
    assert gpu_of(name).memory_bandwidth == peak
    assert peaks_of(replace(H200, name=name)).memory_bandwidth == peak


@pytest.mark.parametrize(
    "name",
    ["NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H200 NVL", "NVIDIA GH200 480GB", "NVIDIA GB200", "NVIDIA H20",
     "NVIDIA H800 PCIe", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA B300", "H200"],
)  # fmt: skip
def test_other_products_are_refused_with_those_that_are_known(name):
    known = r"known are NVIDIA H200, NVIDIA H100 80GB HBM3, NVIDIA H800 \(SXM\)"
    with pytest.raises(ValueError, match=f"the peaks of '{name}' are not known, .*; {known}"):
        gpu_of(name)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("sms", 114, "number of SMs 114, .* 132"),
        ("compute_capability", "8.0", r"compute capability 8\.0, .* 9\.0"),
    ],
)
def test_a_gpu_that_is_not_what_its_name_says_is_refused(field, value, said):
    with pytest.raises(ValueError, match=f"'NVIDIA H200' has the {said}"):
        peaks_of(replace(H200, **{field: value}))
    with pytest.raises(ValueError, match="'NVIDIA H200' has the"):
        table_of(measurement_of(COPIES, replace(H200, **{field: value})), "x")


def test_what_makes_no_table_is_refused():
    with pytest.raises(ValueError, match="no samples of a kernel"):
        table_of(measurement_of([]), "x")
    fast = sample("copy", {"bytes": 10**9}, 1e-4)
    with pytest.raises(ValueError, match=r"none that can be used\. Samples of copy left out"):
        table_of(measurement_of([fast]), "x")
    huge = sample("copy", {"bytes": 2**41}, 1e3)
    with pytest.raises(
        ValueError, match=r"^copy bytes=2199023255552 is no kernel call: its size_bytes is out of"
    ):
        table_of(measurement_of([huge]), "x")
