"""What the report says of an inference step, in a terminal of 100 columns."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from simulator import load_scenario, simulate
from simulator.report.inference import memory_by_part_table
from simulator.report.parts import ReportTable
from simulator.report.tables import print_block
from simulator.report.terminal import print_report

SCENARIO = """
name: tiny
cluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree}}
model: deepseek-v3
costs: %s
workload: {kind: decode-step, expert_parallel: 16, batch_per_gpu: 64, cached_tokens: 16, limit: %s, groups: 1}
"""


def printed(what: ReportTable) -> str:
    shown = io.StringIO()
    print_block(what, Console(width=100, file=shown))
    return shown.getvalue()


def report(folder: Path, *, costs: str = "ideal", limit: bool = False) -> tuple[str, dict[str, float]]:
    """Return the report of a step on one line, and its metrics."""
    (folder / "tiny.yaml").write_text(SCENARIO % (costs, str(limit).lower()))
    result = simulate(load_scenario(folder / "tiny.yaml"))
    shown = io.StringIO()
    print_report(result, Console(width=100, file=shown))
    return " ".join(shown.getvalue().split()), result.summary["metrics"]


def test_parts_of_memory_have_a_line_each_and_add_up():
    rows = [
        {"part": "layer weights", "size_bytes": 15 * 10**9},
        {"part": "kv cache", "size_bytes": 45 * 10**9},
    ]
    lines = [" ".join(line.split()) for line in printed(memory_by_part_table(rows, 80e9)).splitlines()]
    assert "Memory of a GPU, which has 80 GB" in lines
    # 15, 45 and 60 of 80
    assert "layer weights 15 GB 18.8%" in lines
    assert "kv cache 45 GB 56.2%" in lines
    assert "total 60 GB 75.0%" in lines


def test_a_simulated_step_is_set_beside_its_limit(tmp_path: Path):
    text, metrics = report(tmp_path)
    # 32 tokens an exchange: 32 * 9 * 7000 * 3 bytes over 50 GB/s, twice in each of 61 layers
    assert metrics["limit_tpot_s"] == pytest.approx(61 * 2 * 32 * 9 * 7000 * 3 / 50e9, rel=1e-12)
    share = metrics["limit_tpot_s"] / metrics["tpot_s"]
    assert f"the idealised limit of its exchanges is 14.76 ms, {share:.0%} of that." in text
    assert "Memory of a GPU, which has 84.94 GB" in text
    assert "a bound and not a simulation" not in text


def test_the_limit_says_that_it_is_a_bound_and_rests_on_no_figures(tmp_path: Path):
    text, metrics = report(tmp_path, costs="h800-published", limit=True)
    assert "the idealised limit of decode-step of deepseek-v3, a bound and not a simulation; 2 x h800" in text
    assert metrics["tpot_s"] == pytest.approx(14.75712e-3, rel=1e-12)
    assert metrics["exchange_s"] == pytest.approx(120.96e-6, rel=1e-12)
    assert metrics["layer_s"] == pytest.approx(241.92e-6, rel=1e-12)
    assert "Constants" not in text
    assert "Memory" not in text
    assert "limit_tpot_s" not in metrics
