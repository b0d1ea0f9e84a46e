"""Options and fixtures of the whole suite."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# CI draws the same cases every time, so that a change is judged by itself; everywhere else they are new each time.
settings.register_profile("ci", derandomize=True, suppress_health_check=[HealthCheck.too_slow])
if os.environ.get("CI"):
    settings.load_profile("ci")

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden summaries anew, for review"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def scenarios() -> Path:
    """The folder of shipped scenarios."""
    return ROOT / "scenarios"
