"""Layers of pipeline stages, against all ways to cut a few layers, and against the model's own sums."""

from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.units import FieldError
from support.properties import tried_on
from workloads.flops import describe
from workloads.models import load_model
from workloads.stage_layers import head_flops, layer_flops, mtp_flops, split_layers, stage_matrices

DEEPSEEK = load_model("deepseek-v3", Path())
LLAMA = load_model("llama-3.1-405b", Path())


@st.composite
def models(draw):
    """Small relatives of both families, whose head may be anything from nothing to most of the model."""
    model = draw(st.sampled_from([DEEPSEEK, LLAMA]))
    model = replace(
        model,
        num_layers=draw(st.integers(1, 9)),
        vocab_size=draw(st.sampled_from([1, 129_280, 1_000_000])),
        tie_word_embeddings=draw(st.booleans()),
        num_mtp_layers=draw(st.integers(0, 2)),
    )
    if model.moe is None:
        return model
    moe = replace(
        model.moe,
        num_dense_layers=draw(st.integers(0, 4)),
        layer_freq=draw(st.integers(1, 3)),
        num_shared_experts=draw(st.integers(0, 2)),
        intermediate_size=draw(st.sampled_from([128, 2048, 8192])),
    )
    return replace(model, moe=moe)


def cuts(num_layers, num_stages):
    """Return every way to give each stage at least one layer."""
    for inner in combinations(range(1, num_layers), num_stages - 1):
        ends = (0, *inner, num_layers)
        yield tuple(end - first for first, end in pairwise(ends))


