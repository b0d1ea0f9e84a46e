"""Tables of phases as results have them, of schedules on an ideal network."""

import pandas as pd

from workloads.schedules import make_schedule
from workloads.schedules.ideal import ideal_times

_NOWHERE = (-1, -1, -1)


def ideal_phases(
    name: str,
    num_ranks: int,
    num_micro_batches: int,
    chunks: int = 1,
    *,
    ranks: int = 1,
    second: float = 1e-3,
) -> pd.DataFrame:
    """Return the phases of a schedule, pipeline rank r being a fold of `ranks` that rank r * ranks leads.

    second: what a forward, a backward for inputs and a weight part take; a backward takes two, a pair three
    """
    schedule = make_schedule(name, num_ranks, num_micro_batches, chunks)
    times = ideal_times(schedule, second, second, second, 3 * second)
    rows = [
        (
            rank * ranks,
            ranks,
            phase.kind.value,
            *(phase.forward or _NOWHERE),
            *(phase.backward or _NOWHERE),
            span.start_s,
            span.end_s,
        )
        for rank, (phases, spans) in enumerate(zip(schedule.phases, times, strict=True))
        for phase, span in zip(phases, spans, strict=True)
    ]
    return phase_table(rows)


def phase_table(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    """Return a table of phases; rows: rank, ranks, kind, the three of forward, the three of backward, start, end."""
    cells = [
        f"{part}_{name}" for part in ("forward", "backward") for name in ("pipeline", "stage", "micro_batch")
    ]
    return pd.DataFrame(rows, columns=["rank", "ranks", "kind", *cells, "start_s", "end_s"])
