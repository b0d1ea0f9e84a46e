"""A sweep on one screen: plan, run what is missing, keep each record at once, make the table."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd

from simulator.input_error import InputError
from simulator.machine_memory import this_process
from simulator.size import fewer_at_a_time, most_at_a_time
from simulator.sweeps.grid import make_grid
from simulator.sweeps.plan import Plan, make_plan
from simulator.sweeps.points import Job, record_text
from simulator.sweeps.store import SweepFolder
from simulator.sweeps.table import table_files, tidy_table


def sweep(
    scenario: Path | str,
    over: Mapping[str, Sequence[Any]],
    *,
    overrides: Sequence[str] = (),
    jobs: int | None = None,
    cluster: str | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    any_path: bool = False,
    any_size: bool = False,
    say: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Return a tidy table with a row for each point of a grid over fields of a scenario.

    scenario: its file
    over: dotted paths, as `workload.expert_parallel`, and the values of each; the first is the slowest
    overrides: each `PATH=VALUE`, set in all points, before the swept fields
    jobs: points at a time on this machine, by default as many as it has cores
    cluster: the address of a Dask scheduler that runs the points instead
    out: a folder that keeps each point's record the moment it is done, and the table; see docs/sweeps.md
    resume: go on with the sweep that is in `out`, if there is one; its table is as if it had never stopped
    any_path: whether the scenario may name files outside its folder
    any_size: whether points may take more memory than there is, by their estimates; otherwise those that would are
    refused, and fewer run at a time on this machine if as many do not fit
    say: called with a sentence if so
    progress: called with the number of points that are done and that of all

    A point that fails is a row with its message: see `tidy_table` for the columns. InputError if the input is wrong
    for all points: a field that is not known, values that repeat, no point that can run, a folder with another sweep.
    """
    _check_options(jobs, cluster, out, resume=resume)
    plan = make_plan(
        Path(scenario), make_grid(over, overrides), overrides, any_path=any_path, any_size=any_size
    )
    folder = None if out is None else SweepFolder(Path(out))
    records = {} if folder is None else folder.open(plan, resume=resume)
    report = progress or (lambda _done, _all: None)
    report(len(records), len(plan.jobs))
    with closing(_records(plan, records, jobs, cluster, say)) as made:
        for point, record in made:
            if folder is not None:
                folder.save_point(point, record)
            records[point] = record
            report(len(records), len(plan.jobs))
    table = tidy_table(plan.grid, [records[job.point] for job in plan.jobs])
    if folder is not None:
        folder.save_tables(table_files(table))
    return table


def _check_options(jobs: int | None, cluster: str | None, out: Path | str | None, *, resume: bool) -> None:
    if jobs is not None and jobs < 1:
        raise InputError("--jobs", None, None, f"at least 1 point must run at a time, not {jobs}")
    if jobs is not None and cluster is not None:
        raise InputError("--jobs", None, None, "the cluster's workers decide how many points run at a time")
    if resume and out is None:
        raise InputError("--resume", None, None, "give --out as well: the folder of the sweep to go on with")


def _records(
    plan: Plan,
    known: Mapping[int, str],
    jobs: int | None,
    cluster: str | None,
    say: Callable[[str], None] | None,
) -> Generator[tuple[int, str], None, None]:
    """Yield the points that are not known and their records, as they are done."""
    missing = [job for job in plan.jobs if job.point not in known]
    for job in missing:
        if refusal := plan.refusals[job.point]:
            yield job.point, record_text(job, refusal.outcome, refusal.why, None)
    # grids tend to be written from small to large; with the large points first, none is waited for at the end
    able = [job for job in reversed(missing) if not plan.refusals[job.point]]
    if able:
        yield from _run(able, jobs, cluster, say)


def _run(
    able: Sequence[Job], jobs: int | None, cluster: str | None, say: Callable[[str], None] | None
) -> Iterator[tuple[int, str]]:
    if cluster is not None:
        from simulator.sweeps.cluster import run_on_cluster

        return run_on_cluster(able, cluster)
    from joblib import cpu_count

    from simulator.sweeps.local import run_here

    wanted = fitting = min(jobs or cpu_count(), len(able))
    if not any(job.any_size for job in able):
        limit = this_process()
        fitting = most_at_a_time([job.size_bytes for job in able], wanted, limit)
        if say is not None and (fewer := fewer_at_a_time(wanted, fitting, limit)):
            say(fewer)
    return run_here(able, fitting)
