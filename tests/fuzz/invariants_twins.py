"""The same run in other ways: without reuse, with a task of its own for each rank, in a world k times as fast."""

import numpy as np
from numpy.typing import ArrayLike

from fuzz.invariants_links import check_bins
from fuzz.scaled import write_scaled
from simulator import load_scenario
from simulator.engine import Recording
from support.observed import Observed, observe
from workloads.folds import unfolded

ROUNDING = 1e-9


def same(one: ArrayLike, other: ArrayLike, step_s: float) -> None:
    """Check that two series of times are equal but for rounding; step_s: of the run that they are from."""
    np.testing.assert_allclose(one, other, rtol=ROUNDING, atol=1e-3 * ROUNDING * step_s)


def check_reuse(run: Observed) -> None:
    """Reuse changes nothing."""
    if run.recording.reuse != "on":
        return
    solved = run.again(reuse=False)
    assert solved.collectives_reused == 0
    check_bins(run, solved)
    same(run.recording.times.start_s, solved.times.start_s, run.step_s)
    same(run.recording.times.end_s, solved.times.end_s, run.step_s)
    same_traffic(run.recording, solved, run.step_s)


def check_folds(run: Observed) -> None:
    """Ranks that run in lockstep by tasks of their own do what those do that share them."""
    if (run.leader_of_rank == np.arange(run.graph.num_ranks)).all():
        return
    each = run.again(unfolded(run.graph))
    sizes = np.array([len(run.graph.fold_of(task.rank)) for task in run.graph.tasks])
    barriers = np.cumsum(sizes + 1) - 1
    same(each.times.end_s[barriers], run.recording.times.end_s, run.step_s)
    same(each.times.start_s[barriers - sizes], run.recording.times.start_s, run.step_s)
    same_traffic(run.recording, each, run.step_s)


def same_traffic(one: Recording, other: Recording, step_s: float, k: float = 1.0) -> None:
    """Check that transfers ran at the same times and links carried the same; k: how much faster the other is."""
    for name in ("start_s", "end_s"):
        ours, theirs = ([getattr(times, name) for times in each.transfers] for each in (one, other))
        if ours:
            same(np.concatenate(ours), np.concatenate(theirs) * k, step_s)
    np.testing.assert_allclose(one.meter.bytes, other.meter.bytes, rtol=ROUNDING, atol=1e-6)


def check_scale(run: Observed, k: float) -> None:
    """In a world k times as fast everything takes one k-th of the time."""
    other = observe(load_scenario(write_scaled(run.loaded, k)))
    times, scaled = run.recording.times, other.recording.times
    same(scaled.start_s * k, times.start_s, run.step_s)
    same(scaled.end_s * k, times.end_s, run.step_s)
    same_traffic(run.recording, other.recording, run.step_s, k)
    summary, faster = run.result.summary, other.result.summary
    same(faster["step_time_s"] * k, summary["step_time_s"], run.step_s)
    for part, seconds in summary["breakdown_s"].items():
        same(faster["breakdown_s"][part] * k, seconds, run.step_s)
    links, faster_links = run.result.links, other.result.links
    np.testing.assert_allclose(faster_links["utilisation"], links["utilisation"], rtol=ROUNDING, atol=1e-12)