@tried_on(150)
@given(models(), st.data())
def test_no_way_to_cut_is_more_even(model, data):
    num_stages = data.draw(st.integers(1, model.num_layers))
    layers = [layer_flops(model, layer, 4096, causal=True) for layer in range(model.num_layers)]
    after = head_flops(model) + sum(
        mtp_flops(model, model.num_layers + module, 4096, causal=True)
        for module in range(model.num_mtp_layers)
    )

    def preference(sizes):
        """The largest stage, the sum of squares, then the layers of the last stage, the last but one, ..."""
        ends = [sum(sizes[: stage + 1]) for stage in range(num_stages)]
        costs = [sum(layers[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
        costs[-1] += after
        return max(costs), sum(cost**2 for cost in costs), sizes[::-1]

    expected = min(cuts(model.num_layers, num_stages), key=preference)
    assert tuple(stage.num_layers for stage in split_layers(model, num_stages)) == expected


@tried_on(100)
@given(models(), st.data())
def test_stages_hold_the_model_and_nothing_else(model, data):
    stages = split_layers(model, data.draw(st.integers(1, model.num_layers)))
    assert [layer for stage in stages for layer in stage.layers] == list(range(model.num_layers))
    for stage in stages:
        assert stage.moe_layers == sum(model.is_moe_layer(layer) for layer in stage.layers)
        assert stage.dense_layers == sum(not model.is_moe_layer(layer) for layer in stage.layers)
    assert [stage.has_embedding for stage in stages] == [True] + [False] * (len(stages) - 1)
    assert [stage.has_head for stage in stages] == [False] * (len(stages) - 1) + [True]
    assert [stage.mtp_layers for stage in stages[:-1]] == [0] * (len(stages) - 1)
    last = stages[-1].mtp_modules(model)
    assert list(last) == list(range(model.num_layers, model.num_layers + model.num_mtp_layers))


@tried_on(100)
@given(models(), st.data())
def test_parameters_of_all_stages_are_those_of_the_model(model, data):
    stages = split_layers(model, data.draw(st.integers(1, model.num_layers)))
    summary = describe(model)
    matrices = [matrix for stage in stages for matrix in stage_matrices(model, stage)]
    assert sum(matrix.parameters for matrix in matrices) == summary.parameters + summary.mtp_parameters
    # without the modules each part agrees by itself
    without = replace(model, num_mtp_layers=0)
    held = {}
    for stage in split_layers(without, len(stages)):
        for matrix in stage_matrices(without, stage):
            held[matrix.part] = held.get(matrix.part, 0) + matrix.parameters
    assert held == {part.part: part.parameters for part in summary.parts if part.parameters}


@tried_on(100)
@given(models(), st.integers(1, 10_000), st.booleans())
def test_a_step_is_three_forward_passes(model, sequence_length, causal):
    # backward costs twice forward: 3 x the layers and the head is what the model costs, its MTP modules apart
    forward = head_flops(model) + sum(
        layer_flops(model, layer, sequence_length, causal=causal) for layer in range(model.num_layers)
    )
    expected = describe(model, sequence_length, causal=causal).training_flops_per_token
    assert 3 * forward == expected


def test_deepseek_v3_on_16_stages():
    # Forward GFLOP of a token. A layer with experts: 2 x (187.1 M attention + 9 x 44.04 M experts + 1.8 M gate)
    #   + 128 heads x 320 values x 4096 / 2 keys x 2 = 1.170 + 0.168 = 1.338; dense layers have the same but the gate.
    # Head: 2 x 129280 x 7168 = 1.853. MTP: a layer, 2 x 2 x 7168^2 = 0.206, a head: 3.397.
    # So the last stage has 5.250 before its first layer: as much as 3.9 layers. With one layer it has 6.59.
    # Without: 60 layers over 15 stages are 4 each, 5.35. If some stage had 5, it would have 5 x 1.338 = 6.69
    # (with the three dense layers 6.68), more than 6.59; so none has, and one layer in the last leaves 4 for each.
    stages = split_layers(DEEPSEEK, 16)
    assert [stage.num_layers for stage in stages] == [4] * 15 + [1]
    assert (stages[0].dense_layers, stages[0].moe_layers) == (3, 1)
    assert (stages[15].dense_layers, stages[15].moe_layers, stages[15].mtp_layers) == (0, 1, 1)
    assert layer_flops(DEEPSEEK, 3, 4096, causal=True) == pytest.approx(1.338e9, rel=1e-3)
    assert head_flops(DEEPSEEK) == pytest.approx(1.853e9, rel=1e-3)
    assert mtp_flops(DEEPSEEK, 61, 4096, causal=True) == pytest.approx(3.397e9, rel=1e-3)


def test_given_layers_are_taken_as_they_are():
    sizes = (2, 5, *[4] * 13, 2)
    assert sum(sizes) == 61
    stages = split_layers(DEEPSEEK, 16, sizes)
    assert tuple(stage.num_layers for stage in stages) == sizes
    # layers 0, 1 | 2, ..., 6: the third dense layer is in the second stage
    assert (stages[0].dense_layers, stages[0].moe_layers) == (2, 0)
    assert (stages[1].dense_layers, stages[1].moe_layers) == (1, 4)
    assert stages[2].layers == range(7, 11)


def test_one_stage_has_both_ends():
    (stage,) = split_layers(DEEPSEEK, 1)
    assert (stage.num_layers, stage.has_embedding, stage.has_head, stage.mtp_layers) == (61, True, True, 1)


@pytest.mark.parametrize(
    ("num_stages", "layers", "message"),
    [
        (62, None, "61 layers cannot fill 62 stages; use at most 61"),
        (3, (20, 41), "gives layers of 2 stages, and there are 3"),
        (2, (61, 0), "stage 1 would have 0 layers; every stage needs at least 1"),
        (3, (62, -2, 1), "stage 1 would have -2 layers"),
        (2, (30, 30), "add up to 60, and the model has 61"),
    ],
)
def test_layers_that_cannot_be_split_are_named(num_stages, layers, message):
    with pytest.raises(FieldError, match=message) as caught:
        split_layers(DEEPSEEK, num_stages, layers)
    assert caught.value.field == "layers_per_stage"
