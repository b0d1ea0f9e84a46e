"""DualPipeV: DualPipe cut in half; one pipeline goes down all ranks and back up, so that weights are held once.

`DualPipeV.step` of https://github.com/deepseek-ai/DualPipe, dualpipe/dualpipev.py. Rank r of P does what rank r of 2P
does in DualPipe, with the way back up in place of the other direction.
"""

from workloads.schedules.dualpipe import bidirectional_phases
from workloads.schedules.phase_list import Chunk
from workloads.schedules.phases import Schedule


def dualpipe_v(num_ranks: int, num_micro_batches: int) -> Schedule:
    """Return the schedule: rank r holds stages r and 2P-1-r of one pipeline of 2P stages."""
    down, up = range(num_ranks), reversed(range(num_ranks))
    phases = tuple(
        bidirectional_phases(
            [Chunk(0, rank, 0), Chunk(0, 2 * num_ranks - 1 - rank, 0)], rank, num_ranks, num_micro_batches
        )
        for rank in range(num_ranks)
    )
    return Schedule(((*down, *up),), phases, num_micro_batches)
