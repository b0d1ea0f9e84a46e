"""What a model's dimensions add up to: parameters, activated parameters, KV cache and training FLOPs, by part.

Everything is a whole number, so that parts add up to totals exactly.

The training cost of a token is 6 FLOPs per activated parameter (2 forward, 4 backward; the embedding is looked up,
not multiplied) plus attention's score and value products: 2 FLOPs per multiply-add, three times for forward and
backward. This one formula gives DeepSeek-V2, DeepSeek-V3 and LLaMA-3.1-405B in Table 2 of "Insights into
DeepSeek-V3" (arXiv 2505.09343). Recomputation and multi-token prediction are left out, as in that table.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from workloads.models import GroupedQueryAttention, Model

CONVENTIONS: Final = (
    "Activated parameters leave out the embedding, which is looked up, and hold the output head, as DeepSeek "
    "counts them (README_WEIGHTS.md of DeepSeek-V3: 36.6B, printed as 37B).",
    "Multi-token prediction modules are left out of parameters, cache and FLOPs; mtp_parameters counts them apart.",
    "The KV cache holds BF16, 2 bytes per value.",
    "Causal attention counts half of the score matrix: a token attends to sequence_length / 2 keys on average.",
)
_BYTES_PER_CACHED_VALUE: Final = 2  # BF16, as in Table 1 of arXiv 2505.09343
_FLOPS_PER_PARAMETER: Final = 6  # a multiply-add forward, two backward (input and weight gradient)


@dataclass(frozen=True, slots=True)
class PartSummary:
    """What one part of a model holds and costs: parameters, bytes per token, FLOPs per trained token."""

    part: str
    parameters: int
    activated_parameters: int
    kv_cache_bytes_per_token: int
    training_flops_per_token: int


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A model's parts and their totals; `mtp_parameters` are in no part and no total."""

    name: str
    sequence_length: int
    causal: bool
    parts: tuple[PartSummary, ...]
    mtp_parameters: int

    @property
    def parameters(self) -> int:
        """All parameters of the model proper; the embedding counts once even if the head shares it."""
        return sum(part.parameters for part in self.parts)

    @property
    def activated_parameters(self) -> int:
        """The parameters that a token is multiplied with."""
        return sum(part.activated_parameters for part in self.parts)

    @property
    def kv_cache_bytes_per_token(self) -> int:
        """Bytes that a token leaves in the caches of all layers, in BF16."""
        return sum(part.kv_cache_bytes_per_token for part in self.parts)

    @property
    def training_flops_per_token(self) -> int:
        """FLOPs of a token's forward and backward pass at `sequence_length`."""
        return sum(part.training_flops_per_token for part in self.parts)

    def metrics(self) -> dict[str, int]:
        """Return the totals under the names that `railplane model --json` prints."""
        return {
            "parameters": self.parameters,
            "activated_parameters": self.activated_parameters,
            "kv_cache_bytes_per_token": self.kv_cache_bytes_per_token,
            "training_flops_per_token": self.training_flops_per_token,
            "mtp_parameters": self.mtp_parameters,
        }

    def rows(self) -> list[dict[str, str | int]]:
        """Return one mapping per part, with the same keys in each: the rows of a table."""
        return [
            {
                "part": part.part,
                "parameters": part.parameters,
                "activated_parameters": part.activated_parameters,
                "kv_cache_bytes_per_token": part.kv_cache_bytes_per_token,
                "training_flops_per_token": part.training_flops_per_token,
            }
            for part in self.parts
        ]


def describe(model: Model, sequence_length: int = 4096, *, causal: bool = True) -> ModelSummary:
    """Return what the model holds and costs, by part.

    sequence_length: tokens that attend to each other in training, at least 1; causal: whether attention's cost
    counts half of the score matrix, or else all of it. Raises ValueError for a sequence of no tokens.
    """
    if sequence_length < 1:
        msg = f"sequence_length is {sequence_length}; it must be at least 1 token"
        raise ValueError(msg)
    products = _attention_products_flops(model, sequence_length, causal=causal)
    parts = []
    for name, parameters, activated in _parts(model):
        is_attention = name == "attention"
        parts.append(
            PartSummary(
                part=name,
                parameters=parameters,
                activated_parameters=activated,
                kv_cache_bytes_per_token=kv_cache_bytes_per_token(model) if is_attention else 0,
                training_flops_per_token=_FLOPS_PER_PARAMETER * activated + (products if is_attention else 0),
            )
        )
    return ModelSummary(model.name, sequence_length, causal, tuple(parts), mtp_parameters(model))


def kv_cache_bytes_per_token(model: Model) -> int:
    """Return the bytes that a token leaves in the caches of all layers, in BF16 (arXiv 2505.09343, Table 1).

    Latent attention caches the latent and the shared rotary key; grouped-query attention all key and value heads.
    """
    attention = model.attention
    if isinstance(attention, GroupedQueryAttention):
        values = 2 * attention.num_kv_heads * attention.head_dim
    else:
        values = attention.kv_lora_rank + attention.qk_rope_head_dim
    return model.num_layers * values * _BYTES_PER_CACHED_VALUE


