"""All that is checked of every run: see the modules that these are from."""

from fuzz.invariants_links import check_links
from fuzz.invariants_tables import check_tables
from fuzz.invariants_tasks import check_tasks
from fuzz.invariants_twins import check_folds, check_reuse, check_scale
from support.observed import Observed

# What routes by load breaks ties by the last bit, and a power of two scales to the last bit.
FASTER_TO_THE_LAST_BIT = 2.0


def check_run(run: Observed, faster: float = FASTER_TO_THE_LAST_BIT) -> None:
    """Check a run by itself, and against the same run in other ways.

    faster: how many times as fast the world is in which it runs again; not heeded where routes depend on loads
    """
    check_tables(run)
    check_links(run)
    check_tasks(run)
    check_reuse(run)
    check_folds(run)
    by_load = run.loaded.scenario.cluster.routing == "least-loaded"
    check_scale(run, FASTER_TO_THE_LAST_BIT if by_load else faster)
