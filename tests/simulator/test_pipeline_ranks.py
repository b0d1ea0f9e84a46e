"""Pipeline ranks are told by the stages in their phases: of every schedule, in the order of the pipeline."""

import pandas as pd
import pytest

from simulator.pipeline_ranks import first_of_each, pipeline_rank_of, stages_of_ranks
from support.phase_tables import ideal_phases, phase_table
from workloads.schedules import SCHEDULES, make_schedule


@pytest.mark.parametrize("name", SCHEDULES)
def test_ranks_of_every_schedule_are_found_in_their_order(name: str):
    chunks = 2 if SCHEDULES[name].takes_chunks else 1
    phases = ideal_phases(name, 4, 8, chunks, ranks=16)
    # as nodes in another order would have it: pipeline rank r is led by rank 48 - 16 r
    phases["rank"] = 48 - phases["rank"]
    assert pipeline_rank_of(phases) == {48: 0, 32: 1, 16: 2, 0: 3}
    schedule = make_schedule(name, 4, 8, chunks)
    assert stages_of_ranks(phases) == {48 - 16 * rank: schedule.stages_of(rank) for rank in range(4)}


def test_ranks_with_the_same_stages_are_one_pipeline_rank():
    first, second = ideal_phases("zb1p", 2, 4, ranks=8), ideal_phases("zb1p", 2, 4, ranks=8)
    second["rank"] += 16
    pipeline_ranks = pipeline_rank_of(pd.concat([second, first]))
    assert pipeline_ranks == {0: 0, 8: 1, 16: 0, 24: 1}
    assert first_of_each(pipeline_ranks) == [0, 8]


def test_a_rank_without_stages_has_no_pipeline_rank():
    none = (-1, -1, -1)
    phases = phase_table(
        [(0, 1, "forward", 0, 3, 1, *none, 0.0, 1.0), (5, 1, "optimizer", *none, *none, 1.0, 2.0)]
    )
    assert pipeline_rank_of(phases) == {0: 0}
    assert stages_of_ranks(phases) == {0: ((0, 3),), 5: ()}
    assert pipeline_rank_of(phases.iloc[:0]) == {}
