"""What the report says of a training step, in a terminal of 80 columns."""

import io
from typing import Any

import pytest
from rich.console import Console

from simulator.report.parts import ReportTable
from simulator.report.tables import print_block
from simulator.report.training import memory_table, pipeline_ranks_table


def printed(table: ReportTable) -> list[list[str]]:
    """Return the words of each line, as a terminal of 80 columns shows them."""
    shown = io.StringIO()
    print_block(table, Console(width=80, file=shown))
    text = shown.getvalue()
    assert "…" not in text  # nothing is cut
    return [line.split() for line in text.splitlines() if line.strip()]


def rank_row(pipeline_rank: int, seconds: float) -> dict[str, Any]:
    parts = (
        "forward",
        "bubble",
        "backward",
        "weight",
        "forward_backward",
        "optimizer",
        "exposed_communication",
    )
    return {"pipeline_rank": pipeline_rank, "stages": f"{pipeline_rank}, {31 - pipeline_rank}"} | {
        f"{part}_s": seconds * place for place, part in enumerate(parts)
    }


def memory_row(pipeline_rank: int, size: float) -> dict[str, Any]:
    parts = ("weights", "gradients", "optimizer", "activations", "working", "communication_buffers")
    return (
        {"pipeline_rank": pipeline_rank}
        | {f"{part}_bytes": size for part in parts}
        | {"total_bytes": size * len(parts)}
    )


def test_pipeline_ranks_have_a_line_each_in_one_unit():
    title, head, _, *lines = printed(pipeline_ranks_table([rank_row(0, 0.25), rank_row(15, 1.2345678)]))
    assert " ".join(title) == "Pipeline ranks, mean over their groups (s)"
    assert head[:4] == ["Rank", "stages", "forward", "bubble"]
    assert lines == [
        ["0", "0,", "31", "0", "0.25", "0.5", "0.75", "1", "1.25", "1.5"],
        ["15", "15,", "16", "0", "1.235", "2.469", "3.704", "4.938", "6.173", "7.407"],
    ]


def test_memory_is_set_against_what_the_gpu_has():
    title, head, _, line = printed(memory_table([memory_row(7, 10e9)], 80e9))
    assert " ".join(title) == "Memory of a GPU (GB), which has 80 GB"
    assert " ".join(head) == ("Rank weights gradients optimizer activations working buffers total of GPU")
    assert line == ["7", *["10"] * 6, "60", "75%"]


@pytest.mark.parametrize("count", [32, 33])
def test_long_tables_are_cut_and_say_so(count: int):
    lines = printed(pipeline_ranks_table([rank_row(rank, 1.0) for rank in range(count)]))
    assert [line[0] for line in lines if line[0].isdigit()] == [str(rank) for rank in range(32)]
    title = " ".join(word for line in lines[:2] for word in line)
    assert ("the first 32 of 33, the others in summary.json" in title) == (count > 32)
