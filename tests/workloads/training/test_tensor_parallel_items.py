"""What a tensor-parallel stage runs, in which order, and what each of it waits for."""

from collections import Counter

import pytest

from support.tensor_parallel import DENSE, EVERYTHING, ONE, work
from workloads.stage_layers import StageLayers
from workloads.training.items import Item, phase_items, weight_items


def names(items: tuple[Item, ...]) -> list[str]:
    return [item.name for item in items]


def on_communication(items: tuple[Item, ...]) -> list[str]:
    return [item.name for item in items if item.kernel is None]


def on_compute(items: tuple[Item, ...]) -> list[str]:
    return [item.name for item in items if item.kernel is not None]


def test_a_forward_alone():
    items = phase_items(work(ONE, 2), None)
    assert names(items) == [
        "latents F",
        "gather F",
        "attention F",
        "scatter F",
        "routing F",
        "gather F",
        "dispatch F",
        "shared experts F",
        "scatter F",
        "experts F",
        "combine F",
    ]
    # shared experts run beside dispatch; nothing runs beside combine
    assert [item.exchange.beside_compute for item in items if item.exchange is not None] == [True, False]


def test_a_pair_hides_its_exchanges_behind_computation():
    items = phase_items(work(ONE, 2), work(ONE, 2))
    assert on_compute(items) == [
        *("latents F", "attention F", "routing F"),
        *("experts B", "shared experts B", "experts W", "shared experts W"),
        *("shared experts F", "experts F"),
        *("routing B", "attention B", "latents B", "attention W", "latents W"),
    ]
    # attention F hides combine B, attention B hides combine F: neither holds up the gather before it
    assert on_communication(items) == [
        *("gather F", "combine B", "gather B", "scatter F"),
        *("gather F", "dispatch F", "gather W", "dispatch B", "scatter B"),
        *("scatter F", "gather B", "gather W", "combine F", "scatter B"),
    ]


def test_a_pair_has_the_items_of_its_halves():
    for forth, back in ((ONE, DENSE), (DENSE, ONE), (EVERYTHING, EVERYTHING)):
        forward, backward = work(forth, 2), work(back, 2)
        both = Counter(names(phase_items(forward, None)) + names(phase_items(None, backward)))
        assert Counter(names(phase_items(forward, backward))) == both


@pytest.mark.parametrize("stage", [ONE, DENSE])
def test_backward_mirrors_forward(stage):
    # Gathering for scattering and the other way round, in reverse. What quantises a dense part's input and gradient
    # has but one direction, and shared experts run beside the routed ones.
    def chain(items, without):
        done = [item for item in items if item.exchange is None and item.name[:-2] not in without]
        return [item.name[:-2] for item in done]

    swapped = {"gather": "scatter", "scatter": "gather"}
    aside = {"dense input", "dense result"}
    forward = chain(phase_items(work(stage, 2), None), aside)
    backward = chain(phase_items(None, work(stage, 2), weights=False), aside)
    mirrored = [swapped.get(name, name) for name in reversed(forward)]
    assert Counter(backward) == Counter(mirrored)
    if stage is DENSE:
        assert backward == mirrored


def test_what_each_waits_for():
    items = phase_items(None, work(DENSE, 2))
    found = {
        item.name: {items[place].name for place in item.after} for item in items if item.kernel is not None
    }
    assert found == {
        "dense result B": set(),
        "dense B": {"gather B"},
        "dense W": {"dense B", "gather W"},
        "routing B": {"scatter B"},
        "attention B": {"gather B"},
        "latents B": {"scatter B"},
        "attention W": {"latents B", "gather W"},
        "latents W": {"latents B"},
    }


def test_the_next_layer_waits_for_routed_and_shared_experts():
    two = StageLayers(1, 0, 2, False, False, 0)
    items = phase_items(work(two, 2), None)
    second = [item for item in items if item.name == "latents F"][1]
    assert sorted(items[place].name for place in second.after) == ["combine F", "scatter F"]
    items = phase_items(None, work(two, 2))
    routing = next(item for item in items if item.name == "routing B")
    assert sorted(items[place].name for place in routing.after) == ["dispatch B", "scatter B"]


def test_head_and_module_of_the_last_stage():
    last = StageLayers(1, 0, 1, False, True, 1)
    forward = names(phase_items(work(last, 2), None))
    assert forward[-3:] == ["final norm F", "gather F", "head F"]
    entry = forward.index("head and embedding F")
    assert forward[entry - 2 : entry + 3] == [
        "final norm F",
        "gather F",
        "head and embedding F",
        "scatter F",
        "MTP input F",
    ]
    assert names(phase_items(None, work(last, 2)))[:5] == [
        "gather W",
        "head B",
        "scatter B",
        "final norm B",
        "head W",
    ]


def test_weights_gather_for_themselves():
    # What is kept is a rank's own, so that a weight phase gathers what a whole backward does, as often and as much;
    # a backward for inputs alone gathers nothing for them.
    done = work(EVERYTHING, 2)

    def gathered(items):
        return sorted(item.ring_bytes for item in items if item.name == "gather W")

    apart = weight_items(done)
    assert gathered(apart) == gathered(phase_items(None, done)) != []
    assert gathered(phase_items(None, done, weights=False)) == []
    for place, item in enumerate(apart):
        assert all(before < place for before in item.after)
        if item.name in {"attention W", "dense W", "shared experts W", "head W", "embedding W"}:
            (before,) = item.after
            assert apart[before].name == "gather W"
    # the second is gathered while the first kernel that needed one runs, the third once that has ended
    assert [item.after for item in apart if item.name == "gather W"][:3] == [(), (1,), (2,)]
