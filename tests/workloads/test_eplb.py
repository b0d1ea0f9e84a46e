"""Experts placed by their loads: EPLB's own example, a slow twin, the laws of its steps, and what it refuses."""

import re
from fractions import Fraction
from itertools import product
from math import lcm

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.eplb_by_hand import loads_by_hand, place_by_hand
from workloads.eplb import balance_placement

# Loads that are multiples of this can be shared by up to 20 copies without rounding.
SHAREABLE = lcm(*range(1, 21))
# Primes: p / c = q / d for none of p, q with fewer than 101 copies c, d, so that no two experts tie by chance.
PRIMES = [n for n in range(101, 800) if all(n % d for d in range(2, 29))]
# Subnormal numbers cannot be shared without loss.
AMOUNTS = st.floats(0, 1e6, allow_subnormal=False)

LOADS = {
    "random": lambda rng: rng.integers(0, 1000, 256),
    "lognormal": lambda rng: rng.lognormal(0, 1, 256),
    "zipf": lambda rng: rng.permutation(1 / np.arange(1, 257) ** rng.uniform(0.5, 2)),
    "one-hot": lambda rng: np.where(np.arange(256) == rng.integers(256), rng.random(), 0),
    "equal": lambda rng: np.full(256, rng.random()),
    "tied": lambda rng: rng.integers(0, 4, 256),
}
# policy, degree, nodes, physical experts: DeepSeek-V3's degrees, on nodes of 8 GPUs and others that groups allow
SETTINGS = [
    ("hierarchical", 32, 4, 288),
    ("hierarchical", 72, 8, 288),
    ("hierarchical", 144, 2, 288),
    ("hierarchical", 320, 8, 320),
    ("hierarchical", 320, 8, 640),
    ("global", 32, 4, 288),
    ("global", 72, 9, 288),
    ("global", 144, 18, 288),
    ("global", 320, 40, 320),
    ("global", 320, 40, 640),
]


