"""What the kernel costs of `h800-published` rest on: the published shapes and the training trace."""

from pathlib import Path

import numpy as np
import pytest

from simulator.calibration import kernel_costs, training_stages, training_trace
from simulator.calibration.fitting import stands_for
from simulator.calibration.kernel_costs import fitted, main
from simulator.calibration.published_gemms import H800, fit, leave_one_out, published_shapes
from simulator.calibration.table_file import write_table
from simulator.calibration.training_trace import fit_slowdowns, misses, slowdown_name, trace_kernels
from simulator.costs import load_cost_table
from simulator.figures import Figure
from simulator.kernel_times import KernelTimes

TABLE = load_cost_table("h800-published", Path())
SHAPES = published_shapes()


def test_the_shapes_are_the_published_ones():
    # DeepGEMM, March 2025: 18 dense, 4 grouped contiguous and 6 grouped masked shapes, in TFLOP/s
    assert len(SHAPES) == 28
    rates = {shape.call.sizes: round(shape.call.flops / shape.seconds_on(H800) / 1e12) for shape in SHAPES}
    assert rates[1, 64, 2112, 7168] == 206
    assert rates[1, 4096, 7168, 16384] == 1426  # the second of two columns
    assert rates[8, 32768, 7168, 2048] == 1214
    assert rates[4, 1024, 7168, 2048] == 815


def test_a_shape_left_out_is_missed_by_less_than_8_percent_as_a_rule():
    missed = np.abs(leave_one_out(SHAPES))
    assert np.median(missed) <= 0.08
    assert missed.max() < 0.3


def test_leaving_out_leaves_out(monkeypatch):
    # A shape far off all others is missed by as much as it is off: neither the fit nor the list has seen it.
    wrong = SHAPES[0].model_copy(update={"share": SHAPES[0].share / 10})
    changed = (wrong, *SHAPES[1:])
    assert leave_one_out(changed)[0] == pytest.approx((1 + leave_one_out(SHAPES)[0]) / 10 - 1)


def test_the_fit_finds_the_constants_that_shapes_were_made_with():
    true = fit(SHAPES)
    times = KernelTimes({"gemm-fp8": true}, {}, None, H800)
    made = tuple(
        shape.model_copy(update={"share": shape.call.flops / times.cost(shape.call).seconds / H800.peak_fp8})
        for shape in SHAPES
    )
    found = fit(made)
    assert found.arithmetic.value == pytest.approx(true.arithmetic.value, rel=1e-3)
    assert found.bandwidth.value == pytest.approx(true.bandwidth.value, rel=1e-3)
    assert found.launch.value == pytest.approx(true.launch.value, rel=1e-2)
    assert found.launch.largest_residual < 1e-3


def test_the_shipped_table_is_what_the_fit_gives(tmp_path):
    # to within what another version of the solver may make of it: a unit of the last of three digits
    again = fitted(TABLE)
    for name, entry in TABLE.kernels.items():
        for part, figure in entry.figures().items():
            assert numbers(again.kernels[name].figures()[part]) == pytest.approx(numbers(figure), rel=1e-2)
    assert {name: slowdown.value for name, slowdown in again.beside_communication.items()} == pytest.approx(
        {name: slowdown.value for name, slowdown in TABLE.beside_communication.items()}, rel=1e-2
    )


def numbers(figure: Figure) -> dict[str, float]:
    return {name: value for name, value in figure if isinstance(value, float)}


def test_a_table_is_written_as_it_is_shipped(tmp_path):
    write_table(TABLE, tmp_path / "again.json")
    shipped = Path(kernel_costs.__file__).parents[1] / "kernel_costs" / "h800-published.json"
    assert (tmp_path / "again.json").read_text() == shipped.read_text()


def test_other_tables_have_the_same_figures_assumed():
    roofline = load_cost_table("roofline", Path())
    assert set(roofline.kernels) == set(TABLE.kernels)
    for name, entry in roofline.kernels.items():
        assert entry == stands_for(TABLE.kernels[name], entry.launch.source)
    assert {name: slowdown.value for name, slowdown in roofline.beside_communication.items()} == {
        name: slowdown.value for name, slowdown in TABLE.beside_communication.items()
    }
    for figures in (roofline.link_efficiency, roofline.beside_communication):
        assert {figure.how for figure in figures.values()} == {"assumed"}


# The training trace


