"""The order of kernels and exchanges in a phase, against the order that the published trace shows."""

from collections import Counter
from itertools import pairwise

import pytest

from support.training_steps import model, plan
from workloads.stage_layers import StageLayers
from workloads.tasks import ComputeKernel
from workloads.training.items import Item, phase_items, weight_items
from workloads.training.stage_work import StageWork

PLAN = plan(of=model(num_layers=6, num_dense_layers=2, num_mtp_layers=1))
TOKENS = PLAN.tokens(received=12, rows=16)


def work(first: int, end: int, head: bool = False, mtp: int = 0) -> StageWork:
    """The work of layers first, ..., end - 1, of which 0 and 1 are dense; the embedding stands before layer 0."""
    dense = sum(layer < 2 for layer in range(first, end))
    stage = StageLayers(first, dense, end - first - dense, first == 0, head, mtp)
    return PLAN.kernels(lambda _: TOKENS).of(stage)


def compute(items: tuple[Item, ...]) -> list[str]:
    return [item.name for item in items if item.exchange is None]


def exchanges(items: tuple[Item, ...]) -> list[tuple[str, bool]]:
    """Exchanges in their order, and whether a kernel runs beside each."""
    return [(item.name, item.exchange.beside_compute) for item in items if item.exchange is not None]


def layers_of(items: tuple[Item, ...]) -> list[int]:
    return [item.exchange.layer for item in items if item.exchange is not None]


def waits(items: tuple[Item, ...]) -> dict[int, tuple[str, ...]]:
    """What each item waits for, by name; the place of an item is its number."""
    return {place: tuple(items[before].name for before in item.after) for place, item in enumerate(items)}


ONE = work(3, 4)
TWO = work(3, 5)

# Figure 4 of arXiv 2412.19437: attention F | experts B | experts W | experts F | attention B | attention W
PAIR = ["attention F", "experts B", "experts W", "experts F", "attention B", "attention W"]
# and meanwhile combine B | dispatch F | dispatch B | combine F
PAIR_EXCHANGES = ["combine B", "dispatch F", "dispatch B", "combine F"]


def test_a_pair_of_layers_is_in_the_order_of_the_trace():
    items = phase_items(ONE, ONE)
    assert compute(items) == PAIR
    assert exchanges(items) == [(name, True) for name in PAIR_EXCHANGES]


def test_layers_of_a_pair_take_turns():
    items = phase_items(work(2, 4), work(4, 6))
    assert compute(items) == PAIR * 2
    assert [name for name, _ in exchanges(items)] == PAIR_EXCHANGES * 2
    # the forward goes through layers 2, 3, the backward through 5, 4
    assert layers_of(items) == [5, 2, 5, 2, 4, 3, 4, 3]


def test_each_item_of_a_pair_waits_for_its_own_micro_batch_alone():
    # forward: attention, dispatch, experts, combine; backward: combine, experts, dispatch, attention; weights hang
    # on the kernel of the same part, and nothing waits for them
    items = phase_items(TWO, TWO)
    forward = ["attention F", "dispatch F", "experts F", "combine F"]
    backward = ["combine B", "experts B", "dispatch B", "attention B"]
    expected = {"experts W": ("experts B",), "attention W": ("attention B",)}
    for chain in (forward, backward):
        expected |= {name: (before,) for before, name in pairwise(chain)}
    found = waits(items)
    seen: Counter[str] = Counter()
    for place, item in enumerate(items):
        seen[item.name] += 1
        is_second = seen[item.name] == 2
        first_of_chain = {forward[0]: forward[-1], backward[0]: backward[-1]}
        if item.name in first_of_chain:
            assert found[place] == ((first_of_chain[item.name],) if is_second else ())
        else:
            assert found[place] == expected[item.name]
        # the one before of the same layer, not of the other
        for before in item.after:
            assert before < place
            assert all(items[between].name != items[before].name for between in range(before + 1, place))


def test_a_forward_alone_hides_nothing():
    items = phase_items(TWO, None)
    assert [item.name for item in items] == ["attention F", "dispatch F", "experts F", "combine F"] * 2
    assert exchanges(items) == [("dispatch F", False), ("combine F", False)] * 2
    assert layers_of(items) == [3, 3, 4, 4]
    # a chain: each waits for the one before
    assert [item.after for item in items] == [(), *((place,) for place in range(7))]


