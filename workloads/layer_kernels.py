"""The kernels of a transformer layer in training: forward, backward for inputs, and backward for weights.

As DeepSeek-V3 trains (technical report, arXiv 2412.19437, sections 3.2.3 and 3.3): FP8 products with scales of 1x128
and 128x128 values, whose inputs are kept in FP8 and laid out anew for the gradient of weights; norms, the
up-projections of MLA and SwiGLU are computed again in the backward pass, not kept. Which kernels that takes is read
off the published trace of a training step (see docs/kernels.md), each with the bytes that it must move.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from workloads.kernel_call import Arithmetic, KernelCall
from workloads.kernels import BF16_BYTES, Attention, Gemm
from workloads.models import Model, MultiHeadLatentAttention
from workloads.streaming_kernels import (
    Activation,
    Copy,
    Gate,
    Norm,
    Pack,
    Quantise,
    Reduce,
    Rotary,
)

Calls = Iterator[KernelCall]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a GPU works on at a time.

    local: its own tokens, of whole sequences; sequence: tokens of each
    received: tokens that dispatch brings it, each once; rows: pairs of a token and an expert here, each expert's
    together; experts: routed experts here
    """

    local: int
    sequence: int
    received: int
    rows: int
    experts: int


@dataclass(frozen=True, slots=True)
class LayerKernels:
    """The kernels of the layers of a model on one GPU.

    heads: attention heads on this GPU, all of them without tensor parallelism
    is_dense: whether the feed-forward part is dense, without gate and experts
    """

    model: Model
    latent: MultiHeadLatentAttention
    tokens: Tokens
    heads: int
    number_format: Arithmetic
    is_dense: bool = False

    # Attention: norm, latents, up-projections, attention, output, norm and gate

    def attention_forward(self) -> Calls:
        """Yield the kernels up to the dispatch, its quantisation included."""
        hidden, width = self.model.hidden_size, self.heads * self.latent.v_head_dim
        yield self._norm(hidden)
        yield self._quantise(hidden)
        yield from self._down()
        yield from self._up()
        yield self._attention(backward=False)
        yield from 2 * (self._quantise(width),)  # for the product, and laid out for the gradient
        yield self._product(hidden, width)
        yield self._norm(hidden)
        yield from self._gate_forward()

    def attention_backward(self) -> Calls:
        """Yield the kernels behind the combine's gradient, up to the gradient of the layer's input."""
        latent, hidden = self.latent, self.model.hidden_size
        width, queries, keys = self.heads * latent.v_head_dim, self._query_width, self._key_width
        yield from self._gate_backward()
        yield self._norm(hidden)
        yield from 2 * (self._quantise(hidden),)
        yield self._product(width, hidden)
        yield from self._up()  # computed again
        yield self._attention(backward=True)
        yield from self._around_attention_backward()
        yield from 2 * (self._quantise(queries), self._quantise(keys))
        yield self._product(latent.q_lora_rank or hidden, queries)
        yield self._product(latent.kv_lora_rank, keys)
        down = [latent.kv_lora_rank + latent.qk_rope_head_dim]
        if latent.q_lora_rank:
            down.append(latent.q_lora_rank)
        for rank in down:
            yield self._norm(rank)
            yield from 2 * (self._quantise(rank),)
            yield self._product(hidden, rank)
        yield self._norm(hidden)
        yield Copy(size_bytes=BF16_BYTES * self.tokens.local * hidden)  # joins the residual's gradient

    def attention_weight(self) -> Calls:
        """Yield the gradients of attention's weights."""
        latent, hidden = self.latent, self.model.hidden_size
        yield self._weight_gradient(hidden, self.heads * latent.v_head_dim)
        yield self._weight_gradient(self._key_width, latent.kv_lora_rank)
        yield self._weight_gradient(self._query_width, latent.q_lora_rank or hidden)
        yield self._weight_gradient(latent.kv_lora_rank + latent.qk_rope_head_dim, hidden)
        if latent.q_lora_rank:
            yield self._weight_gradient(latent.q_lora_rank, hidden)

    # Experts

    def experts_forward(self) -> Calls:
        """Yield the kernels between dispatch and combine: the shared expert's, then the routed ones'."""
        tokens, hidden, inner = self.tokens, self.model.hidden_size, self._inner
        yield from self._shared_forward()
        yield self._pack()
        yield self._grouped(2 * inner, hidden)
        yield Activation(rows=tokens.rows, width=inner)
        yield self._grouped(hidden, inner)
        yield Reduce(tokens=tokens.received, rows=tokens.rows, width=hidden)
        yield self._quantise(2 * inner, tokens.rows)  # SwiGLU's input, kept to compute it again

    def experts_backward(self) -> Calls:
        """Yield the kernels between the gradients' dispatch and combine, without those of weights."""
        tokens, hidden, inner = self.tokens, self.model.hidden_size, self._inner
        yield self._pack()
        yield self._grouped(inner, hidden)
        yield Activation(rows=tokens.rows, width=inner)  # computed again
        yield Activation(rows=tokens.rows, width=inner, backward=True)
        yield self._quantise(inner, tokens.rows)  # laid out for the gradient of the second product
        yield from 2 * (self._quantise(2 * inner, tokens.rows),)  # for the product, and laid out
        yield self._grouped(hidden, 2 * inner)
        yield Reduce(tokens=tokens.received, rows=tokens.rows, width=hidden)
        yield self._norm(hidden)  # the experts' input, computed again
        yield self._quantise(hidden)
        yield from self._shared_backward()

    def experts_weight(self) -> Calls:
        """Yield the gradients of the experts' weights, and the laying out of what dispatch brought."""
        tokens, hidden, inner = self.tokens, self.model.hidden_size, self._inner
        if self._shared:
            yield self._weight_gradient(hidden, self._shared)
            yield self._weight_gradient(2 * self._shared, hidden)
        laid_out = Quantise(rows=tokens.rows, width=hidden, from_format="fp8")
        yield from (laid_out, laid_out)  # the input, and the gradient of the result
        yield self._grouped_weight_gradient(hidden, inner)
        yield self._grouped_weight_gradient(2 * inner, hidden)

    # A dense feed-forward part

    def dense_forward(self) -> Calls:
        """Yield the kernels of a dense feed-forward part."""
        yield self._quantise(self.model.hidden_size)
        yield from self._feed_forward(self.model.intermediate_size)
        yield self._quantise(2 * self.model.intermediate_size)

    def dense_backward(self) -> Calls:
        """Yield its kernels backward, without those of weights."""
        inner, tokens = self.model.intermediate_size, self.tokens.local
        yield from 2 * (self._quantise(self.model.hidden_size),)
        yield Activation(rows=tokens, width=inner)  # computed again
        yield self._quantise(inner)
        yield from self._feed_forward_backward(inner)
        yield self._norm(self.model.hidden_size)
        yield self._quantise(self.model.hidden_size)

    def dense_weight(self) -> Calls:
        """Yield the gradients of its weights."""
        hidden, inner = self.model.hidden_size, self.model.intermediate_size
        yield self._weight_gradient(hidden, inner)
        yield self._weight_gradient(2 * inner, hidden)

    # Parts

    @property
    def _query_width(self) -> int:
        return self.heads * (self.latent.qk_nope_head_dim + self.latent.qk_rope_head_dim)

    @property
    def _key_width(self) -> int:
        """Return the width of keys, without the rotary part that heads share, and values."""
        return self.heads * (self.latent.qk_nope_head_dim + self.latent.v_head_dim)

    @property
    def _inner(self) -> int:
        moe = self.model.moe
        return moe.intermediate_size if moe else 0

    @property
    def _shared(self) -> int:
        """Return the width of all shared experts together."""
        moe = self.model.moe
        return moe.num_shared_experts * moe.intermediate_size if moe else 0

    def _norm(self, width: int) -> KernelCall:
        return Norm(rows=self.tokens.local, width=width)

    def _quantise(self, width: int, rows: int | None = None) -> KernelCall:
        return Quantise(rows=rows or self.tokens.local, width=width)

    def _product(self, columns: int, depth: int) -> KernelCall:
        return Gemm(rows=self.tokens.local, columns=columns, depth=depth, format=self.number_format)

    def _weight_gradient(self, columns: int, depth: int) -> KernelCall:
        """Return the gradient of a weight matrix [columns, depth]."""
        return Gemm(
            rows=columns,
            columns=depth,
            depth=self.tokens.local,
            format=self.number_format,
            accumulate=True,
        )

    def _grouped(self, columns: int, depth: int) -> KernelCall:
        rows, experts = self.tokens.rows, self.tokens.experts
        return Gemm(rows=rows, columns=columns, depth=depth, groups=experts, format=self.number_format)

    def _grouped_weight_gradient(self, columns: int, depth: int) -> KernelCall:
        """Return the gradients of one weight matrix [columns, depth] of each expert here."""
        experts = self.tokens.experts
        return Gemm(
            rows=experts * columns,
            columns=depth,
            depth=max(1, self.tokens.rows // experts),
            groups=experts,
            format=self.number_format,
            accumulate=True,
        )

    def _down(self) -> Calls:
        latent, hidden = self.latent, self.model.hidden_size
        if latent.q_lora_rank:
            yield self._product(latent.q_lora_rank, hidden)
        yield self._product(latent.kv_lora_rank + latent.qk_rope_head_dim, hidden)

    def _up(self) -> Calls:
        """Yield queries, keys and values of all heads from their latents."""
        latent, tokens = self.latent, self.tokens.local
        if latent.q_lora_rank:
            yield self._norm(latent.q_lora_rank)
            yield self._quantise(latent.q_lora_rank)
        yield self._norm(latent.kv_lora_rank)
        yield self._quantise(latent.kv_lora_rank)
        yield self._product(self._query_width, latent.q_lora_rank or self.model.hidden_size)
        yield self._product(self._key_width, latent.kv_lora_rank)
        yield Rotary(rows=tokens * self.heads, width=latent.qk_rope_head_dim)
        # keys of each head are put together with the rotary part that heads share, and queries with their own
        yield from 2 * (Copy(size_bytes=BF16_BYTES * tokens * self._query_width),)

    def _attention(self, *, backward: bool) -> KernelCall:
        latent, sequence = self.latent, self.tokens.sequence
        return Attention(
            requests=self.tokens.local // sequence,
            query_tokens=sequence,
            cached_tokens=float(sequence),
            heads=self.heads,
            kv_heads=self.heads,
            key_width=latent.qk_nope_head_dim + latent.qk_rope_head_dim,
            value_width=latent.v_head_dim,
            backward=backward,
        )

    def _around_attention_backward(self) -> Calls:
        """Yield the products of result and gradient before it, and the gradients of queries turned to BF16 after."""
        tokens, width = self.tokens.local, self.heads * self.latent.v_head_dim
        yield Copy(size_bytes=BF16_BYTES * tokens * width)  # both are read, and next to nothing written
        yield Copy(size_bytes=3 * tokens * self._query_width)  # FP32 read, BF16 written: 6 bytes a value
        yield Rotary(rows=tokens * self.heads, width=self.latent.qk_rope_head_dim)
        yield from 2 * (Copy(size_bytes=BF16_BYTES * tokens * self._query_width),)  # taken apart again

    def _gate_forward(self) -> Calls:
        moe, hidden = self.model.moe, self.model.hidden_size
        if moe is not None and not self.is_dense:
            tokens, experts = self.tokens.local, moe.num_routed_experts
            yield Gemm(rows=tokens, columns=experts, depth=hidden, format="bf16")
            yield Gate(tokens=tokens, experts=experts, chosen=moe.experts_per_token)
            yield self._quantise(hidden)  # for dispatch

    def _gate_backward(self) -> Calls:
        moe, hidden = self.model.moe, self.model.hidden_size
        if moe is not None and not self.is_dense:
            tokens, experts = self.tokens.local, moe.num_routed_experts
            yield Gemm(rows=experts, columns=hidden, depth=tokens, format="bf16", accumulate=True)
            yield Gemm(rows=tokens, columns=hidden, depth=experts, format="bf16")

    def _pack(self) -> KernelCall:
        tokens = self.tokens
        return Pack(tokens=tokens.received, rows=tokens.rows, width=self.model.hidden_size, from_format="fp8")

    def _shared_forward(self) -> Calls:
        if self._shared:
            yield from self._feed_forward(self._shared)

    def _shared_backward(self) -> Calls:
        if self._shared:
            yield from self._feed_forward_backward(self._shared)

    def _feed_forward(self, inner: int) -> Calls:
        yield self._product(2 * inner, self.model.hidden_size)
        yield Activation(rows=self.tokens.local, width=inner)
        yield self._product(self.model.hidden_size, inner)

    def _feed_forward_backward(self, inner: int) -> Calls:
        yield self._product(inner, self.model.hidden_size)
        yield Activation(rows=self.tokens.local, width=inner, backward=True)
        yield from 2 * (self._quantise(2 * inner),)  # for the product, and laid out for the gradient
        yield self._product(self.model.hidden_size, 2 * inner)
