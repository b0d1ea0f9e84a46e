"""What the command line makes of an input, and what it may make of a damaged one: a whole result, or one message."""

import contextlib
import faulthandler
import io
import json
import math
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

from simulator.cli import main

_LONGEST: Final = 1700  # characters of a message: three places of 400, 200 and 1,000 at most
_LIMIT_S: Final = 60  # a tenth of a second is usual, under all load; more is a hang
# Words of our tools, which mean nothing to who wrote the file.
_JARGON: Final = re.compile(
    r"Traceback|pydantic|Input should|Extra inputs|NoneType|\b\w+Error\b|Exception|<class|object at 0x|networkx"
    r"|\b(?:dict|tuple|ndarray|numpy|ruamel)\b|tagged-union|union_tag|Errno|arrow::|Arrow|expat|MultiDiGraph"
)


class Hang(BaseException):
    """The command took too long; no Exception, so that nothing on the way can take it for its own."""


@dataclass(frozen=True)
class Outcome:
    """What a command ended with and printed."""

    status: int
    out: str
    err: str


def call(*arguments: object) -> Outcome:
    """Run the command line in this process; whatever it lets slip is raised."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["railplane", *map(str, arguments)]
    status = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _watched():
            main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        sys.argv = argv
    return Outcome(status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Raise Hang within after a time; where compiled code does not let it, end the process with its stacks."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _LIMIT_S)
    faulthandler.dump_traceback_later(3 * _LIMIT_S, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_refusal(outcome: Outcome, file: str) -> None:
    """Fail unless a command refused its input with exactly one good line that begins with the input's place.

    file: the scenario's path, or the option, that must be named
    """
    assert outcome.status == 2, f"status {outcome.status}: {outcome.err}"
    assert outcome.out == ""
    message = outcome.err.removesuffix("\n")
    assert outcome.err == f"{message}\n"
    assert message.isprintable(), f"not on one line of printable characters: {message!r}"
    assert len(message) <= _LONGEST, f"{len(message)} characters: {message}"
    place = re.match(rf"{re.escape(file)}(?::(?P<line>\d+))?: (?P<rest>.+)", message)
    assert place, f"does not begin with {file}: {message}"
    assert _JARGON.search(place["rest"]) is None, f"jargon: {message}"
    said = re.fullmatch(r"(?:(?P<field>[^\s:]+): )?(?P<text>.{12,})", place["rest"])
    assert said, f"says too little: {message}"
    if file.endswith((".yaml", ".yml")):
        assert place["line"] or said["field"] is None, f"a field without its line: {message}"


# What is said of a file as a whole, and so of no line of it.
_OF_THE_WHOLE: Final = re.compile(
    r"UTF-16|cannot be read as|nested too deeply|is no cost table|this file holds|no node-link JSON|"
    r"this key is missing|this field is missing|the graph |is missing; add it, or correct|holds no <graph>|"
    r"not GraphML as|holds no|is missing|columns|damaged|row group|row \d+, column|column '|"
    r"several programs|to a table of your own|is not among those|lists \d+ ranks|does not say|"
    r"in a node beyond|no (?:efficiency|latency|costs)"
)


def check_file_is_named(message: str, name: str) -> None:
    """Fail unless a refusal names the wrong file, and the line that is wrong in a file that has lines.

    What a file says, and the scenario contradicts, is blamed on the scenario's field.
    """
    if re.match(r"\S+ (?:workload|cluster)\.(?:ranks|operation|nodes|node|gate)\b", message):
        return
    assert name in message, f"does not name {name}: {message}"
    told = re.search(rf"{re.escape(name)}(?::\d+|, line \d+)[:,]", message)
    assert told or _OF_THE_WHOLE.search(message), f"names no line of {name}: {message}"


def check_result(outcome: Outcome) -> dict[str, Any]:
    """Fail unless a run printed one whole result, and nothing else; return it."""
    assert outcome.status == 0, f"status {outcome.status}: {outcome.err}"
    assert outcome.err == ""
    result = check_figures(outcome.out)
    step = result["step_time_s"]
    assert step >= 0
    assert sum(result["breakdown_s"].values()) == pytest.approx(step, rel=1e-9, abs=1e-12)
    for links in result["links"].values():
        assert 0 <= links["mean_utilisation"] <= links["peak_utilisation"] * (1 + 1e-9) <= 1 + 1e-6, links
        assert 0 <= links["saturated_fraction"] <= 1 + 1e-9, links
        assert links["bytes"] >= 0, links
    assert result["provenance"]["scenario_sha256"]
    return result


def check_figures(text: str) -> dict[str, Any]:
    """Fail unless a text is one JSON object of finite numbers; return it."""
    figures: dict[str, Any] = json.loads(text, parse_constant=pytest.fail)
    for value in _numbers(figures):
        assert math.isfinite(value), figures
    return figures


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for below in value:
            yield from _numbers(below)
    elif isinstance(value, (int, float)):
        yield value


@contextlib.contextmanager
def blamed_on(path: Path, what: str) -> Iterator[None]:
    """Say, of whatever goes wrong within, which damaged file it was."""
    try:
        yield
    except (Exception, Hang) as error:
        error.add_note(f"{what}:\n{path.read_bytes()[:3000].decode(errors='backslashreplace')}")
        raise
