"""DualPipe: micro-batches enter at both ends, and the forward of one direction overlaps the backward of the other.

DeepSeek-V3 technical report, arXiv 2412.19437, section 3.2.1 and figure 5; the order is that of `DualPipe.step` in
https://github.com/deepseek-ai/DualPipe, dualpipe/dualpipe.py, whose eight steps are named here as there.
"""

from workloads.schedules.phase_list import Chunk, PhaseList
from workloads.schedules.phases import Phase, Schedule


def dualpipe(num_ranks: int, num_micro_batches: int) -> Schedule:
    """Return the schedule: pipeline 0 enters at rank 0, pipeline 1 at rank P-1, each with half of the work."""
    half_ranks, half_micro_batches = num_ranks // 2, num_micro_batches // 2
    forth, back = tuple(range(num_ranks)), tuple(reversed(range(num_ranks)))
    phases = []
    for rank in range(num_ranks):
        # chunk 0 is of the pipeline that enters at the nearer end
        chunks = [Chunk(0, rank, 0), Chunk(1, num_ranks - 1 - rank, half_micro_batches)]
        if rank >= half_ranks:
            chunks.reverse()
        depth = min(rank, num_ranks - 1 - rank)
        phases.append(bidirectional_phases(chunks, depth, half_ranks, half_micro_batches))
    return Schedule((forth, back), tuple(phases), num_micro_batches)


def bidirectional_phases(
    chunks: list[Chunk], depth: int, num_depths: int, num_micro_batches: int
) -> tuple[Phase, ...]:
    """Return the eight steps of a rank.

    chunks: [2] what enters here, or near by, and what comes from the far end; depth: ranks between this one and the
    nearer end, of `num_depths`; num_micro_batches: those of each chunk, at least 2 x num_depths.
    """
    run = PhaseList(chunks)
    to_middle = num_depths - 1 - depth
    # Step 1: nF0
    for _ in range(2 * to_middle):
        run.forward(0)
    # Step 2: nF0F1
    for _ in range(depth + 1):
        run.forward(0)
        run.forward(1)
    # Step 3: nB1W1F1
    for _ in range(to_middle):
        run.backward_input(1)
        run.weight()
        run.forward(1)
    # Step 4 (main step): nF0B1F1B0
    for turn in range(num_micro_batches - 2 * num_depths + depth + 1):
        if turn == 0 and to_middle == 0:
            run.forward(0)  # apart, so that what the neighbour waits for leaves sooner
            run.backward(1)
        else:
            run.forward_backward(0, 1)
        run.forward_backward(1, 0)
    # Step 5: nB1F1B0
    for _ in range(to_middle):
        run.backward(1)
        run.forward_backward(1, 0)
    _drain(run, depth, to_middle)
    return run.done()


def _drain(run: PhaseList, depth: int, to_middle: int) -> None:
    """Add the steps that have no forward left."""
    # Step 6: nB1B0, whose second half leaves the weights for later
    for turn in range(2 * (depth + 1)):
        chunk = 1 - turn % 2
        if turn <= depth:
            run.backward(chunk)
        else:
            run.backward_input(chunk)
    # Step 7: nWB0
    for _ in range(to_middle):
        run.weight()
        run.backward_input(0)
    # Step 8: nW
    while run.weights_left:
        run.weight()
