"""Options and fixtures of the whole suite."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.scratch import open_scratch

# A property is tried on a fifth of the cases that its test names (support/properties.py), or on all of them:
# `pytest --hypothesis-profile=long`. CI draws the same ones every time, so that a change is judged by itself;
# everywhere else they are new each time. No case has a deadline: a busy machine is no fault of the code.
settings.register_profile("long", deadline=None, max_examples=100)
settings.register_profile("quick", deadline=None, max_examples=20)
settings.register_profile(
    "ci", settings.get_profile("quick"), derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "quick")

ROOT = Path(__file__).parents[1]
# Run what other tests reach, at length: their coverage is not measured, which costs as much time again.
UNMEASURED = [
    *(f"tests/{folder}" for folder in ("benchmarks", "fuzz", "golden", "published", "theory", "trust")),
    "tests/test_docs.py",
    "tests/simulator/report/page/test_in_browser.py",
    *(f"tests/simulator/test_{name}_engine.py" for name in ("inference", "reuse", "training")),
]
# What these run is compiled, and measured where it runs as plain Python (.ci/run).
COMPILED = [
    f"tests/simulator/test_{name}.py"
    for name in ("fairness", "fluid", "fluid_changes", "fluid_laws", "independence", "reuse", "solver_state")
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden summaries anew, for review"
    )


def pytest_configure(config: pytest.Config) -> None:
    if folder := open_scratch():
        config.add_cleanup(folder.cleanup)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    unmeasured = UNMEASURED if os.environ.get("NUMBA_DISABLE_JIT") else UNMEASURED + COMPILED
    places = [ROOT / place for place in unmeasured]
    for item in items:
        if any(item.path.is_relative_to(place) for place in places):
            item.add_marker("no_cover")


def pytest_collection_finish() -> None:
    # Thousands of tests stay alive to the end: the collector need not walk over them each time.
    gc.collect()
    gc.freeze()


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def scenarios() -> Path:
    """The folder of shipped scenarios."""
    return ROOT / "scenarios"
