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
_arrived: list[signal.Signals] = []  # since `stopped_by_signals` listens, and not told of yet


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM has come.

    A class of its own, since CPython ends a module that runs as the program by SIGINT, whatever its exit status, if a
    KeyboardInterrupt itself has ever left a text that was run by `exec`, as many a library does when it is imported.
    """


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise Stopped where Ctrl-C or SIGTERM arrives, unless the process was told to ignore it."""
    before: dict[signal.Signals, Any] = {}
    report = sys.unraisablehook

    def report_others(ignored: "sys.UnraisableHookArgs") -> None:
        if not issubclass(ignored.exc_type, Stopped):  # where that could not be raised, the next step does
            report(ignored)

    sys.unraisablehook = report_others
    _arrived.clear()
    try:
        for each in _CALLED:
            handler = signal.getsignal(each)
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                before[each] = handler
                signal.signal(each, _stop)
        yield
    finally:
        sys.unraisablehook = report
        for each, handler in before.items():
            if signal.getsignal(each) is _stop:  # or it ends the process at once, the end being told
                signal.signal(each, handler)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    _arrived.append(signal.Signals(number))
    raise Stopped


def raise_if_stopped() -> None:
    """Raise Stopped again if a signal has come that whoever was running then has made nothing of."""
    if _arrived:
        raise Stopped


@contextmanager
def stoppable(kept: Callable[[], str]) -> Iterator[None]:
    """End a command with one line and a status of its own where something other than its input ends it.

    kept: says, when it has ended, what there is of its files; empty: nothing of note. Status: 130 for Ctrl-C, 143 for
    SIGTERM, 1 where memory does not suffice, 2 where what it prints cannot be written, 0 where nobody reads it.
    """
    try:
        yield
    except KeyboardInterrupt:
        _end_stopped(kept)
    except typer.Exit:
        raise
    except Exception as error:
        if _arrived:  # a library has made an error of its own of the interrupt, as one written in Rust does
            _end_stopped(kept)
        _end_for_want(error, kept)
        raise


def tell_of_signal() -> None:
    """End with a line and a status if a signal has come of which no command has told: it was not begun, or done."""
    if _arrived:
        number = _arrived[0]
        _arrived.clear()
        typer.echo(f"Stopped by {_CALLED[number]}", err=True)
        raise SystemExit(_AS_SIGNAL + number) from None


def _end_stopped(kept: Callable[[], str]) -> NoReturn:
    number = _arrived[0] if _arrived else signal.SIGINT
    _end(f"Stopped by {_CALLED[number]}: ", kept, _AS_SIGNAL + number)


def _end_for_want(error: Exception, kept: Callable[[], str]) -> None:
    """End if the error tells of too little memory or room, or of a reader that has gone."""
    if isinstance(error, MemoryError):
        _end("Stopped, since memory did not suffice: ", kept, 1)
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has stopped; keep the interpreter from failing again as it flushes.
        _silence_output()
        raise typer.Exit(0) from None
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        if error.filename is None:
            _silence_output()
        place = error.filename or "standard output, or a temporary file"
        _end(f"{place}: cannot write there: {os.strerror(error.errno or 0)}; ", kept, 2)


def _end(why: str, kept: Callable[[], str], status: int) -> NoReturn:
    """Say why the command ends, undisturbed by a second signal; a third one ends the process at once."""
    ours = [each for each in _CALLED if signal.getsignal(each) is _stop]
    for each in ours:
        signal.signal(each, signal.SIG_IGN)
    said = kept()
    typer.echo(f"{why}{said}" if said else why.rstrip(":; "), err=True)
    _arrived.clear()
    for each in ours:
        signal.signal(each, signal.SIG_DFL)
    raise typer.Exit(status) from None


def _silence_output() -> None:
    """Let what is still to be flushed to standard output go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
