"""Bytes of GPU memory that a rank needs in inference, by part, and the largest batch that fits.

| part | bytes |
|---|---|
| expert_weights | experts of each layer on a GPU, copies included, x 3 x hidden x inner x bytes of a weight |
| layer_weights | attention, dense feed-forward, shared experts, gate, norms; MTP modules if used |
| vocabulary_weights | embedding, and head unless it is the embedding, BF16; MTP modules use both |
| kv_cache | requests x tokens held x layers, MTP modules too if used, x `workloads.inference.cache.cached_bytes` |
| working | of each micro-batch: residual stream, and one part of a layer, or the logits |
| communication_buffers | dispatch's and combine's: `workloads.exchange_buffers` |

A weight is 2 bytes in BF16; in FP8 1, and an FP32 scale for each 128 x 128. BF16 whatever the number format: norms,
gate, MTP modules' projection, embedding and head (DeepSeek-V3 technical report, arXiv 2412.19437, section 3.3.1), and
the up-projections of keys and values where they are absorbed (inference/model.py of DeepSeek-V3).

Tensor parallelism divides as `workloads.layer_parameters` says. Its ranks work on the requests of all of them: a GPU
caches its own requests times the degree, latents whole, keys and values divided by heads.

*Working*: beside the residual stream and its norm, whichever is most of
- attention: a token's queries, keys, values and result of all heads in BF16; absorbed: its queries, these and the
  result at the width of latents, and the result;
- a feed-forward part: a row's input in the number format, and gate, up, SwiGLU's result and the result in BF16;
- logits in BF16, of all tokens in decoding, of each prompt's last one in prefill.

Rows of routed experts: normal kernels deliver what comes, top-k rows a token in balance. Low-latency kernels deliver
to places for all that may come, experts of the GPU x ranks x tokens of a rank, though few come (`packed_recv_x` of
`low_latency_dispatch` in deep_ep/buffer.py).
"""

from dataclasses import dataclass
from math import ceil
from typing import Final

from workloads.exchange_buffers import low_latency_buffer_bytes, normal_buffer_bytes
from workloads.formats import FP32_BYTES, VALUES_PER_TILE, NumberFormat
from workloads.inference.cache import CacheFormat, cached_bytes, check_heads
from workloads.kernel_call import Arithmetic
from workloads.kernels import BF16_BYTES
from workloads.layer_parameters import Matrix, embedding, head_matrices, layer_matrices, mtp_matrices
from workloads.memory_parts import PartsInBytes
from workloads.messages import Kernel
from workloads.models import GroupedQueryAttention, Model

INFERENCE_MEMORY_ASSUMPTIONS: Final = (
    "Memory: the cache has room for the tokens held of each request and no more: no pages partly filled.",
    "Memory: with normal kernels each rank receives top-k rows of routed experts for each token that it has, as of a "
    "balanced gate; low-latency kernels have places for all that may come.",
    "Memory: CUDA's context and graphs, the buffers of NCCL and what the allocator wastes are not counted.",
)
_ALWAYS_BF16: Final = ("norms", "router", "MTP projection")
_MOST_REQUESTS: Final = 2**40


@dataclass(frozen=True, slots=True)
class InferenceLayout:
    """How a model is served, as far as memory goes.

    experts: that a GPU holds of each layer, redundant copies and dispatched shared ones included; 0 without experts
    holds_shared: whether it has the shared experts beside them
    expert_parallel: ranks that dispatch to each other, gpus_per_node of them on a node
    kernel, communication_sms: of dispatch and combine
    decoding: latents are absorbed and every token needs logits; else prefill: expanded, the last of each request does
    mtp_modules: how many MTP modules draft; micro_batches: into which requests are divided, all at work at once

    Raises FieldError where the tensor-parallel degree does not divide the model.
    """

    model: Model
    tensor_parallel: int
    experts: int
    holds_shared: bool
    expert_parallel: int
    kernel: Kernel
    communication_sms: int
    gpus_per_node: int
    number_format: Arithmetic
    cache_format: CacheFormat
    decoding: bool
    mtp_modules: int
    micro_batches: int

    def __post_init__(self) -> None:
        check_heads(self.model, self.tensor_parallel)

    @property
    def layers(self) -> range:
        """Indices of all layers at work, those of MTP modules last."""
        return range(self.model.num_layers + self.mtp_modules)

    @property
    def is_dispatched(self) -> bool:
        """Whether tokens go to experts of other ranks."""
        return self.expert_parallel > 1 and any(self.model.is_moe_layer(layer) for layer in self.layers)


@dataclass(frozen=True, slots=True)
class InferenceMemory(PartsInBytes):
    """Bytes of GPU memory that a rank needs, by part; see the module."""

    expert_weights: int
    layer_weights: int
    vocabulary_weights: int
    kv_cache: int
    working: int
    communication_buffers: int


def inference_memory(
    layout: InferenceLayout, requests: float, query_tokens: int, tokens_held: float
) -> InferenceMemory:
    """Return the bytes that a rank needs.

    requests: for each GPU, those of a tensor-parallel group over its ranks, so that it may be a fraction
    query_tokens: that a step computes of each
    tokens_held: of each request in the cache, those new ones included; mean over requests
    """
    model, degree = layout.model, layout.tensor_parallel
    cached = requests * degree * tokens_held * len(layout.layers)
    requests_at_once = ceil(requests / layout.micro_batches)
    tokens = ceil(requests * query_tokens / layout.micro_batches)
    return InferenceMemory(
        expert_weights=_expert_weights(layout),
        layer_weights=_layer_weights(layout),
        vocabulary_weights=BF16_BYTES * sum(matrix.held(degree) for matrix in _vocabulary(model)),
        kv_cache=ceil(cached * cached_bytes(model, layout.cache_format, degree)),
        working=layout.micro_batches * _working(layout, tokens, requests_at_once),
        communication_buffers=_buffers(layout, tokens),
    )


