"""A token's experts: node-limited top-k against a slow twin and in closed form, and equal loads by dealing."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from support.properties import tried_on
from workloads.gate import sample_experts, sample_popular_experts
from workloads.top_k import TopK, deal_experts, fewest_experts_kept, new_deal, select_experts, spread

DEEPSEEK_V3 = TopK(256, 8, 8, 4)


def group_of(expert, num_experts, num_groups):
    return expert * num_groups // num_experts


def slow_select(scores, top_k, num_groups, groups_kept, add=None):
    """The experts of one token by sorting everything: groups by the sum of their two best, then experts."""
    add = add or (lambda best: best.sum(dtype=np.float32))
    groups = [[] for _ in range(num_groups)]
    for expert in range(len(scores)):
        groups[group_of(expert, len(scores), num_groups)].append(scores[expert])
    group_scores = [add(np.sort(group)[-2:]) for group in groups]
    kept = sorted(range(num_groups), key=lambda group: (-group_scores[group], group))[:groups_kept]
    candidates = [
        expert for expert in range(len(scores)) if group_of(expert, len(scores), num_groups) in kept
    ]
    return sorted(candidates, key=lambda expert: (-scores[expert], expert))[:top_k]


@st.composite
def choices(draw, most_experts=36):
    """A TopK whose groups may be of unequal size, and may be single experts."""
    num_groups = draw(st.integers(1, 8))
    equal = draw(st.booleans())
    num_experts = (
        num_groups * draw(st.integers(1, most_experts // num_groups))
        if equal
        else draw(st.integers(num_groups, most_experts))
    )
    groups_kept = draw(st.integers(1, num_groups))
    fewest = fewest_experts_kept(TopK(num_experts, 1, num_groups, groups_kept))
    return TopK(num_experts, draw(st.integers(1, fewest)), num_groups, groups_kept)


@given(choices(), st.data())
@tried_on(200)
def test_selection_agrees_with_the_slow_twin_token_by_token(top_k, data):
    # quarters, so that sums are exact and equal affinities are common
    quarters = st.lists(st.integers(0, 8), min_size=top_k.num_experts, max_size=top_k.num_experts)
    affinities = np.array(data.draw(st.lists(quarters, min_size=1, max_size=5)), np.float32) / 4
    expected = [slow_select(token, *top_k[1:]) for token in affinities]
    assert select_experts(affinities, *top_k[1:]).tolist() == expected


@pytest.mark.parametrize("num_groups", [8, 40])
def test_deepseek_v3_selection_agrees_with_the_slow_twin(num_groups):
    # 40 groups are the nodes of 320 GPUs: 24 of 6 experts and 16 of 7.
    affinities = np.random.default_rng(5).random((500, 256), dtype=np.float32)
    expected = [slow_select(token, 8, num_groups, 4) for token in affinities]
    assert select_experts(affinities, 8, num_groups, 4).tolist() == expected


def test_equal_affinities_go_to_the_lower_index():
    # All equal: groups 0 and 1 are kept, and experts 0, 1, 2 come first.
    assert select_experts(np.ones((1, 8), np.float32), 3, 4, 2).tolist() == [[0, 1, 2]]


def test_logarithms_select_as_affinities_do():
    # log(a + b) of a and b is logaddexp of their logarithms. That of groups' sums, in double precision, is the twin.
    logs = -2 * np.random.default_rng(6).standard_exponential((500, 60), dtype=np.float32)
    expected = [
        slow_select(token, 6, 7, 3, add=lambda best: np.logaddexp(*map(float, best))) for token in logs
    ]
    assert select_experts(logs, 6, 7, 3, True).tolist() == expected
    assert select_experts(np.exp(logs), 6, 7, 3).tolist() == expected


def test_logarithms_tell_apart_affinities_that_float32_cannot():
    # All affinities would be 0. Group sums, in e^-1000: e^0 + e^-9, e^-1 + e^-1, e^-5 + e^-5: two are kept.
    logs = np.array([[-1009, -1000, -1001, -1001, -1005, -1005]], np.float32)
    assert select_experts(logs, 3, 3, 2, True).tolist() == [[1, 2, 3]]


def test_impossible_experts_are_not_chosen():
    # Minus infinity: never. Group 0 has one expert left, group 1 none, so that groups 0, 2 and 3 are kept; and where
    # three groups may be kept and two have any, those two.
    never = -np.inf
    logs = np.array([[never, -3.0, never, never, -2.0, never, -1.0, -5.0]], np.float32)
    assert select_experts(logs, 4, 4, 3, True).tolist() == [[6, 4, 1, 7]]
    logs = np.array([[never, -3.0, never, never, never, never, -1.0, -5.0]], np.float32)
    assert select_experts(logs, 3, 4, 3, True).tolist() == [[6, 1, 7]]


@given(choices())
def test_groups_are_blocks_and_their_fewest_experts_are_counted(top_k):
    offsets = top_k.group_offsets()
    groups = [group_of(expert, top_k.num_experts, top_k.num_groups) for expert in range(top_k.num_experts)]
    assert np.repeat(np.arange(top_k.num_groups), np.diff(offsets)).tolist() == groups
    sizes = sorted(groups.count(group) for group in range(top_k.num_groups))
    assert fewest_experts_kept(top_k) == sum(sizes[: top_k.groups_kept])


def test_fewest_experts_of_some_groups():
    # 256 = 40 x 6 + 16: four groups of 6 and, where all but the 24 small ones are kept too, some of 7.
    assert fewest_experts_kept(TopK(256, 8, 40, 4)) == 24
    assert fewest_experts_kept(TopK(256, 8, 40, 26)) == 24 * 6 + 2 * 7
    assert fewest_experts_kept(TopK(256, 8, 8, 4)) == 128


@given(st.integers(0, 20), st.integers(1, 20))
def test_parts_are_spread_evenly(total, num_parts):
    # The first p of n parts hold a whole number within one of p / n of the total.
    held = np.cumsum(spread(total, num_parts))
    assert held[-1] == total
    assert np.all(held <= np.arange(1, num_parts + 1) * total / num_parts)
    assert np.all(held + 1 > np.arange(1, num_parts + 1) * total / num_parts)


def deal(top_k, num_tokens, seed=1):
    """The experts of tokens that are dealt theirs in three calls."""
    rng = np.random.default_rng(seed)
    state = new_deal(top_k, rng)
    parts = [num_tokens // 5, num_tokens // 3, num_tokens - num_tokens // 5 - num_tokens // 3]
    columns = len(state.extra) + top_k.top_k
    return np.concatenate(
        [deal_experts(state, top_k.top_k, rng.random((part, columns), dtype=np.float32)) for part in parts]
    )


def loads_by_token(experts, num_experts):
    """[num_tokens, num_experts] the load of every expert after each token."""
    return (experts[:, :, None] == np.arange(num_experts)).sum(axis=1).cumsum(axis=0)


def test_deepseek_v3_tokens_take_two_experts_in_each_of_four_groups_and_load_all_equally():
    # 32 tokens of 8 experts are one for each of 256. In between, loads differ by one.
    experts = deal(DEEPSEEK_V3, 320)
    loads = loads_by_token(experts, 256)
    assert np.array_equal(loads[31::32], np.repeat(np.arange(1, 11), 256).reshape(10, 256))
    assert np.ptp(loads, axis=1).max() == 1
    per_group = (experts[:, :, None] // 32 == np.arange(8)).sum(axis=1)
    assert np.array_equal(np.unique(per_group), [0, 2])
    assert all(len(set(token)) == 8 for token in experts.tolist())


def test_dealing_follows_no_fixed_pattern():
    # Of 70 ways to take 4 of 8 groups, 4,096 tokens in pairs of complements (2,048 draws of 35 such pairs) miss none:
    # one is missed with a chance of 35 (34/35)^2048 = 6e-25. Two groups of 32 have 496 pairs of experts each, of
    # which 2,048 draws give all but some 496 e^-4.1 = 8; 100 is impossible unless pairs recur.
    experts = deal(DEEPSEEK_V3, 4096)
    assert len({tuple(sorted(set(token))) for token in (experts // 32).tolist()}) == 70
    pairs = {tuple(sorted(expert for expert in token if expert < 32)) for token in experts.tolist()} - {()}
    assert len(pairs) > 396


@given(choices(), st.integers(0, 2**32))
@tried_on(60)
def test_dealt_experts_are_distinct_within_the_limit_and_equally_loaded(top_k, seed):
    num_experts, k, num_groups, groups_kept = top_k
    num_tokens = min(max(2 * math.lcm(num_experts, k, num_groups) // k, 60), 600)
    experts = deal(top_k, num_tokens, seed)
    assert all(len(set(token)) == k for token in experts.tolist())
    groups = group_of(experts, num_experts, num_groups)
    assert max(len(set(token)) for token in groups.tolist()) <= groups_kept
    difference = np.ptp(loads_by_token(experts, num_experts), axis=1)
    # A group is at most one visit ahead of another, and deals its own experts one after the other.
    assert difference.max() <= 3
    tokens = np.arange(1, num_tokens + 1)
    if groups_kept >= min(num_groups, k):
        # no limit: exact whenever experts divide
        assert not difference[tokens * k % num_experts == 0].any()
    if num_experts % num_groups == 0:
        # equal groups: exact whenever experts and visits to groups divide
        visits = tokens * min(groups_kept, k)
        assert not difference[(tokens * k % num_experts == 0) & (visits % num_groups == 0)].any()


@given(choices(), st.integers(0, 2**32))
@tried_on(40)
def test_tokens_take_as_many_experts_in_each_group_or_one_more(top_k, seed):
    # Unless groups of unequal size would get less than their share: one of n of N experts can get n / N of all visits
    # only if a token has at most N / n.
    num_experts, k, num_groups, groups_kept = top_k
    assume(num_experts % num_groups == 0 or (groups_kept < min(num_groups, k)))
    visits = min(groups_kept, k)
    assume(visits * -(-num_experts // num_groups) <= num_experts)
    groups = group_of(deal(top_k, 50, seed), num_experts, num_groups)
    per_group = (groups[:, :, None] == np.arange(num_groups)).sum(axis=1)
    assert np.all((per_group > 0).sum(axis=1) == visits)
    assert set(per_group[per_group > 0].tolist()) <= {k // visits, -(-k // visits)}


def test_groups_of_unequal_size_are_loaded_in_proportion():
    # 256 experts in 40 groups of 6 or 7, two in each of four groups: 64 tokens make 256 visits, 6 or 7 to a group,
    # and deal each of its experts twice.
    experts = deal(TopK(256, 8, 40, 4), 64 * 20)
    loads = loads_by_token(experts, 256)
    assert np.array_equal(loads[63::64], np.repeat(2 * np.arange(1, 21), 256).reshape(20, 256))
    assert np.ptp(loads, axis=1).max() <= 2
    per_group = (group_of(experts, 256, 40)[:, :, None] == np.arange(40)).sum(axis=1)
    assert np.array_equal(np.unique(per_group), [0, 2])


@pytest.mark.parametrize(
    "top_k", [TopK(11, 8, 5, 4), TopK(14, 10, 9, 8), TopK(15, 11, 7, 6), TopK(10, 7, 9, 8)]
)
def test_loads_do_not_drift_apart_where_even_parts_would_starve_large_groups(top_k):
    # Eleven experts in groups of 3, 2, 2, 2, 2: two in each of four groups would give the first group's experts 2/3
    # of a token each, not 8/11. And likewise.
    assert np.ptp(loads_by_token(deal(top_k, 3000), top_k.num_experts)[-1]) <= 3


# Expected nodes and GPUs of a token: nodes hold 32 of 256 experts, GPUs 4.


def distinct(targets, num_targets):
    """[num_tokens] the targets that each token names at least once; targets: [num_tokens, top_k]."""
    named = np.zeros((len(targets), num_targets), np.bool_)
    np.put_along_axis(named, targets, True, axis=1)
    return named.sum(axis=1)


def assert_mean(sample, expected):
    """The mean is within four of its standard errors, measured from the sample: one in 16,000 is not."""
    error = sample.std() / math.sqrt(len(sample))
    assert abs(sample.mean() - expected) < 4 * error, (sample.mean(), expected, error)


@pytest.mark.parametrize("num_targets", [8, 64])
def test_distinct_targets_without_a_limit(num_targets):
    # All groups are kept: the 8 experts are any 8 of 256 alike, and miss a target that holds 256 / N of them with
    # probability C(256 - 256 / N, 8) / C(256, 8).
    experts = sample_experts(np.random.default_rng(21), 200_000, 256, 8, 8, 8)
    missed = math.comb(256 - 256 // num_targets, 8) / math.comb(256, 8)
    sample = distinct(experts // (256 // num_targets), num_targets)
    assert_mean(sample, num_targets * (1 - missed))


@cache
def expected_nodes_and_gpus():
    """The expected nodes and GPUs of a token, 4 of 8 groups being kept by the sum of two best of 32 affinities.

    All groups are alike and independent. Write A and B for a group's best and second best, S = A + B, and
    tail(t) = P(S > t).

    1. Condition on t, the largest S of the groups that are not kept: the fifth largest of eight. One of 8 groups is
       at t, 3 of the other 7 are below: its density is 8 C(7, 3) f(t) F(t)^3 (1 - F(t))^4 with F = 1 - tail, f = F'.
    2. Given t the kept four are independent and distributed like any group given S > t, nothing else.
    3. The experts chosen are the best 8 of all in kept groups. So the j-th best of a kept group, at a, is chosen if
       and only if fewer than 8 - (j - 1) affinities of the three others exceed a. How many do in one of these has the
       distribution `_exceeding`, jointly with S > t; the three are added up by convolution.
    4. Integrated over a, with the density of the j-th best jointly with S > t (`_density`), and over t, that is
       P(K >= j), K being the experts that a token takes of a kept group. By symmetry the mean of K is 8 / 4.
    5. A node is a group. It is used if K >= 1: 4 P(K >= 1) nodes. Which experts of a group are its best K is up to
       chance, so that a GPU with 4 of its 32 is missed with probability C(28, K) / C(32, K).

    Inner integrals are those of polynomials of degree 32 at most in each part between kinks, which Gauss's rule with
    24 points has exactly; the outer ones are smooth in each part.
    """
    size = 32
    t, t_weight = _parts(24, 1.0, 1.6, 1.8, 1.9, 2.0)
    below = 1 - _tail(t, size)
    density_of_t = size * ((t / 2) ** (size - 1) - (t - 1) ** (size - 1))
    threshold = 8 * math.comb(7, 3) * density_of_t * below**3 * (1 - below) ** 4
    assert abs((threshold * t_weight).sum() - 1) < 1e-9  # a density: next to nothing is below t = 1

    at_least = np.zeros(10)
    a, a_weight = _parts(32, 0 * t, t - 1, t / 2, (t / 2 + 1) / 2, 0 * t + 1)
    t = t[..., None]
    tail = _tail(t, size)
    exceed = np.stack([_exceeding(count, a, t, size) / tail for count in range(8)])
    three = exceed
    for _ in range(2):
        three = np.stack(
            [sum(three[part] * exceed[total - part] for part in range(total + 1)) for total in range(8)]
        )
    for j in range(1, 9):
        chosen = (_density(j, a, t, size) / tail * three[: 9 - j].sum(axis=0) * a_weight).sum(axis=-1)
        at_least[j] = (chosen * threshold * t_weight).sum()
    assert abs(at_least.sum() - 2) < 1e-9
    missed = sum(
        (at_least[count] - at_least[count + 1]) * math.comb(28, count) / math.comb(32, count)
        for count in range(1, 9)
    )
    return 4 * at_least[1], 4 * 8 * (at_least[1] - missed)


def _parts(num_points, *bounds):
    """Points and weights of Gauss's rule in each part between `bounds`, along a new last axis."""
    points, weights = np.polynomial.legendre.leggauss(num_points)
    low, high = (np.stack(np.broadcast_arrays(*bound), axis=-1) for bound in (bounds[:-1], bounds[1:]))
    half = np.maximum(high - low, 0)[..., None] / 2
    found = (low[..., None] + half + half * points, half * weights)
    return tuple(part.reshape(*low.shape[:-1], -1) for part in found)


