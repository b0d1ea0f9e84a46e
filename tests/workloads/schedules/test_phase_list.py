"""The phases of one rank, written down by chunks: each chunk counts its own micro-batches."""

import pytest

from workloads.schedules.phase_list import Chunk, PhaseList
from workloads.schedules.phases import Cell, Kind, Phase

# Stage 1 of pipeline 0, and stage 2 of pipeline 1, whose micro-batches are 4 and the next.
CHUNKS = [Chunk(0, 1, 0), Chunk(1, 2, 4)]


def test_each_chunk_takes_its_micro_batches_in_order():
    run = PhaseList(CHUNKS)
    run.forward(1)
    run.forward(0)
    run.forward(1)
    run.backward(1)
    run.forward_backward(0, 1)
    assert run.done() == (
        Phase(Kind.FORWARD, Cell(1, 2, 4), None),
        Phase(Kind.FORWARD, Cell(0, 1, 0), None),
        Phase(Kind.FORWARD, Cell(1, 2, 5), None),
        Phase(Kind.BACKWARD, None, Cell(1, 2, 4)),
        Phase(Kind.FORWARD_BACKWARD, Cell(0, 1, 1), Cell(1, 2, 5)),
    )
    assert (run.forwards, run.backwards, run.weights_left) == ([2, 2], [0, 2], 0)


def test_weight_parts_wait_in_one_line_for_all_chunks():
    run = PhaseList(CHUNKS)
    run.backward_input(1)
    run.backward_input(0)
    assert run.weights_left == 2
    run.weight()
    run.weight()
    assert run.done()[2:] == (
        Phase(Kind.WEIGHT, None, Cell(1, 2, 4)),
        Phase(Kind.WEIGHT, None, Cell(0, 1, 0)),
    )
    assert run.weights_left == 0


@pytest.mark.parametrize(
    ("method", "phase"),
    [
        (PhaseList.forward, Phase(Kind.FORWARD, Cell(0, 1, 0), None)),
        (PhaseList.backward, Phase(Kind.BACKWARD, None, Cell(0, 1, 0))),
        (PhaseList.backward_input, Phase(Kind.BACKWARD_INPUT, None, Cell(0, 1, 0))),
    ],
)
def test_the_first_chunk_is_meant_where_none_is_named(method, phase):
    run = PhaseList(CHUNKS)
    method(run)
    assert run.done() == (phase,)
