"""What a pipeline schedule is: for each rank of the pipeline, the phases that it runs, one after the other."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What a rank does in a phase."""

    FORWARD = "forward"
    BACKWARD = "backward"  # gradients of inputs and of weights
    BACKWARD_INPUT = "backward-input"  # gradients of inputs only; a phase of kind WEIGHT follows later
    WEIGHT = "weight"  # the gradients of weights that such a phase has left
    FORWARD_BACKWARD = "forward-backward"  # a cell's forward overlapped with another's whole backward


class Cell(NamedTuple):
    """One micro-batch on one stage of one pipeline.

    stage: counted from the stage that holds the embedding, so that forward goes to the next and backward to the one
    before; micro_batch: counted over the whole step, all pipelines together.
    """

    pipeline: int
    stage: int
    micro_batch: int


class Phase(NamedTuple):
    """One phase of a rank.

    forward: the cell whose forward it runs; backward: the cell whose backward, or part of it, it runs. Each is None
    where the kind has none.
    """

    kind: Kind
    forward: Cell | None
    backward: Cell | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A pipeline schedule.

    rank_of_stage: [num_pipelines][num_stages] the rank that holds each stage of each pipeline.
    phases: [num_ranks][...] what each rank runs, in order.
    num_micro_batches: over all pipelines; each takes equally many, pipeline 0 the first ones.
    """

    rank_of_stage: tuple[tuple[int, ...], ...]
    phases: tuple[tuple[Phase, ...], ...]
    num_micro_batches: int

    @property
    def num_ranks(self) -> int:
        """Number of ranks of a pipeline: pipelines share them."""
        return len(self.phases)

    @property
    def num_pipelines(self) -> int:
        """Number of pipelines, each with all stages and with micro-batches of its own."""
        return len(self.rank_of_stage)

    @property
    def num_stages(self) -> int:
        """Number of stages of each pipeline."""
        return len(self.rank_of_stage[0])

    def stages_of(self, rank: int) -> tuple[tuple[int, int], ...]:
        """Return (pipeline, stage) of each stage that a rank holds, ascending."""
        return tuple(
            (pipeline, stage)
            for pipeline, ranks in enumerate(self.rank_of_stage)
            for stage, holder in enumerate(ranks)
            if holder == rank
        )

    def micro_batches_of(self, pipeline: int) -> range:
        """Return the micro-batches that a pipeline takes."""
        each = self.num_micro_batches // self.num_pipelines
        return range(pipeline * each, (pipeline + 1) * each)
