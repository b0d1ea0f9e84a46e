"""docs/schedules.md holds what the schedules write, and figures are to scale."""

import re
from pathlib import Path

from simulator.reference import refreshed
from workloads.schedules import SCHEDULES, make_schedule
from workloads.schedules.reference import figure, schedules_reference

DOCUMENT = Path(__file__).parents[3] / "docs/schedules.md"


def test_the_document_is_up_to_date():
    text = DOCUMENT.read_text("utf-8")
    remedy = "docs/schedules.md is out of date: python -m simulator.reference docs/schedules.md"
    assert text == refreshed(text, {"schedules": schedules_reference}), remedy


def test_a_figure_has_three_characters_a_unit_of_time():
    # Two ranks, two micro-batches, F = 1 and B = 2: rank 0 gets the gradients of 0 when rank 1 has run F0 B0, at
    # 1 + 3 = 4, and those of 1 after F1 B1, at 4 + 3 = 7.
    assert figure(make_schedule("1f1b", 2, 2)) == (
        "rank 0  F0 F1       B0       B1\n"
        "rank 1     F0 B0    F1 B1\n"
    )  # fmt: skip


def test_pairs_and_second_stages_are_told_apart():
    lines = figure(make_schedule("dualpipe", 2, 4)).splitlines()
    # rank 0 of two is a middle rank: F0 f0 F1 b0, then two micro-batches of the other direction are 2 and 3
    assert lines[0].split() == ["rank", "0", "F0", "f2", "F1", "b2", "f3&B0", "b3", "I1", "W1"]


def test_of_three_stages_of_a_rank_the_second_has_small_letters():
    # one rank alone: its chunks forward one after the other, and backward the other way round
    assert figure(make_schedule("interleaved-1f1b", 1, 1, 3)).split() == [
        *("rank", "0", "F0", "f0", "F0", "B0", "b0", "B0")
    ]


def test_the_table_has_every_schedule():
    names = re.findall(r"^\| `([^`]+)`", schedules_reference(), re.MULTILINE)
    assert names == list(SCHEDULES)