def _integral(function, *bounds):
    points, weights = _parts(24, *bounds)
    return (function(points) * weights).sum(axis=-1)


def _room(y, t):
    """The measure of x from y to 1 with x + y > t: where the best may lie if the second best is y."""
    return np.maximum(1 - np.maximum(y, t - y), 0)


def _tail(t, size):
    """P(S > t) for t from 1 to 2: the two best are x > y with density n (n - 1) y^(n - 2)."""
    inner = _integral(lambda y: y ** (size - 2) * _room(y, t[..., None]), t - 1, t / 2, 0 * t + 1)
    return size * (size - 1) * inner


def _exceeding(count, a, t, size):
    """P(exactly `count` affinities of a group exceed a, and S > t)."""
    both = size * (size - 1)
    t = np.broadcast_to(t, a.shape)
    outer_a, outer_t = a[..., None], t[..., None]
    if count == 0:  # x and y below a
        low = np.maximum(t - a, 0)
        middle = np.clip(t / 2, low, np.maximum(a, low))
        width = lambda y: np.maximum(outer_a - np.maximum(y, outer_t - y), 0)  # noqa: E731
        return both * _integral(lambda y: y ** (size - 2) * width(y), low, middle, np.maximum(a, low))
    if count == 1:  # x above a, y below
        low = np.minimum(t - 1, a)
        width = lambda y: np.maximum(1 - np.maximum(outer_a, outer_t - y), 0)  # noqa: E731
        return both * _integral(lambda y: y ** (size - 2) * width(y), low, np.clip(t - a, low, a), a)
    # y above a, and of the n - 2 others, all below y, count - 2 above a
    low = np.maximum(a, t - 1)
    ways = math.comb(size - 2, count - 2) * a ** (size - count)
    inner = _integral(
        lambda y: (y - outer_a) ** (count - 2) * _room(y, outer_t), low, np.clip(t / 2, low, 1), 0 * a + 1
    )
    return both * ways * inner


