"""Tiny models: config.json files of each architecture, and catalogue models where nothing is computed of them."""

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from fuzz.strategies_text import one_in


@dataclass(frozen=True)
class DrawnModel:
    """A model as drawn: what the scenario says, and what workloads must fit to.

    num_experts: routed ones, 0 for none; top_k, groups, kept: of the gate; shared: experts that all tokens use
    """

    name: str
    num_layers: int
    num_heads: int
    num_experts: int = 0
    top_k: int = 0
    groups: int = 1
    kept: int = 1
    shared: int = 0
    drafts: bool = False
    files: dict[str, bytes] = field(default_factory=dict)


DEEPSEEK_V3 = DrawnModel("deepseek-v3", 61, 128, 256, 8, 8, 4, 1, True)
DEEPSEEK_V2 = DrawnModel("deepseek-v2", 60, 128, 160, 6, 8, 3, 2)


@st.composite
def mixtures(draw: st.DrawFn, min_layers: int = 2, max_layers: int = 4) -> DrawnModel:
    """Draw models like DeepSeek-V2 and V3: latent attention and experts, in few dimensions."""
    experts = draw(st.sampled_from([8, 16, 8, 12, 32]))
    groups = draw(st.sampled_from([count for count in (1, 1, 2, 4) if experts % count == 0]))
    kept = draw(st.integers(1, groups))
    top_k = draw(st.integers(1, min(4, experts // groups * kept)))
    layers = draw(st.integers(min_layers, max_layers))
    is_v3 = draw(st.sampled_from([True, True, False]))
    drafts = is_v3 and draw(one_in(2))
    config: dict[str, Any] = {
        "model_type": "deepseek_v3" if is_v3 else "deepseek_v2",
        "num_hidden_layers": layers,
        "hidden_size": draw(st.sampled_from([128, 256, 40, 1024])),
        "num_attention_heads": 4,
        "q_lora_rank": draw(st.sampled_from([24, None])),
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 6,
        "intermediate_size": 96,
        "moe_intermediate_size": draw(st.sampled_from([32, 256])),
        "n_routed_experts": experts,
        "n_shared_experts": draw(st.sampled_from([1, 0, 2, None])),
        "num_experts_per_tok": top_k,
        "n_group": groups,
        "topk_group": kept,
        "first_k_dense_replace": draw(st.integers(0, layers - 1)),
        "vocab_size": 160,
        "max_position_embeddings": 4096,
    }
    if drafts:
        config["num_nextn_predict_layers"] = 1
    if draw(one_in(6)):
        config["moe_layer_freq"] = 2
    if draw(one_in(6)):
        config["tie_word_embeddings"] = True
    return DrawnModel(
        "config.json",
        layers,
        4,
        experts,
        top_k,
        groups,
        kept,
        config["n_shared_experts"] or 0,
        drafts,
        {"config.json": json.dumps(config).encode()},
    )


@st.composite
def dense_models(draw: st.DrawFn) -> DrawnModel:
    """Draw models without experts: grouped-query attention, as Llama and Qwen have, or latent attention."""
    kind = draw(st.sampled_from(["llama", "qwen2", "deepseek_v2"]))
    layers = draw(st.integers(1, 4))
    config: dict[str, Any] = {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "vocab_size": 160,
        "max_position_embeddings": 4096,
    }
    if kind == "deepseek_v2":
        config |= {"q_lora_rank": None, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4}
        config |= {"v_head_dim": 6, "n_routed_experts": None}
    else:
        config["num_key_value_heads"] = draw(st.sampled_from([2, 4, 1]))
    return DrawnModel(
        "config.json", layers, 4, drafts=False, files={"config.json": json.dumps(config).encode()}
    )
