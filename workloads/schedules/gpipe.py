"""GPipe: all forwards, then all backwards in the reverse order of micro-batches.

Huang et al. 2019, "GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism", arXiv 1811.06965,
figure 2(c). Recomputation, which GPipe adds, is no matter of the schedule.
"""

from workloads.schedules.phases import Cell, Kind, Phase, Schedule


def gpipe(num_ranks: int, num_micro_batches: int) -> Schedule:
    """Return the schedule: rank r holds stage r and runs F0 F1 ... Fn-1 Bn-1 ... B1 B0."""
    phases = []
    for rank in range(num_ranks):
        cells = [Cell(0, rank, micro_batch) for micro_batch in range(num_micro_batches)]
        forwards = [Phase(Kind.FORWARD, cell, None) for cell in cells]
        backwards = [Phase(Kind.BACKWARD, None, cell) for cell in reversed(cells)]
        phases.append((*forwards, *backwards))
    return Schedule((tuple(range(num_ranks)),), tuple(phases), num_micro_batches)
