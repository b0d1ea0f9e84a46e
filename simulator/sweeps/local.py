"""Points on this machine: one after the other, or in parallel processes by joblib.

A process that is killed, as by a machine out of memory, takes others' work with it, and it cannot be told which
point killed it. So every point that was under way is run again by itself: one that is killed then has failed.
"""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from joblib import delayed

from simulator.fluid_loop import run_flows
from simulator.processes import in_processes
from simulator.sweeps.points import Job, record_text, run_point

_KILLED: Final = (
    "the process that ran this point was killed, twice; most likely memory did not suffice, so that fewer points "
    "at a time (--jobs) may help"
)


def run_here(jobs: Sequence[Job], processes: int) -> Iterator[tuple[int, str]]:
    """Yield points and their records as they are done, on so many processes; one is this process itself."""
    remaining = {job.point: job for job in jobs}
    alone = 0 if processes > 1 else len(jobs)
    if processes > 1 and not _is_compiled():
        alone = 1  # or every process would compile the same
    for job in jobs[:alone]:
        del remaining[job.point]
        yield job.point, run_point(job)
    while remaining:
        under_way: set[int] = set()
        try:
            with closing(_in_processes(list(remaining.values()), processes, under_way)) as made:
                for point, record in made:
                    del remaining[point]
                    yield point, record
        except BrokenProcessPool:
            for point in sorted(under_way & remaining.keys()):
                yield point, _by_itself(remaining.pop(point))


def _in_processes(
    jobs: Sequence[Job], processes: int, under_way: set[int]
) -> Generator[tuple[int, str], None, None]:
    """Return what yields records of processes; under_way: the points that were handed to them, to be filled."""

    def handed() -> Iterator[object]:
        for job in jobs:
            under_way.add(job.point)
            yield delayed(_numbered)(job)

    return in_processes(handed(), processes)


def _numbered(job: Job) -> tuple[int, str]:
    return job.point, run_point(job)


def _by_itself(job: Job) -> str:
    """Return the record of a point that has a pool to itself."""
    try:
        with closing(_in_processes([job], 2, set())) as made:
            return next(made)[1]
    except BrokenProcessPool:
        return record_text(job, "failed", _KILLED, None)


def _is_compiled() -> bool:
    """Return whether compiled functions were kept by an earlier run of these sources."""
    dispatcher: Any = run_flows
    return any(Path(dispatcher.stats.cache_path).glob("*.nbi"))
