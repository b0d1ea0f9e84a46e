"""Matrices of a layer and how they divide: DeepSeek-V3's by hand, pieces fewer than ranks."""

from dataclasses import replace
from pathlib import Path

import pytest

from simulator.units import FieldError
from workloads.layer_parameters import (
    Matrix,
    check_division,
    embedding,
    head_matrices,
    layer_matrices,
    mtp_matrices,
)
from workloads.models import load_model

DEEPSEEK = load_model("deepseek-v3", Path())
LLAMA = load_model("llama-3.1-405b", Path())


def on_rank(matrices, tensor_parallel, expert_parallel=1):
    """Return {part: parameters} on one rank."""
    held = {}
    for matrix in matrices:
        ranks = expert_parallel if matrix.is_routed else tensor_parallel
        held[matrix.part] = held.get(matrix.part, 0) + matrix.held(ranks)
    return held


def test_a_layer_of_deepseek_v3_on_one_of_64_expert_ranks_and_8_tensor_ranks():
    # Down-projections 7168 x 1536 and 7168 x 576, norms and gate are on every rank; of 128 heads a rank has 16, each
    # with 1536 x 192 (query), 512 x 256 (key and value), 128 x 7168 (output). Of 256 experts it has 4, whole; of the
    # shared expert's 2048 values 256.
    heads = 16 * (1536 * 192 + 512 * 256 + 128 * 7168)
    assert on_rank(layer_matrices(DEEPSEEK, 3), 8, 64) == {
        "attention": 7168 * (1536 + 576) + heads,
        "norms": 2 * 7168 + 1536 + 512,
        "routed experts": 4 * 3 * 7168 * 2048,
        "router": 256 * 7169,
        "shared experts": 3 * 7168 * 256,
    }
    assert on_rank(layer_matrices(DEEPSEEK, 0), 8)["dense feed-forward"] == 3 * 7168 * 18432 // 8


def test_key_heads_fewer_than_ranks_are_on_several():
    # 128 query heads and 8 key heads of 128 values, 16384 inputs: on 16 ranks 8 query heads each (query and output),
    # and one key and one value head, which two ranks have.
    attention = on_rank(layer_matrices(LLAMA, 0), 16)["attention"]
    assert attention == (2 * 8 + 2 * 1) * 128 * 16384


def test_query_biases_divide_with_their_heads():
    # Qwen: 64 heads, 8 key heads of 128, hidden 8192; on 4 ranks 16 and 2 heads, each value with a bias
    qwen = load_model("qwen-2.5-72b", Path())
    attention = on_rank(layer_matrices(qwen, 0), 4)["attention"]
    assert attention == (16 + 2 * 2) * 128 * (8192 + 1) + 16 * 128 * 8192


def test_queries_without_a_latent_are_one_matrix_by_heads():
    # 7168 x 128 x 192 by heads; the down-projection is the key's and value's alone
    model = replace(DEEPSEEK, attention=replace(DEEPSEEK.attention, q_lora_rank=None))
    heads = 16 * (7168 * 192 + 512 * 256 + 128 * 7168)
    held = on_rank(layer_matrices(model, 3), 8)
    assert held["attention"] == 7168 * 576 + heads
    assert held["norms"] == 2 * 7168 + 512


def test_a_vocabulary_that_does_not_divide_is_padded():
    # 129280 over 64 ranks are 2020; over 100 they are 1292.8, so that most have 1293
    assert embedding(DEEPSEEK).held(64) == 2020 * 7168
    assert embedding(DEEPSEEK).held(100) == 1293 * 7168


def test_a_tied_head_is_no_matrix_of_its_own():
    assert [matrix.part for matrix in head_matrices(DEEPSEEK)] == ["norms", "head"]
    tied = replace(DEEPSEEK, tie_word_embeddings=True)
    assert head_matrices(tied) == (Matrix("norms", 7168),)


def test_an_mtp_module_is_a_layer_with_its_projection_and_norms():
    # module 61 is a layer with experts; 2 x 7168 values to 7168, and three norms more
    layer, module = on_rank(layer_matrices(DEEPSEEK, 60), 1), on_rank(mtp_matrices(DEEPSEEK, 61), 1)
    assert module == layer | {"norms": layer["norms"] + 3 * 7168, "MTP projection": 2 * 7168**2}


@pytest.mark.parametrize(
    ("tensor", "expert", "field", "message"),
    [
        (3, 1, "tensor_parallel", "128 query heads do not divide over 3"),
        (1, 96, "expert_parallel", "256 experts do not divide over 96"),
    ],
)
def test_what_does_not_divide_is_named(tensor, expert, field, message):
    with pytest.raises(FieldError, match=message) as caught:
        check_division(DEEPSEEK, tensor, expert)
    assert caught.value.field == field


def test_feed_forward_values_and_shared_experts_must_divide_too():
    # 64 divides 128 heads, not 2 x 1000 shared values, nor 18400 = 287.5 x 64
    with pytest.raises(FieldError, match="18,400 feed-forward values do not divide over 64"):
        check_division(replace(DEEPSEEK, intermediate_size=18400), 64, 1)
    moe = replace(DEEPSEEK.moe, num_shared_experts=2, intermediate_size=1000)
    with pytest.raises(FieldError, match="2,000 values of shared experts do not divide over 64"):
        check_division(replace(DEEPSEEK, moe=moe), 64, 1)
