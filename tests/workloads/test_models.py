"""Models from the catalogue and from config.json files, good and bad."""

import json
import math
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import tried_on
from workloads.models import (
    GroupedQueryAttention,
    MixtureOfExperts,
    MultiHeadLatentAttention,
    catalogue,
    load_model,
)

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "intermediate_size": 128,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}
DEEPSEEK = {
    **LLAMA,
    "model_type": "deepseek_v3",
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "moe_intermediate_size": 32,
    "n_routed_experts": 16,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "n_group": 4,
    "topk_group": 2,
    "first_k_dense_replace": 1,
}


@pytest.fixture
def load(tmp_path):
    """Return a function that writes a config.json and loads it."""

    def write_and_load(config):
        content = config if isinstance(config, bytes) else json.dumps(config).encode()
        (tmp_path / "config.json").write_bytes(content)
        return load_model("config.json", tmp_path)

    return write_and_load


def without(config, key):
    return {name: value for name, value in config.items() if name != key}


def test_the_catalogue_holds_the_four_models():
    assert catalogue() == ("deepseek-v2", "deepseek-v3", "llama-3.1-405b", "qwen-2.5-72b")


def test_deepseek_v3_has_its_published_dimensions():
    # inference/configs/config_671B.json of deepseek-ai/DeepSeek-V3 at 9b4e978
    model = load_model("deepseek-v3", Path())
    assert (model.name, model.num_layers, model.hidden_size, model.num_heads) == (
        "deepseek-v3",
        61,
        7168,
        128,
    )
    assert (model.vocab_size, model.intermediate_size, model.num_mtp_layers) == (129280, 18432, 1)
    assert model.attention == MultiHeadLatentAttention(1536, 512, 128, 64, 128)
    assert model.moe == MixtureOfExperts(256, 1, 8, 8, 4, 2048, 3, 1, router_bias=True)


@pytest.mark.parametrize(("name", "bias"), [("llama-3.1-405b", False), ("qwen-2.5-72b", True)])
def test_dense_models_share_key_heads_and_only_qwen_has_biases(name, bias):
    # 16384 / 128 heads and 8192 / 64 heads are both 128 values a head
    model = load_model(name, Path())
    assert model.attention == GroupedQueryAttention(num_kv_heads=8, head_dim=128, qkv_bias=bias)
    assert model.moe is None
    assert model.num_moe_layers == 0
    assert not model.is_moe_layer(0)


def test_layers_with_experts_follow_the_dense_ones():
    model = load_model("deepseek-v3", Path())
    assert [layer for layer in range(61) if not model.is_moe_layer(layer)] == [0, 1, 2]
    assert model.num_moe_layers == 58
    # every second layer from the third on: 4, 6, ..., 60
    sparse = replace(model, moe=replace(model.moe, layer_freq=2))
    assert [layer for layer in range(8) if sparse.is_moe_layer(layer)] == [4, 6]
    assert sparse.num_moe_layers == 29


@tried_on(100)
@given(st.integers(1, 30), st.integers(0, 35), st.integers(1, 7))
def test_the_number_of_layers_with_experts_is_what_one_counts(num_layers, num_dense_layers, layer_freq):
    model = load_model("deepseek-v3", Path())
    moe = replace(model.moe, num_dense_layers=num_dense_layers, layer_freq=layer_freq)
    model = replace(model, num_layers=num_layers, moe=moe)
    assert model.num_moe_layers == sum(model.is_moe_layer(layer) for layer in range(num_layers))


def test_a_config_file_is_read_as_published_whatever_else_it_holds(load):
    # the keys that DeepSeek-V3's own config.json adds to the dimensions; none of them is a dimension
    text = (files("workloads") / "model_configs" / "deepseek-v3.json").read_text("utf-8")
    config = json.loads(text) | {
        "architectures": ["DeepseekV3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"},
        "hidden_act": "silu",
        "pad_token_id": None,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
        "rope_scaling": {"factor": 40, "type": "yarn"},
        "rope_theta": math.inf,
        "torch_dtype": "bfloat16",
    }
    assert load(config) == replace(load_model("deepseek-v3", Path()), name="config.json")