def _density(j, a, t, size):
    """The density at a of the j-th best affinity of a group, jointly with S > t."""
    if j == 1:  # y below a and above t - a
        low = np.maximum(t - a, 0)
        return size * np.where(a > low, a ** (size - 1) - low ** (size - 1), 0)
    if j == 2:
        return size * (size - 1) * a ** (size - 2) * _room(a, t)
    # x > y > a, j - 3 between y and a, n - j below a
    low = np.maximum(a, t - 1)
    ways = math.factorial(size) // (math.factorial(j - 3) * math.factorial(size - j))
    outer_a, outer_t = a[..., None], np.broadcast_to(t, a.shape)[..., None]
    inner = _integral(
        lambda y: (y - outer_a) ** (j - 3) * _room(y, outer_t), low, np.clip(t / 2, low, 1), 0 * a + 1
    )
    return ways * a ** (size - j) * inner


def test_distinct_nodes_and_gpus_with_deepseek_v3_s_limit():
    nodes, gpus = expected_nodes_and_gpus()
    experts = sample_experts(np.random.default_rng(23), 250_000, *DEEPSEEK_V3)
    on_nodes = distinct(experts // 32, 8)
    assert_mean(on_nodes, nodes)
    assert_mean(distinct(experts // 4, 64), gpus)
    # It is tempting to take the 8 experts for any 8 of the 128 in kept groups, of which a group holds none with
    # probability C(96, 8) / C(128, 8): 3.63 nodes. But groups are kept for their two best affinities, so that each
    # kept group has two that are high; they are spread more evenly than chance would, and a token goes to more nodes.
    naive = 4 * (1 - math.comb(96, 8) / math.comb(128, 8))
    assert nodes > naive
    assert on_nodes.mean() - naive > 20 * on_nodes.std() / math.sqrt(len(on_nodes))


def test_equal_popularity_sends_tokens_to_as_many_nodes_and_gpus():
    experts = sample_popular_experts(np.random.default_rng(25), np.full(256, 3.0), DEEPSEEK_V3, 200_000)
    nodes, gpus = expected_nodes_and_gpus()
    assert_mean(distinct(experts // 32, 8), nodes)
    assert_mean(distinct(experts // 4, 64), gpus)
