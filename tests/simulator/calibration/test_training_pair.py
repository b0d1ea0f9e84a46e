"""The overlapped pair of a training step against the published trace of one."""

from pathlib import Path

import pytest

from simulator.calibration.training_pair import pair, pair_table

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_layer_of_the_pair_takes_what_it_took_within_a_twentieth():
    _, layer = pair()
    assert abs(layer.missed) <= 0.05


def test_every_stage_takes_what_it_took_within_15_percent():
    stages, _ = pair()
    assert len(stages) == 10
    assert {stage.name: stage.missed for stage in stages if abs(stage.missed) > 0.15} == {}


def test_published_stages_are_those_of_the_trace():
    # Both layers of the trace, by hand from its tables: busy time; of communication, of the kernels that move bytes.
    published_us = {stage.name: stage.published_s * 1e6 for stage in pair()[0]}
    assert published_us == pytest.approx(
        {
            "attn(F)": (4311 + 4263) / 2,
            "mlp(B)": (5693 + 5408) / 2,
            "mlp(W)": (5333 + 5059) / 2,
            "mlp(F)": (4250 + 4384) / 2,
            "attn(B)": (9018 + 9368) / 2,
            "attn(W)": (2375 + 2382) / 2,
            "dispatch(F)": (4604 + 4154) / 2,
            "combine(F)": (6002 + 6074) / 2,
            "dispatch(B)": (6549 + 6543) / 2,
            "combine(B)": (3320 + 3575) / 2,
        }
    )
    assert pair()[1].published_s == pytest.approx(63595e-6 / 2)


def test_the_document_has_the_table():
    assert pair_table() in (ROOT / "docs/kernels.md").read_text()
