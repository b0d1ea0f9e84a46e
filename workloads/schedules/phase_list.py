"""The phases of one rank, written down in order; it counts micro-batches, so that a schedule names chunks only."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from workloads.schedules.phases import Cell, Kind, Phase


class Chunk(NamedTuple):
    """A stage that a rank holds, and the first micro-batch of its pipeline."""

    pipeline: int
    stage: int
    first_micro_batch: int


class PhaseList:
    """The phases of a rank so far; each chunk's micro-batches take their turns in order, forward and backward.

    chunks: the stages that the rank holds; methods name them by their place here. Attributes count what has been
    written down: `forwards` and `backwards` [num_chunks], `weights_left` the weight parts that still have to come.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.forwards = [0] * len(chunks)
        self.backwards = [0] * len(chunks)
        self._chunks = chunks
        self._phases: list[Phase] = []
        self._weights: deque[Cell] = deque()

    @property
    def weights_left(self) -> int:
        """Number of cells whose backward has run for inputs only."""
        return len(self._weights)

    def forward(self, chunk: int = 0) -> None:
        """Add the forward of a chunk's next micro-batch."""
        self._phases.append(Phase(Kind.FORWARD, self._next(chunk, self.forwards), None))

    def backward(self, chunk: int = 0) -> None:
        """Add the backward of a chunk's next micro-batch, for inputs and weights."""
        self._phases.append(Phase(Kind.BACKWARD, None, self._next(chunk, self.backwards)))

    def backward_input(self, chunk: int = 0) -> None:
        """Add the backward of a chunk's next micro-batch for inputs; its weights wait for `weight`."""
        cell = self._next(chunk, self.backwards)
        self._weights.append(cell)
        self._phases.append(Phase(Kind.BACKWARD_INPUT, None, cell))

    def weight(self) -> None:
        """Add the weight part that has waited longest, of whichever chunk."""
        self._phases.append(Phase(Kind.WEIGHT, None, self._weights.popleft()))

    def forward_backward(self, forward: int, backward: int) -> None:
        """Add an overlapped pair: the forward of one chunk's next micro-batch and the backward of another's."""
        cells = self._next(forward, self.forwards), self._next(backward, self.backwards)
        self._phases.append(Phase(Kind.FORWARD_BACKWARD, *cells))

    def done(self) -> tuple[Phase, ...]:
        """Return all phases."""
        return tuple(self._phases)

    def _next(self, chunk: int, counts: list[int]) -> Cell:
        pipeline, stage, first = self._chunks[chunk]
        counts[chunk] += 1
        return Cell(pipeline, stage, first + counts[chunk] - 1)
