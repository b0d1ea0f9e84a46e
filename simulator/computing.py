"""How much of the time GPUs compute, by pipeline rank, over a step."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simulator.pipeline_ranks import pipeline_rank_of

FloatArray = NDArray[np.float64]


def computing_shares(
    tasks: pd.DataFrame, phases: pd.DataFrame, step_time_s: float, num_bins: int
) -> FloatArray:
    """Return the share of each bin in which the compute stream runs: [num_pipeline_ranks, num_bins], 0 to 1.

    tasks, phases: as in `simulator.result.Result`. Bins are equal and cover the step; times are integrated exactly. A
    row is the mean over the ranks of a pipeline rank. Of shape [0, num_bins] where the run has no pipeline ranks.
    """
    pipeline_ranks = pipeline_rank_of(phases)
    edges_s = np.linspace(0.0, step_time_s, num_bins + 1)
    computes = tasks[(tasks["stream"] == "compute") & tasks["rank"].isin(list(pipeline_ranks))]
    row_of_task = computes["rank"].map(pipeline_ranks).to_numpy(np.int64)
    shares = np.zeros((len(set(pipeline_ranks.values())), num_bins))
    folds = phases.drop_duplicates("rank")
    of_fold = folds["rank"].map(pipeline_ranks)
    ranks = folds["ranks"].groupby(of_fold).sum()  # of those that have stages
    width_s = step_time_s / num_bins or 1.0
    for row in range(len(shares)):
        those = computes[row_of_task == row]
        weights = those["ranks"].to_numpy(np.float64)
        busy_s = _past(those["start_s"].to_numpy(), weights, edges_s) - _past(
            those["end_s"].to_numpy(), weights, edges_s
        )
        shares[row] = np.diff(busy_s) / (width_s * ranks[row])
    return np.clip(shares, 0.0, 1.0)  # rounding


def _past(instants_s: FloatArray, weights: FloatArray, at_s: FloatArray) -> FloatArray:
    """Return how long each instant is past, summed by weight: sum of w max(0, t - instant), for each t of `at_s`."""
    order = np.argsort(instants_s)
    until = np.searchsorted(instants_s[order], at_s)
    weight = np.concatenate([[0.0], np.cumsum(weights[order])])[until]
    weighted_s = np.concatenate([[0.0], np.cumsum((weights * instants_s)[order])])[until]
    past: FloatArray = weight * at_s - weighted_s
    return past
