"""What a training rank keeps of a token from its forward pass until backward, layer by layer, and in which format.

After DeepSeek-V3's training (arXiv 2412.19437): norms and the up-projections of latent attention are computed again
in backward (section 3.2.3), so that what enters a norm is kept and what leaves it is not; so is SwiGLU, whose inputs
are kept (section 3.3.3). Inputs of linear layers are kept in FP8, with an FP32 scale per 128 values, but for that of
attention's output projection: attention's backward needs it too, and it has 12 bits (E5M6, section 3.3.3). The
residual stream, the latents and the logits are BF16, routing and softmax statistics FP32 (section 3.3.1).

For DeepSeek-V3 in the defaults, bytes of a token in one layer:

| kept | values | bytes |
|---|---|---|
| input of the norm before attention (residual stream) | 7,168 BF16 | 14,336 |
| latents of query, and of key and value with the rotary key, before their norms | 1,536 + 512 + 64 BF16 | 4,224 |
| attention's output | 128 x 128 in 12 bits, scales | 25,088 |
| log-sum-exp of the scores, which FlashAttention recomputes them from | 128 FP32 | 512 |
| input of the norm before feed-forward (residual stream) | 7,168 BF16 | 14,336 |
| all experts' affinities, indices and weights of the chosen | 256 FP32, 8 x 8 bytes | 1,088 |
| rows that routed experts received, permuted, top-k a token | 8 x 7,168 FP8, scales | 59,136 |
| their gate and up projections' results | 8 x 2 x 2,048 FP8, scales | 33,792 |
| those of the shared expert | 2 x 2,048 FP8, scales | 4,224 |
| a layer with experts | | 156,736 |
| instead of the last four, in a dense layer: results of gate and up | 2 x 18,432 FP8, scales | 38,016 |
| a dense layer | | 96,512 |

Not kept: what norms give to the projections, the gate and the dispatch; queries, keys and values; SwiGLU's
result; and experts' results, because their weights are applied to SwiGLU's result, before the down projection.
Left out: token ids and the positions of permuted rows, some 100 bytes a token.

A backward pass whose weight part waits (zero-bubble schedules) keeps the gradients of what each linear layer gave
besides, in the format of the linear layers' inputs; its activations stay until then.
"""

from typing import Final, Literal

from pydantic import Field

from simulator.units import Spec
from workloads.formats import FP32_BYTES, NumberFormat
from workloads.kernels import BF16_BYTES
from workloads.messages import TOP_K_INDEX_BYTES, TOP_K_WEIGHT_BYTES
from workloads.models import GroupedQueryAttention, MixtureOfExperts, Model, MultiHeadLatentAttention

VALUE_BYTES: Final = {"bf16": BF16_BYTES, "fp32": FP32_BYTES}


class ActivationSettings(Spec):
    """What is kept of a forward pass, and in which format."""

    linear_inputs: Literal["fp8", "bf16"] = Field(
        default="fp8",
        description="number format in which inputs of linear layers and of SwiGLU are kept for backward, and "
        "gradients that wait for their weight part; fp8 (a scale per 128 values) or bf16 (default fp8)",
    )
    attention_outputs: Literal["e5m6", "fp8", "bf16"] = Field(
        default="e5m6",
        description="number format in which attention's output is kept, which attention and the linear layer "
        "behind it both need; e5m6 (12 bits, a scale per 128 values, as in DeepSeek-V3's training), fp8 or bf16 "
        "(default e5m6)",
    )
    logits: Literal["bf16", "fp32"] = Field(
        default="bf16",
        description="number format in which logits are kept until backward, which turns them into their gradients; "
        "bf16 or fp32 (default bf16)",
    )
    recompute_norms: bool = Field(
        default=True,
        description="compute norms again in backward rather than keep what they gave; true or false (default true)",
    )
    recompute_up_projections: bool = Field(
        default=True,
        description="compute latent attention's queries, keys and values again in backward rather than keep them; "
        "true or false (default true)",
    )
    recompute_swiglu: bool = Field(
        default=True,
        description="compute SwiGLU again in backward rather than keep what it gave; true or false (default true)",
    )


