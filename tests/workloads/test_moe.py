"""Expert traffic: copies counted by hand and by a slow twin, and the bytes of every transfer of both kernels."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.layout import RankLayout
from support.properties import tried_on
from workloads.gate import sample_experts
from workloads.moe import (
    ExpertGroups,
    combine_transfers,
    count_traffic,
    direct_transfers,
    dispatch_transfers,
)
from workloads.placement import Placement, place_in_blocks
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


class Case(NamedTuple):
    """A layout, its expert-parallel groups, two placements of the experts, and each rank's experts per token."""

    layout: RankLayout
    groups: ExpertGroups
    placements: list[Placement]
    experts: list[np.ndarray]


@st.composite
def clusters(draw):
    """Groups on parts of nodes or on whole ones; copies at random, also of one expert on one place, or in blocks."""
    gpus_per_node = draw(st.sampled_from([1, 2, 3, 4]))
    nodes_per_group = draw(st.integers(1, 3))
    parts = [part for part in range(1, gpus_per_node + 1) if gpus_per_node % part == 0]
    degree = (
        nodes_per_group * gpus_per_node
        if nodes_per_group > 1
        else gpus_per_node // draw(st.sampled_from(parts))
    )
    layout = RankLayout.in_order(nodes_per_group * draw(st.integers(1, 2)), gpus_per_node)
    num_physical = degree * draw(st.integers(1, 3))
    num_experts = draw(st.integers(1, num_physical))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    slots = np.concatenate([np.arange(num_experts), rng.integers(0, num_experts, num_physical - num_experts)])
    placements = [
        Placement.of_slots(rng.permutation(slots), num_experts, degree, nodes_per_group),
        place_in_blocks(num_experts, degree, nodes_per_group, num_physical - num_experts),
    ]
    num_tokens, top_k = draw(st.integers(1, 6)), draw(st.integers(1, min(4, num_experts)))
    experts = [sample_experts(rng, num_tokens, num_experts, top_k, 1, 1) for _ in range(layout.num_ranks)]
    return Case(layout, ExpertGroups.of_layout(layout, degree), placements, experts)


def slow_pairs(case, placement):
    """Every (rank, token, expert, holder): the tokens of a group take turns at the copies of an expert."""
    degree, pairs = case.groups.degree, []
    places = [places.tolist() for places in np.split(placement.places, placement.offsets[1:-1])]
    for rank, tokens in enumerate(case.experts):
        first = rank - rank % degree
        for token, chosen in enumerate(tokens.tolist()):
            number = (rank - first) * len(tokens) + token
            for expert in chosen:
                holder = first + places[expert][(number + expert) % len(places[expert])]
                pairs.append((rank, token, expert, holder))
    return pairs


def slow_copies(case, pairs):
    """The (rank, token, target) of every copy: of a token on a rank, and of a token on a node."""
    on_ranks = {(rank, token, holder) for rank, token, _, holder in pairs}
    on_nodes = {(rank, token, int(case.layout.node_of_rank[holder])) for rank, token, _, holder in pairs}
    return on_ranks, on_nodes


def in_proportion(rows):
    """Rows with the weights that they must have: their sizes over the mean size."""
    mean = np.mean([row.size_bytes for row in rows]) if rows else 1.0
    return [row._replace(weight=row.size_bytes / mean) for row in rows]


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
    (traffic,) = count_traffic(map(np.array, HAND_MADE_EXPERTS), [place_in_blocks(8, 4, 2, 0)], groups)
    return layout, traffic


def test_hand_made_copies():
    _, traffic = hand_made()
    assert traffic.tokens_to_rank.tolist() == [[1, 0, 1, 1], [0, 1, 2, 1], [1, 1, 1, 1], [1, 0, 0, 2]]
    assert traffic.tokens_to_node.tolist() == [[1, 1], [1, 2], [1, 1], [1, 2]]
    # Two pairs where both experts of a token are on one rank: rank 0's first token, rank 3's second.
    assert traffic.pairs_to_rank.tolist() == [[2, 0, 1, 1], [0, 1, 2, 1], [1, 1, 1, 1], [1, 0, 0, 3]]
    # Experts 0 to 7 in the list above; on a rank two of them, on a node four.
    assert traffic.expert_load.tolist() == [[2, 2, 2, 0, 3, 1, 3, 3]]
    assert traffic.place_load().tolist() == [[4, 2, 4, 6]]
    assert traffic.node_load().tolist() == [[6, 10]]
    # Off the diagonal: 2 + 3 + 3 + 1. To the other node: 1 + 2 + 1 + 1 tokens, 2 + 3 + 2 + 1 pairs.
    assert traffic.to_other_ranks() == traffic.pairs_to_other_ranks() == 9
    assert traffic.to_other_nodes() == 5
    assert traffic.pairs_to_other_nodes() == 8


