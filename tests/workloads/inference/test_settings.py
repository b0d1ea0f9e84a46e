"""The fields of inference steps: numbers of cached tokens that are drawn, and what defaults come to."""

import numpy as np
import pytest

from simulator.units import FieldError
from support.inference_steps import spec
from workloads.inference.settings import LognormalTokens, UniformTokens


def rng():
    return np.random.default_rng(7)


def test_uniform_numbers_lie_between_the_two_and_reach_both():
    drawn = UniformTokens(kind="uniform", least=3, most=6).draw(4000, 100, rng())
    counts = np.bincount(drawn, minlength=8)
    assert counts[:3].sum() == counts[7:].sum() == 0
    # 1,000 of each in the mean; five standard deviations of a binomial count are 137
    assert np.abs(counts[3:7] - 1000).max() < 137


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.5])
def test_lognormal_numbers_have_the_mean_that_is_asked_for(sigma):
    # the logarithms' own mean is lower by half their variance; the standard error of the mean of n is
    # mean sqrt((e^(sigma^2) - 1) / n)
    count, mean = 40_000, 1000
    drawn = LognormalTokens(kind="lognormal", mean=mean, sigma=sigma).draw(count, 10**9, rng())
    error = mean * np.sqrt(np.expm1(sigma**2) / count)
    assert abs(drawn.mean() - mean) <= 4 * error
    if sigma:
        assert np.log(np.maximum(drawn, 1)).std() == pytest.approx(sigma, rel=0.02)


def test_lognormal_numbers_are_cut_off_at_the_context():
    drawn = LognormalTokens(kind="lognormal", mean=1000, sigma=1.0).draw(1000, 1500, rng())
    assert drawn.max() == 1500
    assert drawn.min() >= 0
    assert drawn.dtype == np.int64


def test_means_of_distributions():
    assert UniformTokens(kind="uniform", least=3, most=6).mean_of_all(9) == 4.5
    assert LognormalTokens(kind="lognormal", mean=70, sigma=1.0).mean_of_all(10**9) == pytest.approx(70.0)
    assert LognormalTokens(kind="lognormal", mean=70, sigma=0.0).mean_of_all(80) == 70.0
    assert LognormalTokens(kind="lognormal", mean=1, sigma=1.0).mean_of_all(0) == 0.0
    assert spec(cached_tokens=12).mean_cached(99) == 12.0
    assert spec(cached_tokens={"kind": "uniform", "least": 0, "most": 9}).mean_cached(99) == 4.5


def test_a_distribution_that_is_cut_has_less_of_a_mean():
    # what is drawn is cut the same way; a million draws find the mean to 0.2%
    tokens = LognormalTokens(kind="lognormal", mean=1000, sigma=1.5)
    drawn = tokens.draw(10**6, 2000, np.random.default_rng(1))
    assert tokens.mean_of_all(2000) == pytest.approx(drawn.mean(), rel=2e-3)
    assert tokens.mean_of_all(2000) < 700


@pytest.mark.parametrize(
    ("tokens", "field", "message"),
    [
        (UniformTokens(kind="uniform", least=5, most=4), "most", "at least the fewest, 5, not 4"),
        (UniformTokens(kind="uniform", least=5, most=101), "most", "use at most 100"),
        (LognormalTokens(kind="lognormal", mean=101, sigma=0.0), "mean", "use at most 100"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tokens, field, message):
    with pytest.raises(FieldError, match=message) as caught:
        tokens.check(100)
    assert caught.value.field == field


def test_numbers_up_to_the_context_are_taken():
    UniformTokens(kind="uniform", least=100, most=100).check(100)
    LognormalTokens(kind="lognormal", mean=100, sigma=5.0).check(100)


def test_what_a_step_computes_and_gives_of_each_request():
    # without MTP a token; with it two are computed, and the draft holds in so many cases
    alone, drafted = spec(), spec(mtp_acceptance=0.85)
    assert (alone.query_tokens, alone.tokens_per_request) == (1, 1.0)
    assert (drafted.query_tokens, drafted.tokens_per_request) == (2, 1.85)
    assert spec(mtp_acceptance=0.0).query_tokens == 2


@pytest.mark.parametrize(
    ("expert", "tensor", "size"), [(4, 1, 4), (4, 2, 4), (2, 4, 4), (1, 8, 8), (1, 1, 1)]
)
def test_groups_hold_both_degrees(expert, tensor, size):
    found = spec(expert_parallel=expert, tensor_parallel=tensor)
    assert found.group_size == found.needed_ranks() == size


def test_defaults_are_those_of_deepseek_v3():
    # arXiv 2412.19437, section 3.4: two micro-batches that overlap; FP8; 24 SMs in prefill's published profile
    decode, prefill = spec(number_format="fp8"), spec(kind="prefill-step")
    for found in (decode, prefill):
        assert (found.micro_batches, found.dispatch_format, found.combine_format) == (2, "fp8", "bf16")
        assert found.framework_overhead == 0.0
        assert found.shared_experts == "local"
    assert prefill.communication_sms == 24
    assert not decode.limit
    assert decode.mtp_acceptance is None
