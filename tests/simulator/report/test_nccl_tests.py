"""Predicted beside measured, in the report of a run of nccl-tests."""

from pathlib import Path

from simulator import simulate
from simulator.report.sections import report_sections
from support.tiny_scenarios import tiny_scenario


def test_each_size_has_a_row(tmp_path: Path):
    result = simulate(tiny_scenario("nccl-tests", tmp_path))
    (section,) = [section for section in report_sections(result) if section.key == "nccl-tests"]
    (table,) = section.blocks
    rows = result.summary["nccl_tests"]
    assert [row[0] for row in table.rows] == ["1.049 MB", "16.78 MB"]
    assert [row[3] for row in table.rows] == [f"{row['time_error']:+.1%}" for row in rows]
    # 20 us and 1,048,576 bytes at 100 GB/s
    assert table.rows[0][2] == "30.49 us"
