"""The files that a scenario names: which of its fields name one, where they lie, and what they held.

A scenario that somebody else wrote must not read what it pleases: a path starts at the scenario's folder, and leads
out of it only where whoever runs it has allowed that.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from simulator.input_error import FieldPath, InputError, dotted

INPUTS: Final = "inputs"  # folder of a result's folder that holds the files which its scenario names
_LONGEST_PATH: Final = 4096


@dataclass(frozen=True, slots=True)
class NamesFile:
    """Marks a field of a spec whose text is the path of a file, unless it is one of the known names."""

    known: Callable[[], Collection[str]] = tuple


# of fields that always name a file
InputPath = Annotated[str, Field(min_length=1, max_length=_LONGEST_PATH), NamesFile()]


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that a scenario names.

    field: the field that names it; name: what stands there; path: where the file lies
    """

    field: FieldPath
    name: str
    path: Path

    @property
    def carried_name(self) -> str:
        """Return where a result's folder holds its copy: equal fields and file names, equal places."""
        return f"{INPUTS}/{dotted(self.field)}/{Path(self.name).name}"

    def sha256(self) -> str:
        """Return the digest of what the file holds now; raise OSError if it cannot be read."""
        status = self.path.stat()
        return _digest(self.path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _digest(path: Path, _mtime_ns: int, _size: int) -> str:
    """Return the digest of a file; kept while the file is as it was, since sweeps ask at each point."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def named_files(spec: BaseModel, folder: Path) -> list[NamedFile]:
    """Return the files that a spec and those in it name, in the order of their fields; paths start at `folder`."""
    return [NamedFile(field, name, folder / name) for field, name in _names(spec, ())]


def _names(value: Any, field: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    if isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from _names(item, (*field, index))
    if not isinstance(value, BaseModel):
        return
    for name, info in type(value).model_fields.items():
        below = getattr(value, name)
        marks = [mark for mark in info.metadata if isinstance(mark, NamesFile)]
        if marks and isinstance(below, str):
            if below not in marks[0].known():
                yield (*field, name), below
        else:
            yield from _names(below, (*field, name))


def copy_unchanged(source: Path, target: Path, sha256: str) -> None:
    """Copy a file to a place whose folder is made if need be; InputError if it does not hold what it held."""
    content = source.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(
            str(source), None, None, "this file has changed since the run; run the scenario again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def check_inside(file: NamedFile, folder: Path) -> None:
    """Raise ValueError if the path of a file is absolute or leads out of the folder, links followed."""
    remedy = "move the file into the scenario's folder, or allow any path by --any-path"
    if Path(file.name).is_absolute():
        msg = f"the path {file.name!r} does not start at the scenario's folder; {remedy}"
        raise ValueError(msg)
    try:
        inside = file.path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # too long a name, or links that lead in a circle
        return  # it cannot be opened either, and whoever tries says why
    if not inside:
        msg = f"the path {file.name!r} leads out of the scenario's folder; {remedy}"
        raise ValueError(msg)
