"""Every shipped scenario gives the summary that was reviewed: `pytest tests/golden --update-golden` writes it anew.

The numbers are a record, not a truth: they tell that a change moved a result, and by how much.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from simulator import load_scenario, simulate

HERE = Path(__file__).parent
SLOW = ("decode_ep320", "training_2048_multi_plane", "training_2048_multi_rail")  # 10 to 40 s each
SCENARIOS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
    for path in sorted((HERE.parents[1] / "scenarios").glob("*.yaml"))
]


def numbers(summary: dict[str, Any]) -> dict[str, float]:
    """Return the summary's numbers under dotted names."""
    kept = {key: summary[key] for key in ("step_time_s", "breakdown_s", "metrics", "links", "bounds_s")}
    flat = pd.json_normalize(kept).iloc[0].to_dict()
    return {name: float(value) for name, value in flat.items() if not isinstance(value, str)}


@pytest.mark.parametrize("path", SCENARIOS)
def test_summary_is_the_reviewed_one(path: Path, update_golden: bool):
    found = pd.Series(numbers(simulate(load_scenario(path)).summary), name="value").rename_axis("name")
    golden = HERE / f"{path.stem}.csv"
    if update_golden:
        found.to_csv(golden, float_format="%.12g", lineterminator="\n")
    expected = pd.read_csv(golden, index_col="name")["value"]
    assert list(found.index) == list(expected.index)
    # Another processor may round another way: 1e-9 is far more than that, and far less than any change of model.
    assert found.to_dict() == pytest.approx(expected.to_dict(), rel=1e-9, abs=1e-15)
