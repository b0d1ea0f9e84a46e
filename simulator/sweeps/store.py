"""The folder of a sweep: its plan first, each point's record the moment it is done, its tables last.

Each file is written whole or not at all, by `simulator.durable`.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

from simulator.durable import remove_unfinished, write_file
from simulator.input_error import InputError
from simulator.sweeps.plan import Plan
from simulator.sweeps.points import FINAL, Job, Outcome

PLAN: Final = "sweep.json"
POINTS: Final = "points"
_KEPT: Final = "; the points that are done are kept, and --resume goes on"
# what a plan holds -> how a message calls it
_PARTS: Final = {
    "version": "the version of railplane",
    "over": "--over",
    "set": "--set",
    "seed": "the seed",
    "contents_sha256": "what the scenario or a file that it names says",
}


class SweepFolder:
    """Where a sweep is kept; one sweep a folder, and one process at a time that runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, plan: Plan, *, resume: bool) -> dict[int, str]:
        """Make the folder ready; return the records, by point, that need not be made again.

        Those are of points that ran or whose scenario was refused; points that failed run again. Raises InputError if
        the folder holds another sweep, or this one and `resume` is not set.
        """
        text = plan.to_json()
        with self._writing():
            (self.folder / POINTS).mkdir(parents=True, exist_ok=True)
            known = self._read_plan()
            if known is None:
                self._clean()
                write_file(self.folder / PLAN, text.encode())
                return {}
        if known != text:
            raise InputError(str(self.folder), None, None, _difference(known, text))
        if not resume:
            message = "this folder holds this sweep already; go on with --resume, or give another folder"
            raise InputError(str(self.folder), None, None, message)
        with self._writing():
            self._clean()
        return dict(self._kept(plan.jobs))

    def save_point(self, point: int, record: str) -> None:
        """Write the record of a point."""
        with self._writing(_KEPT):
            write_file(self.folder / _file_of(point), record.encode())

    def save_tables(self, tables: dict[str, bytes]) -> None:
        """Write files of the whole sweep, by name."""
        with self._writing(_KEPT):
            for name, content in tables.items():
                write_file(self.folder / name, content)

    def _read_plan(self) -> str | None:
        """Return the plan of the sweep that is there, None if there is none."""
        path = self.folder / PLAN
        return path.read_text("utf-8", errors="replace") if path.exists() else None

    def _kept(self, jobs: tuple[Job, ...]) -> Iterator[tuple[int, str]]:
        """Yield the records that stand, with their points."""
        for job in jobs:
            path = self.folder / _file_of(job.point)
            if not path.exists():
                continue
            text = path.read_text("utf-8", errors="replace")
            record = _parsed(text)
            stands = record.get("contents_sha256") == job.contents and record.get("point") == job.point
            if not stands or record.get("outcome") not in get_args(Outcome):
                message = "this is not the record that the sweep wrote; delete it, and it is made again"
                raise InputError(str(path), None, None, message)
            if record["outcome"] in FINAL:
                yield job.point, text

    def _clean(self) -> None:
        """Remove what a killed run was writing."""
        for folder in (self.folder, self.folder / POINTS):
            remove_unfinished(folder)

    @contextlib.contextmanager
    def _writing(self, kept: str = "") -> Iterator[None]:
        try:
            yield
        except (FileExistsError, NotADirectoryError) as error:
            message = "--out names a file; give a folder, which is made if need be"
            raise InputError(str(self.folder), None, None, message) from error
        except OSError as error:
            message = f"cannot write there: {error.strerror}{kept}"
            raise InputError(str(error.filename or self.folder), None, None, message) from error


def _file_of(point: int) -> str:
    return f"{POINTS}/{point:06}.json"


def _parsed(text: str) -> dict[str, Any]:
    """Return a record, empty if the text is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _difference(known: str, planned: str) -> str:
    """Say in what the sweep that a folder holds differs from the one that was asked for."""
    before, now = _parsed(known), _parsed(planned)
    # as text, since the order of swept fields matters too
    parts = [what for key, what in _PARTS.items() if json.dumps(before.get(key)) != json.dumps(now.get(key))]
    differs = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) or "its plan"
    return f"this folder holds another sweep, which differs in {differs}; give another folder"
