"""Which place of the pipeline each rank holds, told by the stages in a result's table of phases.

Ranks that hold the same stages are of one *pipeline rank*; those are counted in the order of their first stages.
"""

import pandas as pd

Stage = tuple[int, int]  # pipeline, stage


def stages_of_ranks(phases: pd.DataFrame) -> dict[int, tuple[Stage, ...]]:
    """Return the (pipeline, stage) of each stage in the phases of each rank, ascending; none for a rank without."""
    stages: dict[int, set[Stage]] = {rank: set() for rank in sorted(set(phases["rank"].tolist()))}
    for part in ("forward", "backward"):
        columns = phases[["rank", f"{part}_pipeline", f"{part}_stage"]].drop_duplicates()
        for rank, pipeline, stage in columns.itertuples(index=False):
            if stage >= 0:
                stages[rank].add((pipeline, stage))
    return {rank: tuple(sorted(held)) for rank, held in stages.items()}


def pipeline_rank_of(phases: pd.DataFrame) -> dict[int, int]:
    """Return the pipeline rank of each rank in a table of phases; ranks whose phases name no stage have none.

    phases: as `simulator.result.phases_table` has it
    """
    stages = {rank: held for rank, held in stages_of_ranks(phases).items() if held}
    number = {held: place for place, held in enumerate(sorted(set(stages.values())))}
    return {rank: number[held] for rank, held in stages.items()}


def first_of_each(pipeline_ranks: dict[int, int]) -> list[int]:
    """Return the least rank of each pipeline rank, which stands for the others in pictures."""
    first: dict[int, int] = {}
    for rank in sorted(pipeline_ranks):
        first.setdefault(pipeline_ranks[rank], rank)
    return [first[number] for number in sorted(first)]
