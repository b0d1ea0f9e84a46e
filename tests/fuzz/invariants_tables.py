"""What every result keeps, as its tables and its summary alone show it."""

import json
import math
from typing import Any

import numpy as np

from support.observed import Observed

ROUNDING = 1e-9
_FRACTIONS = ("utilisation", "saturated_fraction")
_TABLES = ("tasks", "phases", "flows", "links", "link_timeline")


def check_tables(run: Observed) -> None:
    """Check that numbers are numbers, shares are shares, the breakdown adds up, and it is said where all is from."""
    _check_numbers(run)
    _check_summary(run)
    _check_links(run)


def _check_numbers(run: Observed) -> None:
    """No column of a table has a NaN, an infinity or a negative time; but phases without tasks have no times."""
    for name in _TABLES:
        table = getattr(run.result, name)
        for column in table.select_dtypes("number"):
            values = table[column].to_numpy()
            where = f"{name}.{column}"
            if name == "phases" and column in {"start_s", "end_s"}:
                empty = np.isnan(values)
                assert (empty == table["start_s"].isna().to_numpy()).all(), where
                values = values[~empty]
            assert np.isfinite(values).all(), where
            if column.endswith(("_s", "bytes")) or column in _FRACTIONS:
                assert (values >= 0.0).all(), where
        if {"start_s", "end_s"} <= set(table.columns):
            assert not (table["end_s"] < table["start_s"]).any(), name
            if name != "link_timeline":  # whose last bin may reach past the step
                assert not (table["end_s"] > run.step_s * (1 + ROUNDING)).any(), name


def _check_summary(run: Observed) -> None:
    """The summary is JSON, its breakdown adds up to the step, and it says what it rests on."""
    summary = run.result.summary
    assert json.loads(run.result.to_json()) == summary
    _check_finite(summary, "summary")
    parts = summary["breakdown_s"]
    assert all(seconds >= -ROUNDING * run.step_s for seconds in parts.values()), parts
    assert math.isclose(sum(parts.values()), summary["step_time_s"], rel_tol=ROUNDING), parts
    if run.graph.tasks:
        assert math.isclose(summary["step_time_s"], run.step_s, rel_tol=ROUNDING)
    provenance = summary["provenance"]
    assert provenance["seed"] == run.loaded.scenario.seed
    assert len(provenance["scenario_sha256"]) == 64
    assert provenance["version"]
    assert provenance["assumptions"]
    assert all(text for text in provenance["cost_sources"].values())
    assert len(summary["faults"]) == len(run.loaded.scenario.faults)


def _check_finite(value: Any, where: str) -> None:
    """All numbers within are finite."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_finite(item, f"{where}.{index}")
    elif isinstance(value, float):
        assert math.isfinite(value), where


def _check_links(run: Observed) -> None:
    """Shares of links are shares, in the table, the timeline and the summary, which agree with each other."""
    links, timeline, summary = run.result.links, run.result.link_timeline, run.result.summary
    for table in (links, timeline):
        for column in set(_FRACTIONS) & set(table.columns):
            assert (table[column] <= 1.0).all(), column
    efficiency = links["effective_bytes_per_s"] / links["capacity_bytes_per_s"]
    assert (links["utilisation"] <= efficiency * (1 + ROUNDING)).all()
    for kind, told in summary["links"].items():
        of_kind = links[links["kind"] == kind]
        assert told["count"] == len(of_kind)
        assert math.isclose(told["bytes"], of_kind["bytes"].sum(), rel_tol=ROUNDING, abs_tol=0.0)
        assert told["peak_utilisation"] == of_kind["utilisation"].max()
        assert 0.0 <= told["mean_utilisation"] <= told["peak_utilisation"] * (1 + ROUNDING)
        assert 0.0 <= told["saturated_fraction"] <= 1.0
    assert set(summary["links"]) == set(links["kind"])
    in_bins = timeline.groupby("link")["bytes"].sum()
    moved = links.set_index("link")["bytes"]
    moved = moved[moved > 0.0]
    assert set(in_bins.index) == set(moved.index)
    np.testing.assert_allclose(in_bins.to_numpy(), moved.loc[in_bins.index].to_numpy(), rtol=ROUNDING)
