"""Shares of time in which GPUs compute, against sums by hand."""

import numpy as np
import pandas as pd
import pytest

from simulator.computing import computing_shares
from support.phase_tables import phase_table

NONE = (-1, -1, -1)


def stage(rank: int, ranks: int, number: int) -> tuple[object, ...]:
    return (rank, ranks, "forward", 0, number, 0, *NONE, 0.0, 1.0)


def tasks_of(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["rank", "ranks", "stream", "start_s", "end_s"])


def test_bins_are_integrated_exactly():
    # bins of 1 s: 0.25 to 1.5 and 2 to 4 are 0.75, 0.5, 1 and 1; the other stream does not count
    rows = [(0, 4, "compute", 0.25, 1.5), (0, 4, "compute", 2.0, 4.0), (0, 4, "communication", 0.0, 4.0)]
    shares = computing_shares(tasks_of(rows), phase_table([stage(0, 4, 0)]), 4.0, 4)
    assert shares == pytest.approx(np.array([[0.75, 0.5, 1.0, 1.0]]), abs=1e-15)


def test_a_pipeline_rank_is_the_mean_over_its_ranks():
    # stage 1 is on a fold of 3 ranks, which compute all the time, and one of 1, which does in the second half;
    # ranks without a stage are in no row
    phases = phase_table(
        [stage(0, 3, 1), stage(3, 1, 1), stage(4, 1, 0), (9, 1, "optimizer", *NONE, *NONE, 0.0, 1.0)]
    )
    rows = [(0, 3, "compute", 0.0, 2.0), (3, 1, "compute", 1.0, 2.0), (9, 1, "compute", 0.0, 2.0)]
    shares = computing_shares(tasks_of(rows), phases, 2.0, 2)
    assert shares == pytest.approx(np.array([[0.0, 0.0], [0.75, 1.0]]))


def test_the_sum_over_bins_is_the_time_that_was_computed():
    rng = np.random.default_rng(0)
    edges = np.sort(rng.random(2001)) * 20.0
    rows = [(0, 2, "compute", start, end) for start, end in zip(edges[:-1:2], edges[1::2], strict=True)]
    shares = computing_shares(tasks_of(rows), phase_table([stage(0, 2, 0)]), 20.0, 400)
    assert shares.sum() * 20.0 / 400 == pytest.approx((edges[1::2] - edges[:-1:2]).sum(), rel=1e-12)
    assert ((shares >= 0.0) & (shares <= 1.0)).all()


def test_there_are_no_rows_without_pipeline_ranks_and_a_step_may_take_no_time():
    none = phase_table([stage(0, 1, 0)]).iloc[:0]
    assert computing_shares(tasks_of([(0, 1, "compute", 0.0, 1.0)]), none, 1.0, 8).shape == (0, 8)
    still = computing_shares(tasks_of([(0, 1, "compute", 0.0, 0.0)]), phase_table([stage(0, 1, 0)]), 0.0, 2)
    assert still.tolist() == [[0.0, 0.0]]
