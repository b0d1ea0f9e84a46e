"""What a sweep is going to do: every point's scenario loaded, and a text that tells one sweep from another."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from simulator import __version__
from simulator.input_error import InputError, clipped
from simulator.scenario import Scenario, TooLargeError, load_scenario
from simulator.sweeps.grid import Grid
from simulator.sweeps.points import Job, Outcome, contents_sha256, said_of


class Refusal(NamedTuple):
    """Why the scenario of a point cannot run."""

    outcome: Outcome
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The points of a sweep, in the order of its grid.

    name: the scenario's; refusals: of each point, None if its scenario can run
    """

    grid: Grid
    overrides: tuple[str, ...]
    name: str
    seed: int
    jobs: tuple[Job, ...]
    refusals: tuple[Refusal | None, ...]

    def to_json(self) -> str:
        """Return what must be equal for two sweeps to be one: equal text, equal results."""
        contents = hashlib.sha256("\n".join(job.contents for job in self.jobs).encode()).hexdigest()
        held = {
            "version": __version__,
            "scenario": self.name,
            "contents_sha256": contents,
            "seed": self.seed,
            "over": {axis.path: list(axis.texts) for axis in self.grid.axes},
            "set": list(self.overrides),
            "points": len(self.jobs),
        }
        return json.dumps(held, indent=1, ensure_ascii=False) + "\n"


def make_plan(
    scenario: Path,
    grid: Grid,
    overrides: Sequence[str],
    *,
    any_path: bool = False,
    any_size: bool = False,
) -> Plan:
    """Load the scenario of every point, some ten milliseconds each.

    A point whose scenario is wrong is refused. If all are, so is the sweep: an unknown field, or whatever else no
    point can do without, is an InputError.
    """
    jobs: list[Job] = []
    refusals: list[Refusal | None] = []
    first: Scenario | None = None
    first_error: InputError | None = None
    for point, texts in enumerate(grid.points):
        values = dict(zip((axis.path for axis in grid.axes), texts, strict=True))
        assignments = (*overrides, *(f"{path}={text}" for path, text in values.items()))
        refusal: Refusal | None = None
        size_bytes = 0
        try:
            loaded = load_scenario(scenario, assignments, any_path=any_path, any_size=any_size)
            contents, size_bytes = contents_sha256(loaded), loaded.size.total_bytes
            first = first or loaded.scenario
        except InputError as error:
            refusal, contents = _refused(error)
            first = first or getattr(error, "scenario", None)
            first_error = first_error or error
        path = str(scenario.absolute())
        jobs.append(Job(point, path, assignments, contents, values, any_path, any_size, size_bytes))
        refusals.append(refusal)
    if first is None or all(refusals):
        assert first_error is not None  # a grid has a point
        raise _none_can_run(first_error, jobs)
    return Plan(grid, tuple(overrides), first.name, first.seed, tuple(jobs), tuple(refusals))


def _refused(error: InputError) -> tuple[Refusal, str]:
    """Return why a point cannot run, and the digest of its contents, which is the same on every machine."""
    if isinstance(error, TooLargeError):
        return Refusal("too-large", said_of(error)), contents_sha256(error)
    refusal = Refusal("refused", said_of(error))
    return refusal, hashlib.sha256(f"{__version__} refused {refusal.why}".encode()).hexdigest()


def _none_can_run(error: InputError, jobs: Sequence[Job]) -> InputError:
    """Return the error of the first point, said of the sweep; swept values are not given by `--set`."""
    swept = {f"--set {path}={text}": f"--over {path}={text}" for path, text in jobs[0].values.items()}
    file = swept.get(error.file, error.file)
    message = error.message
    if len(jobs) > 1:
        values = clipped(", ".join(f"{path}={text}" for path, text in jobs[0].values.items()), 200)
        message = f"{message} (so for {values}; none of the {len(jobs)} points can run)"
    return InputError(file, error.line, error.field, message)
