"""Writing that is ended at each of its file operations in turn, in children of the test's process.

A file operation is what Python's audit events tell of (open, rename, remove, rmdir, mkdir, listing a folder) or an
`fsync`. Hooks cannot be taken out again, so that each ending has a child of its own.
"""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

Ending = Literal["killed", "full", "interrupted"]

_OPERATIONS = {
    "open",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.listdir",
    "os.scandir",
    "test.fsync",
}


class Steps:
    """Counts file operations in a folder as they begin, and ends the process, or fails, at one of them.

    fatal: the number of the operation that does not happen, None for none
    """

    def __init__(self, folder: Path, ending: Ending, fatal: int | None) -> None:
        self.folder, self.ending, self.fatal, self.count = str(folder), ending, fatal, 0
        os.fsync = self._synced
        sys.addaudithook(self._hook)

    def _synced(self, _descriptor: int) -> None:
        self._step()  # a process that is killed loses nothing that it has written: only a machine could

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _OPERATIONS and str(arguments[0]).startswith(self.folder):
            self._step()

    def _step(self) -> None:
        self.count += 1
        if self.count != self.fatal:
            return
        if self.ending == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.ending == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        signal.raise_signal(signal.SIGINT)


def ended(folder: Path, write: Callable[[], str], ending: Ending, fatal: int | None) -> str | None:
    """Run `write` in a child that is ended at an operation; return what it returns, None if it was killed.

    `write` may raise what the ending makes it raise: it is then to return a text that says so.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
            Steps(folder, ending, fatal)
            os.write(writing, write().encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as said:
        text = said.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert os.waitstatus_to_exitcode(status) == 0
    return text


def operations(folder: Path, write: Callable[[], object]) -> int:
    """Return how many file operations `write` takes in a folder."""

    def counted() -> str:
        steps = Steps(folder, "killed", None)
        write()
        return str(steps.count)

    text = ended(folder, counted, "killed", None)
    assert text is not None
    return int(text)