def mtp_parameters(model: Model) -> int:
    """Return the parameters of the multi-token prediction modules, 0 if there are none.

    A module is one more layer, three norms (of the activation, of the next token's embedding, of the output) and a
    projection from both to the hidden size (arXiv 2412.19437, section 2.2). Its embedding and head are the
    model's own and counted there.
    """
    hidden = model.hidden_size
    total = 0
    for module in range(model.num_layers, model.num_layers + model.num_mtp_layers):
        layer = _attention_parameters(model) + _norm_parameters_per_layer(model)
        if model.moe is not None and model.is_moe_layer(module):
            experts = model.moe.num_routed_experts + model.moe.num_shared_experts
            layer += experts * _feed_forward_parameters(hidden, model.moe.intermediate_size)
            layer += _router_parameters(model)
        else:
            layer += _feed_forward_parameters(hidden, model.intermediate_size)
        total += layer + 2 * hidden * hidden + 3 * hidden
    return total


def _parts(model: Model) -> Iterator[tuple[str, int, int]]:
    """Yield (part, parameters, activated parameters) for each part that the model has."""
    hidden, moe = model.hidden_size, model.moe
    num_moe_layers = model.num_moe_layers
    num_dense_layers = model.num_layers - num_moe_layers
    vocabulary = model.vocab_size * hidden
    yield "embedding", vocabulary, 0
    attention = model.num_layers * _attention_parameters(model)
    yield "attention", attention, attention
    if num_dense_layers:
        dense = num_dense_layers * _feed_forward_parameters(hidden, model.intermediate_size)
        yield "dense feed-forward", dense, dense
    if moe is not None and num_moe_layers:
        one_of_each = num_moe_layers * _feed_forward_parameters(hidden, moe.intermediate_size)
        yield "routed experts", moe.num_routed_experts * one_of_each, moe.experts_per_token * one_of_each
        if moe.num_shared_experts:
            shared = moe.num_shared_experts * one_of_each
            yield "shared experts", shared, shared
        router = num_moe_layers * _router_parameters(model)
        yield "router", router, router
    norms = model.num_layers * _norm_parameters_per_layer(model) + hidden
    yield "norms", norms, norms
    yield "head", 0 if model.tie_word_embeddings else vocabulary, vocabulary


def _attention_parameters(model: Model) -> int:
    """Return the weights and biases of one layer's projections."""
    hidden, heads, attention = model.hidden_size, model.num_heads, model.attention
    if isinstance(attention, GroupedQueryAttention):
        query = heads * attention.head_dim
        key_and_value = 2 * attention.num_kv_heads * attention.head_dim
        biases = query + key_and_value if attention.qkv_bias else 0
        return hidden * (query + key_and_value) + query * hidden + biases
    rank = attention.q_lora_rank
    query = heads * (attention.qk_nope_head_dim + attention.qk_rope_head_dim)
    query_projections = hidden * query if rank is None else hidden * rank + rank * query
    down = hidden * (attention.kv_lora_rank + attention.qk_rope_head_dim)
    up = attention.kv_lora_rank * heads * (attention.qk_nope_head_dim + attention.v_head_dim)
    return query_projections + down + up + heads * attention.v_head_dim * hidden


def _norm_parameters_per_layer(model: Model) -> int:
    """Return the weights of the norms before attention, before the feed-forward part, and of the latents."""
    attention = model.attention
    if isinstance(attention, GroupedQueryAttention):
        return 2 * model.hidden_size
    return 2 * model.hidden_size + attention.kv_lora_rank + (attention.q_lora_rank or 0)


def _feed_forward_parameters(hidden_size: int, intermediate_size: int) -> int:
    """Return the weights of a SwiGLU layer or expert: gate, up and down projections."""
    return 3 * hidden_size * intermediate_size


def _router_parameters(model: Model) -> int:
    """Return the weights of one layer's gate, one correction bias per expert included where it has them."""
    if model.moe is None:
        return 0
    return model.moe.num_routed_experts * (model.hidden_size + model.moe.router_bias)


def _attention_products_flops(model: Model, sequence_length: int, *, causal: bool) -> int:
    """Return the FLOPs of a token's score and value products in all layers, forward and backward.

    Heads are expanded, as in training: latent attention multiplies full queries and keys. The whole matrix is
    sequence_length keys per token; causal attention is taken as exactly half of it, as MFU counts it, though
    token i attends to i + 1 keys and the mean is half a key more.
    """
    attention = model.attention
    if isinstance(attention, GroupedQueryAttention):
        values_per_key = 2 * attention.head_dim
    else:
        values_per_key = attention.qk_nope_head_dim + attention.qk_rope_head_dim + attention.v_head_dim
    multiply_adds = model.num_layers * model.num_heads * values_per_key * sequence_length
    whole_matrix = _FLOPS_PER_PARAMETER * multiply_adds
    return whole_matrix // 2 if causal else whole_matrix
