"""The gate: what every kind keeps, and experts that are as likely as they are popular."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from workloads.gate import (
    BalancedGate,
    Gate,
    LognormalGate,
    UniformGate,
    ZipfGate,
    sample_experts,
    sample_popular_experts,
)
from workloads.top_k import TopK, select_experts

FOLDER = Path()
DEEPSEEK_V3 = TopK(256, 8, 8, 4)
GATES = [
    UniformGate(),
    BalancedGate(kind="balanced"),
    LognormalGate(kind="lognormal", sigma=0.7),
    ZipfGate(kind="zipf", exponent=0.8),
]
every_gate = pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.kind)


def opened(gate, top_k=DEEPSEEK_V3, seed=1):
    gate.check(top_k, FOLDER)
    return gate.open(top_k, np.random.default_rng(seed), FOLDER)


def counts_of(experts, num_experts):
    return np.bincount(experts.ravel(), minlength=num_experts)


def distinct(targets, num_targets):
    """[num_tokens] the targets that each token names at least once; targets: [num_tokens, top_k]."""
    named = np.zeros((len(targets), num_targets), np.bool_)
    np.put_along_axis(named, targets, True, axis=1)
    return named.sum(axis=1)


# What every gate keeps.


@every_gate
def test_experts_are_distinct_and_lie_in_the_groups_kept(gate):
    experts = opened(gate).experts(2_000)
    assert experts.shape == (2_000, 8)
    assert experts.dtype == np.int64
    assert experts.min() >= 0
    assert experts.max() < 256
    assert all(len(set(token)) == 8 for token in experts.tolist())
    assert distinct(experts // 32, 8).max() <= 4


@every_gate
@pytest.mark.parametrize(("seed", "same"), [(1, True), (2, False)])
def test_a_seed_reproduces_the_experts_and_their_history(gate, seed, same):
    first, second = opened(gate), opened(gate, seed=seed)
    for _ in range(2):
        assert np.array_equal(first.experts(100), second.experts(100)) is same
    # balanced loads are all equal: one of 512 tokens is 16 an expert
    assert np.array_equal(first.history(512), second.history(512)) is (same or gate.kind == "balanced")


@every_gate
def test_history_adds_up_and_changes_no_experts(gate):
    with_history, without = opened(gate), opened(gate)
    for num_tokens in (1, 40_000):
        history = with_history.history(num_tokens)
        assert history.shape == (256,)
        assert history.sum() == 8 * num_tokens
        assert np.array_equal(with_history.experts(100), without.experts(100))


@every_gate
def test_ranks_get_the_next_tokens_whatever_their_number(gate):
    together, apart = opened(gate), opened(gate)
    experts = [apart.experts(num_tokens) for num_tokens in (3, 0, 5, 7_000)]
    assert np.array_equal(together.experts(7_008), np.concatenate(experts))


def test_the_gate_is_told_by_its_kind():
    adapter = TypeAdapter(Gate)
    assert [adapter.validate_python(gate.model_dump()) for gate in GATES] == GATES
    assert adapter.validate_python({"kind": "zipf", "exponent": 1}).exponent == 1
    for wrong in (
        {"kind": "zipf"},
        {"kind": "zipf", "exponent": 0},
        {"kind": "lognormal", "sigma": 4.1},
        {"kind": "lognormal"},
        {"kind": "lognormal", "sigma": float("nan")},
        {"kind": "balanced", "sigma": 1.0},
        {"kind": "gaussian"},
    ):
        with pytest.raises(ValueError, match=r"zipf|lognormal|balanced|gaussian"):
            adapter.validate_python(wrong)


def test_a_gate_says_what_it_takes_for_granted():
    described = [gate.describe() for gate in GATES]
    assert described[0] == "affinities are independent and uniform, all experts being equally popular"
    assert (
        described[1] == "experts are not chosen by affinity but in turn, so that all get equally many tokens"
    )
    assert described[2] == "expert popularity is lognormal with sigma 0.7"
    assert described[3] == "expert popularity is zipf with exponent 0.8"


# Uniform.


def test_uniform_experts_of_a_seed_stay_what_they_were():
    # Written down from version 0.1: results of scenarios rest on them.
    expected = [
        [130, 217, 47, 138, 32, 59, 212, 139],
        [117, 210, 196, 83, 20, 66, 67, 9],
        [44, 82, 255, 28, 240, 243, 75, 23],
    ]
    assert opened(UniformGate()).experts(3).tolist() == expected
    assert sample_experts(np.random.default_rng(1), 3, *DEEPSEEK_V3).tolist() == expected


def test_every_expert_and_group_is_equally_likely():
    num_tokens, num_experts, top_k = 40_000, 256, 8
    experts = opened(UniformGate(), seed=11).experts(num_tokens)
    # By symmetry a token uses a given expert with p = 8/256, tokens being independent, so that each count is
    # binomial with variance T p (1 - p). Five standard deviations are exceeded once in 1.7 million normal draws.
    counts = counts_of(experts, num_experts)
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
    counts = counts_of(sample_experts(np.random.default_rng(13), num_tokens, num_experts, top_k, 1, 1), 256)
    p = top_k / num_experts
    statistic = ((counts - num_tokens * p) ** 2).sum() / (num_tokens * p * (1 - p)) * 255 / 256
    assert abs(statistic - 255) < 5 * np.sqrt(2 * 255)


def test_batches_do_not_show():
    # 2**19 experts leave room for two tokens in a batch of 2**20 affinities, so that five tokens take three.
    affinities = np.random.default_rng(3).random((5, 2**19), dtype=np.float32)
    expected = select_experts(affinities, 4, 2, 1)
    assert np.array_equal(sample_experts(np.random.default_rng(3), 5, 2**19, 4, 2, 1), expected)


# Balanced.


def test_balanced_loads_are_equal_over_all_ranks():
    # A rank's 100 tokens take 3.125 experts each; those of 64 ranks are 6,400 x 8 / 256 = 200 for each expert.
    source = opened(BalancedGate(kind="balanced"))
    ranks = [source.experts(100) for _ in range(64)]
    assert set(counts_of(np.concatenate(ranks), 256).tolist()) == {200}
    assert all(np.ptp(counts_of(rank, 256)) <= 2 for rank in ranks)
    assert set(source.history(640).tolist()) == {20}
    # two experts in each of four groups
    nodes = distinct(np.concatenate(ranks) // 32, 8)
    assert set(nodes.tolist()) == {4}


# Popularity.


def successive_sampling(popularity, num_chosen):
    """The probability of each ordered choice: each next one in proportion to its popularity among those left."""
    probability = {}
    for order in itertools.permutations(range(len(popularity)), num_chosen):
        left = sum(popularity) - np.cumsum([0, *(popularity[expert] for expert in order[:-1])])
        probability[order] = math.prod(popularity[expert] for expert in order) / left.prod()
    return probability


@pytest.mark.parametrize(
    "popularity",
    [
        (1.0, 1.0, 1.0, 1.0, 1.0),
        (5.0, 3.0, 0.5, 1.0, 2.0),
        (0.0, 2.0, 1.0, 0.0, 3.0),
        # affinities of the last three would all be 0 in float32
        (1.0, 1.0, 1e-5, 3e-5, 1e-5),
        (7e300, 1e300, 2e-300, 1e-300, 1e300),
    ],
)
def test_orders_of_experts_are_those_of_successive_sampling(popularity):
    num_tokens = 200_000
    weights = np.array(popularity)
    chosen = sample_popular_experts(np.random.default_rng(1), weights, TopK(5, 3, 1, 1), num_tokens)
    found = dict(zip(*np.unique(chosen @ [25, 5, 1], return_counts=True), strict=True))
    # only ratios matter; those that no floating-point number holds are as good as infinite
    expected = successive_sampling((weights / weights.max()).clip(1e-30 * (weights > 0)).tolist(), 3)
    inclusion = np.zeros(5)
    for order, p in expected.items():
        inclusion[list(order)] += p
        count = found.get(np.dot(order, [25, 5, 1]), 0)
        assert abs(count - num_tokens * p) <= 5 * math.sqrt(num_tokens * p * (1 - p)) + 1e-6
    spread = 5 * np.sqrt(num_tokens * inclusion * (1 - inclusion).clip(0))
    assert np.all(np.abs(counts_of(chosen, 5) - num_tokens * inclusion) <= spread + 1e-6)


def test_popular_experts_are_limited_to_the_groups_with_the_highest_affinities():
    # The twin computes affinities u ** (1 / p) themselves, from the same numbers, in double precision, and sorts.
    popularity = np.exp(np.random.default_rng(2).standard_normal(24))
    chosen = sample_popular_experts(np.random.default_rng(3), popularity, TopK(24, 4, 4, 2), 500)
    exponential = np.random.default_rng(3).standard_exponential((500, 24), dtype=np.float32).astype(float)
    affinity = np.exp(-exponential / (popularity / popularity.mean()))
    for token, experts in zip(affinity, chosen.tolist(), strict=True):
        two_best = np.sort(token.reshape(4, 6), axis=1)[:, -2:].sum(axis=1)
        token[np.repeat(two_best < np.sort(two_best)[-2], 6)] = -1
        assert experts == np.argsort(-token)[:4].tolist()


def test_loads_of_a_lognormal_gate_are_lognormal():
    # With one expert a token the load of one is Poisson about T p: the variance of its logarithm adds to that of
    # log p about 1 / load. The standard deviation of 1,024 normal numbers is off by sigma / sqrt(2 x 1,023), their
    # skewness by sqrt(6 / 1,024). Scaling to mean 1 shifts the logarithm by -sigma^2 / 2.
    for sigma in (0.3, 0.8):
        source = opened(LognormalGate(kind="lognormal", sigma=sigma), TopK(1024, 1, 1, 1))
        load = counts_of(source.experts(100_000), 1024)
        logarithm = np.log(load)
        measured = math.sqrt(logarithm.var() - (1 / load).mean())
        assert abs(measured - sigma) < 4 * sigma / math.sqrt(2 * 1023)
        normal = (logarithm - logarithm.mean()) / logarithm.std()
        assert abs((normal**3).mean()) < 4 * math.sqrt(6 / 1024)
        assert abs(logarithm.mean() - math.log(100_000 / 1024) + sigma**2 / 2) < 4 * sigma / math.sqrt(1024)


def test_an_unpopular_expert_is_not_chosen_even_by_the_luckiest_draw():
    # Exponential numbers in float32 are 0 once in 2**23 draws, and minus that over any popularity is the best score.
    class LuckyDraws:
        def standard_exponential(self, dtype, out):
            out[:] = 0

    chosen = sample_popular_experts(LuckyDraws(), np.array([0.0, 3.0, 0.0, 1.0]), TopK(4, 2, 2, 2), 3)
    assert chosen.tolist() == [[1, 3]] * 3


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_loads_of_a_zipf_gate_fall_by_a_power_of_the_rank(exponent):
    # With one expert a token expert e of rank r gets T r^-s / sum of all. The slope of log load against log rank is
    # -s; noise of 1 / sqrt(load) in 64 points, a factor of 64 apart, is far less than 0.03 of slope.
    source = opened(ZipfGate(kind="zipf", exponent=exponent), TopK(64, 1, 1, 1))
    load = np.sort(counts_of(source.experts(500_000), 64))[::-1]
    rank = np.arange(1, 65)
    assert abs(np.polyfit(np.log(rank), np.log(load), 1)[0] + exponent) < 0.03
    share = rank**-exponent / (rank**-exponent).sum()
    assert np.abs(load[:5] - 500_000 * share[:5]).max() < 5 * math.sqrt(500_000 * share[0])


@pytest.mark.parametrize("gate", GATES[2:], ids=lambda gate: gate.kind)
def test_a_layer_has_its_popularities_and_the_next_has_others(gate):
    # History and tokens share popularities. Without groups, so that those of an expert show in its load.
    top_k = TopK(256, 8, 1, 1)
    rng = np.random.default_rng(1)
    first, second = gate.open(top_k, rng, FOLDER), gate.open(top_k, rng, FOLDER)
    loads = [counts_of(source.experts(30_000), 256) for source in (first, first, second)]
    loads.append(first.history(30_000))
    correlation = np.corrcoef(np.log(loads))
    assert correlation[0, 1] > 0.99
    assert correlation[0, 3] > 0.99
    # 256 independent pairs: a standard error of 1/16
    assert abs(correlation[0, 2]) < 4 / 16
