"""All that is checked of every run: see the modules that these are from."""

from fuzz.invariants_links import check_links
from fuzz.invariants_tables import check_tables
from fuzz.invariants_tasks import check_tasks
from fuzz.invariants_twins import check_folds, check_reuse, check_scale
from support.observed import Observed

FASTER = 2.0  # a power of two, by which arithmetic scales to the last bit


def check_run(run: Observed) -> None:
    """Check a run by itself, and against the same run in other ways."""
    check_tables(run)
    check_links(run)
    check_tasks(run)
    check_reuse(run)
    check_folds(run)
    check_scale(run, FASTER)
