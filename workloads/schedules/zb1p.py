"""ZB1P, or ZB-H1: 1F1B whose backward is split, the part for weights being put off until ranks would be idle.

Qi et al. 2024, "Zero Bubble Pipeline Parallelism", arXiv 2401.10241, section 2.1 and figure 3 (top), where it is
ZB-H1; the DeepSeek-V3 report (arXiv 2412.19437, table 2) calls it ZB1P. No rank holds more micro-batches than the
first rank of 1F1B.
"""

from workloads.schedules.phase_list import Chunk, PhaseList
from workloads.schedules.phases import Phase, Schedule


def zb1p(num_ranks: int, num_micro_batches: int) -> Schedule:
    """Return the schedule: rank r holds stage r, and its weight parts are r micro-batches behind."""
    phases = tuple(_phases(rank, num_ranks, num_micro_batches) for rank in range(num_ranks))
    return Schedule((tuple(range(num_ranks)),), phases, num_micro_batches)


def _phases(rank: int, num_ranks: int, num_micro_batches: int) -> tuple[Phase, ...]:
    run = PhaseList([Chunk(0, rank, 0)])
    for _ in range(min(num_ranks - 1 - rank, num_micro_batches)):
        run.forward()
    while run.backwards[0] < num_micro_batches:
        if run.forwards[0] < num_micro_batches:
            run.forward()
            run.backward_input()
            if run.weights_left > rank:
                run.weight()
        else:
            # nothing left to send forwards: weights fill the time until the next gradient comes
            run.backward_input()
            run.weight()
    while run.weights_left:
        run.weight()
    return run.done()
