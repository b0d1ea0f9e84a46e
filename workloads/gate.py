"""Which experts each token goes to: affinities drawn by a seeded gate, and top-k limited to groups of experts.

DeepSeek-V3 (technical report, section 2.1.2, "Node-Limited Routing") scores each group of experts by the sum of
its two highest affinities, keeps the best groups, and takes the top-k experts of those.
"""

from typing import Final, Literal, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from simulator.units import Spec
from workloads.tasks import IntArray

# Affinities drawn at a time: 4 MiB of float32, which stays in a core's second-level cache.
_SCORES_PER_BATCH: Final = 2**20


class UniformGate(Spec):
    """Affinities independent and uniform between 0 and 1: every expert is equally likely, loads differ by chance."""

    kind: Literal["uniform"] = Field(
        default="uniform",
        description="how affinities are drawn; `uniform`: each token's to each expert independent and uniform "
        "between 0 and 1 (default uniform)",
    )


class TopK(NamedTuple):
    """How many experts there are, and how a token's are chosen: consecutive experts form groups of equal size."""

    num_experts: int
    top_k: int
    num_groups: int
    groups_kept: int


def sample_experts(
    rng: np.random.Generator,
    num_tokens: int,
    num_experts: int,
    top_k: int,
    num_groups: int,
    groups_kept: int,
) -> IntArray:
    """Return [num_tokens, top_k] the distinct experts of each token, best first, under a uniform gate.

    Draws num_tokens x num_experts float32 affinities from `rng`, in bounded batches. `select_experts` says what
    the arguments must satisfy.
    """
    experts = np.empty((num_tokens, top_k), np.int64)
    batch = max(1, min(num_tokens, _SCORES_PER_BATCH // num_experts))
    affinities = np.empty((batch, num_experts), np.float32)
    for start in range(0, num_tokens, batch):
        drawn = affinities[: min(batch, num_tokens - start)]
        rng.random(dtype=np.float32, out=drawn)
        experts[start : start + len(drawn)] = select_experts(drawn, top_k, num_groups, groups_kept)
    return experts


@njit(cache=True)
def select_experts(
    affinities: NDArray[np.float32], top_k: int, num_groups: int, groups_kept: int
) -> IntArray:
    """Return [num_tokens, top_k] the experts with the highest affinities in each token's best groups, best first.

    affinities: [num_tokens, num_experts] float32, finite; num_groups divides num_experts, groups_kept is at most
    num_groups, and the groups kept hold at least top_k experts. A group's score is the sum of its two highest
    affinities. Where scores are equal the lower index wins, of groups and of experts.
    """
    num_tokens, num_experts = affinities.shape
    group_size = num_experts // num_groups
    experts = np.empty((num_tokens, top_k), np.int64)
    expert_scores = np.empty(top_k, np.float32)
    kept_groups = np.empty(groups_kept, np.int64)
    kept_scores = np.empty(groups_kept, np.float32)
    kept = np.empty(num_groups, np.bool_)
    for token in range(num_tokens):
        scores = affinities[token]
        kept_scores[:] = -np.inf
        for group in range(num_groups):
            score = _two_best(scores[group * group_size : (group + 1) * group_size])
            if score > kept_scores[-1]:
                _insert(kept_scores, kept_groups, score, group)
        kept[:] = False
        kept[kept_groups] = True
        expert_scores[:] = -np.inf
        # in ascending order, so that of equal affinities the lower expert is met first
        for expert in range(num_experts):
            if kept[expert // group_size] and scores[expert] > expert_scores[-1]:
                _insert(expert_scores, experts[token], scores[expert], expert)
    return experts


@njit(cache=True)
def _two_best(scores: NDArray[np.float32]) -> np.float32:
    """Return the sum of the two highest of `scores`; the one score of a group of one."""
    best: np.float32 = scores[0]
    if len(scores) == 1:
        return best
    second = np.float32(-np.inf)
    for score in scores[1:]:
        if score > best:
            best, second = score, best
        elif score > second:
            second = score
    return best + second


@njit(cache=True)
def _insert(best_scores: NDArray[np.float32], best: IntArray, score: np.float32, index: int) -> None:
    """Put `index` into its place in `best`, sorted by falling score, behind equals; the last one drops out."""
    place = len(best) - 1
    while place > 0 and score > best_scores[place - 1]:
        best_scores[place], best[place] = best_scores[place - 1], best[place - 1]
        place -= 1
    best_scores[place], best[place] = score, index
