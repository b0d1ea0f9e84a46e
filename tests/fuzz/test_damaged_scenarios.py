"""Shipped scenarios, made small and damaged: each is refused with one good message, or runs to a whole result."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from fuzz.budget import examples
from fuzz.mutations import structural
from fuzz.mutations_bytes import raw
from fuzz.mutations_outcome import blamed_on, call, check_refusal, check_result
from fuzz.mutations_small import small_scenarios, write_files
from fuzz.mutations_trial import try_network, try_scenario
from fuzz.mutations_yaml import as_tree, written

pytestmark = pytest.mark.usefixtures("compiled")
_SHIPPED: Final = Path(__file__).parents[2] / "scenarios"
_SMALL: Final = small_scenarios(_SHIPPED)
_QUICK: Final = 3  # of each scenario and form of damage
_SHARE: Final = 1 / (2 * len(_SMALL))


def _as_tree(data: dict[str, Any], rng: random.Random) -> bytes:
    return structural(data, rng).encode("utf-8", "surrogatepass")


def _as_bytes(data: dict[str, Any], rng: random.Random) -> bytes:
    return raw(written(as_tree(data)).encode(), rng)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that small scenarios name, in which the test is."""
    write_files(_SHIPPED, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _try(path: Path, data: dict[str, Any]) -> str:
    return try_scenario(path) if "workload" in data else try_network(path)


@pytest.mark.parametrize("name", _SMALL)
def test_what_is_damaged_is_good(folder: Path, name: str) -> None:
    # Else all damaged ones might be refused for what was wrong before.
    path = folder / "s.yaml"
    path.write_text(written(as_tree(_SMALL[name])))
    assert _try(path, _SMALL[name]) == "ran"


@pytest.mark.parametrize("damage", [_as_tree, _as_bytes], ids=["tree", "bytes"])
@pytest.mark.parametrize("name", _SMALL)
def test_a_damaged_scenario_is_refused_or_runs(
    folder: Path,
    name: str,
    damage: Callable[[dict[str, Any], random.Random], bytes],
    record_property: Callable[[str, object], None],
) -> None:
    path = folder / "s.yaml"
    for number in range(examples(_QUICK, _SHARE)):
        path.write_bytes(damage(_SMALL[name], random.Random(f"{name} {damage.__name__} {number}")))
        with blamed_on(path, f"{name}, {number}"):
            record_property(f"{name} {damage.__name__} {number}", _try(path, _SMALL[name]))


_FIELDS: Final = (
    "cluster.nodes",
    "workload.kind",
    "workload.size",
    "cluster.topology",
    "seed",
    "a.b",
    "",
    "cluster..nodes",
)
_VALUES: Final = (
    *(
        "0",
        "x",
        "",
        "[",
        "{a: 1}",
        "!!python/name:os.system",
        "&a [*a]",
        "1e400",
        ".nan",
        "'",
        "\t",
        "é\u0301",
        "\u202e",
        "8 GiB",
    ),
    *(
        "2\n3",
        "9" * 400,
        "[" * 100,
        "{kind: none}",
        "#",
        "--- 1",
        "*x",
        "\0",
        "\x1b[2J",
        "a: b",
        "1,2",
        ",",
        "1,,2",
        "x" * 9000,
    ),
)


@pytest.mark.parametrize("option", ["--set", "--over"])
def test_damaged_options_are_refused_or_run(folder: Path, option: str) -> None:
    path = folder / "s.yaml"
    path.write_text(written(as_tree(_SMALL["all_to_all_128"])))
    command = ("run", path, "--json") if option == "--set" else ("sweep", path, "--jobs", 1, "--json")
    for number in range(examples(12, 0.05)):
        rng = random.Random(f"{option} {number}")
        given = rng.choice(_FIELDS) + rng.choice(("=", "=", "=", "", "==")) + rng.choice(_VALUES)
        with blamed_on(path, f"{option} {given!a}"):
            outcome = call(*command, option, given)
            if outcome.status == 2:
                place = path if outcome.err.startswith(str(path)) else option
                check_refusal(outcome, str(place) if place == path else outcome.err.partition(": ")[0])
            elif option == "--set":
                check_result(outcome)
            else:
                assert outcome.status == 0


@pytest.mark.parametrize(
    "command",
    [
        ("compare", "--json"),
        ("export", "--format", "goal", "--out", "goal"),
        ("topology", "--json"),
        ("run", "--out", "out"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_refuses_alike(folder: Path, command: tuple[str, ...]) -> None:
    # The other commands load scenarios as `check` and `run` do; here is shown that they say as much.
    path = folder / "s.yaml"
    for number, name in zip(range(examples(6, 0.02)), sorted(_SMALL) * 1000, strict=False):
        if "workload" in _SMALL[name]:
            path.write_bytes(_as_tree(_SMALL[name], random.Random(f"{command[0]} {number}")))
            if call("check", path).status == 2:
                with blamed_on(path, f"{command[0]}, {number}"):
                    outcome = call(command[0], path, *command[1:])
                    # a network can be counted whatever runs on it
                    if not (command[0] == "topology" and outcome.status == 0):
                        check_refusal(outcome, str(path))
    assert not (folder / "out").exists()
    assert not (folder / "goal").exists()