def test_hand_made_transfers():
    layout, traffic = hand_made()
    # 100 bytes a token, 600 in five transfers: 120 on average. Weights are sizes over that.
    one, two = 100 / 120, 200 / 120
    expected = [
        # Rank 0 (GPU 0) keeps one token and sends one to node 1 by its GPU 0, rank 2, for ranks 2 and 3.
        Transfer(0, (2,), ((2, 1.0), (3, 1.0)), 100.0, one),
        # Rank 1 (GPU 1) sends two tokens by rank 3: both are for rank 2, one also for rank 3.
        Transfer(1, (3,), ((2, 1.0), (3, 0.5)), 200.0, two),
        # Rank 2 sends one token to node 0 by rank 0, for both GPUs there, and one to rank 3 of its own node.
        Transfer(2, (0,), ((0, 1.0), (1, 1.0)), 100.0, one),
        Transfer(2, (), ((3, 1.0),), 100.0, one),
        # Rank 3 sends one token by rank 1, for rank 0; what it has for its own node is for itself.
        Transfer(3, (1,), ((0, 1.0),), 100.0, one),
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
    groups = ExpertGroups.of_layout(layout, 2)
    (traffic,) = count_traffic(experts, [place_in_blocks(4, 2, 1, 0)], groups)
    assert rows_of(dispatch_transfers(traffic, layout, 30)) == [Transfer(0, (), ((1, 2 / 3),), 90.0)]
    # By low-latency kernels the last token goes twice, to expert 2 and to expert 3: 1 + 2 messages.
    assert rows_of(direct_transfers(traffic, layout, 30)) == [Transfer(0, (), ((1, 1.0),), 90.0)]
    assert traffic.to_other_ranks() == 2
    assert traffic.pairs_to_other_ranks() == 3


def test_hand_made_copies_of_an_expert_take_tokens_in_turn():
    # Two ranks: experts 0 and 1 on the first, 0 and 2 on the second. Rank 0 has tokens 0, 1 and 2, rank 1 has 3, 4
    # and 5: the even ones go to the first copy of expert 0, the odd ones to the second.
    layout = RankLayout.in_order(1, 2)
    placement = Placement.of_slots(np.array([0, 1, 0, 2]), 3, 2, 1)
    experts = [np.array([[0, 1], [0, 1], [2, 0]]), np.array([[0, 2], [1, 0], [0, 2]])]
    (traffic,) = count_traffic(experts, [placement], ExpertGroups.of_layout(layout, 2))
    # Rank 0: 0 -> {0, 0}, 1 -> {1, 0}, 2 -> {1, 0}. Rank 1: 3 -> {1, 1}, 4 -> {0, 0}, 5 -> {1, 1}.
    assert traffic.pairs_to_rank.tolist() == [[4, 2], [2, 4]]
    assert traffic.tokens_to_rank.tolist() == [[3, 2], [1, 2]]
    # An expert's load is that of all its copies.
    assert traffic.expert_load.tolist() == [[6, 3, 3]]


@pytest.mark.parametrize("num_tokens", [1, 5, 8])
def test_copies_of_an_expert_share_its_tokens_evenly(num_tokens):
    # Every token goes to expert 0, whose copies are on places 0, 2 and 3. Each of two groups of four ranks has
    # 4 x num_tokens tokens, so that a copy gets a third of them, to one; other places get none.
    layout = RankLayout.in_order(2, 4)
    placement = Placement.of_slots(np.array([0, 1, 2, 3, 0, 4, 5, 0]), 6, 4, 1)
    (traffic,) = count_traffic(
        [np.zeros((num_tokens, 1), np.int64)] * 8, [placement], ExpertGroups.of_layout(layout, 4)
    )
    for load in traffic.place_load():
        assert load[1] == 0
        assert load.sum() == 4 * num_tokens
        assert np.ptp(load[[0, 2, 3]]) <= 1


@given(clusters())
@tried_on(100)
def test_copies_agree_with_sets_of_tokens(case):
    found = count_traffic(iter(case.experts), case.placements, case.groups)
    assert len(found) == 2
    degree, nodes = case.groups.degree, case.layout.node_of_rank
    for placement, traffic in zip(case.placements, found, strict=True):
        on_ranks, on_nodes = slow_copies(case, slow_pairs(case, placement))
        to_rank, to_node = np.zeros_like(traffic.tokens_to_rank), np.zeros_like(traffic.tokens_to_node)
        for rank, _, holder in on_ranks:
            to_rank[rank, holder % degree] += 1
        for rank, _, node in on_nodes:
            to_node[rank, case.groups.node_of_slot[rank // degree].tolist().index(node)] += 1
        assert np.array_equal(traffic.tokens_to_rank, to_rank)
        assert np.array_equal(traffic.tokens_to_node, to_node)
        assert traffic.to_other_ranks() == sum(rank != holder for rank, _, holder in on_ranks)
        assert traffic.to_other_nodes() == sum(nodes[rank] != node for rank, _, node in on_nodes)


@given(clusters())
@tried_on(100)
def test_pairs_and_loads_agree_with_a_list_of_pairs(case):
    degree, nodes = case.groups.degree, case.layout.node_of_rank
    for placement, traffic in zip(
        case.placements, count_traffic(case.experts, case.placements, case.groups), strict=True
    ):
        pairs = slow_pairs(case, placement)
        expected = Counter((rank, holder % degree) for rank, _, _, holder in pairs)
        assert Counter(dict(np.ndenumerate(traffic.pairs_to_rank))) == expected
        assert traffic.pairs_to_other_ranks() == sum(rank != holder for rank, _, _, holder in pairs)
        assert traffic.pairs_to_other_nodes() == sum(
            nodes[rank] != nodes[holder] for rank, _, _, holder in pairs
        )
        of_expert = Counter((rank // degree, expert) for rank, _, expert, _ in pairs)
        assert Counter(dict(np.ndenumerate(traffic.expert_load))) == of_expert
        of_rank = Counter(holder for _, _, _, holder in pairs)
        assert Counter(dict(enumerate(traffic.place_load().ravel()))) == of_rank
        of_node = Counter((holder // degree, nodes[holder]) for _, _, _, holder in pairs)
        assert traffic.node_load().ravel().tolist() == [
            of_node[group, node]
            for group, nodes_of_group in enumerate(case.groups.node_of_slot)
            for node in nodes_of_group
        ]


@given(clusters())
@tried_on(100)
def test_transfers_carry_every_copy_once(case):
    layout, groups = case.layout, case.groups
    traffic, _ = count_traffic(case.experts, case.placements, groups)
    on_ranks, on_nodes = slow_copies(case, slow_pairs(case, case.placements[0]))
    arriving, crossing = {}, {}
    rows = rows_of(dispatch_transfers(traffic, layout, 16))
    assert rows == in_proportion(rows)
    for row in rows:
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
    expected_arriving = Counter((rank, holder) for rank, _, holder in on_ranks if holder != rank)
    expected_crossing = Counter(
        (rank, node) for rank, _, node in on_nodes if node != layout.node_of_rank[rank]
    )
    assert arriving == pytest.approx(
        {ends: 16 * copies for ends, copies in expected_arriving.items()}, rel=1e-12
    )
    assert crossing == {ends: 16 * copies for ends, copies in expected_crossing.items()}


@given(clusters())
@tried_on(100)
def test_low_latency_messages_are_the_pairs_one_by_one(case):
    traffic, _ = count_traffic(case.experts, case.placements, case.groups)
    pairs = slow_pairs(case, case.placements[0])
    # A transfer carries the messages of one rank for one other: 16 bytes for each pair; own-rank pairs do not move.
    messages = Counter((rank, holder) for rank, _, _, holder in pairs if rank != holder)
    rows = [Transfer(rank, (), ((holder, 1.0),), 16.0 * count) for (rank, holder), count in messages.items()]
    expected = sorted(in_proportion(rows), key=lambda row: (row.source_rank, row.destinations))
    assert rows_of(direct_transfers(traffic, case.layout, 16)) == expected


@given(clusters())
@tried_on(100)
def test_a_low_latency_combine_is_its_dispatch_turned_round(case):
    traffic, _ = count_traffic(case.experts, case.placements, case.groups)
    there = direct_transfers(traffic, case.layout, 16)
    back = direct_transfers(traffic, case.layout, 48, combine=True)
    assert np.array_equal(back.source_rank, there.destination_ranks)
    assert np.array_equal(back.destination_ranks, there.source_rank)
    assert np.array_equal(back.size_bytes, 3 * there.size_bytes)
    # What is not summed on its way is no reduction, and is relayed by none.
    assert not back.reduce.any()
    assert len(back.relay_ranks) == 0
    assert back.weight == pytest.approx(there.weight, rel=1e-12)


def test_a_token_crosses_to_no_more_nodes_than_groups_kept():
    # 4 nodes of 8 GPUs, 64 experts in 4 groups, a group being a node's 16 experts; a token keeps 2 groups, so that
    # it has at least one copy and at most min(4 nodes, 2 groups) of them.
    layout = RankLayout.in_order(4, 8)
    rng = np.random.default_rng(17)
    experts = [sample_experts(rng, 200, 64, 6, 4, 2) for _ in range(32)]
    groups = ExpertGroups.of_layout(layout, 32)
    (traffic,) = count_traffic(experts, [place_in_blocks(64, 32, 4, 0)], groups)
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
    groups = ExpertGroups.of_layout(layout, 8)
    (traffic,) = count_traffic(experts, [place_in_blocks(32, 8, 4, 0)], groups)
    copies = traffic.tokens_to_node.sum()
    assert abs(traffic.to_other_nodes() - copies * 3 / 4) < 5 * np.sqrt(8 * 2_000)


def test_a_layout_that_splits_groups_over_nodes_is_refused():
    with pytest.raises(ValueError, match="groups of 2 ranks are neither parts of a node nor whole nodes"):
        ExpertGroups.of_layout(RankLayout.in_order(2, 3), 2)
