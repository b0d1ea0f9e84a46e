"""The option of the long mode: `pytest tests/fuzz --fuzz-inputs 10000`."""

import pytest

from fuzz import budget
from simulator import simulate
from support.tiny_scenarios import tiny_scenario


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-inputs",
        type=int,
        default=0,
        metavar="N",
        help="inputs of each kind that the fuzz tests draw; without it each test draws a few",
    )


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have compiled what runs need: nothing that is timed may wait for that."""
    for kind in ("expert-parallel", "flows", "training-step"):
        simulate(tiny_scenario(kind, tmp_path_factory.mktemp(kind)))


def pytest_configure(config: pytest.Config) -> None:
    # a run of the whole suite finds this file after its options have been read
    budget.ask_for(int(config.getoption("--fuzz-inputs", default=0)))
