"""Files written whole or not at all, whatever ends the process or the machine meanwhile.

A file is written beside its place, made durable and renamed over it: whoever opens it finds the old one or the new
one. `simulator.whole_folder` does the same for a folder of files that belong together.
"""

import errno
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)
_TEMPORARY: Final = (".railplane-", ".tmp")  # how the name of a file that is being written begins and ends
_NOT_FOR_FOLDERS: Final = (
    errno.EINVAL,
    errno.ENOTSUP,
)  # what file systems answer that need no fsync of folders


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; where a link stands, the file that it leads to.

    Raises OSError, which names the file, if it cannot be written; what was there is there still.
    """
    place = Path(os.path.realpath(path))
    temporary = _temporary_in(place.parent)
    try:
        with naming(path):
            check_replaceable(place)
            with temporary.open("xb") as stream:
                stream.write(content)
            sync_file(temporary)
            temporary.replace(place)
            sync_folder(place.parent)
    except BaseException:
        with suppress(OSError):  # why it could not be written says more
            temporary.unlink(missing_ok=True)
        raise


def check_writable(path: Path) -> None:
    """Raise OSError unless a file can be put there; whether there is room for it only writing tells."""
    place = Path(os.path.realpath(path))
    with naming(path):
        check_replaceable(place)
        probe_folder(place.parent)


def probe_folder(folder: Path) -> None:
    """Raise OSError unless a file can be made in a folder; leave none there."""
    temporary = _temporary_in(folder)
    try:
        temporary.touch(exist_ok=False)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes were writing into a folder; nobody may be writing there."""
    begin, end = _TEMPORARY
    for path in sorted(folder.glob(f"{begin}*{end}")):
        path.unlink()


def check_replaceable(path: Path) -> None:
    """Raise OSError if something stands there that a file must not be put over."""
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "what is there is no file", str(path))
    if path.exists() and not os.access(path, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _temporary_in(folder: Path) -> Path:
    return folder / secrets.token_hex(4).join(_TEMPORARY)


def sync_file(path: Path) -> None:
    """Make what a file holds durable."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make durable which files a folder has."""
    if os.name != "posix":  # elsewhere folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError say on one line why a file could not be written, and which, as the user calls it."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        is_own = error.errno == errno.EEXIST and error.filename is not None
        reason = error.strerror if is_own else os.strerror(error.errno)
        raise OSError(error.errno, reason, str(path)) from error


@contextmanager
def signals_held() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM until the end of a block; the first that came is raised then."""
    if threading.current_thread() is not threading.main_thread():  # no other thread is interrupted
        yield
        return
    came: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    try:
        for each in _STOPPING:
            before[each] = signal.getsignal(each)
            signal.signal(each, note)
        yield
    finally:
        for each, handler in before.items():
            with suppress(TypeError):  # None: it was set by other code than Python's, and cannot be set again
                signal.signal(each, handler)
        for number in came[:1]:
            signal.raise_signal(number)