def test_a_backward_alone_hides_exchanges_behind_gradients_of_weights():
    # experts W beside dispatch B, attention W of one layer beside combine B of the next, nothing beside the first
    items = phase_items(None, TWO)
    assert compute(items) == ["experts B", "experts W", "attention B", "attention W"] * 2
    assert exchanges(items) == [
        ("combine B", False),
        ("dispatch B", True),
        ("combine B", True),
        ("dispatch B", True),
    ]
    assert layers_of(items) == [4, 4, 3, 3]


def test_a_backward_of_inputs_alone_hides_nothing():
    items = phase_items(None, TWO, weights=False)
    assert [item.name for item in items] == ["combine B", "experts B", "dispatch B", "attention B"] * 2
    assert exchanges(items) == [("combine B", False), ("dispatch B", False)] * 2
    assert [item.after for item in items] == [(), *((place,) for place in range(7))]


def test_weights_alone_go_backward_through_the_stage():
    items = weight_items(TWO)
    assert [item.name for item in items] == ["experts W", "attention W"] * 2
    assert all(item.after == () and item.exchange is None for item in items)
    first, second = (weight_items(work(layer, layer + 1)) for layer in (4, 3))
    assert [item.kernel for item in items] == [item.kernel for item in (*first, *second)]


def test_a_dense_layer_has_no_exchanges():
    assert [item.name for item in phase_items(work(1, 2), None)] == ["attention F", "dense F"]
    assert [item.name for item in phase_items(None, work(1, 2))] == [
        "dense B",
        "dense W",
        "attention B",
        "attention W",
    ]
    # beside a layer with experts it has its place in the order, and the other's exchanges run beside its kernels
    items = phase_items(work(1, 2), ONE)
    assert compute(items) == [
        "attention F",
        "experts B",
        "experts W",
        "dense F",
        "attention B",
        "attention W",
    ]
    assert exchanges(items) == [("combine B", True), ("dispatch B", True)]
    items = phase_items(ONE, work(1, 2))
    assert compute(items) == ["attention F", "dense B", "dense W", "experts F", "attention B", "attention W"]
    assert exchanges(items) == [("dispatch F", True), ("combine F", True)]


def test_layers_that_find_no_partner_run_alone():
    # one layer forward and three backward: the first is a pair, behind whose attention W the second's combine hides
    items = phase_items(work(2, 3), work(3, 6))
    alone = ["experts B", "experts W", "attention B", "attention W"]
    assert compute(items) == PAIR + alone * 2
    assert exchanges(items) == [(name, True) for name in PAIR_EXCHANGES + ["combine B", "dispatch B"] * 2]
    # three forward, one backward: the second and third have nothing beside them
    items = phase_items(work(3, 6), work(2, 3))
    assert compute(items) == PAIR + ["attention F", "experts F"] * 2
    rest = [("dispatch F", False), ("combine F", False)] * 2
    assert exchanges(items) == [(name, True) for name in PAIR_EXCHANGES] + rest


def test_the_embedding_comes_first_and_its_gradient_last():
    first = work(0, 1)
    assert compute(phase_items(first, None)) == ["embedding F", "attention F", "dense F"]
    assert compute(phase_items(None, first)) == [
        "dense B",
        "dense W",
        "attention B",
        "attention W",
        "embedding W",
    ]
    # the look-up has no gradient of inputs
    assert compute(phase_items(None, first, weights=False)) == ["dense B", "attention B"]
    assert compute(weight_items(first)) == ["dense W", "attention W", "embedding W"]


def test_the_head_comes_last_and_its_gradients_first():
    last = work(5, 6, head=True)
    forward = phase_items(last, None)
    assert [item.name for item in forward][-2:] == ["combine F", "head F"]
    backward = phase_items(None, last)
    assert [item.name for item in backward][:3] == ["head B", "head W", "combine B"]
    assert waits(backward)[2] == ("head B",)
    # head W still runs while gradients go to the experts
    assert exchanges(backward) == [("combine B", True), ("dispatch B", True)]
    assert exchanges(phase_items(None, last, weights=False)) == [("combine B", False), ("dispatch B", False)]
    # in a pair the head's gradients come before the turns, and its forward after
    pair = compute(phase_items(last, last))
    assert pair == ["head B", "head W", *PAIR, "head F"]
    assert compute(weight_items(last)) == ["head W", "experts W", "attention W"]