def kept_by_layer(model: Model, layer: int, settings: ActivationSettings) -> dict[str, int]:
    """Return bytes of a token that a layer keeps from forward to backward, by what they are.

    layer: index in the model; MTP modules continue the count, and their layer counts as any
    """
    attention = model.attention
    residual = BF16_BYTES * model.hidden_size
    kept = {"attention norm's input": residual}
    if not settings.recompute_norms:
        kept["attention norm's output"] = _linear_bytes(settings, model.hidden_size)
    if isinstance(attention, GroupedQueryAttention):
        values = (model.num_heads + 2 * attention.num_kv_heads) * attention.head_dim
        kept["queries, keys and values"] = BF16_BYTES * values
        output = model.num_heads * attention.head_dim
    else:
        kept |= _kept_by_latents(model, attention, settings)
        output = model.num_heads * attention.v_head_dim
    kept["attention's output"] = _named(settings.attention_outputs).payload_bytes(output)
    kept["log-sum-exp"] = FP32_BYTES * model.num_heads
    kept["feed-forward norm's input"] = residual
    if not settings.recompute_norms:
        kept["feed-forward norm's output"] = _linear_bytes(settings, model.hidden_size)
    if model.moe is not None and model.is_moe_layer(layer):
        return kept | _kept_by_experts(model, model.moe, settings)
    return kept | _kept_by_swiglu("dense", model.intermediate_size, settings)


def kept_by_head(model: Model, settings: ActivationSettings) -> int:
    """Return bytes of a token that the final norm and the head keep: the norm's input, the logits.

    Each MTP module has both once more. The head is BF16 (section 3.3.1), and so is what a norm that is not computed
    again gives it.
    """
    residual = BF16_BYTES * model.hidden_size
    normed = 0 if settings.recompute_norms else residual
    return residual + normed + VALUE_BYTES[settings.logits] * model.vocab_size


def kept_by_mtp(model: Model, settings: ActivationSettings) -> int:
    """Return bytes of a token that an MTP module keeps beside its layer.

    The next token's embedding, which enters a norm (the other norm's input is kept behind the module before); and
    what its own head keeps.
    """
    joined = 0 if settings.recompute_norms else _linear_bytes(settings, 2 * model.hidden_size)
    return BF16_BYTES * model.hidden_size + joined + kept_by_head(model, settings)


def waiting_gradients(model: Model, layer: int, settings: ActivationSettings) -> int:
    """Return bytes of a token's gradients that a layer keeps while its weight part waits: of linear layers' results.

    The residual stream's gradient counts once for attention's output and once for feed-forward's.
    """
    attention, moe, hidden = model.attention, model.moe, model.hidden_size
    if isinstance(attention, GroupedQueryAttention):
        key_or_value = attention.num_kv_heads * attention.head_dim
        widths = [model.num_heads * attention.head_dim, key_or_value, key_or_value]
    else:
        query = model.num_heads * (attention.qk_nope_head_dim + attention.qk_rope_head_dim)
        widths = [query] if attention.q_lora_rank is None else [attention.q_lora_rank, query]
        widths.append(attention.kv_lora_rank + attention.qk_rope_head_dim)
        widths.append(model.num_heads * (attention.qk_nope_head_dim + attention.v_head_dim))
    widths += [hidden, hidden]
    if moe is None or not model.is_moe_layer(layer):
        widths += [model.intermediate_size] * 2
        return sum(_linear_bytes(settings, width) for width in widths)
    widths += [moe.intermediate_size, moe.intermediate_size, hidden] * moe.experts_per_token
    widths += [moe.num_shared_experts * moe.intermediate_size] * 2
    return sum(_linear_bytes(settings, width) for width in widths) + FP32_BYTES * moe.num_routed_experts


