"""Interleaved 1F1B: each rank holds several short stages, so that the pipeline fills in smaller steps.

Narayanan et al. 2021, arXiv 2104.04473, figure 4 (bottom); the order is that of Megatron-LM's
megatron/core/pipeline_parallel/schedules.py: `get_schedule_table` (which chunk and micro-batch is the k-th) and
`get_pp_rank_microbatches` (how many forwards warm up), with groups of as many micro-batches as there are ranks.
"""

from workloads.schedules.phases import Cell, Kind, Phase, Schedule


def interleaved(num_ranks: int, num_micro_batches: int, chunks: int) -> Schedule:
    """Return the schedule: rank r holds stages r, P+r, 2P+r, ... of one pipeline, `chunks` of them."""
    rank_of_stage = tuple(stage % num_ranks for stage in range(num_ranks * chunks))
    phases = tuple(_phases(rank, num_ranks, num_micro_batches, chunks) for rank in range(num_ranks))
    return Schedule((rank_of_stage,), phases, num_micro_batches)


def _phases(rank: int, num_ranks: int, num_micro_batches: int, chunks: int) -> tuple[Phase, ...]:
    # each group of P micro-batches passes the chunks one after the other: forward ascending, backward descending
    order = [
        (chunk, micro_batch)
        for first in range(0, num_micro_batches, num_ranks)
        for chunk in range(chunks)
        for micro_batch in range(first, first + num_ranks)
    ]
    forwards = [
        Phase(Kind.FORWARD, Cell(0, chunk * num_ranks + rank, micro_batch), None)
        for chunk, micro_batch in order
    ]
    backwards = [
        Phase(Kind.BACKWARD, None, Cell(0, (chunks - 1 - chunk) * num_ranks + rank, micro_batch))
        for chunk, micro_batch in order
    ]
    # the first backward of rank r returns after the chunks that precede the last, and a way of P-1-r ranks and back
    warm_up = min((chunks - 1) * num_ranks + 2 * (num_ranks - 1 - rank), len(order))
    steady = zip(forwards[warm_up:], backwards, strict=False)
    turns = [phase for pair in steady for phase in pair]
    return (*forwards[:warm_up], *turns, *backwards[len(order) - warm_up :])