def largest_batch(
    layout: InferenceLayout, query_tokens: int, tokens_held: float, gpu_memory_bytes: float
) -> int:
    """Return the most requests for each GPU that fit into its memory, whole micro-batches; 0 if not one does.

    Every part grows with requests, so that halving finds the last that fits.
    """

    def fits(batches: int) -> bool:
        requests = batches * layout.micro_batches
        return inference_memory(layout, requests, query_tokens, tokens_held).total <= gpu_memory_bytes

    low, high = 0, 1
    while high < _MOST_REQUESTS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * layout.micro_batches


def _weight_bytes(parameters: int, number_format: Arithmetic) -> int:
    """Return the bytes of weights in a format, a scale per 128 x 128 of them in FP8."""
    if number_format == "bf16":
        return BF16_BYTES * parameters
    return parameters + FP32_BYTES * -(-parameters // VALUES_PER_TILE**2)


def _expert_weights(layout: InferenceLayout) -> int:
    model, moe = layout.model, layout.model.moe
    if moe is None:
        return 0
    one = _weight_bytes(3 * model.hidden_size * moe.intermediate_size, layout.number_format)
    return one * layout.experts * sum(model.is_moe_layer(layer) for layer in layout.layers)


def _layer_weights(layout: InferenceLayout) -> int:
    model = layout.model
    total = 0
    for layer in layout.layers:
        matrices = mtp_matrices(model, layer) if layer >= model.num_layers else layer_matrices(model, layer)
        total += sum(_held_bytes(layout, matrix) for matrix in matrices) + _absorbed_bytes(layout)
    return total + BF16_BYTES * model.hidden_size  # the final norm


def _held_bytes(layout: InferenceLayout, matrix: Matrix) -> int:
    """Return the bytes of a matrix on a GPU, routed experts left out."""
    if matrix.is_routed or (matrix.part == "shared experts" and not layout.holds_shared):
        return 0
    number_format = "bf16" if matrix.part in _ALWAYS_BF16 else layout.number_format
    return _weight_bytes(matrix.held(layout.tensor_parallel), number_format)


def _absorbed_bytes(layout: InferenceLayout) -> int:
    """Return what a layer's up-projections of keys and values take beyond their number format, being BF16."""
    attention = layout.model.attention
    if isinstance(attention, GroupedQueryAttention) or not layout.decoding:
        return 0
    heads = layout.model.num_heads // layout.tensor_parallel
    parameters = attention.kv_lora_rank * heads * (attention.qk_nope_head_dim + attention.v_head_dim)
    return _weight_bytes(parameters, "bf16") - _weight_bytes(parameters, layout.number_format)


def _vocabulary(model: Model) -> list[Matrix]:
    return [embedding(model), *(matrix for matrix in head_matrices(model) if matrix.part == "head")]


def _working(layout: InferenceLayout, tokens: int, requests: int) -> int:
    """Return the bytes at work of a micro-batch with so many tokens and requests for each GPU."""
    model = layout.model
    with_logits = tokens if layout.decoding else requests
    at_once = [
        tokens * BF16_BYTES * _values_in_attention(layout),
        with_logits * BF16_BYTES * model.vocab_size,
    ]
    if any(not model.is_moe_layer(layer) for layer in layout.layers):
        at_once.append(tokens * _row_bytes(layout, model.intermediate_size))
    if model.moe is not None:
        rows = tokens * model.moe.experts_per_token
        if layout.is_dispatched and layout.kernel == "low-latency":
            rows = layout.experts * layout.expert_parallel * tokens
        at_once.append(rows * _row_bytes(layout, model.moe.intermediate_size))
    return tokens * BF16_BYTES * 2 * model.hidden_size + max(at_once)


def _values_in_attention(layout: InferenceLayout) -> int:
    """Return the values of a token, with all heads: with tensor parallelism a share of the heads of more tokens."""
    model, attention = layout.model, layout.model.attention
    if isinstance(attention, GroupedQueryAttention):
        return 2 * (model.num_heads + attention.num_kv_heads) * attention.head_dim
    query, value = attention.qk_nope_head_dim + attention.qk_rope_head_dim, attention.v_head_dim
    if layout.decoding:
        return model.num_heads * (query + 2 * attention.kv_lora_rank + attention.qk_rope_head_dim + value)
    return model.num_heads * 2 * (query + value)


def _row_bytes(layout: InferenceLayout, inner: int) -> int:
    """Return the bytes of a row in a feed-forward part: its input, gate and up, SwiGLU's result, the result."""
    hidden = layout.model.hidden_size
    return NumberFormat.named(layout.number_format).payload_bytes(hidden) + BF16_BYTES * (3 * inner + hidden)


def _buffers(layout: InferenceLayout, tokens: int) -> int:
    """Return the bytes of the buffers of dispatch and combine, for so many tokens of a rank at a time."""
    hidden, group = layout.model.hidden_size, layout.expert_parallel
    if not layout.is_dispatched:
        return 0
    if layout.kernel == "low-latency":
        return low_latency_buffer_bytes(hidden, layout.experts * group, tokens)
    return normal_buffer_bytes(hidden, group, layout.gpus_per_node, layout.communication_sms)
