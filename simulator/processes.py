"""Work in parallel processes, which end with whoever began them."""

import signal
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from warnings import catch_warnings, filterwarnings

from joblib import Parallel, parallel_config


def in_processes(calls: Iterable[Any], processes: int) -> Generator[Any, None, None]:
    """Yield what calls return, as they end, each run in one of so many processes; one process is this one itself.

    calls: made by `joblib.delayed`; they are taken one by one, as processes become free. When the generator is closed
    the processes are ended at once, whatever they do. Raises BrokenProcessPool (of `concurrent.futures.process`) if
    one is killed, and what a call raises.
    """
    # a call is one thread's work, so that libraries' own threads would only be in each other's way
    with parallel_config(backend="loky", inner_max_num_threads=1):
        pool = Parallel(
            n_jobs=processes, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs"
        )
        with _deaf_children():
            found = pool(calls)
    try:
        for each in found:  # noqa: UP028 - `yield from` would close it before the warning is off
            yield each
    finally:
        with catch_warnings():
            filterwarnings(
                "ignore", ".*tasks (have been|which were)", UserWarning
            )  # that some calls had not ended
            found.close()


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Let processes that are begun not hear Ctrl-C, which a terminal sends to them too: this one ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
