"""The fit of communication kernels: what it rests on, what it misses, and that it finds what made its samples."""

import re
from pathlib import Path

import numpy as np
import pytest

from simulator.calibration.communication import (
    ALONE,
    BESIDE_COMPUTE,
    Constant,
    least_missed,
    main,
    predict,
    read_targets,
    residual_table,
    seconds_missed,
    value_of,
    with_values,
)
from simulator.costs import load_cost_table

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
        assert abs(by_name[target.name]) <= (0.10 if target.is_beside_compute else 0.05), target.name


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

    beside = worst(end="beside computation")
    by_name = {name: share for name, share in by_name.items() if "beside" not in name}
    expected = {
        ("link_efficiency", "infiniband"): worst(),
        ("communication", "normal", "start_up"): worst("normal"),
        ("communication", "normal", "per_message", "nvlink"): worst("normal", "EP 8"),
        ("communication", "low-latency", "start_up"): worst("low-latency"),
        ("communication", "low-latency", "per_message", "nvlink"): worst("low-latency", "EP 8"),
        ("beside_compute",): beside,
    }
    for constant in (*ALONE, *BESIDE_COMPUTE):
        assert figure(*constant.path).how == "fitted"
        assert figure(*constant.path).largest_residual == pytest.approx(expected[constant.path], abs=1e-3)


def test_no_constant_is_at_odds_with_its_bounds():
    for constant in (*ALONE, *BESIDE_COMPUTE):
        assert constant.least <= value_of(TABLE, constant) <= constant.most


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
