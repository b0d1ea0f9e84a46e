"""Scenarios that can run: whatever is drawn keeps the invariants, or is refused with the field that is at fault."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.budget import drawn
from fuzz.invariants import check_run
from fuzz.strategies import WORKLOADS, scenarios
from fuzz.strategies_text import Drawn
from simulator import load_scenario
from simulator.input_error import InputError
from support.observed import observe

# of the inputs of the long mode; steps of models take longest
SHARES: Final = {
    "collective": 0.16,
    "decode-step": 0.13,
    "expert-parallel": 0.16,
    "flows": 0.2,
    "kernels": 0.08,
    "nccl-tests": 0.1,
    "prefill-step": 0.1,
    "training-step": 0.07,
}
FASTER: Final = (0.013, 0.7, 3.0, 100.0)  # worlds in which all is so many times as fast
_ENOUGH: Final = 20  # inputs, of which a share can be told
LEAST_VALID: Final = 0.8


@pytest.mark.parametrize("kind", WORKLOADS)
def test_runs_keep_the_invariants(kind: str):
    counts: Counter[str] = Counter()

    @drawn(quick=2, share=SHARES[kind])
    @given(scenarios(kind), st.sampled_from(FASTER))
    def check(scenario: Drawn, faster: float) -> None:
        with TemporaryDirectory() as folder:
            path = scenario.write(Path(folder))
            try:
                run = observe(load_scenario(path))
            except InputError as refused:
                if not refused.field:
                    raise
                counts["refused"] += 1
            else:
                check_run(run, faster)
                counts["ran"] += 1

    check()
    print(f"{kind}: {dict(counts)}")
    assert counts["ran"]
    assert counts["ran"] >= LEAST_VALID * counts.total() or counts.total() < _ENOUGH