KERNELS = trace_kernels()


def test_the_trace_is_read_as_published():
    # Layer 0's output projection: 4096 x 7168 x 16384 in 895 us; its experts' first product: 31,104 rows in 1,739 us
    found = {(kernel.layer, kernel.stage, kernel.name): kernel for kernel in KERNELS}
    output = found["0", "attn(F)", "gemm_fp8_dense 4"]
    assert output.call.sizes == (1, 4096, 7168, 16384)
    assert output.seconds == pytest.approx(895e-6)
    experts = found["0", "mlp(F)", "gemm_fp8_grouped 0"]
    assert experts.call.sizes == (4, 31104, 4096, 7168)
    assert experts.seconds == pytest.approx(1739e-6)
    assert len(KERNELS) == 2 * len({(kernel.stage, kernel.name) for kernel in KERNELS})


def test_slowdowns_make_kinds_take_what_they_took():
    for name in {slowdown_name(kernel.call) for kernel in KERNELS}:
        times = training_trace.with_slowdowns(TABLE, {name: TABLE.beside_communication[name].value})
        of_kind = [kernel for kernel in KERNELS if slowdown_name(kernel.call) == name]
        took_s = sum(kernel.seconds for kernel in of_kind)
        predicted_s = sum(times.cost(kernel.call, 20).seconds for kernel in of_kind)
        # one that would be under 1 is held there: kernels do not gain beside communication
        held = TABLE.beside_communication[name].value == 1.0
        assert predicted_s / took_s == pytest.approx(1.0, abs=0.05 if held else 1e-3)
        assert np.abs(misses(times, of_kind)).max() == pytest.approx(
            TABLE.beside_communication[name].largest_residual, abs=1e-3
        )


@pytest.mark.parametrize(("kinds", "classes"), training_stages.CLASSES_OF.items())
def test_classes_take_together_what_they_took(kinds, classes):
    times = KernelTimes(TABLE.kernels, TABLE.beside_communication, TABLE.device, H800)
    assert training_stages.predicted_s(kinds, times) == pytest.approx(
        training_stages.measured_s(classes), rel=1e-3
    )


def test_the_classes_are_read_as_published():
    # Casts and layouts: 498 and 487 us in attn(F), 329 and 346 in mlp(F), 979, 955, 598, 561, 1277 and 1276; not
    # those of combine(B), which does not compute.
    assert training_stages.measured_s(("quant_cast_transpose",)) == pytest.approx(
        (498 + 487 + 329 + 346 + 979 + 955 + 598 + 561 + 1277 + 1276) * 1e-6
    )


def test_every_stage_is_within_15_percent_of_the_trace():
    times = KernelTimes(TABLE.kernels, TABLE.beside_communication, TABLE.device, H800)
    found = training_stages.stages()
    assert len(found) == 12
    missed = [sum(times.cost(call, 20).seconds for call in stage.calls) / stage.busy_s - 1 for stage in found]
    assert max(map(abs, missed)) <= 0.15


def test_the_fit_of_slowdowns_finds_what_a_trace_was_made_with():
    made = [
        replace_seconds(
            kernel, training_trace.with_slowdowns(TABLE, NAMES_AT_1_3).cost(kernel.call, 20).seconds
        )
        for kernel in KERNELS
    ]
    assert fit_slowdowns(TABLE, made) == pytest.approx(NAMES_AT_1_3, rel=1e-3)  # listed shapes bind


NAMES_AT_1_3 = dict.fromkeys((slowdown_name(kernel.call) for kernel in KERNELS), 1.3)


def replace_seconds(kernel: training_trace.TraceKernel, seconds: float) -> training_trace.TraceKernel:
    return kernel._replace(seconds=seconds)


def test_the_tables_of_the_document_are_what_the_command_prints(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(Path(__file__).parents[3])  # where the scenarios are
    assert main([]) == 0
    printed = capsys.readouterr().out
    document = Path(__file__).parents[3] / "docs" / "kernels.md"
    for table in printed.split("\n\n"):
        assert table.strip() in document.read_text("utf-8")
    copy = tmp_path / "kernels.md"
    copy.write_text(document.read_text("utf-8").replace("1426 TFLOP/s", "1 TFLOP/s"), "utf-8")
    assert main(["--write", str(copy)]) == 0
    assert copy.read_text("utf-8") == document.read_text("utf-8")
