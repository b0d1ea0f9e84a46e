"""The gate: node-limited top-k against a slow twin, and every expert equally likely."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.gate import sample_experts, select_experts


def slow_select(affinities, top_k, num_groups, groups_kept):
    """The experts of one token by sorting everything: groups by the sum of their two best, then experts."""
    groups = np.split(affinities, num_groups)
    scores = [np.sort(group)[-2:].sum(dtype=np.float32) for group in groups]
    kept = sorted(range(num_groups), key=lambda group: (-scores[group], group))[:groups_kept]
    size = len(affinities) // num_groups
    candidates = [expert for expert in range(len(affinities)) if expert // size in kept]
    return sorted(candidates, key=lambda expert: (-affinities[expert], expert))[:top_k]


@st.composite
def selections(draw):
    num_groups, size = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    groups_kept = draw(st.integers(1, num_groups))
    top_k = draw(st.integers(1, groups_kept * size))
    # quarters, so that sums are exact and equal affinities are common
    quarters = st.lists(st.integers(0, 8), min_size=num_groups * size, max_size=num_groups * size)
    affinities = np.array(draw(st.lists(quarters, min_size=1, max_size=5)), np.float32) / 4
    return affinities, top_k, num_groups, groups_kept


@given(selections())
@settings(max_examples=200, deadline=None)
def test_selection_agrees_with_the_slow_twin_token_by_token(selection):
    affinities, top_k, num_groups, groups_kept = selection
    expected = [slow_select(token, top_k, num_groups, groups_kept) for token in affinities]
    assert select_experts(affinities, top_k, num_groups, groups_kept).tolist() == expected


def test_deepseek_v3_selection_agrees_with_the_slow_twin():
    affinities = np.random.default_rng(5).random((500, 256), dtype=np.float32)
    expected = [slow_select(token, 8, 8, 4) for token in affinities]
    assert select_experts(affinities, 8, 8, 4).tolist() == expected


def test_equal_affinities_go_to_the_lower_index():
    # All equal: groups 0 and 1 are kept, and experts 0, 1, 2 come first.
    assert select_experts(np.ones((1, 8), np.float32), 3, 4, 2).tolist() == [[0, 1, 2]]


def test_experts_are_distinct_and_lie_in_the_groups_kept():
    experts = sample_experts(np.random.default_rng(7), 2_000, 256, 8, 8, 4)
    assert experts.shape == (2_000, 8)
    assert experts.min() >= 0
    assert experts.max() < 256
    assert all(len(set(token)) == 8 for token in experts.tolist())
    assert max(len(set(token)) for token in (experts // 32).tolist()) <= 4


def test_every_expert_and_group_is_equally_likely():
    num_tokens, num_experts, top_k = 40_000, 256, 8
    experts = sample_experts(np.random.default_rng(11), num_tokens, num_experts, top_k, 8, 4)
    # By symmetry a token uses a given expert with p = 8/256, tokens being independent, so that each count is
    # binomial with variance T p (1 - p). Five standard deviations are exceeded once in 1.7 million normal draws.
    counts = np.bincount(experts.ravel(), minlength=num_experts)
    p = top_k / num_experts
    assert np.abs(counts - num_tokens * p).max() < 5 * np.sqrt(num_tokens * p * (1 - p))
    # Likewise tokens that use a group at all; their probability q is the same for all groups, so that the groups'
    # mean estimates it, and T q (1 - q) is at most T / 4.
    used = np.array([(experts // 32 == group).any(axis=1).sum() for group in range(8)])
    assert np.abs(used - used.mean()).max() < 5 * np.sqrt(num_tokens / 4)


def test_counts_vary_as_much_as_chance_says():
    # Without groups the counts c of E experts are exchangeable and add up to T k, so that
    # X = sum (c - T p)^2 / (T p (1 - p)) times (E - 1) / E tends to a chi-square with E - 1 degrees of freedom:
    # mean 255, standard deviation sqrt(2 x 255) = 22.6. Too even (a balanced gate) fails like too uneven.
    num_tokens, num_experts, top_k = 40_000, 256, 8
    experts = sample_experts(np.random.default_rng(13), num_tokens, num_experts, top_k, 1, 1)
    counts = np.bincount(experts.ravel(), minlength=num_experts)
    p = top_k / num_experts
    statistic = ((counts - num_tokens * p) ** 2).sum() / (num_tokens * p * (1 - p)) * 255 / 256
    assert abs(statistic - 255) < 5 * np.sqrt(2 * 255)


def test_batches_do_not_show():
    # 2**19 experts leave room for two tokens in a batch of 2**20 affinities, so that five tokens take three.
    affinities = np.random.default_rng(3).random((5, 2**19), dtype=np.float32)
    expected = select_experts(affinities, 4, 2, 1)
    assert np.array_equal(sample_experts(np.random.default_rng(3), 5, 2**19, 4, 2, 1), expected)


@pytest.mark.parametrize(("seed", "same"), [(1, True), (2, False)])
def test_a_seed_reproduces_the_experts(seed, same):
    first = sample_experts(np.random.default_rng(1), 100, 64, 6, 8, 3)
    second = sample_experts(np.random.default_rng(seed), 100, 64, 6, 8, 3)
    assert np.array_equal(first, second) is same
