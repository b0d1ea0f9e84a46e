"""Sweeps that documents and scenarios tell of can run, at every point."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from simulator.sweeps.grid import make_grid, read_over
from simulator.sweeps.plan import make_plan

ROOT = Path(__file__).parents[3]
FILES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("scenarios/*.*"))]
COMMANDS = sorted(
    {
        command
        for path in FILES
        if path.is_file()
        for command in re.findall(r"railplane sweep (scenarios/[^`\n]+)", path.read_text("utf-8"))
    }
)


def test_there_are_commands():
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_sweeps_can_run(command):
    scenario, *words = shlex.split(command, comments=True)
    given = {option: [] for option in ("--over", "--set")}
    for option, value in pairwise(words):
        if option in given:
            given[option].append(value)
    grid = make_grid(read_over(given["--over"]), given["--set"])
    plan = make_plan(ROOT / scenario, grid, given["--set"])
    # which points fit in memory may be what is asked; nothing else may be wrong with any
    assert [refusal for refusal in plan.refusals if refusal and "a GPU needs" not in refusal.why] == []
