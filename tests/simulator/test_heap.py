import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulator.flow_state import FLOW
from simulator.heap import meld, without_first
from simulator.sharing import NOWHERE
from support.properties import tried_on


def flows_with(targets: list[float]) -> np.ndarray:
    flows = np.zeros(len(targets), FLOW)
    flows["target"], flows["child"], flows["sibling"] = targets, NOWHERE, NOWHERE
    return flows


def drained(flows: np.ndarray, first: int) -> list[int]:
    """Return the flows of a heap in the order in which they are taken."""
    taken = []
    while first != NOWHERE:
        taken.append(first)
        first = without_first(flows, first)
    return taken


# few different targets, so that many are equal
TARGETS = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=30)


def in_order(targets: list[float], numbers: list[int]) -> list[int]:
    return sorted(numbers, key=lambda number: (targets[number], number))


@tried_on(200)
@given(TARGETS, st.data())
def test_flows_are_taken_by_target_and_equal_ones_by_number(targets, data):
    flows, first = flows_with(targets), NOWHERE
    for number in data.draw(st.permutations(range(len(targets)))):
        first = meld(flows, first, number)
    assert drained(flows, first) == in_order(targets, list(range(len(targets))))
    assert (flows["child"] == NOWHERE).all()
    assert (flows["sibling"] == NOWHERE).all()


@tried_on(200)
@given(TARGETS, st.data())
def test_flows_may_come_and_go_in_any_order(targets, data):
    # A flow that has been taken may come again, with another target: so it is where groups are formed anew.
    flows, first, inside = flows_with(targets), NOWHERE, []
    for number in data.draw(st.lists(st.integers(0, len(targets) - 1), max_size=60)):
        if number in inside:
            assert first == in_order(targets, inside)[0]
            inside.remove(first)
            taken, first = first, without_first(flows, first)
            targets[taken] = flows["target"][taken] = data.draw(st.integers(0, 5))
        else:
            first = meld(flows, first, number)
            inside.append(number)
    assert drained(flows, first) == in_order(targets, inside)


@tried_on(200)
@given(TARGETS, st.data())
def test_two_heaps_become_one(targets, data):
    flows = flows_with(targets)
    heaps = [NOWHERE, NOWHERE]
    for number in range(len(targets)):
        side = data.draw(st.integers(0, 1))
        heaps[side] = meld(flows, heaps[side], number)
    assert drained(flows, meld(flows, *heaps)) == in_order(targets, list(range(len(targets))))


def test_two_heaps_without_flows_make_one():
    assert meld(flows_with([]), NOWHERE, NOWHERE) == NOWHERE