@st.composite
def settings(draw):
    """The numbers of `balance_placement`: (num_experts, num_physical, num_groups, num_nodes, degree)."""
    num_nodes, groups_per_node, group_size = (draw(st.integers(1, most)) for most in (3, 3, 4))
    num_groups = num_nodes * groups_per_node
    num_experts = num_groups * group_size
    num_copies = num_nodes * (draw(st.integers(0, 19)) // num_nodes)
    per_node = (num_experts + num_copies) // num_nodes
    places = draw(st.sampled_from([places for places in range(1, per_node + 1) if per_node % places == 0]))
    return num_experts, num_experts + num_copies, num_groups, num_nodes, num_nodes * places


def loads(num_experts, elements):
    return st.lists(elements, min_size=num_experts, max_size=num_experts).map(np.array)


def experts_on(placement):
    """The experts of each place, ascending."""
    experts = np.repeat(np.arange(placement.num_experts), placement.copies)
    return [experts[placement.places == place].tolist() for place in range(placement.degree)]


def nodes_of(placement, expert):
    places = placement.places[placement.offsets[expert] : placement.offsets[expert + 1]]
    return set((places // (placement.degree // placement.num_nodes)).tolist())


def check_structure(placement, num_physical, num_groups, *, hierarchical):
    """Each place has equally many, each expert one, and with the hierarchical policy groups stay on their nodes."""
    num_experts = placement.num_experts
    held = np.bincount(placement.places, minlength=placement.degree)
    assert held.tolist() == [num_physical // placement.degree] * placement.degree
    assert placement.copies.min() >= 1
    assert placement.copies.sum() == num_physical
    if hierarchical:
        size = num_experts // num_groups
        node_of_group = []
        for group in range(num_groups):
            nodes = set().union(
                *(nodes_of(placement, expert) for expert in range(group * size, (group + 1) * size))
            )
            assert len(nodes) == 1
            node_of_group += nodes
        assert set(np.bincount(node_of_group).tolist()) == {num_groups // placement.num_nodes}


@pytest.mark.parametrize(
    ("load", "slots"),
    [
        (
            [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
            [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        ),
        (
            [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
            [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
        ),
    ],
)
def test_the_example_of_eplb(load, slots):
    # README.md of github.com/deepseek-ai/EPLB: two layers of 12 experts in 4 groups, with 4 copies each on 2 nodes of
    # 4 GPUs, and the expert that it prints for each of the 16 slots. The order within a GPU is of no consequence.
    placement = balance_placement(np.array(load), 16, 4, 2, 8, "auto")
    assert experts_on(placement) == [sorted(slots[place : place + 2]) for place in range(0, 16, 2)]


def test_one_node_step_by_step():
    # 3 experts with loads 60, 30 and 9, and 8 slots on 4 places: 5 further copies. The largest load per copy is
    # expert 0's 60, then its 30 (expert 1 has as much, and 0 is lower), then expert 1's 30, then expert 0's 20 and 15
    # (again as much as expert 1's). Copies now carry 60 / 5 = 12, 30 / 2 = 15 and 9. By falling load: 15, 15 go to
    # places 0, 1; 12, 12 to 2, 3; the next 12, 12 to 2 and 3 again, lighter than the others, and full then; the last
    # 12 to place 0, and 9 to place 1.
    placement = balance_placement(np.array([60, 30, 9]), 8, 1, 1, 4, "global")
    assert placement.copies.tolist() == [5, 2, 1]
    assert experts_on(placement) == [[0, 1], [1, 2], [0, 0], [0, 0]]
    assert placement.place_load(np.array([60, 30, 9])).tolist() == [27.0, 24.0, 24.0, 24.0]


@pytest.mark.no_cover
@pytest.mark.parametrize("kind", LOADS)
@pytest.mark.parametrize(("policy", "degree", "num_nodes", "num_physical"), SETTINGS)
def test_places_are_as_even_as_those_of_the_slow_twin(policy, degree, num_nodes, num_physical, kind):
    # Seven inputs of each of six kinds. In both, sums are formed in the same order, so that they tie alike.
    rng = np.random.default_rng(17)
    hierarchical = policy == "hierarchical"
    for _ in range(7):
        load = LOADS[kind](rng)
        placement = balance_placement(load, num_physical, 8, num_nodes, degree, policy)
        check_structure(placement, num_physical, 8, hierarchical=hierarchical)
        groups, nodes = (8, num_nodes) if hierarchical else (1, 1)
        by_hand = loads_by_hand(
            load.tolist(), place_by_hand(load.tolist(), num_physical, groups, nodes, degree)
        )
        place_load = placement.place_load(load)
        assert place_load.max() / load.mean() <= max(by_hand) / load.mean() * (1 + 1e-12)
        assert np.isclose(place_load.sum(), load.sum(), rtol=1e-12, atol=0)


@given(st.data())
def test_loads_equal_those_of_the_slow_twin_in_fractions(data):
    num_experts, *numbers = data.draw(settings())
    load = data.draw(loads(num_experts, st.integers(0, 30))) * SHAREABLE
    placement = balance_placement(load, *numbers, "hierarchical")
    check_structure(placement, numbers[0], numbers[1], hierarchical=True)
    exact = [Fraction(int(tokens)) for tokens in load]
    by_hand = loads_by_hand(exact, place_by_hand(exact, *numbers))
    # where a pack takes but one, the twin may put it elsewhere: nodes and places are then renamed
    assert sorted(placement.place_load(load).tolist()) == sorted(by_hand)


@given(st.data())
def test_loads_of_places_and_nodes_add_up(data):
    num_experts, *numbers = data.draw(settings())
    policy = data.draw(st.sampled_from(["hierarchical", "global", "auto"]))
    expected, met = (data.draw(loads(num_experts, AMOUNTS)) for _ in range(2))
    placement = balance_placement(expected, *numbers, policy)
    for load in expected, met:  # what it was placed by, and what then comes
        assert np.isclose(placement.place_load(load).sum(), load.sum(), rtol=1e-12, atol=0)
        assert np.isclose(placement.node_load(load).sum(), load.sum(), rtol=1e-12, atol=0)


@given(st.data())
def test_the_order_of_experts_in_equal_groups_does_not_matter(data):
    # Groups of the same loads, each in an order of its own: any choice among groups, or among equal experts, leaves
    # the same loads to be placed, and what is packed depends on their sorted list alone.
    num_experts, *numbers = data.draw(settings())
    num_groups = numbers[1]
    size = num_experts // num_groups
    group = data.draw(st.lists(st.sampled_from(PRIMES), min_size=size, max_size=size, unique=True))
    shuffled = [data.draw(st.permutations(group)) for _ in range(num_groups)]
    for policy in "hierarchical", "global":
        in_order, in_disorder = (
            balance_placement(load, *numbers, policy).place_load(load)
            for load in (np.tile(group, num_groups), np.concatenate(shuffled))
        )
        assert np.allclose(np.sort(in_order), np.sort(in_disorder), rtol=1e-12, atol=0)


@given(st.data())
def test_more_copies_never_raise_the_largest_load_per_copy(data):
    num_experts, num_physical, *numbers = data.draw(settings())
    degree = numbers[-1]
    load = data.draw(loads(num_experts, AMOUNTS))
    policy = data.draw(st.sampled_from(["hierarchical", "global"]))
    largest = [
        (load / balance_placement(load, num_physical + more * degree, *numbers, policy).copies).max()
        for more in range(4)
    ]
    assert largest == sorted(largest, reverse=True)


@given(st.data())
def test_no_place_can_have_less_than_the_bounds(data):
    num_experts, *numbers = data.draw(settings())
    load = data.draw(loads(num_experts, AMOUNTS))
    placement = balance_placement(load, *numbers, "auto")
    most = placement.place_load(load).max() * (1 + 1e-12)
    assert most >= (load / placement.copies).max()
    assert most >= load.sum() / placement.degree


@given(st.lists(st.integers(0, 50), min_size=1, max_size=4), st.integers(0, 4))
def test_no_other_numbers_of_copies_have_a_smaller_largest_load_per_copy(load, num_copies):
    # With one slot a place the load of a place is that of its copy. All ways to deal out the copies are tried.
    num_physical = len(load) + num_copies
    placement = balance_placement(np.array(load), num_physical, 1, 1, num_physical, "global")
    ways = product(range(1, num_copies + 2), repeat=len(load))
    least = min(max(map(Fraction, load, copies)) for copies in ways if sum(copies) == num_physical)
    assert placement.place_load(np.array(load)).max() == float(least)


@pytest.mark.parametrize(
    ("num_experts", "num_groups", "num_nodes", "hierarchical"),
    [(16, 4, 2, True), (16, 4, 4, True), (16, 2, 4, False), (16, 3, 1, False), (18, 4, 2, False)],
)
def test_auto_is_hierarchical_where_groups_divide(num_experts, num_groups, num_nodes, hierarchical):
    # All load is on expert 0, so that it gets all copies: on its node or, with the global policy, on all of them.
    load = np.zeros(num_experts)
    load[0] = 1
    degree = 4 * num_nodes
    num_physical = degree * 9
    auto = balance_placement(load, num_physical, num_groups, num_nodes, degree, "auto")
    policy = "hierarchical" if hierarchical else "global"
    asked = balance_placement(load, num_physical, num_groups, num_nodes, degree, policy)
    assert experts_on(auto) == experts_on(asked)
    if hierarchical:
        assert nodes_of(auto, 0) == {0}
    else:
        assert nodes_of(auto, 0) == set(range(num_nodes))


def test_without_loads_copies_are_equally_many():
    placement = balance_placement(np.zeros(6), 12, 3, 3, 6, "hierarchical")
    assert placement.copies.tolist() == [2] * 6
    assert placement.place_load(np.ones(6)).tolist() == [1.0] * 6


def test_equal_loads_go_to_the_lowest_index():
    # 4 equal experts and 2 copies on 3 places: 0 and 1 are copied. The whole loads of 2 and 3 go to places 0 and 1,
    # the first halves of 0 and 1 to place 2, which is full then, and their second halves to places 0 and 1.
    placement = balance_placement(np.ones(4), 6, 1, 1, 3, "global")
    assert placement.copies.tolist() == [2, 2, 1, 1]
    assert experts_on(placement) == [[0, 2], [1, 3], [0, 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_physical": 18}, "18 physical experts cannot be equally many on each of 8 places; 24 can"),
        ({"num_physical": 8}, "8 physical experts cannot hold 12 experts; on 8 places 16 can"),
        ({"num_nodes": 3}, "8 places on 3 nodes cannot be equally many on each; nodes must divide places"),
        ({"num_nodes": 0}, "8 places on 0 nodes cannot be equally many"),
        (
            {"num_groups": 3},
            "3 groups of experts cannot be equally many on each of 2 nodes; the policies global",
        ),
        ({"num_groups": 8}, "12 experts cannot form 8 groups of equal size; the policies global"),
        ({"num_groups": 0}, "12 experts cannot form 0 groups of equal size"),
        ({"policy": "best"}, "there is no policy 'best'; policies are hierarchical, global, auto"),
        (
            {"expert_load": np.array([1.0] * 11 + [-2.5])},
            "the load of expert 11 is -2.5; loads must be finite and",
        ),
        ({"expert_load": np.array([1.0, np.nan] * 6)}, "the load of expert 1 is nan"),
        ({"expert_load": np.array([np.inf] * 12)}, "the load of expert 0 is inf"),
        (
            {"expert_load": np.ones((2, 12))},
            "loads have shape (2, 12); they must be one row, a load for each expert",
        ),
        ({"expert_load": np.ones(0)}, "loads have shape (0,)"),
        ({"expert_load": np.ones(17)}, "16 physical experts cannot hold 17 experts; on 8 places 24 can"),
    ],
)
def test_impossible_input_is_refused(change, message):
    arguments = {
        "expert_load": np.ones(12),
        "num_physical": 16,
        "num_groups": 4,
        "num_nodes": 2,
        "degree": 8,
        "policy": "hierarchical",
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        balance_placement(**(arguments | change))
