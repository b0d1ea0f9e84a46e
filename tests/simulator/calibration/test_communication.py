"""The fit of communication kernels: what it rests on, what it misses, and that it finds what made its samples."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.calibration.communication import (
    ALONE,
    BESIDE_COMPUTE,
    WAIT,
    Constant,
    least_missed,
    main,
    predict,
    read_targets,
    residual_table,
    seconds_missed,
    value_of,
    waits_s,
    with_values,
    without_waiting,
)
from simulator.calibration.published_gemms import published
from simulator.costs import load_cost_table
from simulator.run import simulate
from simulator.scenario import load_scenario
from workloads.tasks import CommunicationKernel

ROOT = Path(__file__).parents[3]
TABLE = load_cost_table("h800-published", ROOT)
TARGETS = read_targets()
# Degree 256 takes seconds.
QUICK = [target for target in TARGETS if "EP 256" not in target.name]


def missed(targets, table=TABLE):
    return seconds_missed(targets, predict(targets, table, ROOT / "scenarios"))


def documented():
    """The misses that docs/calibration.md has, by name of the measurement."""
    rows = re.findall(
        r"^\| ([^|]+) \| [^|]+ \| [^|]+ \| ([+-][\d.]+)% \|",
        (ROOT / "docs/calibration.md").read_text(),
        re.MULTILINE,
    )
    return {name: float(share) / 100 for name, share in rows}


def test_the_document_has_every_measurement():
    assert set(documented()) == {target.name for target in TARGETS}


def test_kernels_that_run_alone_are_met_within_a_twentieth():
    by_name = documented()
    for target in TARGETS:
        assert abs(by_name[target.name]) <= (0.15 if target.is_beside_compute else 0.05), target.name


def test_targets_beside_computation_are_the_means_of_the_trace_s_kernels():
    of_stage = {
        row["stage"]: np.mean([float(row[f"layer{layer}_us"]) for layer in (0, 1)])
        for row in published("h800_train_stage_kernelclass.csv")
        if row["kernel_class"] in {"comm_dispatch", "comm_combine"}
    }
    # the backward of combine spreads gradients, as a dispatch spreads tokens
    stages = {
        "normal dispatch, EP 64, beside computation": "dispatch(F)",
        "normal dispatch of gradients, EP 64, beside computation": "combine(B)",
        "normal combine, EP 64, beside computation": "combine(F)",
        "normal combine of gradients, EP 64, beside computation": "dispatch(B)",
    }
    beside = {target.name: target.value for target in TARGETS if target.is_beside_compute}
    assert beside == pytest.approx({name: of_stage[stage] * 1e-6 for name, stage in stages.items()})


def test_the_document_says_what_comes_out():
    by_name = documented()
    for target, share in zip(QUICK, missed(QUICK), strict=True):
        assert share == pytest.approx(by_name[target.name], abs=5.1e-4), target.name


@pytest.mark.slow
def test_the_document_says_what_comes_out_at_every_degree(capsys):
    assert main(["--scenarios", str(ROOT / "scenarios")]) == 0
    assert capsys.readouterr().out.strip() in (ROOT / "docs/calibration.md").read_text()


def test_each_constant_says_by_how_much_it_misses():
    by_name = documented()

    def figure(*path):
        node = TABLE
        for name in path:
            node = node[name] if isinstance(node, dict) else getattr(node, name)
        return node

    def worst(begin="", end=""):
        return max(
            abs(share) for name, share in by_name.items() if name.startswith(begin) and name.endswith(end)
        )

    dispatch, combine = (worst(f"normal {part}", "beside computation") for part in ("dispatch", "combine"))
    by_name = {name: share for name, share in by_name.items() if "beside" not in name}
    expected = {
        ("link_efficiency", "infiniband"): worst(),
        ("communication", "normal", "start_up"): worst("normal"),
        ("communication", "normal", "per_message", "nvlink"): worst("normal", "EP 8"),
        ("communication", "low-latency", "start_up"): worst("low-latency"),
        ("communication", "low-latency", "per_message", "nvlink"): worst("low-latency", "EP 8"),
        ("beside_compute", "dispatch"): dispatch,
        ("beside_compute", "combine"): combine,
        # one mean for all: the largest miss is that of the shortest or of the longest wait
        WAIT.path: np.abs(value_of(TABLE, WAIT) / waits_s() - 1.0).max(),
    }
    for constant in (*ALONE, *BESIDE_COMPUTE, WAIT):
        assert figure(*constant.path).how == "fitted"
        assert figure(*constant.path).largest_residual == pytest.approx(expected[constant.path], abs=1e-3)


def test_no_constant_is_at_odds_with_its_bounds():
    for constant in (*ALONE, *BESIDE_COMPUTE, WAIT):
        assert constant.least <= value_of(TABLE, constant) <= constant.most


def test_the_wait_is_the_mean_of_the_trace_s_eight():
    # The table of classes has the same kernels: one of each of four stages, of two layers.
    classes = [
        row for row in published("h800_train_stage_kernelclass.csv") if row["kernel_class"] == "comm_notify"
    ]
    assert {row["stage"] for row in classes} == {"dispatch(F)", "combine(F)", "dispatch(B)", "combine(B)"}
    of_classes = [float(row[f"layer{layer}_us"]) for row in classes for layer in (0, 1)]
    assert sorted(waits_s() * 1e6) == pytest.approx(sorted(of_classes))
    # printed by --fit with six digits
    assert f"{value_of(TABLE, WAIT):.6g}" == f"{np.mean(of_classes) * 1e-6:.6g}"


def test_the_document_lists_every_wait():
    text = (ROOT / "docs/calibration.md").read_text()
    columns = ("dispatch(F)", "combine(F)", "dispatch(B)", "combine(B)")
    of_stage = {
        row["stage"]: row
        for row in published("h800_train_stage_kernelclass.csv")
        if row["kernel_class"] == "comm_notify"
    }
    for layer in (0, 1):
        waits = " | ".join(f"{of_stage[stage][f'layer{layer}_us']} us" for stage in columns)
        assert f"| {layer} | {waits} |" in text
    misses = value_of(TABLE, WAIT) / waits_s() - 1.0
    assert f"the shortest by {misses.max():+.1%} and the longest by {misses.min():+.1%}" in text


def test_targets_are_predicted_without_the_wait_and_scenarios_are_not():
    # The wait comes before bytes move: a dispatch beside computation takes it longer than its kernel does.
    beside = [target for target in QUICK if target.is_beside_compute and target.metric == "dispatch_s"]
    assert len(beside) == 2  # forward and backward, by one kernel
    kernel_s = predict(beside, TABLE, ROOT / "scenarios")
    longer_s = predict(beside, with_values(TABLE, (WAIT,), (1.0,)), ROOT / "scenarios")
    assert longer_s.tolist() == kernel_s.tolist()
    scenario = load_scenario(ROOT / "scenarios" / beside[0].scenario, beside[0].overrides)
    whole_s = simulate(scenario).summary["metrics"]["dispatch_s"]
    assert whole_s - kernel_s[0] == pytest.approx(value_of(TABLE, WAIT), rel=1e-9)


def test_without_waiting_only_the_wait_is_left_out():
    without = without_waiting(TABLE)
    beside = CommunicationKernel("normal", message_bytes=7472, beside_compute=True)
    shorter_s = TABLE.pricing(beside).start_up_s - without.pricing(beside).start_up_s
    assert shorter_s == pytest.approx(value_of(TABLE, WAIT))
    alone = replace(beside, beside_compute=False)
    assert without.pricing(alone) == TABLE.pricing(alone)
    assert replace(without.pricing(beside), start_up_s=TABLE.pricing(beside).start_up_s) == TABLE.pricing(
        beside
    )


def test_values_go_into_a_table_and_come_out_again():
    values = [0.93, 1.25e-5, 3.3e-9, 4e-6, 0.0]
    assert [value_of(with_values(TABLE, ALONE, values), constant) for constant in ALONE] == pytest.approx(
        values
    )
    # and nothing else has changed
    again = with_values(TABLE, ALONE, [value_of(TABLE, constant) for constant in ALONE])
    assert with_values(again, ALONE, values) == with_values(TABLE, ALONE, values)


def test_a_rate_that_is_too_low_is_a_time_that_is_too_long():
    rate = next(target for target in TARGETS if target.metric.endswith("_bytes_per_s"))
    time = next(target for target in TARGETS if not target.metric.endswith("_bytes_per_s"))
    predicted = np.array([rate.value / 1.25, time.value * 1.25])
    assert seconds_missed([rate, time], predicted) == pytest.approx([0.25, 0.25])


def test_the_fit_finds_the_constants_that_made_its_samples():
    # Quick measurements, made up by the simulator with other constants, and a start from the shipped ones.
    pytest.importorskip("scipy")
    constants = (
        Constant(("communication", "low-latency", "start_up"), 0.0, 1e-4),
        Constant(("communication", "low-latency", "per_message", "nvlink"), 0.0, 1e-7),
    )
    small = [target for target in QUICK if target.name.startswith("low-latency")]
    truth = [2.75e-5, 3.1e-8]
    made_up = predict(small, with_values(TABLE, constants, truth), ROOT / "scenarios")
    samples = [target._replace(value=float(value)) for target, value in zip(small, made_up, strict=True)]
    found = least_missed(TABLE, constants, lambda table: missed(samples, table))
    assert [value_of(found, constant) for constant in constants] == pytest.approx(truth, rel=1e-3)


def test_the_table_of_residuals_names_commands_that_load():
    table = residual_table(QUICK[:2], np.array([150e9, 160e9]))
    assert "| normal dispatch, EP 8 | 153 GB/s | 150.0 GB/s | +2.0% |" in table
    assert "`--set workload.expert_parallel=8`" in table
