"""A folder in which the files of one result replace those of an earlier one all at once.

Files are first written, and made durable, into `.railplane/new` within the folder. One rename, to `.railplane/ready`,
decides: before it the folder holds the earlier result, after it the new one, of which a journal says what is still to
be put in place. Whoever next reads or writes the folder finishes what a killed process has left of that.

`files.json` lists what belongs to the result, with sizes and digests, so that it can be told from files of others,
which are left alone, and from what was damaged since. Folders that an older version wrote have no list.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from errno import EISDIR, ENOTDIR
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar

from simulator.durable import (
    naming,
    probe_folder,
    remove_unfinished,
    signals_held,
    sync_file,
    sync_folder,
    write_file,
)

LIST: Final = "files.json"

_WORK: Final = ".railplane"
_LOCK, _NEW, _READY, _DONE = (f"{_WORK}/{name}" for name in ("lock", "new", "ready", "done"))
_FILES, _JOURNAL = "files", "journal.json"  # within new and ready
_PATIENCE_S: Final = 60.0  # with another process that writes the same folder

Read = TypeVar("Read")


class FolderRefused(ValueError):  # noqa: N818
    """A folder cannot take a result, or what it holds is not what was written."""


@dataclass(slots=True)
class WholeFolder:
    """A folder on its way from an earlier result, or none, to a new one.

    kind: of result, as `run`; a folder holds one kind. unlisted: names of files that a version which kept no list may
    have left; they are an earlier result's if the first of them is there. held_one: whether there was one when the
    folder was prepared. is_new: whether the new result holds. is_placed: whether its files are all in their places
    """

    folder: Path
    kind: str
    unlisted: Collection[str] = ()
    held_one: bool = False
    is_new: bool = False
    is_placed: bool = False
    _made: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, folder: "Path | WholeFolder", kind: str) -> "WholeFolder":
        """Return a folder that may be given by its path alone, where nobody asks what became of it."""
        return folder if isinstance(folder, WholeFolder) else cls(folder, kind)

    def prepare(self) -> None:
        """Make the folder if need be, and finish what a killed process left.

        Raises OSError if nothing can be written there, FolderRefused if it holds something else.
        """
        work = self.folder / _WORK
        missing = [each for each in (work, *work.parents) if not each.exists()]
        with naming(self.folder):
            self._made = missing
            work.mkdir(parents=True, exist_ok=True)
            probe_folder(work)
            finish(self.folder)
            self.held_one = bool(self.earlier())

    def earlier(self) -> set[str]:
        """Return the names of the files of the earlier result; FolderRefused if it is of another kind."""
        listed = read_list(self.folder)
        if listed is not None:
            if listed.kind != self.kind:
                msg = f"this folder holds what `railplane {listed.kind}` wrote; give another folder"
                raise FolderRefused(msg)
            return {*listed.files, LIST}
        names = list(self.unlisted)
        is_old = bool(names) and (self.folder / names[0]).exists()
        return {name for name in names if (self.folder / name).exists()} if is_old else set()

    def discard(self) -> None:
        """Remove the folders that `prepare` made and nothing was written into."""
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()

    @contextmanager
    def replaced(self) -> Iterator[Path]:
        """Yield an empty folder; what is in it at the end of the block is the new result.

        Raises OSError, naming the file, if there is no room; whatever is raised, the earlier result stays, unless
        `is_new` says that the new one was there before.
        """
        new = self.folder / _NEW
        with self._in_its_place():
            new.parent.mkdir(parents=True, exist_ok=True)
        with self._in_its_place(), _locked(self.folder):
            _finish(self.folder)
            remove_unfinished(self.folder / _WORK)
            try:
                (new / _FILES).mkdir(parents=True)
                yield new / _FILES
                self._commit(new)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise

    @contextmanager
    def _in_its_place(self) -> Iterator[None]:
        """Let an OSError name the file where the user will find it."""
        try:
            yield
        except OSError as error:
            named = Path(str(error.filename or self.folder))
            for staging in (self.folder / _NEW / _FILES, self.folder / _READY / _FILES):
                if named.is_relative_to(staging):
                    named = self.folder / named.relative_to(staging)
            with naming(named):
                raise

    def _commit(self, new: Path) -> None:
        """Make what was written durable, and then the result of the folder."""
        paths = sorted(path for path in (new / _FILES).rglob("*") if path.is_file())
        files = {path.relative_to(new / _FILES).as_posix(): _entry(path) for path in paths}
        listed = json.dumps({"written_by": self.kind, "files": files}, indent=1) + "\n"
        put = [*files, LIST]  # the list last: it is the new one when all else is
        remove = self._check_places(put)
        write_file(new / _FILES / LIST, listed.encode())
        for path in paths:
            sync_file(path)
        for folder in sorted({path.parent for path in (new / _FILES).rglob("*")}):
            sync_folder(folder)
        write_file(new / _JOURNAL, json.dumps({"put": put, "remove": remove}, indent=1).encode())
        with signals_held():
            new.rename(self.folder / _READY)
            self.is_new = True
            sync_folder(self.folder / _WORK)
            _finish(self.folder)
            self.is_placed = True

    def _check_places(self, put: list[str]) -> list[str]:
        """Return what of the earlier result must go; raise if the place of a new file is taken by something else."""
        earlier = self.earlier()
        for name in put:
            place = _inside(self.folder, name)
            if place.is_dir():
                raise OSError(EISDIR, os.strerror(EISDIR), str(place))
            if any(above.exists() and not above.is_dir() for above in _above(self.folder, name)):
                raise OSError(ENOTDIR, os.strerror(ENOTDIR), str(place))
            if name not in earlier and place.exists():
                msg = f"{name} is there, and no file of an earlier result; move it, or give another folder"
                raise FolderRefused(msg)
        gone = sorted(earlier - set(put))
        return [name for name in gone if not _inside(self.folder, name).is_dir()]


@dataclass(frozen=True, slots=True)
class Listed:
    """What a folder's list says: the kind of result, and of each file, by name, `size_bytes` and `sha256`."""

    kind: str
    files: dict[str, dict[str, Any]]


