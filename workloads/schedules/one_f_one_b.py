"""1F1B: as few forwards as fill the pipeline, then one backward after each forward.

Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", arXiv
2104.04473, figure 4 (top); in code `forward_backward_pipelining_without_interleaving` of Megatron-LM's
megatron/core/pipeline_parallel/schedules.py. It is PipeDream-Flush of arXiv 2006.09503.
"""

from workloads.schedules.phase_list import Chunk, PhaseList
from workloads.schedules.phases import Phase, Schedule


def one_f_one_b(num_ranks: int, num_micro_batches: int) -> Schedule:
    """Return the schedule: rank r holds stage r and is P-1-r forwards ahead of its backwards."""
    phases = tuple(_phases(rank, num_ranks, num_micro_batches) for rank in range(num_ranks))
    return Schedule((tuple(range(num_ranks)),), phases, num_micro_batches)


def _phases(rank: int, num_ranks: int, num_micro_batches: int) -> tuple[Phase, ...]:
    warm_up = min(num_ranks - 1 - rank, num_micro_batches)
    run = PhaseList([Chunk(0, rank, 0)])
    for _ in range(warm_up):
        run.forward()
    for _ in range(num_micro_batches - warm_up):
        run.forward()
        run.backward()
    for _ in range(warm_up):
        run.backward()
    return run.done()
