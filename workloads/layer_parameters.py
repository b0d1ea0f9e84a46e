"""What a model's layers hold, matrix by matrix: what `workloads.flops` counts by part, in pieces that can be divided.

Tensor parallelism divides a matrix along its heads, its feed-forward values or its vocabulary; expert parallelism
divides the routed experts. What has one piece is on every rank: norms, the gate, and the down-projections of latent
attention, whose results all heads share.
"""

from typing import Final, NamedTuple

from simulator.units import FieldError
from workloads.models import GroupedQueryAttention, Model, MultiHeadLatentAttention

ROUTED_EXPERTS: Final = "routed experts"


class Matrix(NamedTuple):
    """Weights that are divided alike.

    part: as `workloads.flops` names it; parameters: how many; pieces: equal ones, each of which stays whole
    """

    part: str
    parameters: int
    pieces: int = 1

    @property
    def is_routed(self) -> bool:
        """Whether expert parallelism divides it, and not tensor parallelism."""
        return self.part == ROUTED_EXPERTS

    def held(self, num_ranks: int) -> int:
        """Return the parameters on the rank that holds most, if so many ranks divide the pieces.

        Where there are more ranks than pieces, a piece is on several ranks.
        """
        return self.parameters // self.pieces * -(-self.pieces // num_ranks)


def layer_matrices(model: Model, layer: int) -> tuple[Matrix, ...]:
    """Return what a layer holds (from 0; MTP modules continue the count)."""
    hidden, moe = model.hidden_size, model.moe
    attention = model.attention
    if isinstance(attention, GroupedQueryAttention):
        matrices = _grouped_attention(model, attention)
        norms = 2 * hidden
    else:
        matrices = _latent_attention(model, attention)
        norms = 2 * hidden + attention.kv_lora_rank + (attention.q_lora_rank or 0)
    matrices += (Matrix("norms", norms),)
    if moe is None or not model.is_moe_layer(layer):
        dense = 3 * hidden * model.intermediate_size  # SwiGLU: gate, up and down projections
        return (*matrices, Matrix("dense feed-forward", dense, model.intermediate_size))
    one_of_each = 3 * hidden * moe.intermediate_size
    matrices += (
        Matrix(ROUTED_EXPERTS, moe.num_routed_experts * one_of_each, moe.num_routed_experts),
        Matrix("router", moe.num_routed_experts * (hidden + moe.router_bias)),
    )
    if moe.num_shared_experts:
        width = moe.num_shared_experts * moe.intermediate_size
        matrices += (Matrix("shared experts", moe.num_shared_experts * one_of_each, width),)
    return matrices


def mtp_matrices(model: Model, layer: int) -> tuple[Matrix, ...]:
    """Return what an MTP module holds: a layer, three norms, and the projection from two activations to one.

    layer: from `num_layers` on. Embedding and head are the model's own (arXiv 2412.19437, section 2.2). The
    projection is not divided: half of its input comes from the layer before, half from the embedding.
    """
    hidden = model.hidden_size
    return (
        *layer_matrices(model, layer),
        Matrix("norms", 3 * hidden),
        Matrix("MTP projection", 2 * hidden * hidden),
    )


def embedding(model: Model) -> Matrix:
    """Return the embedding; tensor parallelism divides the vocabulary, padded where it does not divide."""
    return Matrix("embedding", model.vocab_size * model.hidden_size, model.vocab_size)


def head_matrices(model: Model) -> tuple[Matrix, ...]:
    """Return what follows the last layer: the final norm, and the head unless it is the embedding itself."""
    norm = Matrix("norms", model.hidden_size)
    if model.tie_word_embeddings:
        return (norm,)
    return norm, Matrix("head", model.vocab_size * model.hidden_size, model.vocab_size)


def check_division(model: Model, tensor_parallel: int, expert_parallel: int) -> None:
    """Raise FieldError where heads, feed-forward values or experts do not divide over the ranks."""
    divided = [(model.num_heads, "query heads"), (model.intermediate_size, "feed-forward values")]
    moe = model.moe
    if moe is not None and moe.num_shared_experts:
        divided.append((moe.num_shared_experts * moe.intermediate_size, "values of shared experts"))
    for count, what in divided:
        if count % tensor_parallel:
            msg = f"{count:,} {what} do not divide over {tensor_parallel} tensor-parallel ranks; use a divisor of it"
            raise FieldError("tensor_parallel", msg)
    if moe is not None and moe.num_routed_experts % expert_parallel:
        msg = f"{moe.num_routed_experts:,} experts do not divide over {expert_parallel} ranks; use a divisor of it"
        raise FieldError("expert_parallel", msg)


def _latent_attention(model: Model, attention: MultiHeadLatentAttention) -> tuple[Matrix, ...]:
    hidden, heads, rank = model.hidden_size, model.num_heads, attention.q_lora_rank
    query = heads * (attention.qk_nope_head_dim + attention.qk_rope_head_dim)
    key_and_value = heads * (attention.qk_nope_head_dim + attention.v_head_dim)
    down = hidden * (attention.kv_lora_rank + attention.qk_rope_head_dim)
    return (
        Matrix("attention", down + hidden * (rank or 0)),
        Matrix("attention", (hidden if rank is None else rank) * query, heads),
        Matrix("attention", attention.kv_lora_rank * key_and_value, heads),
        Matrix("attention", heads * attention.v_head_dim * hidden, heads),
    )


def _grouped_attention(model: Model, attention: GroupedQueryAttention) -> tuple[Matrix, ...]:
    inputs = model.hidden_size + attention.qkv_bias
    query = model.num_heads * attention.head_dim
    key_and_value = 2 * attention.num_kv_heads * attention.head_dim
    return (
        Matrix("attention", query * inputs, model.num_heads),
        Matrix("attention", key_and_value * inputs, attention.num_kv_heads),
        Matrix("attention", query * model.hidden_size, model.num_heads),
    )