def test_a_path_starts_at_the_folder_unless_absolute(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(LLAMA), "utf-8")
    assert load_model("mine/config.json", tmp_path).name == "mine/config.json"
    assert load_model(str(tmp_path / "mine" / "config.json"), Path("elsewhere")).hidden_size == 64


def test_a_catalogue_name_wins_over_a_file_of_that_name(tmp_path):
    (tmp_path / "deepseek-v3").write_text("not JSON", "utf-8")
    assert load_model("deepseek-v3", tmp_path).num_layers == 61


def test_absent_keys_take_hugging_faces_defaults(load):
    model = load(LLAMA)
    # every head its own key head; 64 values / 8 heads = 8
    assert model.attention == GroupedQueryAttention(num_kv_heads=8, head_dim=8, qkv_bias=False)
    assert (model.tie_word_embeddings, model.num_mtp_layers, model.max_context) == (False, 0, 2048)
    assert load(LLAMA | {"num_key_value_heads": None, "head_dim": None}) == model
    assert load(DEEPSEEK).moe.layer_freq == 1


def test_head_dim_is_honoured(load):
    assert load(LLAMA | {"head_dim": 16}).attention.head_dim == 16
    assert load(LLAMA | {"num_attention_heads": 7, "head_dim": 16}).num_heads == 7


def test_null_turns_parts_of_a_deepseek_model_off(load):
    assert load(DEEPSEEK | {"q_lora_rank": None}).attention.q_lora_rank is None
    assert load(DEEPSEEK | {"n_shared_experts": None}).moe.num_shared_experts == 0
    assert load(DEEPSEEK | {"n_shared_experts": 0}).moe.num_shared_experts == 0
    ungrouped = load(DEEPSEEK | {"n_group": None, "topk_group": None}).moe
    assert (ungrouped.num_groups, ungrouped.groups_kept) == (1, 1)
    dense = without(DEEPSEEK | {"n_routed_experts": None}, "moe_intermediate_size")
    assert load(dense).moe is None


def test_only_deepseek_v3_has_router_biases(load):
    assert load(DEEPSEEK).moe.router_bias
    assert not load(DEEPSEEK | {"model_type": "deepseek_v2"}).moe.router_bias


@pytest.mark.parametrize("key", sorted(without(DEEPSEEK, "model_type")))
def test_every_key_that_sizes_a_model_must_be_there(load, key):
    with pytest.raises(ValueError, match=rf"config\.json: {key}: this key is missing"):
        load(without(DEEPSEEK, key))


def test_the_number_of_key_heads_must_be_there_for_qwen(load):
    # Hugging Face's default is 32 for this family, whatever the number of heads
    with pytest.raises(ValueError, match=r"config\.json: num_key_value_heads: this key is missing"):
        load(LLAMA | {"model_type": "qwen2"})
    assert load(LLAMA | {"model_type": "qwen2", "num_key_value_heads": None}).attention.num_kv_heads == 8


@pytest.mark.parametrize(
    "key", ["hidden_size", "n_routed_experts", "first_k_dense_replace", "moe_layer_freq"]
)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("64", "it must be a whole number"),
        (64.0, "it must be a whole number"),
        (True, "it must be a whole number"),
        ([64], "it must be a whole number"),
        (math.nan, "not a finite number; it must be a whole number"),
        (-1, "it must be from"),
        (10_000_001, "to 10,000,000"),
    ],
)
def test_a_dimension_is_a_whole_number_in_reason(load, key, value, message):
    with pytest.raises(ValueError, match=rf"config\.json:1: {key}: this is .*{message}"):
        load(DEEPSEEK | {key: value})