def waiting_gradients_of_mtp(model: Model, layer: int, settings: ActivationSettings) -> int:
    """Return the same of an MTP module: its layer and its projection. Logits become their gradients in place."""
    return waiting_gradients(model, layer, settings) + _linear_bytes(settings, model.hidden_size)


def values_at_work(model: Model, layer: int) -> int:
    """Return the values of a token that exist at once within attention or feed-forward, whichever has more.

    Attention: queries, keys, values, output. Feed-forward: gate, up, their product and the result, of each row.
    """
    attention, moe = model.attention, model.moe
    if isinstance(attention, GroupedQueryAttention):
        in_attention = 2 * (model.num_heads + attention.num_kv_heads) * attention.head_dim
    else:
        key = attention.qk_nope_head_dim + attention.qk_rope_head_dim
        in_attention = model.num_heads * 2 * (key + attention.v_head_dim)
    if moe is None or not model.is_moe_layer(layer):
        in_feed_forward = 3 * model.intermediate_size + model.hidden_size
    else:
        rows = moe.experts_per_token + moe.num_shared_experts
        in_feed_forward = rows * (3 * moe.intermediate_size + model.hidden_size)
    return max(in_attention, in_feed_forward)


def _kept_by_latents(
    model: Model, attention: MultiHeadLatentAttention, settings: ActivationSettings
) -> dict[str, int]:
    """Return what latent attention keeps before its scores; queries too where no latent gives them."""
    rank = attention.q_lora_rank
    latents = (rank or 0) + attention.kv_lora_rank + attention.qk_rope_head_dim
    kept = {"latents": BF16_BYTES * latents}
    if not settings.recompute_norms:
        kept["latent norms' outputs"] = sum(
            _linear_bytes(settings, width) for width in (rank or 0, attention.kv_lora_rank)
        )
    query = model.num_heads * (attention.qk_nope_head_dim + attention.qk_rope_head_dim)
    value = model.num_heads * attention.v_head_dim
    if not settings.recompute_up_projections:
        kept["queries, keys and values"] = BF16_BYTES * (2 * query + value)
    elif rank is None:
        kept["queries, keys and values"] = BF16_BYTES * query
    return kept


def _kept_by_experts(model: Model, moe: MixtureOfExperts, settings: ActivationSettings) -> dict[str, int]:
    """Return what gate and experts keep, if each rank receives top-k rows for each token that it has."""
    top_k = moe.experts_per_token
    affinities = FP32_BYTES * moe.num_routed_experts  # all: sigmoid, and the balance loss of a sequence
    kept = {
        "routing": affinities + top_k * (TOP_K_INDEX_BYTES + TOP_K_WEIGHT_BYTES),
        "received rows": top_k * _linear_bytes(settings, model.hidden_size),
    }
    routed = _kept_by_swiglu("routed", moe.intermediate_size, settings)
    kept |= {what: top_k * size for what, size in routed.items()}
    if moe.num_shared_experts:
        kept |= _kept_by_swiglu("shared", moe.num_shared_experts * moe.intermediate_size, settings)
    return kept


def _kept_by_swiglu(whose: str, width: int, settings: ActivationSettings) -> dict[str, int]:
    kept = {f"{whose} SwiGLU's inputs": 2 * _linear_bytes(settings, width)}
    if not settings.recompute_swiglu:
        kept[f"{whose} SwiGLU's output"] = _linear_bytes(settings, width)
    return kept


def _linear_bytes(settings: ActivationSettings, width: int) -> int:
    return _named(settings.linear_inputs).payload_bytes(width)


def _named(name: str) -> NumberFormat:
    """Return a number format; E5M6 has sign, 5 bits of exponent and 6 of mantissa, scaled like FP8."""
    return NumberFormat(name, 12, FP32_BYTES, "") if name == "e5m6" else NumberFormat.named(name)
