"""How commands end before they are done: Ctrl-C, SIGTERM, memory or a disk that does not suffice, a closed pipe.

Each is one line on standard error that says what is kept, and never a traceback.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, NoReturn

import typer

_CALLED: Final = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_AS_SIGNAL: Final = 128  # what shells add to the number of the signal that ended a program


class Stopped(KeyboardInterrupt):
    """Somebody has asked the process to end, by Ctrl-C or SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise Stopped where Ctrl-C or SIGTERM arrives; one that is ignored, as in a shell's background, stays so."""
    before: dict[signal.Signals, Any] = {}
    try:
        for each in _CALLED:
            handler = signal.getsignal(each)
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                before[each] = handler
                signal.signal(each, _stop)
        yield
    finally:
        for each, handler in before.items():
            if (
                signal.getsignal(each) is _stop
            ):  # after a line that said the end, a signal ends the process at once
                signal.signal(each, handler)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped(number)


@contextmanager
def stoppable(kept: Callable[[], str]) -> Iterator[None]:
    """End a command with one line and a status of its own where something other than its input ends it.

    kept: says, when it has ended, what there is of its files; empty: nothing of note. Status: 130 for Ctrl-C, 143 for
    SIGTERM, 1 where memory does not suffice, 2 where what it prints cannot be written, 0 where nobody reads it.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        number = stop.signal if isinstance(stop, Stopped) else signal.SIGINT
        _end(f"Stopped by {_CALLED[number]}: ", kept, _AS_SIGNAL + number)
    except MemoryError:
        _end("Stopped, since memory did not suffice: ", kept, 1)
    except BrokenPipeError:
        # Whoever read our output has stopped; keep the interpreter from failing again as it flushes.
        _silence_output()
        raise typer.Exit(0) from None
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        if error.filename is None:
            _silence_output()
        place = error.filename or "standard output, or a temporary file"
        _end(f"{place}: cannot write there: {os.strerror(error.errno)}; ", kept, 2)


def _end(why: str, kept: Callable[[], str], status: int) -> NoReturn:
    """Say why the command ends, undisturbed by a second signal; a third one ends the process at once."""
    ours = [each for each in _CALLED if signal.getsignal(each) is _stop]
    for each in ours:
        signal.signal(each, signal.SIG_IGN)
    said = kept()
    typer.echo(f"{why}{said}" if said else why.rstrip(":; "), err=True)
    for each in ours:
        signal.signal(each, signal.SIG_DFL)
    raise typer.Exit(status) from None


def _silence_output() -> None:
    """Let what is still to be flushed to standard output go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
