"""One point of a sweep: a scenario with its overrides, and the record of what came of it."""

import hashlib
import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from simulator import __version__
from simulator.input_error import InputError, clipped
from simulator.resolved import scenario_sha256
from simulator.scenario import LoadedScenario, TooLargeError, load_scenario

# ran: there is a result; refused: the scenario is wrong, and always will be; too-large: it would take more memory
# than there is here; failed: whatever else went wrong
Outcome = Literal["ran", "refused", "too-large", "failed"]
FINAL: Final = ("ran", "refused")  # what does not come out otherwise another time, or elsewhere

_MAX_ERROR_CHARACTERS: Final = 600


class SweepStopped(RuntimeError):  # noqa: N818 - it is no error of ours or the user's
    """What runs the points has gone; as text, what that was."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to run a point.

    scenario: absolute path of its file; overrides: as of `load_scenario`; contents: what the scenario and its files
    were when the sweep was planned; values: of each swept path the YAML, for the record; any_path,
    any_size: as of `load_scenario`; size_bytes: of memory that it will take by the estimate
    """

    point: int
    scenario: str
    overrides: tuple[str, ...]
    contents: str
    values: Mapping[str, str]
    any_path: bool = False
    any_size: bool = False
    size_bytes: int = 0


def contents_sha256(loaded: LoadedScenario | TooLargeError) -> str:
    """Return the digest of everything that the result of a scenario rests on, wherever its files lie."""
    return hashlib.sha256(f"{__version__} {scenario_sha256(loaded)}".encode()).hexdigest()


def run_point(job: Job) -> str:
    """Return the record of a point as JSON: whatever goes wrong is in it, and nothing is raised."""
    try:
        summary = _simulated(job)
        return record_text(job, "ran", "", summary)
    except TooLargeError as error:
        return record_text(job, "too-large", said_of(error), None)
    except InputError as error:
        return record_text(job, "refused", said_of(error), None)
    except Exception as error:
        what = clipped(f"{type(error).__name__}: {error}", _MAX_ERROR_CHARACTERS)
        return record_text(job, "failed", what, None, traceback.format_exc())


def _simulated(job: Job) -> dict[str, Any]:
    """Return the summary of a point; InputError if the simulation finds that the scenario is wrong."""
    from simulator.run import simulate

    try:
        loaded = load_scenario(
            Path(job.scenario), job.overrides, any_path=job.any_path, any_size=job.any_size
        )
        contents = contents_sha256(loaded)
    except TooLargeError:
        raise
    except InputError as error:
        msg = f"the scenario could be loaded when the sweep began, and cannot where this point runs: {error}"
        raise RuntimeError(msg) from error
    if contents != job.contents:
        msg = (
            "the scenario, a file that it names, or the version of railplane is not what it was when the sweep "
            "began; workers must see the same files and have the same railplane"
        )
        raise RuntimeError(msg)
    return simulate(loaded).summary


def record_text(
    job: Job, outcome: Outcome, error: str, summary: Mapping[str, Any] | None, trace: str | None = None
) -> str:
    """Return the record of a point as JSON, with the summary that `railplane run --json` prints if it ran."""
    record = {
        "point": job.point,
        "values": dict(job.values),
        "contents_sha256": job.contents,
        "outcome": outcome,
        "error": error,
        "summary": summary,
        **({} if trace is None else {"traceback": trace}),
    }
    return json.dumps(record, allow_nan=False, indent=1) + "\n"


def said_of(error: InputError) -> str:
    """Return what an error says without the file, which may lie elsewhere on another day."""
    text = f"{error.field}: {error.message}" if error.field else error.message
    return clipped(text, _MAX_ERROR_CHARACTERS)
