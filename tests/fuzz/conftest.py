"""The option of the long mode: `pytest tests/fuzz --fuzz-inputs 10000`."""

import pytest

from fuzz import budget


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-inputs",
        type=int,
        default=0,
        metavar="N",
        help="inputs of each kind that the fuzz tests draw; without it each test draws a few",
    )


def pytest_configure(config: pytest.Config) -> None:
    # a run of the whole suite finds this file after its options have been read
    budget.ask_for(int(config.getoption("--fuzz-inputs", default=0)))
