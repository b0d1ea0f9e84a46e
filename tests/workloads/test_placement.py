"""Experts on ranks: equal blocks, redundant copies that share tokens, and the degrees for which groups exist."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.placement import Placement, fewest_copies, place_in_blocks, working_degrees


def experts_on(placement):
    """The experts of each place, ascending."""
    experts = np.repeat(np.arange(placement.num_experts), placement.copies)
    return [experts[placement.places == place].tolist() for place in range(placement.degree)]


@st.composite
def placements(draw):
    """Any placement: experts at random in the slots, each at least once."""
    num_nodes, places_per_node, slots = (draw(st.integers(1, 4)) for _ in range(3))
    num_physical = num_nodes * places_per_node * slots
    num_experts = draw(st.integers(1, num_physical))
    more = st.integers(0, num_experts - 1)
    rest = draw(st.lists(more, min_size=num_physical - num_experts, max_size=num_physical - num_experts))
    experts = np.array(draw(st.permutations([*range(num_experts), *rest])))
    return Placement.of_slots(experts, num_experts, num_nodes * places_per_node, num_nodes)


@st.composite
def blocks(draw):
    """The arguments of `place_in_blocks`: any number of experts, and copies that fill up the places or go beyond."""
    num_nodes, places_per_node, num_experts = (draw(st.integers(1, most)) for most in (6, 5, 40))
    degree = num_nodes * places_per_node
    num_copies = fewest_copies(num_experts, degree) + degree * draw(st.integers(0, 3))
    return num_experts, degree, num_nodes, num_copies


def test_experts_lie_in_equal_blocks():
    # 8 experts on 4 ranks: two each, in order.
    assert place_in_blocks(8, 4, 1, 0).places.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("num_experts", "degree", "num_nodes"),
    [(256, 64, 8), (256, 256, 32), (256, 8, 1), (48, 24, 3), (160, 40, 5)],
)
def test_without_copies_nodes_do_not_show(num_experts, degree, num_nodes):
    # Each rank holds num_experts / degree experts, so that expert e lies on rank e // (num_experts / degree).
    expected = np.arange(num_experts) // (num_experts // degree)
    placement = place_in_blocks(num_experts, degree, num_nodes, 0)
    assert placement.places.tolist() == expected.tolist()
    assert placement.place_of(np.arange(num_experts)[:, None], 3).ravel().tolist() == expected.tolist()


def test_copies_repeat_the_first_experts_of_their_node():
    # 5 experts on 2 nodes of 2 places: 2e // 5 is 0, 0, 0, 1, 1. With 3 copies a node has 4 slots, a place 2: node 0
    # holds 0 1 | 2 0 and node 1, with 2 slots left, 3 4 | 3 4.
    placement = place_in_blocks(5, 4, 2, 3)
    assert experts_on(placement) == [[0, 1], [0, 2], [3, 4], [3, 4]]
    assert placement.offsets.tolist() == [0, 2, 3, 4, 6, 8]
    assert placement.places.tolist() == [0, 1, 0, 1, 2, 3, 2, 3]


def test_nodes_that_outnumber_experts_share_them():
    # 3 experts on 4 nodes of 2: 4e // 3 is 0, 1, 2, so that node 3 has none and takes what node 2 has.
    assert experts_on(place_in_blocks(3, 8, 4, 5)) == [[0], [0], [1], [1], [2], [2], [2], [2]]


def test_deepseek_v3_over_nodes_that_do_not_divide_its_experts():
    # 256 experts on 9 nodes of 8 GPUs: 28 or 29 a node; with 32 copies each GPU holds 4, a node 32, of which 3 or 4
    # are copies of its first 3 or 4 experts.
    placement = place_in_blocks(256, 72, 9, fewest_copies(256, 72))
    node_of_expert = np.arange(256) * 9 // 256
    assert set(np.bincount(node_of_expert).tolist()) == {28, 29}
    assert np.bincount(placement.places).tolist() == [4] * 72
    assert set(placement.copies.tolist()) == {1, 2}
    for node in range(9):
        copies = placement.copies[node_of_expert == node]
        assert copies.tolist() == [2] * (32 - len(copies)) + [1] * (2 * len(copies) - 32)


@given(blocks())
def test_blocks_keep_copies_on_one_node(case):
    num_experts, degree, num_nodes, num_copies = case
    placement = place_in_blocks(*case)
    held = np.bincount(placement.places, minlength=degree)
    assert (held == (num_experts + num_copies) // degree).all()
    assert placement.copies.min() >= 1
    places_per_node = degree // num_nodes
    if num_experts >= num_nodes:
        # all copies of an expert on the node that its number says, and copies as equal there as can be
        nodes = np.repeat(np.arange(num_experts) * num_nodes // num_experts, placement.copies)
        assert (placement.places // places_per_node == nodes).all()
        for node in range(num_nodes):
            copies = placement.copies[np.arange(num_experts) * num_nodes // num_experts == node]
            assert (np.diff(copies) <= 0).all()
            assert copies[0] - copies[-1] <= 1


@given(placements())
def test_places_of_an_expert_ascend(placement):
    for start, end in zip(placement.offsets[:-1], placement.offsets[1:], strict=True):
        assert (np.diff(placement.places[start:end]) >= 0).all()


@pytest.mark.parametrize(
    ("num_experts", "degree", "copies"),
    # 288 = 4 x 72 = 2 x 144 is the first multiple of both from 256 on, and 320 the first of 320.
    [(256, 72, 32), (256, 144, 32), (256, 320, 64), (256, 64, 0), (256, 256, 0), (256, 1, 0)],
)
def test_fewest_copies(num_experts, degree, copies):
    assert fewest_copies(num_experts, degree) == copies


def test_tokens_take_copies_in_turn():
    # Expert 0 has copies on places 0 and 1, expert 1 one on place 1, expert 2 three, on 0, 2 and 2.
    placement = Placement.of_slots(np.array([0, 2, 0, 1, 2, 2]), 3, 3, 1)
    # Token t to copy (t + e) mod copies. Of tokens 5 to 8: copy 1, 0, 1, 0 of expert 0, and 1, 2, 0, 1 of expert 2.
    experts = np.array([[0, 1], [2, 0], [2, 1], [0, 2]])
    assert placement.place_of(experts, 5).tolist() == [[1, 1], [2, 0], [0, 1], [0, 2]]


@given(placements(), st.integers(0, 10**9), st.integers(1, 40))
def test_copies_of_an_expert_share_consecutive_tokens_evenly(placement, first_token, num_tokens):
    for expert in range(placement.num_experts):
        places = placement.place_of(np.full((num_tokens, 1), expert), first_token).ravel()
        held = placement.places[placement.offsets[expert] : placement.offsets[expert + 1]]
        # A place gets the whole share of each copy that it holds, to one token a copy.
        got = np.bincount(places, minlength=placement.degree)
        copies = np.bincount(held, minlength=placement.degree)
        assert (np.abs(got - num_tokens * copies / len(held)) <= copies).all()


@given(placements(), st.data())
def test_a_token_goes_the_same_way_in_any_batch(placement, data):
    rows = st.lists(st.integers(0, placement.num_experts - 1), min_size=3, max_size=3)
    experts = np.array(data.draw(st.lists(rows, min_size=2, max_size=20)))
    cut = data.draw(st.integers(1, len(experts) - 1))
    whole = placement.place_of(experts, 7)
    parts = [placement.place_of(experts[:cut], 7), placement.place_of(experts[cut:], 7 + cut)]
    assert np.array_equal(whole, np.concatenate(parts))


@given(placements(), st.data())
def test_place_load_is_what_tokens_bring(placement, data):
    # Each expert gets a multiple of its copies of consecutive tokens, so that copies get exactly equally many.
    rounds = st.lists(st.integers(0, 5), min_size=placement.num_experts, max_size=placement.num_experts)
    load = np.array(data.draw(rounds)) * placement.copies
    got = np.zeros(placement.degree, np.int64)
    for expert, tokens in enumerate(load.tolist()):
        places = placement.place_of(np.full((tokens, 1), expert), 11)
        got += np.bincount(places.ravel(), minlength=placement.degree)
    assert np.allclose(placement.place_load(load), got, rtol=1e-12, atol=0)
    by_node = got.reshape(placement.num_nodes, -1).sum(axis=1)
    assert np.allclose(placement.node_load(load), by_node, rtol=1e-12, atol=0)


def test_loads_of_places_and_nodes_by_hand():
    # Slots 0 1 | 2 0 | 3 4 | 3 4 as above. Expert 0 brings 10 / 2 to places 0 and 1; 3 and 4 bring half to 2 and 3.
    placement = place_in_blocks(5, 4, 2, 3)
    load = np.array([10, 20, 30, 40, 50])
    assert placement.place_load(load).tolist() == [25.0, 35.0, 45.0, 45.0]
    assert placement.node_load(load).tolist() == [60.0, 90.0]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            lambda: place_in_blocks(256, 72, 9, 0),
            "256 physical experts cannot be equally many on each of 72 places; 288",
        ),
        (lambda: place_in_blocks(256, 64, 7, 0), "64 places on 7 nodes cannot be equally many on each"),
        (lambda: place_in_blocks(256, 64, 8, -64), "-64 redundant copies cannot be; 0 or more can"),
        (
            lambda: Placement.of_slots(np.array([0, 2, 2, 0]), 3, 2, 1),
            "3 experts needs a slot, none else may have one, and expert 1 has none",
        ),
        (lambda: Placement.of_slots(np.array([0, 1, 2, 0]), 2, 2, 1), "and expert 2 has one"),
        (lambda: place_in_blocks(4, 2, 1, 0).place_load(np.ones(3)), "shape (3,), and 4 experts need (4,)"),
    ],
)
def test_what_cannot_be_placed(place, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        place()


@pytest.mark.parametrize(
    ("num_ranks", "gpus_per_node", "degrees"),
    [
        # Divisors of 64; those below 8 divide a node of 8, those above are whole nodes.
        (64, 8, (1, 2, 4, 8, 16, 32, 64)),
        # Divisors of 24 without 3, 6 and 12, which straddle nodes of 8.
        (24, 8, (1, 2, 4, 8, 24)),
        # Two NVLink domains of 72: divisors of 144 without 16 and 48, which neither divide 72 nor are multiples.
        (144, 72, (1, 2, 3, 4, 6, 8, 9, 12, 18, 24, 36, 72, 144)),
        # More ranks than DeepSeek-V3 has experts, for its redundant copies.
        (320, 8, (1, 2, 4, 8, 16, 32, 40, 64, 80, 160, 320)),
    ],
)
def test_working_degrees(num_ranks, gpus_per_node, degrees):
    assert working_degrees(num_ranks, gpus_per_node) == degrees


def test_which_copies_of_its_experts_a_token_goes_to_is_unrelated():
    # Each of 64 experts on both of two places: of two experts of a token both go to one place half of the time.
    placement = Placement.of_slots(np.arange(128) % 64, 64, 2, 1)
    experts = np.argsort(np.random.default_rng(3).random((4096, 64)), axis=1)[:, :2]
    places = placement.place_of(experts, 0)
    assert abs((places[:, 0] == places[:, 1]).mean() - 0.5) < 5 * 0.5 / np.sqrt(4096)


@pytest.mark.parametrize("case", [(9, 16, 16, 7, 1), (3, 8, 8, 5, 1), (257, 512, 512, 255, 1)])
def test_shared_experts_find_a_slot_where_nodes_outnumber_experts(case):
    num_experts, degree, num_nodes, num_copies, num_shared = case
    placement = place_in_blocks(num_experts, degree, num_nodes, num_copies, num_shared)
    assert placement.copies.min() >= 1
    assert placement.copies.sum() == num_experts + num_copies
