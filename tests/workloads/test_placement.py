"""Experts on ranks: equal blocks, and the degrees for which these exist."""

import pytest

from workloads.placement import place_in_blocks, working_degrees


def test_experts_lie_in_equal_blocks():
    # 8 experts on 4 ranks: two each, in order.
    assert place_in_blocks(8, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("num_experts", "num_ranks", "gpus_per_node", "degrees"),
    [
        # Divisors of 256 that divide 64 ranks; powers of two below 8 divide a node of 8, those above are whole nodes.
        (256, 64, 8, (1, 2, 4, 8, 16, 32, 64)),
        # 24 ranks: the common divisors of 24 and 48 without 3, 6 and 12, which straddle nodes of 8.
        (48, 24, 8, (1, 2, 4, 8, 24)),
        # 160 experts on two NVLink domains of 72: of 1, 2, 4, 8, 16 the last neither divides 72 nor is a multiple.
        (160, 144, 72, (1, 2, 4, 8)),
    ],
)
def test_working_degrees(num_experts, num_ranks, gpus_per_node, degrees):
    assert working_degrees(num_experts, num_ranks, gpus_per_node) == degrees