def test_an_mtp_module_follows_the_head_of_the_model():
    # arXiv 2412.19437, figure 3: the module takes what the last layer gives, and has a head of its own
    last = work(5, 6, head=True, mtp=1)
    joint = "head and MTP input"
    forward, backward = phase_items(last, None), phase_items(None, last)
    assert compute(forward) == [
        "attention F",
        "experts F",
        f"{joint} F",
        "attention F",
        "experts F",
        "head F",
    ]
    assert layers_of(forward) == [5, 5, 6, 6]
    assert compute(backward) == [
        "head B",
        "head W",
        "experts B",
        "experts W",
        "attention B",
        f"{joint} B",
        "attention W",
        f"{joint} W",
        "experts B",
        "experts W",
        "attention B",
        "attention W",
    ]
    assert layers_of(backward) == [6, 6, 5, 5]
    # the gradients of the layer's result wait for those of the module's input, and not for any weights
    second_combine = [place for place, item in enumerate(backward) if item.name == "combine B"][1]
    assert waits(backward)[second_combine] == (f"{joint} B",)


def kernels_of(stage: StageWork) -> Counter[ComputeKernel]:
    parts = [part for layer in stage.layers for part in (layer.entry, layer.attention, layer.feed_forward)]
    parts = [part for part in (*parts, stage.head) if part is not None]
    kernels = (kernel for part in parts for kernel in (part.forward, part.backward, part.weight))
    return Counter(kernel for kernel in kernels if kernel is not None)


def ran(*phases: tuple[Item, ...]) -> Counter[ComputeKernel]:
    return Counter(item.kernel for items in phases for item in items if item.kernel is not None)


STAGES = {
    "embedding and dense layers": work(0, 2),
    "dense and experts": work(1, 4),
    "experts": TWO,
    "head": work(5, 6, head=True),
    "head and MTP": work(4, 6, head=True, mtp=1),
}


@pytest.mark.parametrize("one", STAGES)
@pytest.mark.parametrize("other", STAGES)
def test_every_kernel_runs_once_however_phases_divide_them(one, other):
    forward, backward = STAGES[one], STAGES[other]
    apart = (phase_items(forward, None), phase_items(None, backward))
    assert ran(phase_items(forward, backward)) == ran(*apart)
    split = (phase_items(None, backward, weights=False), weight_items(backward))
    assert ran(*split) == ran(apart[1])
    assert ran(phase_items(forward, None), phase_items(None, forward)) == kernels_of(forward)
    # and an exchange there and back of each layer with experts, in each direction
    pair = Counter(item.name for item in phase_items(forward, backward) if item.exchange)
    moe = [sum(layer.exchanges for layer in stage.layers) for stage in (forward, backward)]
    counts = {"dispatch F": moe[0], "combine F": moe[0], "dispatch B": moe[1], "combine B": moe[1]}
    assert pair == Counter(counts)


def test_results_come_back_in_a_combine_and_in_the_backward_of_a_dispatch():
    items = phase_items(ONE, ONE)
    gathers = {item.name: item.exchange.gathers for item in items if item.exchange}
    assert gathers == {"dispatch F": False, "combine F": True, "combine B": False, "dispatch B": True}


@pytest.mark.parametrize("one", [*STAGES, None])
@pytest.mark.parametrize("other", [*STAGES, None])
@pytest.mark.parametrize("weights", [True, False])
def test_an_exchange_has_a_kernel_beside_it_exactly_where_one_can_run(one, other, weights):
    # A kernel can run beside an exchange if neither has to wait for the other: not for what it needs, nor for what
    # is before it on its stream.
    forward, backward = one and STAGES[one], other and STAGES[other]
    if forward is not None and not weights:
        return  # no pair puts its weights off
    items = phase_items(forward, backward, weights=weights)
    before: list[set[int]] = []
    last: dict[bool, int] = {}
    for place, item in enumerate(items):
        stream = item.exchange is None
        direct = {*item.after, *([last[stream]] if stream in last else [])}
        before.append(direct.union(*(before[each] for each in direct)))
        last[stream] = place
    for place, item in enumerate(items):
        if item.exchange is not None:
            free = [
                kernel
                for kernel in range(len(items))
                if items[kernel].exchange is None
                and kernel not in before[place]
                and place not in before[kernel]
            ]
            assert item.exchange.beside_compute == bool(free), (item.name, place)