def test_zero_is_a_count_of_dense_layers_but_no_dimension(load):
    assert load(DEEPSEEK | {"first_k_dense_replace": 0}).num_moe_layers == 2
    with pytest.raises(ValueError, match="hidden_size: this is 0; it must be from 1"):
        load(DEEPSEEK | {"hidden_size": 0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model_type": "mixtral"},
            "'mixtral' is not supported; supported are deepseek_v2, deepseek_v3, llama, qwen2",
        ),
        ({"model_type": 3}, "model_type: this is 3; it must be text"),
        (
            {"tie_word_embeddings": "no"},
            "tie_word_embeddings: this is the text 'no'; it must be true or false",
        ),
        ({"attention_bias": True}, "attention_bias: this is true, which is not modelled"),
        ({"hidden_size": None}, "hidden_size: this is null; it must be a whole number"),
        (
            {"n_group": 3},
            r"n_group: 16 routed experts \(n_routed_experts\) do not divide into 3 equal groups \(n_group\)",
        ),
        ({"topk_group": 5}, r"cannot keep 5 \(topk_group\) of 4 groups \(n_group\)"),
        # two groups of 16 / 4 experts hold 8
        ({"num_experts_per_tok": 9}, r"cannot use 9 experts \(num_experts_per_tok\).*hold 8"),
    ],
)
def test_values_that_do_not_fit_are_named(load, change, message):
    with pytest.raises(ValueError, match=rf"config\.json:1: .*{message}"):
        load(DEEPSEEK | change)


def test_heads_that_do_not_divide_are_named(load):
    with pytest.raises(ValueError, match=r"8 query heads .* 3 key heads \(num_key_value_heads\)"):
        load(LLAMA | {"num_key_value_heads": 3})
    with pytest.raises(
        ValueError, match=r"hidden_size: 64 does not divide evenly among 7 heads.*give head_dim"
    ):
        load(LLAMA | {"num_attention_heads": 7})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r":1: this is not JSON: .* \(column 1\)"),
        (b'{"vocab_size": 5,\n "hidden_size": "64"', r":2: this is not JSON"),
        (b'{"hidden_size": 64,}', "this is not JSON"),
        (b"[1, 2]", r"this file holds \[1, 2\]; a config.json holds one JSON object"),
        (b"null", "this file holds null"),
        (b"NaN", "this file holds not a finite number"),
        (b'{"model_type": "llama", "model_type": "qwen2"}', "model_type: this key stands twice"),
        (b'{"a": {"b": 1,\n "b": 2}}', r":2: a\.b: this key stands twice"),
        (b'{\n"model_type": "\xff"}', r":2: byte 0xff is not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b" " * 1_000_001, "larger than 1,000,000 bytes"),
        (
            b'{"model_type": "llama", "num_hidden_layers": 1' + b"0" * 10_000 + b"}",
            "num_hidden_layers: this is not a finite number",
        ),
    ],
)
def test_a_file_that_is_no_config_says_what_it_is(load, content, message):
    with pytest.raises(ValueError, match=rf"config\.json.*{message}") as caught:
        load(content)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("deepseek-v33", "did you mean 'deepseek-v3'?"),
        ("DEEPSEEK-V2", "did you mean 'deepseek-v2'?"),
        ("zzz", "is no file. Known models"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all(tmp_path, name, hint):
    with pytest.raises(ValueError) as caught:
        load_model(name, tmp_path)
    message = str(caught.value)
    assert f"{name!r} is no known model" in message
    assert hint in message
    assert "deepseek-v2, deepseek-v3, llama-3.1-405b, qwen-2.5-72b" in message


def test_a_folder_or_an_impossible_path_is_no_model(tmp_path):
    with pytest.raises(
        ValueError, match=r"a directory; give the path of a regular file; name a Hugging Face config\.json"
    ):
        load_model(".", tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_model("x" * 5000, tmp_path)
    with pytest.raises(ValueError, match="no file can have such a name"):
        load_model("a\0b", tmp_path)
