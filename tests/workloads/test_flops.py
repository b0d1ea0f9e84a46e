"""Parameters, cache and FLOPs, against a sum by hand and a list of the checkpoint's tensors."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import tried_on
from workloads.flops import describe
from workloads.models import (
    GroupedQueryAttention,
    MixtureOfExperts,
    Model,
    MultiHeadLatentAttention,
    catalogue,
    load_model,
)

SIZES = st.integers(1, 40)


@st.composite
def attentions(draw):
    if draw(st.booleans()):
        return MultiHeadLatentAttention(
            draw(st.none() | SIZES), draw(SIZES), draw(SIZES), draw(SIZES), draw(SIZES)
        )
    return GroupedQueryAttention(draw(st.integers(1, 3)), draw(SIZES), draw(st.booleans()))


@st.composite
def experts(draw):
    num_groups, per_group = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    groups_kept = draw(st.integers(1, num_groups))
    return MixtureOfExperts(
        num_routed_experts=num_groups * per_group,
        num_shared_experts=draw(st.integers(0, 2)),
        experts_per_token=draw(st.integers(1, groups_kept * per_group)),
        num_groups=num_groups,
        groups_kept=groups_kept,
        intermediate_size=draw(SIZES),
        num_dense_layers=draw(st.integers(0, 4)),
        layer_freq=draw(st.integers(1, 3)),
        router_bias=draw(st.booleans()),
    )


@st.composite
def models(draw):
    attention = draw(attentions())
    groups = attention.num_kv_heads if isinstance(attention, GroupedQueryAttention) else 1
    return Model(
        name="random",
        num_layers=draw(st.integers(1, 8)),
        hidden_size=draw(SIZES),
        vocab_size=draw(SIZES),
        num_heads=groups * draw(st.integers(1, 3)),
        max_context=4096,
        tie_word_embeddings=draw(st.booleans()),
        attention=attention,
        intermediate_size=draw(SIZES),
        moe=draw(st.none() | experts()),
        num_mtp_layers=draw(st.integers(0, 2)),
    )


def layer_tensors(model: Model, layer: int) -> list[tuple[str, int]]:
    """Return (tensor, elements) of one layer, named as in a Hugging Face checkpoint: the slow twin of the count."""
    hidden, heads, attention, moe = model.hidden_size, model.num_heads, model.attention, model.moe
    tensors = [("input_layernorm", hidden), ("post_attention_layernorm", hidden)]
    if isinstance(attention, GroupedQueryAttention):
        widths = {"q": heads, "k": attention.num_kv_heads, "v": attention.num_kv_heads}
        for letter, num_heads in widths.items():
            tensors.append((f"{letter}_proj.weight", num_heads * attention.head_dim * hidden))
            if attention.qkv_bias:
                tensors.append((f"{letter}_proj.bias", num_heads * attention.head_dim))
        tensors.append(("o_proj.weight", hidden * heads * attention.head_dim))
    else:
        head = attention.qk_nope_head_dim + attention.qk_rope_head_dim
        if attention.q_lora_rank is None:
            tensors.append(("q_proj", heads * head * hidden))
        else:
            tensors += [
                ("q_a_proj", attention.q_lora_rank * hidden),
                ("q_a_layernorm", attention.q_lora_rank),
                ("q_b_proj", heads * head * attention.q_lora_rank),
            ]
        tensors += [
            ("kv_a_proj_with_mqa", (attention.kv_lora_rank + attention.qk_rope_head_dim) * hidden),
            ("kv_a_layernorm", attention.kv_lora_rank),
            (
                "kv_b_proj",
                heads * (attention.qk_nope_head_dim + attention.v_head_dim) * attention.kv_lora_rank,
            ),
            ("o_proj", hidden * heads * attention.v_head_dim),
        ]
    if moe is None or layer < moe.num_dense_layers or layer % moe.layer_freq:
        return tensors + [(name, hidden * model.intermediate_size) for name in ("gate", "up", "down")]
    for name in ("gate_proj", "up_proj", "down_proj"):
        for expert in range(moe.num_routed_experts):
            tensors.append((f"experts.{expert}.{name}", hidden * moe.intermediate_size))
        tensors.append((f"shared.{name}", hidden * moe.intermediate_size * moe.num_shared_experts))
    tensors.append(("gate.weight", moe.num_routed_experts * hidden))
    if moe.router_bias:
        tensors.append(("gate.e_score_correction_bias", moe.num_routed_experts))
    return tensors


def is_used(model: Model, tensor: str) -> bool:
    """Return whether a token that is sent to the first experts is multiplied with this tensor of a layer."""
    return not tensor.startswith("experts.") or int(tensor.split(".")[1]) < model.moe.experts_per_token


@tried_on(150)
@given(models())
def test_parameters_are_those_of_the_checkpoints_tensors(model):
    layers = [pair for layer in range(model.num_layers) for pair in layer_tensors(model, layer)]
    vocabulary = model.vocab_size * model.hidden_size
    summary = describe(model)
    in_layers = sum(size for _, size in layers)
    # the final norm, the embedding, and the head unless it is the embedding itself
    ends = model.hidden_size + vocabulary * (1 if model.tie_word_embeddings else 2)
    assert summary.parameters == in_layers + ends
    used = sum(size for name, size in layers if is_used(model, name))
    assert summary.activated_parameters == used + model.hidden_size + vocabulary


@tried_on(100)
@given(models())
def test_mtp_modules_count_as_one_more_layer_with_its_projection_and_norms(model):
    modules = range(model.num_layers, model.num_layers + model.num_mtp_layers)
    expected = sum(
        sum(size for _, size in layer_tensors(model, layer))
        + 2 * model.hidden_size**2
        + 3 * model.hidden_size
        for layer in modules
    )
    assert describe(model).mtp_parameters == expected


@tried_on(100)
@given(models(), st.integers(1, 10_000), st.booleans())
def test_parts_add_up_to_the_totals(model, sequence_length, causal):
    summary = describe(model, sequence_length, causal=causal)
    metrics, rows = summary.metrics(), summary.rows()
    for column in set(rows[0]) - {"part"}:
        assert sum(row[column] for row in rows) == metrics[column]
    assert len({row["part"] for row in rows}) == len(rows)
    has_experts = any(model.is_moe_layer(layer) for layer in range(model.num_layers))
    has_dense = not all(model.is_moe_layer(layer) for layer in range(model.num_layers))
    parts = [row["part"] for row in rows]
    assert ("routed experts" in parts) == ("router" in parts) == has_experts
    assert ("shared experts" in parts) == (has_experts and model.moe.num_shared_experts > 0)
    assert ("dense feed-forward" in parts) == has_dense


@tried_on(100)
@given(models(), st.integers(1, 10_000))
def test_training_cost_is_six_per_activated_parameter_plus_attention(model, sequence_length):
    # Of a query against one key: a score over the key's values, then a weighted value; multiply and add, and the
    # backward pass costs twice the forward one. The causal mean is half the sequence.
    attention = model.attention
    if isinstance(attention, GroupedQueryAttention):
        per_key = attention.head_dim + attention.head_dim
    else:
        per_key = (attention.qk_nope_head_dim + attention.qk_rope_head_dim) + attention.v_head_dim
    per_key_flops = model.num_layers * model.num_heads * per_key * 2 * 3
    causal = describe(model, sequence_length)
    whole = describe(model, sequence_length, causal=False)
    parameter_flops = 6 * causal.activated_parameters
    assert causal.training_flops_per_token == parameter_flops + per_key_flops * sequence_length / 2
    assert whole.training_flops_per_token == parameter_flops + per_key_flops * sequence_length


def test_deepseek_v3_by_hand():
    # Attention: 7168 x 1536 + 1536 x 128 x 192 (query), 7168 x (512 + 64) + 512 x 128 x 256 (key and value),
    #   128 x 128 x 7168 (output) in each of 61 layers.
    attention = 61 * (7168 * 1536 + 1536 * 24576 + 7168 * 576 + 512 * 32768 + 16384 * 7168)
    # Feed-forward: 3 dense layers of 18432; 58 layers of 256 routed and 1 shared expert of 2048 and a gate with a
    #   bias per expert.
    dense = 3 * 3 * 7168 * 18432
    routed, shared, router = 58 * 256 * 3 * 7168 * 2048, 58 * 3 * 7168 * 2048, 58 * 256 * (7168 + 1)
    # Norms: two of 7168 and two of the latents a layer, one at the end. Embedding and head: 129280 x 7168 each.
    norms, vocabulary = 61 * (2 * 7168 + 1536 + 512) + 7168, 129280 * 7168
    summary = describe(load_model("deepseek-v3", Path()))
    by_part = {row["part"]: row["parameters"] for row in summary.rows()}
    assert by_part == {
        "embedding": vocabulary,
        "attention": attention,
        "dense feed-forward": dense,
        "routed experts": routed,
        "shared experts": shared,
        "router": router,
        "norms": norms,
        "head": vocabulary,
    }
    # what the published checkpoint holds without its MTP module and quantisation scales
    assert summary.parameters == 671_026_419_200
    activated = attention + dense + routed * 8 // 256 + shared + router + norms + vocabulary
    assert summary.activated_parameters == activated


@pytest.mark.parametrize("name", catalogue())
def test_cache_belongs_to_attention_alone(name):
    summary = describe(load_model(name, Path()))
    cached = {row["part"]: row["kv_cache_bytes_per_token"] for row in summary.rows()}
    assert cached.pop("attention") == summary.kv_cache_bytes_per_token > 0
    assert set(cached.values()) == {0}


def test_a_sequence_needs_a_token():
    with pytest.raises(ValueError, match="sequence_length is 0; it must be at least 1"):
        describe(load_model("deepseek-v3", Path()), 0)
