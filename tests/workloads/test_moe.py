"""Expert traffic: copies counted by hand and by a slow twin, and the bytes of every transfer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.layout import RankLayout
from workloads.gate import sample_experts
from workloads.moe import (
    ExpertGroups,
    bf16_payload_bytes,
    combine_message_bytes,
    combine_transfers,
    count_traffic,
    dispatch_message_bytes,
    dispatch_transfers,
    fp8_payload_bytes,
)
from workloads.placement import place_in_blocks
from workloads.tasks import Transfer


def rows_of(transfers):
    """The columns as rows, sorted by source and first destination."""
    rows = []
    for row in range(len(transfers)):
        relays = slice(*transfers.relay_offsets[row : row + 2])
        targets = slice(*transfers.destination_offsets[row : row + 2])
        fan_out = zip(
            transfers.destination_ranks[targets].tolist(), transfers.fractions[targets].tolist(), strict=True
        )
        rows.append(
            Transfer(
                source_rank=int(transfers.source_rank[row]),
                relay_ranks=tuple(transfers.relay_ranks[relays].tolist()),
                destinations=tuple(fan_out),
                size_bytes=float(transfers.size_bytes[row]),
                weight=float(transfers.weight[row]),
                delay_s=float(transfers.delay_s[row]),
                rounds=int(transfers.rounds[row]),
                reduce=bool(transfers.reduce[row]),
            )
        )
    return sorted(rows, key=lambda row: (row.source_rank, row.destinations))


@st.composite
def clusters(draw):
    """A layout, its expert-parallel groups, the place of every expert, and each rank's experts per token."""
    gpus_per_node = draw(st.sampled_from([1, 2, 3, 4]))
    nodes_per_group = draw(st.integers(1, 3))
    parts = [part for part in range(1, gpus_per_node + 1) if gpus_per_node % part == 0]
    degree = (
        nodes_per_group * gpus_per_node
        if nodes_per_group > 1
        else gpus_per_node // draw(st.sampled_from(parts))
    )
    layout = RankLayout.in_order(nodes_per_group * draw(st.integers(1, 2)), gpus_per_node)
    num_experts = degree * draw(st.integers(1, 3))
    top_k = draw(st.integers(1, min(4, num_experts)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_tokens = draw(st.integers(1, 6))
    experts = [sample_experts(rng, num_tokens, num_experts, top_k, 1, 1) for _ in range(layout.num_ranks)]
    return layout, ExpertGroups.of_layout(layout, degree), place_in_blocks(num_experts, degree), experts


def slow_copies(layout, degree, place_of_expert, experts):
    """The (rank, token, target) of every copy: of a token on a rank, and of a token on a node."""
    on_ranks, on_nodes = set(), set()
    for rank in range(layout.num_ranks):
        first = rank - rank % degree
        for token, chosen in enumerate(experts[rank].tolist()):
            holders = {first + int(place_of_expert[expert]) for expert in chosen}
            on_ranks |= {(rank, token, holder) for holder in holders}
            on_nodes |= {(rank, token, int(layout.node_of_rank[holder])) for holder in holders}
    return on_ranks, on_nodes


def test_bytes_of_a_deepseek_v3_token():
    # FP8: 7,168 values + 56 scales of 4 bytes = 7,392. On a link, + 8 of source + 8 indices and 8 weights of
    # 4 bytes = 7,464, up to a multiple of 16: 7,472.
    assert fp8_payload_bytes(7168) == 7392
    assert dispatch_message_bytes(7168, 8) == 7472
    # BF16: 2 x 7,168 = 14,336. On a link, + 8 of source + 8 weights of 4 bytes = 14,376, up to 14,384.
    assert bf16_payload_bytes(7168) == 14336
    assert combine_message_bytes(7168, 8) == 14384


def test_a_last_part_of_128_values_has_a_scale_too():
    # 130 values are two parts: 130 + 2 x 4 = 138. On a link with one expert: + 8 + 4 + 4 = 154, up to 160.
    assert fp8_payload_bytes(130) == 138
    assert dispatch_message_bytes(130, 1) == 160


# Two nodes of two GPUs, eight experts, two a rank: rank 0 holds experts 0 and 1, rank 1 holds 2 and 3, and so on.
# Each rank has two tokens, each token two experts. In the comments: the ranks that hold them.
HAND_MADE_EXPERTS = [
    [[0, 1], [4, 6]],  # rank 0: {0}, {2, 3}
    [[2, 4], [5, 7]],  # rank 1: {1, 2}, {2, 3}
    [[0, 2], [6, 4]],  # rank 2: {0, 1}, {3, 2}
    [[7, 1], [7, 6]],  # rank 3: {3, 0}, {3}
]


def hand_made():
    layout = RankLayout.in_order(2, 2)
    groups = ExpertGroups.of_layout(layout, 4)
    return layout, count_traffic(map(np.array, HAND_MADE_EXPERTS), place_in_blocks(8, 4), groups)


def test_hand_made_copies():
    _, traffic = hand_made()
    assert traffic.tokens_to_rank.tolist() == [[1, 0, 1, 1], [0, 1, 2, 1], [1, 1, 1, 1], [1, 0, 0, 2]]
    assert traffic.tokens_to_node.tolist() == [[1, 1], [1, 2], [1, 1], [1, 2]]
    # Experts 0 to 7 in the list above.
    assert traffic.expert_load.tolist() == [[2, 2, 2, 0, 3, 1, 3, 3]]
    # Off the diagonal: 2 + 3 + 3 + 1. To the other node: 1 + 2 + 1 + 1.
    assert traffic.to_other_ranks() == 9
    assert traffic.to_other_nodes() == 5


def test_hand_made_transfers():
    layout, traffic = hand_made()
    expected = [
        # Rank 0 (GPU 0) keeps one token and sends one to node 1 by its GPU 0, rank 2, for ranks 2 and 3.
        Transfer(0, (2,), ((2, 1.0), (3, 1.0)), 100.0),
        # Rank 1 (GPU 1) sends two tokens by rank 3: both are for rank 2, one also for rank 3.
        Transfer(1, (3,), ((2, 1.0), (3, 0.5)), 200.0),
        # Rank 2 sends one token to node 0 by rank 0, for both GPUs there, and one to rank 3 of its own node.
        Transfer(2, (0,), ((0, 1.0), (1, 1.0)), 100.0),
        Transfer(2, (), ((3, 1.0),), 100.0),
        # Rank 3 sends one token by rank 1, for rank 0; what it has for its own node is for itself.
        Transfer(3, (1,), ((0, 1.0),), 100.0),
    ]
    assert rows_of(dispatch_transfers(traffic, layout, 100)) == expected
    # The combine is the same trees backwards, at 140 bytes a token.
    backwards = [row._replace(size_bytes=row.size_bytes * 1.4, reduce=True) for row in expected]
    assert rows_of(combine_transfers(traffic, layout, 140)) == backwards


def test_a_rank_sends_its_share_of_its_node_s_tokens_where_some_stay():
    # One node of two GPUs, experts 0 and 1 on rank 0, 2 and 3 on rank 1. Of rank 0's three tokens two are for
    # rank 1 and two for itself: three tokens for the node, two thirds of which cross.
    layout = RankLayout.in_order(1, 2)
    experts = [np.array([[0, 1], [1, 2], [2, 3]]), np.array([[2, 3], [2, 3], [2, 3]])]
    traffic = count_traffic(experts, place_in_blocks(4, 2), ExpertGroups.of_layout(layout, 2))
    assert rows_of(dispatch_transfers(traffic, layout, 30)) == [Transfer(0, (), ((1, 2 / 3),), 90.0)]


@given(clusters())
@settings(max_examples=100, deadline=None)
def test_copies_agree_with_sets_of_tokens(cluster):
    layout, groups, place_of_expert, experts = cluster
    traffic = count_traffic(experts, place_of_expert, groups)
    on_ranks, on_nodes = slow_copies(layout, groups.degree, place_of_expert, experts)
    to_rank, to_node = np.zeros_like(traffic.tokens_to_rank), np.zeros_like(traffic.tokens_to_node)
    for rank, _, holder in on_ranks:
        to_rank[rank, holder % groups.degree] += 1
    for rank, _, node in on_nodes:
        slots = groups.node_of_slot[rank // groups.degree].tolist()
        to_node[rank, slots.index(node)] += 1
    assert np.array_equal(traffic.tokens_to_rank, to_rank)
    assert np.array_equal(traffic.tokens_to_node, to_node)
    assert traffic.to_other_ranks() == sum(rank != holder for rank, _, holder in on_ranks)
    assert traffic.to_other_nodes() == sum(layout.node_of_rank[rank] != node for rank, _, node in on_nodes)
    assert traffic.expert_load.sum() == sum(chosen.size for chosen in experts)


@given(clusters())
@settings(max_examples=100, deadline=None)
def test_transfers_carry_every_copy_once(cluster):
    layout, groups, place_of_expert, experts = cluster
    traffic = count_traffic(experts, place_of_expert, groups)
    on_ranks, on_nodes = slow_copies(layout, groups.degree, place_of_expert, experts)
    arriving, crossing = {}, {}
    for row in rows_of(dispatch_transfers(traffic, layout, 16)):
        node = layout.node_of_rank[row.destinations[0][0]]
        assert all(layout.node_of_rank[rank] == node for rank, _ in row.destinations)
        assert all(rank // groups.degree == row.source_rank // groups.degree for rank, _ in row.destinations)
        if node == layout.node_of_rank[row.source_rank]:
            assert row.relay_ranks == ()
        else:
            (relay,) = row.relay_ranks
            assert layout.node_of_rank[relay] == node
            assert layout.gpu_of_rank[relay] == layout.gpu_of_rank[row.source_rank]
            assert relay // groups.degree == row.source_rank // groups.degree
            crossing[row.source_rank, int(node)] = row.size_bytes
        for rank, fraction in row.destinations:
            arriving[row.source_rank, rank] = fraction * row.size_bytes
    # 16 bytes for each copy, counted one by one: on other ranks, and across the wire to other nodes.
    expected_arriving, expected_crossing = {}, {}
    for rank, _, holder in on_ranks:
        if holder != rank:
            expected_arriving[rank, holder] = expected_arriving.get((rank, holder), 0) + 16
    for rank, _, node in on_nodes:
        if node != layout.node_of_rank[rank]:
            expected_crossing[rank, node] = expected_crossing.get((rank, node), 0) + 16
    assert arriving == pytest.approx(expected_arriving, rel=1e-12)
    assert crossing == expected_crossing


def test_a_token_crosses_to_no_more_nodes_than_groups_kept():
    # 4 nodes of 8 GPUs, 64 experts in 4 groups, a group being a node's 16 experts; a token keeps 2 groups, so that
    # it has at least one copy and at most min(4 nodes, 2 groups) of them.
    layout = RankLayout.in_order(4, 8)
    rng = np.random.default_rng(17)
    experts = [sample_experts(rng, 200, 64, 6, 4, 2) for _ in range(32)]
    traffic = count_traffic(experts, place_in_blocks(64, 32), ExpertGroups.of_layout(layout, 32))
    copies = traffic.tokens_to_node.sum(axis=1)
    assert copies.min() >= 200
    assert copies.max() <= 2 * 200
    # Of six experts in two groups three or more share a node, two on a GPU at most: more GPUs than nodes.
    assert traffic.tokens_to_rank.sum() > copies.sum()


def test_all_but_one_node_s_share_crosses_the_wire():
    # With a group on each of N = 4 nodes all nodes are alike to a token, so that its own node has 1/N of its copies
    # on average. Let o be 1 if a token has a copy at home and m its copies: o - m/N has mean 0, and as o is in [0, 1]
    # and m/N in [0, 1] its standard deviation is at most 1. For T tokens five of them are 5 sqrt(T).
    layout = RankLayout.in_order(4, 2)
    rng = np.random.default_rng(19)
    experts = [sample_experts(rng, 2_000, 32, 4, 4, 3) for _ in range(8)]
    traffic = count_traffic(experts, place_in_blocks(32, 8), ExpertGroups.of_layout(layout, 8))
    copies = traffic.tokens_to_node.sum()
    assert abs(traffic.to_other_nodes() - copies * 3 / 4) < 5 * np.sqrt(8 * 2_000)


def test_a_layout_that_splits_groups_over_nodes_is_refused():
    with pytest.raises(ValueError, match="groups of 2 ranks are neither parts of a node nor whole nodes"):
        ExpertGroups.of_layout(RankLayout.in_order(2, 3), 2)
