"""What is kept of a token: DeepSeek-V3 by hand, and what each setting adds."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import workloads.kept_activations
from workloads.kept_activations import (
    ActivationSettings,
    kept_by_head,
    kept_by_layer,
    kept_by_mtp,
    values_at_work,
    waiting_gradients,
    waiting_gradients_of_mtp,
)
from workloads.models import load_model

DEEPSEEK = load_model("deepseek-v3", Path())
LLAMA = load_model("llama-3.1-405b", Path())
DENSE_LAYER, MOE_LAYER = 0, 3
DEFAULT = ActivationSettings()


def fp8(width):
    """Return bytes of `width` values, a multiple of 128, with a scale of 4 bytes per 128."""
    return width + 4 * width // 128


def added(layer, **changes):
    """Return the bytes that settings add to the default for a token in a layer of DeepSeek-V3."""
    changed = kept_by_layer(DEEPSEEK, layer, ActivationSettings(**changes))
    return sum(changed.values()) - sum(kept_by_layer(DEEPSEEK, layer, DEFAULT).values())


def test_a_layer_with_experts_by_hand():
    kept = kept_by_layer(DEEPSEEK, MOE_LAYER, DEFAULT)
    assert kept == {
        "attention norm's input": 2 * 7168,
        "latents": 2 * (1536 + 512 + 64),
        # 128 heads x 128 values in 12 bits, and 128 scales
        "attention's output": 16384 * 12 // 8 + 128 * 4,
        "log-sum-exp": 128 * 4,
        "feed-forward norm's input": 2 * 7168,
        "routing": 256 * 4 + 8 * (4 + 4),
        "received rows": 8 * fp8(7168),
        "routed SwiGLU's inputs": 8 * 2 * fp8(2048),
        "shared SwiGLU's inputs": 2 * fp8(2048),
    }


def test_a_dense_layer_keeps_gate_and_up_in_place_of_what_experts_keep():
    kept = kept_by_layer(DEEPSEEK, DENSE_LAYER, DEFAULT)
    assert kept["dense SwiGLU's inputs"] == 2 * fp8(18432)
    of_experts = {"routing", "received rows", "routed SwiGLU's inputs", "shared SwiGLU's inputs"}
    moe = kept_by_layer(DEEPSEEK, MOE_LAYER, DEFAULT)
    assert kept.keys() - {"dense SwiGLU's inputs"} == moe.keys() - of_experts


def test_the_docstring_gives_the_totals():
    text = workloads.kept_activations.__doc__
    for layer, name in ((MOE_LAYER, "a layer with experts"), (DENSE_LAYER, "a dense layer")):
        printed = re.search(rf"\| {name} \| \| ([0-9,]+) \|", text).group(1)
        assert int(printed.replace(",", "")) == sum(kept_by_layer(DEEPSEEK, layer, DEFAULT).values())
    rows = [int(row.replace(",", "")) for row in re.findall(r"\| ([0-9,]+) \|$", text, re.MULTILINE)]
    # nine parts, their sum, what a dense layer has in place of the last four, its sum
    assert sum(rows[:9]) == rows[9]
    assert sum(rows[:5]) + rows[10] == rows[11]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # two norms' outputs of 7168, the latents' of 1536 and 512, each as the input of a linear layer
        ({"recompute_norms": False}, 2 * fp8(7168) + fp8(1536) + fp8(512)),
        # 128 heads: query and key of 192, value of 128, in BF16
        ({"recompute_up_projections": False}, 2 * 128 * (192 + 192 + 128)),
        # a row's product of 2048 for each of 8 routed experts and the shared one
        ({"recompute_swiglu": False}, 9 * fp8(2048)),
        # a byte more a value, no scale: 8 rows of 7168, and 9 of 2 x 2048
        ({"linear_inputs": "bf16"}, 2 * (8 * 7168 + 18 * 2048) - 8 * fp8(7168) - 18 * fp8(2048)),
        # 16 bits for 12, no scale
        ({"attention_outputs": "bf16"}, 16384 * 4 // 8 - 512),
        ({"attention_outputs": "fp8"}, -16384 * 4 // 8),
        ({"logits": "fp32"}, 0),
    ],
)
def test_each_setting_adds_what_it_keeps(changes, expected):
    assert added(MOE_LAYER, **changes) == expected


def test_queries_without_a_latent_are_kept():
    # no latent of 1536 in BF16, but 128 x 192 query values
    model = replace(DEEPSEEK, attention=replace(DEEPSEEK.attention, q_lora_rank=None))
    kept = kept_by_layer(model, MOE_LAYER, DEFAULT)
    assert kept["latents"] == 2 * (512 + 64)
    assert kept["queries, keys and values"] == 2 * 128 * 192


def test_grouped_queries_keep_all_heads():
    # LLaMA-3.1-405B: 128 query, 8 key and 8 value heads of 128; the output has 16384 values; no latents, no experts
    assert kept_by_layer(LLAMA, 0, DEFAULT) == {
        "attention norm's input": 2 * 16384,
        "queries, keys and values": 2 * (128 + 16) * 128,
        "attention's output": 16384 * 12 // 8 + 128 * 4,
        "log-sum-exp": 128 * 4,
        "feed-forward norm's input": 2 * 16384,
        "dense SwiGLU's inputs": 2 * fp8(53248),
    }


def test_head_and_mtp():
    # the final norm's input and 129280 logits, 2 bytes each; a module has them again, and the next token's embedding
    assert kept_by_head(DEEPSEEK, DEFAULT) == 2 * 7168 + 2 * 129280
    assert kept_by_mtp(DEEPSEEK, DEFAULT) == 2 * 7168 + kept_by_head(DEEPSEEK, DEFAULT)
    # logits in FP32: 2 bytes more each. Norms kept: BF16 before the head, the projection's 2 x 7168 inputs in FP8
    assert kept_by_head(DEEPSEEK, ActivationSettings(logits="fp32")) == 2 * 7168 + 4 * 129280
    kept = ActivationSettings(recompute_norms=False)
    assert kept_by_head(DEEPSEEK, kept) == 2 * 7168 + 2 * 7168 + 2 * 129280
    assert kept_by_mtp(DEEPSEEK, kept) == 2 * 7168 + fp8(2 * 7168) + kept_by_head(DEEPSEEK, kept)


def test_waiting_gradients_are_those_of_each_linear_layers_result():
    # results: 1536 and 576 (down; 576 values are 4.5 tiles, 5 scales), 24576 and 32768 (up), 7168 (output)
    attention = fp8(1536) + 576 + 5 * 4 + fp8(24576) + fp8(32768) + fp8(7168)
    # 8 rows: gate, up and down; the shared expert's gate and up, and its result; 256 affinities in FP32
    experts = 8 * (2 * fp8(2048) + fp8(7168)) + 2 * fp8(2048) + fp8(7168) + 256 * 4
    assert waiting_gradients(DEEPSEEK, MOE_LAYER, DEFAULT) == attention + experts
    dense = 2 * fp8(18432) + fp8(7168)
    assert waiting_gradients(DEEPSEEK, DENSE_LAYER, DEFAULT) == attention + dense
    # the module's projection gives 7168 values
    assert waiting_gradients_of_mtp(DEEPSEEK, 61, DEFAULT) == attention + experts + fp8(7168)
    # grouped queries: 16384 query values, 1024 of keys, 1024 of values, the output's 16384
    grouped = fp8(16384) + 2 * fp8(1024) + fp8(16384) + 2 * fp8(53248) + fp8(16384)
    assert waiting_gradients(LLAMA, 0, DEFAULT) == grouped


def test_the_widest_tensors_of_a_layer():
    # experts: 9 rows of gate, up, product (2048) and result (7168); attention: 128 x (192 + 192 + 128 + 128) is less
    assert values_at_work(DEEPSEEK, MOE_LAYER) == 9 * (3 * 2048 + 7168)
    # dense: 3 x 18432 + 7168 = 62464 is less than attention's 81920
    assert values_at_work(DEEPSEEK, DENSE_LAYER) == 128 * (192 + 192 + 128 + 128)
    # 3 x 53248 + 16384 is more than 2 x (128 + 8) x 128
    assert values_at_work(LLAMA, 0) == 3 * 53248 + 16384
