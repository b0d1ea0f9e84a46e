"""The order of a pass: both streams written out, what waits for what, and how long overlapped layers take."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.inference.order import Item, LayerWork, Step, pass_items
from workloads.streaming_kernels import Copy
from workloads.tasks import ComputeKernel

KERNEL = ComputeKernel(Copy(size_bytes=8))
BATCHES = "AB"
DENSE, EXPERTS, SHARED = "dense", "experts", "shared"
RING_BYTES = 96.0


def kernel(name: str) -> Step:
    return Step(name, KERNEL)


def layer_work(layer: int, batch: str, kind: str, *, rings: bool = False, before: str = "") -> LayerWork:
    def divided(name: str) -> tuple[Step, ...]:
        one = kernel(f"{name} {batch}{layer}")
        if not rings:
            return (one,)
        return (
            Step(f"gather {batch}{layer}", None, RING_BYTES),
            one,
            Step(f"scatter {batch}{layer}", None, 1.0),
        )

    return LayerWork(
        layer,
        before=(kernel(f"{before} {batch}{layer}"),) if before else (),
        attention=divided("attention"),
        shared=divided("shared") if kind == SHARED else (),
        feed_forward=divided("dense") if kind == DENSE else (kernel(f"experts {batch}{layer}"),),
        exchanges=kind != DENSE,
    )


def items(kinds: list[str], micro_batches: int = 2, head: str = "head", **more) -> tuple[Item, ...]:
    return pass_items(
        range(len(kinds)),
        lambda layer, batch: layer_work(layer, BATCHES[batch], kinds[layer], **more),
        (kernel(head),),
        micro_batches,
    )


def name(item: Item) -> str:
    exchange = item.exchange
    return item.step.name + (f" {BATCHES[exchange.micro_batch]}{exchange.layer}" if exchange else "")


def compute(found: tuple[Item, ...]) -> list[str]:
    return [name(item) for item in found if item.step.kernel is not None]


def communication(found: tuple[Item, ...]) -> list[str]:
    return [name(item) for item in found if item.exchange is not None]


def waits(found: tuple[Item, ...]) -> dict[str, set[str]]:
    return {
        name(item): {name(found[place]) for place in item.after} for item in found if name(item) != "head"
    }


def test_two_micro_batches_take_turns_as_the_module_draws_them():
    found = items([EXPERTS, EXPERTS])
    assert compute(found) == [
        *("attention A0", "attention B0", "experts A0", "experts B0"),
        *("attention A1", "attention B1", "experts A1", "experts B1"),
        *("head", "head"),
    ]
    assert communication(found) == [
        *("dispatch A0", "dispatch B0", "combine A0", "combine B0"),
        *("dispatch A1", "dispatch B1", "combine A1", "combine B1"),
    ]


def test_one_micro_batch_runs_from_one_end_to_the_other():
    found = items([DENSE, EXPERTS], micro_batches=1)
    assert [name(item) for item in found] == [
        *("attention A0", "dense A0"),
        *("attention A1", "dispatch A1", "experts A1", "combine A1"),
        "head",
    ]
    assert [item.after for item in found] == [(), *((place,) for place in range(6))]


def test_a_layer_without_experts_has_no_exchanges():
    found = items([DENSE, DENSE, EXPERTS])
    assert compute(found)[:8] == [
        *("attention A0", "attention B0", "dense A0", "dense B0"),
        *("attention A1", "attention B1", "dense A1", "dense B1"),
    ]
    assert communication(found)[0] == "dispatch A2"
    assert waits(found)["attention A1"] == {"dense A0"}
    assert waits(found)["attention B2"] == {"dense B1"}


def test_shared_experts_run_while_tokens_travel():
    found = items([SHARED, SHARED])
    assert compute(found)[:6] == [
        *("attention A0", "attention B0", "shared A0", "experts A0", "shared B0", "experts B0"),
    ]
    # they wait for attention, not for what dispatch brings; the next layer adds up what both came to
    after = waits(found)
    assert after["shared A0"] == after["dispatch A0"] == {"attention A0"}
    assert after["experts A0"] == {"dispatch A0"}
    assert after["combine A0"] == {"experts A0"}
    assert after["attention A1"] == {"combine A0", "shared A0"}
    assert after["attention B1"] == {"combine B0", "shared B0"}


def test_of_one_micro_batch_shared_experts_are_what_runs_beside_dispatch():
    found = items([SHARED], micro_batches=1)
    assert [name(item) for item in found] == [
        *("attention A0", "dispatch A0", "shared A0", "experts A0", "combine A0", "head"),
    ]
    assert [item.exchange.beside_compute for item in found if item.exchange] == [True, False]
    assert not any(item.exchange.beside_compute for item in items([EXPERTS], 1) if item.exchange)


@pytest.mark.parametrize("kind", [EXPERTS, SHARED])
def test_of_two_micro_batches_every_exchange_has_computation_beside(kind):
    assert all(item.exchange.beside_compute for item in items([DENSE, kind, kind]) if item.exchange)
    assert [item.exchange.gathers for item in items([kind]) if item.exchange] == [False, False, True, True]


def test_rings_stand_around_what_ranks_divide():
    # attention gathers, computes and scatters; so do shared experts, beside dispatch; routed experts are not divided
    after = waits(items([SHARED], micro_batches=1, rings=True))
    found = items([SHARED], micro_batches=1, rings=True)
    assert [name(item) for item in found] == [
        *("gather A0", "attention A0", "scatter A0", "dispatch A0"),
        *("gather A0", "shared A0", "scatter A0", "experts A0", "combine A0", "head"),
    ]
    assert found[0].step.ring_bytes == RING_BYTES
    assert after["attention A0"] == {"gather A0"}
    assert after["dispatch A0"] == {"scatter A0"}
    assert [found[place].step.name for place in found[-1].after] == ["combine", "scatter A0"]
    assert found[4].after == (2,)  # shared experts gather what attention scattered


def test_what_precedes_attention_waits_for_the_layer_before():
    found = items([EXPERTS, EXPERTS], before="mtp")
    assert compute(found)[:4] == ["mtp A0", "attention A0", "mtp B0", "attention B0"]
    assert waits(found)["mtp A1"] == {"combine A0"}
    assert waits(found)["attention A1"] == {"mtp A1"}


def test_the_head_waits_for_its_own_micro_batch():
    found = items([SHARED])
    of_a, of_b = (item for item in found if name(item) == "head")
    assert {name(found[place]) for place in of_a.after} == {"combine A0", "shared A0"}
    assert {name(found[place]) for place in of_b.after} == {"combine B0", "shared B0"}


def test_every_layer_has_one_beginning():
    begins = [name(item) for item in items([DENSE, SHARED, EXPERTS]) if item.begins_layer]
    assert begins == ["attention A0", "attention A1", "attention A2"]


@given(st.lists(st.sampled_from([DENSE, EXPERTS, SHARED]), min_size=1, max_size=5), st.sampled_from([1, 2]))
def test_micro_batches_never_wait_for_each_other(kinds, micro_batches):
    # and each item waits only for what stands before it
    found = items(kinds, micro_batches)
    batch = [name(item).split()[-1][0] if name(item) != "head" else "" for item in found]
    for place, item in enumerate(found):
        assert all(before < place for before in item.after)
        if batch[place]:
            assert {batch[before] for before in item.after} <= {batch[place]}
    # everything but the heads is waited for
    waited = {before for item in found for before in item.after}
    assert set(range(len(found))) - waited == set(range(len(found) - micro_batches, len(found)))


def end(found: tuple[Item, ...], seconds: dict[str, int]) -> Fraction:
    """When the last item ends, on two streams that run theirs in turn; seconds: by the first word of a name."""
    ends: list[Fraction] = []
    free = {True: Fraction(0), False: Fraction(0)}
    for item in found:
        computes = item.exchange is None
        begin = max([free[computes], *(ends[place] for place in item.after)])
        ends.append(begin + seconds.get(item.step.name.split()[0], 0))
        free[computes] = ends[-1]
    return max(ends)


@pytest.mark.parametrize("layers", [1, 2, 7])
def test_exchanges_no_longer_than_what_runs_beside_them_are_hidden(layers):
    # Attention 5, experts 3, exchanges 3 or less: kernels never wait, but for the end's last combine.
    kinds = [EXPERTS] * layers
    seconds = {"attention": 5, "experts": 3, "dispatch": 3, "combine": 2}
    assert end(items(kinds), seconds) == layers * 2 * (5 + 3) + 2
    # of one micro-batch everything waits
    assert end(items(kinds, 1), seconds) == layers * (5 + 3 + 3 + 2)


@pytest.mark.parametrize("layers", [1, 2, 7])
def test_without_kernels_exchanges_follow_one_another(layers):
    # two exchanges there and back in each layer: what the idealised limit counts
    assert end(items([EXPERTS] * layers), {"dispatch": 2, "combine": 7}) == layers * 2 * (2 + 7)


def test_long_exchanges_wait_for_the_first_attention_alone():
    # Attention 1, experts 1, exchanges 10. Dispatch A from 1, B to 21; experts A run at 11, so that combine A follows
    # at once: 40 a layer. Attention A of the next layer runs beside combine B, dispatch A follows at once.
    seconds = {"attention": 1, "experts": 1, "dispatch": 10, "combine": 10}
    assert end(items([EXPERTS] * 3), seconds) == 1 + 3 * 40
