"""Points on a Dask cluster, whose workers have railplane and see the scenario's files under the same paths.

The scheduler gives what a lost worker was doing to another; a point that takes four workers with it has failed.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, Final

from simulator.input_error import InputError
from simulator.sweeps.points import Job, SweepStopped, record_text, run_point

_CONNECT_TIMEOUT_S: Final = 30


def run_on_cluster(jobs: Sequence[Job], address: str) -> Iterator[tuple[int, str]]:
    """Yield points and their records as they are done on the workers of the scheduler at an address.

    Raises InputError where Dask is not installed or no scheduler answers, SweepStopped if it stops to.
    """
    option = f"--cluster {address}"
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        message = (
            "this needs Dask; install it by: pip install 'railplane[cluster]', or: pip install distributed"
        )
        raise InputError(option, None, None, message) from error
    try:
        client = distributed.Client(address, timeout=_CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        message = f"no Dask scheduler answers there ({error}); give its address, such as tcp://host:8786"
        raise InputError(option, None, None, message) from error
    with client:
        # what a point gives is not kept for another sweep: its files may have changed by then
        job_of = {client.submit(run_point, job, pure=False): job for job in jobs}
        for future in distributed.as_completed(job_of, loop=client.loop):
            job = job_of.pop(future)
            yield job.point, _record(future, job)


def _record(future: Any, job: Job) -> str:
    """Return the record of a future that is done."""
    if future.cancelled():
        msg = "the Dask scheduler has gone"
        raise SweepStopped(msg)
    error = future.exception()
    if error is None:
        record: str = future.result()
        return record
    return record_text(job, "failed", f"{type(error).__name__}: {error}", None)
