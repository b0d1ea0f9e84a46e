"""Pipeline schedules: which rank runs the forward, backward or weight part of which micro-batch, in which order.

A new schedule is one file, and one line in `SCHEDULES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from simulator.units import FieldError
from workloads.schedules.dualpipe import dualpipe
from workloads.schedules.dualpipe_v import dualpipe_v
from workloads.schedules.gpipe import gpipe
from workloads.schedules.interleaved import interleaved
from workloads.schedules.one_f_one_b import one_f_one_b
from workloads.schedules.phases import Cell, Kind, Phase, Schedule
from workloads.schedules.zb1p import zb1p

__all__ = [
    "SCHEDULES",
    "Cell",
    "Kind",
    "Phase",
    "Recipe",
    "Schedule",
    "check_schedule",
    "make_schedule",
    "stages_per_rank",
]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a schedule is made, and what it asks for.

    build: takes the number of ranks and of micro-batches, and that of chunks where it `takes_chunks`, at least 2.
    pipelines, stages_per_rank: as of the schedule, where it does not take chunks.
    ranks_multiple: what the number of ranks must be a multiple of. micro_batches_multiple, least_micro_batches: of
    the number of ranks, what the micro-batches must be a multiple of, and no fewer than.
    """

    build: Callable[..., Schedule]
    takes_chunks: bool = False
    pipelines: int = 1
    stages_per_rank: int = 1
    ranks_multiple: int = 1
    micro_batches_multiple: Callable[[int], int] = lambda _: 1
    least_micro_batches: Callable[[int], int] = lambda _: 1


SCHEDULES: Final[dict[str, Recipe]] = {
    "gpipe": Recipe(gpipe),
    "1f1b": Recipe(one_f_one_b),
    "interleaved-1f1b": Recipe(interleaved, takes_chunks=True, micro_batches_multiple=lambda ranks: ranks),
    "zb1p": Recipe(zb1p),
    "dualpipe": Recipe(
        dualpipe,
        pipelines=2,
        ranks_multiple=2,
        micro_batches_multiple=lambda _: 2,
        least_micro_batches=lambda ranks: 2 * ranks,
    ),
    "dualpipe-v": Recipe(dualpipe_v, stages_per_rank=2, least_micro_batches=lambda ranks: 2 * ranks),
}


def make_schedule(name: str, num_ranks: int, num_micro_batches: int, chunks: int = 1) -> Schedule:
    """Return the schedule of that name.

    name: a key of SCHEDULES; num_ranks: of the pipeline; num_micro_batches: of a step, over both directions where
    there are two; chunks: stages that a rank holds, where the schedule leaves the choice. Raises FieldError like
    `check_schedule`.
    """
    check_schedule(name, num_ranks, num_micro_batches, chunks)
    recipe = SCHEDULES[name]
    if recipe.takes_chunks:
        return recipe.build(num_ranks, num_micro_batches, chunks)
    return recipe.build(num_ranks, num_micro_batches)


def check_schedule(name: str, num_ranks: int, num_micro_batches: int, chunks: int = 1) -> None:
    """Raise FieldError, its field being one of these, for what the schedule does not admit; cheap at any size."""
    if name not in SCHEDULES:
        msg = f"there is no schedule {name!r}; there are {', '.join(SCHEDULES)}"
        raise FieldError("name", msg)
    recipe = SCHEDULES[name]
    _check_ranks(name, recipe, num_ranks)
    _check_micro_batches(name, recipe, num_ranks, num_micro_batches)
    if recipe.takes_chunks:
        if chunks < 2:
            msg = f"{name} needs 2 or more chunks a rank, not {chunks}; with one it is 1f1b"
            raise FieldError("chunks", msg)
    elif chunks != 1:
        msg = f"{name} does not split a rank into {chunks} chunks: leave it at 1, or take interleaved-1f1b"
        raise FieldError("chunks", msg)


def stages_per_rank(name: str, chunks: int) -> int:
    """Return the stages that each rank of a schedule holds, of one pipeline."""
    recipe = SCHEDULES[name]
    return chunks if recipe.takes_chunks else recipe.stages_per_rank


def _check_ranks(name: str, recipe: Recipe, num_ranks: int) -> None:
    multiple = recipe.ranks_multiple
    if num_ranks < multiple or num_ranks % multiple:
        near = _multiples_near(num_ranks, multiple, multiple)
        what = "a pipeline rank or more" if multiple == 1 else "an even number of pipeline ranks"
        msg = f"{name} needs {what}, not {num_ranks}; {near} would do"
        raise FieldError("num_ranks", msg)


def _check_micro_batches(name: str, recipe: Recipe, num_ranks: int, num_micro_batches: int) -> None:
    multiple, least = recipe.micro_batches_multiple(num_ranks), recipe.least_micro_batches(num_ranks)
    if num_micro_batches < least or num_micro_batches % multiple:
        rules = [f"at least {least}"] if least > 1 or multiple == 1 else []
        rules += [f"a multiple of {multiple}"] if multiple > 1 else []
        near = _multiples_near(num_micro_batches, multiple, least)
        msg = (
            f"with {num_ranks} pipeline ranks {name} needs {' and '.join(rules)} micro-batches, "
            f"not {num_micro_batches}; {near} would do"
        )
        raise FieldError("num_micro_batches", msg)


def _multiples_near(number: int, multiple: int, least: int) -> str:
    """Return in words the multiples just below and above a number, those no less than `least`."""
    least = -(-least // multiple) * multiple
    below = number // multiple * multiple
    return str(least) if below < least else f"{below} or {below + multiple}"