def read_list(folder: Path) -> Listed | None:
    """Return the list of a folder's files, None if it has none; FolderRefused if it is damaged."""
    try:
        text = (folder / LIST).read_bytes()
    except FileNotFoundError:
        return None
    try:
        held = json.loads(text)
        listed = Listed(str(held["written_by"]), dict(held["files"]))
        for name, entry in listed.files.items():
            _inside(folder, name)
            entry["size_bytes"], entry["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{LIST} is not as it was written; restore it, or delete it if the other files are whole"
        raise FolderRefused(msg) from error
    return listed


def read_whole(folder: Path, names: Collection[str], read: Callable[[], Read]) -> Read:
    """Return what `read` returns of files in a folder, which are all of one result.

    If the folder is replaced meanwhile they are read again. Raises FolderRefused if one of the named files is not as
    it was written, OSError, and what `read` raises.
    """
    while True:
        finish(folder)
        before = read_list(folder)
        try:
            if before is not None:
                _check(folder, before, names)
            found = read()
        except (OSError, ValueError):
            if not (folder / _READY).exists() and read_list(folder) == before:
                raise
        else:
            if read_list(folder) == before:
                return found


def _check(folder: Path, listed: Listed, names: Collection[str]) -> None:
    """Raise FolderRefused unless files are as they were written."""
    for name in sorted(names):
        if name not in listed.files:
            msg = f"{LIST} does not list {name}: this is no whole result"
            raise FolderRefused(msg)
        if not (folder / name).is_file():
            msg = f"{name} is missing, which {LIST} lists: it was deleted, or not copied with the others"
            raise FolderRefused(msg)
        if _entry(folder / name) != listed.files[name]:
            msg = f"{name} is not as it was written: its size or digest is another than in {LIST}"
            raise FolderRefused(msg)


def finish(folder: Path) -> None:
    """Put the rest of a new result in place, if a process was killed as it did so."""
    if (folder / _READY).exists():
        with _locked(folder):
            _finish(folder)


def _finish(folder: Path) -> None:
    """Put in place what the journal of a decided result lists, again and again if need be; the lock must be held."""
    ready, done = folder / _READY, folder / _DONE
    if ready.exists():
        journal = json.loads((ready / _JOURNAL).read_bytes())
        for name in journal["remove"]:
            _inside(folder, name).unlink(missing_ok=True)
            for above in _above(folder, name):
                with suppress(OSError):  # where others' files lie
                    above.rmdir()
        for name in journal["put"]:
            source, place = _inside(ready / _FILES, name), _inside(folder, name)
            if source.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                source.replace(place)
        for touched in sorted({folder, *(each for name in journal["put"] for each in _above(folder, name))}):
            sync_folder(touched)
        ready.rename(done)
    for left in (done, folder / _NEW):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to a folder; FolderRefused if one does so for long."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / _LOCK, timeout=_PATIENCE_S)
    try:
        with naming(folder):
            lock.acquire()
    except Timeout as error:
        msg = "another process is writing to this folder; wait for it, or give another folder"
        raise FolderRefused(msg) from error
    try:
        yield
    finally:
        lock.release()


def _entry(path: Path) -> dict[str, Any]:
    """Return what the list says of a file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size_bytes": path.stat().st_size, "sha256": digest}


def _inside(folder: Path, name: str) -> Path:
    """Return the place of a named file; FolderRefused if it is not within the folder, links followed."""
    pure = PurePosixPath(name)
    place = folder / pure
    leads_out = pure.is_absolute() or ".." in pure.parts or not pure.parts
    if leads_out or not place.parent.resolve().is_relative_to(folder.resolve()):
        msg = f"the file {name!r} does not lie within the folder; remove the link, or give another folder"
        raise FolderRefused(msg)
    return place


def _above(folder: Path, name: str) -> list[Path]:
    """Return the folders between a file and the folder, the innermost first."""
    return [folder / each for each in list(PurePosixPath(name).parents)[:-1]]
