import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.tournament import first_value, least, least_value, new_tournament, set_value, set_values
from support.properties import tried_on

# few different values, so that many are equal; infinite ones stand for values that take no part
VALUES = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 1.0, 2.0, np.inf])
# around where whole eights end (8, 16, 24) and where the tree gets one more level (above 8, 64 and 512)
COUNTS = [1, 2, 7, 8, 9, 16, 17, 63, 64, 65, 511, 512, 513, 4096, 4097]


@tried_on(200)
@given(
    st.integers(1, 150).flatmap(
        lambda count: st.tuples(
            st.just(count), st.lists(st.tuples(st.integers(0, count - 1), VALUES), max_size=60)
        )
    )
)
def test_the_least_value_is_that_of_a_list(drawn):
    count, changes = drawn
    tree, values = new_tournament(count), [np.inf] * count
    for number, value in changes:
        set_value(tree, number, value)
        values[number] = value
        assert least_value(tree) == min(values)
        if least_value(tree) < np.inf:
            assert least(tree) == values.index(min(values))


@tried_on(200)
@given(st.lists(VALUES.filter(lambda value: value < np.inf), min_size=1, max_size=100))
def test_taken_one_by_one_values_come_in_order_and_equal_ones_by_number(values):
    tree = new_tournament(len(values))
    for number, value in enumerate(values):
        set_value(tree, number, value)
    taken = []
    while least_value(tree) < np.inf:
        taken.append((least_value(tree), least(tree)))
        set_value(tree, least(tree), np.inf)
    assert taken == sorted((value, number) for number, value in enumerate(values))
    assert (tree == np.inf).all()


@tried_on(200)
@given(st.lists(VALUES, max_size=150), st.integers(0, 150))
def test_all_values_can_be_replaced_at_once(values, more):
    # What was there before must not show, within the part that is returned; what lies beyond it is left alone.
    tree = new_tournament(len(values) + more)
    tree[:] = -7.0
    length = set_values(tree, np.array(values, float))
    part = tree[:length]
    assert (tree[length:] == -7.0).all()
    assert least_value(part) == min(values, default=np.inf)
    if least_value(part) < np.inf:
        assert least(part) == values.index(min(values))
    # The part is the tree that the same changes one by one would have made.
    single = new_tournament(len(values))
    for number, value in enumerate(values):
        set_value(single, number, value)
    assert part.tolist() == single.tolist()


@pytest.mark.parametrize("num_values", COUNTS)
def test_every_number_has_its_place(num_values):
    # With all other values larger, each number in turn is the least, and is no longer once its value is infinite.
    tree = new_tournament(num_values)
    set_values(tree, np.full(num_values, 5.0))
    for number in {0, num_values // 2, num_values - 1}:
        set_value(tree, number, 1.0)
        assert (least_value(tree), least(tree)) == (1.0, number)
        assert tree[first_value(tree) + number] == 1.0
        set_value(tree, number, 5.0)
    assert (least_value(tree), least(tree)) == (5.0, 0)


@pytest.mark.parametrize("num_values", [0, *COUNTS])
def test_there_is_room_for_every_number_and_little_more(num_values):
    tree = new_tournament(num_values)
    assert (tree == np.inf).all()
    # The last level is the values, filled up to an eight; the levels above it are an eighth of the one below, each
    # filled up to the full eight, 64, 512 ... nodes that its level can have: at most 1 + 8 + 64 + ... eights.
    levels = 1
    while 8**levels < num_values:
        levels += 1
    above = sum(8**level for level in range(1, levels))
    assert first_value(tree) == above
    assert len(tree) == above + 8 * max(1, -(-num_values // 8))
