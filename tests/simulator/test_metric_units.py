"""Names of metrics say what they are measured in."""

import pytest

from simulator.metric_units import dimension_of, is_share


@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        ("step_time_s", "time"),
        ("breakdown_s.bubble", "time"),
        ("busbw_bytes_per_s", "bytes per second"),
        ("flops_per_s_per_gpu_causal", "flop per second"),
        ("memory_bytes_per_gpu", "bytes"),
        ("links.nic.bytes", "bytes"),
        ("cost_per_endpoint_usd", "dollars"),
        ("tokens_per_s", None),  # a rate of no dimension of ours
        ("tokens_per_s_per_gpu", None),
        ("links.nic.count", None),
    ],
)
def test_the_dimension_is_told_by_the_name(name: str, dimension: str | None):
    assert dimension_of(name) == dimension


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("mfu_causal", True),
        ("links.nic.peak_utilisation", True),
        ("links.nic.saturated_fraction", True),
        ("median_absolute_time_error", True),
        ("tpot_s", False),
    ],
)
def test_shares_are_told_by_the_name(name: str, share: bool):
    assert is_share(name) == share
