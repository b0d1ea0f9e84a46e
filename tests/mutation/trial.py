"""Trials: tests run in forks, of what is on disk or of a mutant put in the place of what is loaded."""

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from in_place import loaded_functions, put
from mutants import Mutant

LOG = Path("mutation.log")  # of the last trial, in the working folder
# A mutant may loop for ever, and grow as it does: limits that do not rest on how busy the machine is.
_MOST_CPU_S_OF_A_TEST = 4
_MOST_CPU_S = 300
_MOST_BYTES = 4 << 30
_OURS = 99  # exit status of a fork that failed before its tests ran
_PASSED, _FAILED = b"1", b"0"
_OPTIONS = "-x --tb=no --assert=plain -p no:cacheprovider -p hypothesispytest -p mutation.interpreted"
_OPTIONS += " -o addopts=--import-mode=importlib --hypothesis-profile=mutation"


def on_disk(tests: list[str]) -> bool:
    """Return whether all tests pass, everything of ours being loaded anew."""
    return _in_fork(lambda: _run_pytest(tests, []))


def in_place(tests: list[str], mutants: list[Mutant]) -> Iterator[bool]:
    """Yield whether all tests pass: of the code as it is, and then of each mutant."""
    read, write = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _say_to(Path("in_place.log"))
        os._exit(_run_pytest(tests, [_Turns(mutants, write)]))
    os.close(write)
    for _ in (None, *mutants):
        answer = os.read(read, 1)
        if answer not in {_PASSED, _FAILED}:
            msg = f"no answer: {Path('in_place.log').read_text('utf-8')}"
            raise RuntimeError(msg)
        yield answer == _PASSED
    os.close(read)
    os.waitpid(pid, 0)


class _Turns:
    """A pytest plugin: tests that have been collected run once for each mutant, up to the first that fails."""

    def __init__(self, mutants: list[Mutant], answers: int) -> None:
        self.mutants = mutants
        self.answers = answers

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        functions = loaded_functions({mutant.path.resolve() for mutant in self.mutants})

        def run(mutant: Mutant | None) -> int:
            if mutant is not None:
                put(mutant, functions)
            for item, following in zip(session.items, [*session.items[1:], None], strict=True):
                session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.testsfailed:
                    return 1
            return 0

        for mutant in (None, *self.mutants):
            passed = _in_fork(lambda mutant=mutant: run(mutant))
            os.write(self.answers, _PASSED if passed else _FAILED)
        return True


class _Limit:
    """A pytest plugin: who takes too long is killed."""

    def pytest_runtest_logstart(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, _MOST_CPU_S_OF_A_TEST)


def _run_pytest(tests: list[str], plugins: list[object]) -> int:
    return int(pytest.main([*_OPTIONS.split(), *tests], [*plugins, _Limit()]))


def _in_fork(work: Callable[[], int]) -> bool:
    """Return whether a fork that does some work returns 0; raise RuntimeError if it cannot be done."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = _OURS
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU_S, _MOST_CPU_S))
            resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
            _say_to(LOG)
            code = work()
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == _OURS:
        msg = f"a mutant could not be tested:\n{LOG.read_text('utf-8')}"
        raise RuntimeError(msg)
    return code == 0


def _say_to(path: Path) -> None:
    """Let all that is said from now on go to a file."""
    with path.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
