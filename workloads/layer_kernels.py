"""The kernels of a transformer layer in training: forward, backward for inputs, and backward for weights.

As DeepSeek-V3 trains (technical report, arXiv 2412.19437, sections 3.2.3 and 3.3): FP8 products with scales of 1x128
and 128x128 values, whose inputs are kept in FP8 and laid out anew for the gradient of weights; norms, the
up-projections of MLA and SwiGLU are computed again in the backward pass, not kept. Which kernels that takes is read
off the published trace of a training step (see docs/kernels.md), each with the bytes that it must move.

Tensor-parallel ranks divide heads and feed-forward values, and tokens elsewhere (sequence parallelism, arXiv
2205.05198): parts of a layer come in pieces too, between which `workloads.training.tensor_parallel` gathers tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from workloads.kernel_call import Arithmetic, KernelCall
from workloads.kernels import BF16_BYTES, Attention, Gemm
from workloads.models import Model, MultiHeadLatentAttention
from workloads.streaming_kernels import Activation, Copy, Gate, Norm, Pack, Quantise, Reduce, Rotary

Calls = Iterator[KernelCall]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a GPU works on at a time.

    local: its own tokens, of whole sequences (with those of its tensor-parallel peers); sequence: tokens of each
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
    tensor_parallel: degree; what ranks divide works on the tokens of all of them, the rest on each one's own
    """

    model: Model
    latent: MultiHeadLatentAttention
    tokens: Tokens
    heads: int
    number_format: Arithmetic
    is_dense: bool = False
    tensor_parallel: int = 1

    # Attention: norm, latents, up-projections, attention, output, norm and gate

    def attention_forward(self) -> Calls:
        """Yield the kernels up to the dispatch, its quantisation included."""
        yield from self.latents_forward()
        yield from self.heads_forward()
        yield from self.routing_forward()

    def attention_backward(self) -> Calls:
        """Yield the kernels behind the combine's gradient, up to the gradient of the layer's input."""
        yield from self.routing_backward()
        yield from self.heads_backward()
        yield from self.latents_backward()

    def attention_weight(self) -> Calls:
        """Yield the gradients of attention's weights."""
        yield from self.heads_weight()
        yield from self.latents_weight()

    def latents_forward(self) -> Calls:
        """Yield the kernels up to the inputs of the up-projections: of a rank's own tokens."""
        hidden = self.model.hidden_size
        yield self._norm(hidden)
        yield self._quantise(hidden)
        yield from self._down()
        yield from self._latent_inputs()

    def heads_forward(self) -> Calls:
        """Yield the kernels from the up-projections to the output projection: of all tokens, for this GPU's heads."""
        width, tokens = self.heads * self.latent.v_head_dim, self._all_tokens
        yield from self._up()
        yield self._attention(backward=False)
        yield from 2 * (self._quantise(width, tokens),)  # for the product, and laid out for the gradient
        yield self._product(self.model.hidden_size, width, tokens)

    def routing_forward(self) -> Calls:
        """Yield the norm before the feed-forward part and the gate: of a rank's own tokens."""
        yield self._norm(self.model.hidden_size)
        yield from self._gate_forward()

    def routing_backward(self) -> Calls:
        """Yield their gradients and, where peers need them, the inputs of the up-projections again."""
        yield from self._gate_backward()
        yield self._norm(self.model.hidden_size)
        yield from 2 * (
            self._quantise(self.model.hidden_size),
        )  # for the product, and laid out for the gradient
        if self._is_divided:
            yield from self._latent_inputs()

    def heads_backward(self) -> Calls:
        """Yield the kernels from the gradient of attention's output to those of latents."""
        latent, hidden, tokens = self.latent, self.model.hidden_size, self._all_tokens
        width, queries, keys = self.heads * latent.v_head_dim, self._query_width, self._key_width
        yield self._product(width, hidden, tokens)
        if not self._is_divided:
            yield from self._latent_inputs()
        yield from self._up()  # computed again
        yield self._attention(backward=True)
        yield from self._around_attention_backward()
        yield from 2 * (self._quantise(queries, tokens), self._quantise(keys, tokens))
        yield self._product(latent.q_lora_rank or hidden, queries, tokens)
        yield self._product(latent.kv_lora_rank, keys, tokens)

    def latents_backward(self) -> Calls:
        """Yield the kernels from the gradients of latents to that of the layer's input."""
        latent, hidden = self.latent, self.model.hidden_size
        for rank in filter(None, (latent.kv_lora_rank + latent.qk_rope_head_dim, latent.q_lora_rank)):
            yield self._norm(rank)
            yield from 2 * (self._quantise(rank),)
            yield self._product(hidden, rank)
        yield self._norm(hidden)
        yield Copy(size_bytes=BF16_BYTES * self.tokens.local * hidden)  # joins the residual's gradient

    def heads_weight(self) -> Calls:
        """Yield the gradients of the weights that heads divide: output and up-projections."""
        latent, hidden, tokens = self.latent, self.model.hidden_size, self._all_tokens
        yield self._weight_gradient(hidden, self.heads * latent.v_head_dim, tokens)
        yield self._weight_gradient(self._key_width, latent.kv_lora_rank, tokens)
        yield self._weight_gradient(self._query_width, latent.q_lora_rank or hidden, tokens)

    def latents_weight(self) -> Calls:
        """Yield the gradients of the down-projections: what a rank's own tokens add to them."""
        latent, hidden = self.latent, self.model.hidden_size
        yield self._weight_gradient(latent.kv_lora_rank + latent.qk_rope_head_dim, hidden)
        if latent.q_lora_rank:
            yield self._weight_gradient(latent.q_lora_rank, hidden)

    # Experts

    def experts_forward(self) -> Calls:
        """Yield the kernels between dispatch and combine: the shared expert's, then the routed ones'."""
        yield from self.shared_forward()
        yield from self.routed_forward()

    def experts_backward(self) -> Calls:
        """Yield the kernels between the gradients' dispatch and combine, without those of weights."""
        yield from self.routed_backward()
        yield from self.shared_backward()

    def experts_weight(self) -> Calls:
        """Yield the gradients of the experts' weights, and the laying out of what dispatch brought."""
        yield from self.shared_weight()
        yield from self.routed_weight()

    def routed_forward(self) -> Calls:
        """Yield the routed experts' kernels."""
        tokens, hidden, inner = self.tokens, self.model.hidden_size, self._inner
        yield self._pack()
        yield self._grouped(2 * inner, hidden)
        yield Activation(rows=tokens.rows, width=inner)
        yield self._grouped(hidden, inner)
        yield Reduce(tokens=tokens.received, rows=tokens.rows, width=hidden)
        yield self._quantise(2 * inner, tokens.rows)  # SwiGLU's input, kept to compute it again

    def routed_backward(self) -> Calls:
        """Yield their kernels backward, then the experts' input again."""
        tokens, hidden, inner = self.tokens, self.model.hidden_size, self._inner
        yield self._pack()
        yield self._grouped(inner, hidden)
        yield Activation(rows=tokens.rows, width=inner)  # computed again
        yield Activation(rows=tokens.rows, width=inner, backward=True)
        yield self._quantise(inner, tokens.rows)  # laid out for the gradient of the second product
        yield from 2 * (self._quantise(2 * inner, tokens.rows),)  # for the product, and laid out
        yield self._grouped(hidden, 2 * inner)
        yield Reduce(tokens=tokens.received, rows=tokens.rows, width=hidden)
        yield from self._input_again()

    def routed_weight(self) -> Calls:
        """Yield the gradients of their weights."""
        tokens, hidden, inner = self.tokens, self.model.hidden_size, self._inner
        laid_out = Quantise(rows=tokens.rows, width=hidden, from_format="fp8")
        yield from (laid_out, laid_out)  # the input, and the gradient of the result
        yield self._grouped_weight_gradient(hidden, inner)
        yield self._grouped_weight_gradient(2 * inner, hidden)

    def shared_forward(self) -> Calls:
        """Yield the shared experts' kernels: of all tokens, for this GPU's values."""
        if self._shared:
            yield from self._feed_forward(self._shared)

    def shared_backward(self) -> Calls:
        """Yield their kernels backward."""
        if self._shared:
            yield from self._feed_forward_backward(self._shared)

    def shared_weight(self) -> Calls:
        """Yield the gradients of their weights."""
        if self._shared:
            yield from self._feed_forward_weight(self._shared)

    # A dense feed-forward part

    def dense_forward(self) -> Calls:
        """Yield the kernels of a dense feed-forward part."""
        yield from self.dense_own_forward()
        yield from self.dense_divided_forward()

    def dense_backward(self) -> Calls:
        """Yield its kernels backward, without those of weights."""
        yield from self.dense_own_backward()
        yield from self.dense_divided_backward()
        if not self._is_divided:
            yield from self._input_again()

    def dense_weight(self) -> Calls:
        """Yield the gradients of its weights."""
        yield from self._feed_forward_weight(self._dense)

    def dense_own_forward(self) -> Calls:
        """Yield what comes before its products: of a rank's own tokens."""
        yield self._quantise(self.model.hidden_size)

    def dense_divided_forward(self) -> Calls:
        """Yield its products and what lies between: of all tokens, for this GPU's values."""
        yield from self._feed_forward(self._dense)
        yield self._quantise(2 * self._dense, self._all_tokens)

    def dense_own_backward(self) -> Calls:
        """Yield what comes before its gradients and, where peers need it, the part's input again."""
        yield from 2 * (self._quantise(self.model.hidden_size),)
        if self._is_divided:
            yield from self._input_again()

    def dense_divided_backward(self) -> Calls:
        """Yield the gradients of its products' inputs."""
        yield Activation(rows=self._all_tokens, width=self._dense)  # computed again
        yield self._quantise(self._dense, self._all_tokens)
        yield from self._feed_forward_backward(self._dense)

    # Parts

    @property
    def _is_divided(self) -> bool:
        """Return whether peers need some of what this GPU computes, and it of theirs."""
        return self.tensor_parallel > 1

    @property
    def _all_tokens(self) -> int:
        """Return the tokens of all tensor-parallel ranks together."""
        return self.tokens.local * self.tensor_parallel

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
        """Return the width of all shared experts together, as much as this GPU has of it."""
        moe = self.model.moe
        return moe.num_shared_experts * moe.intermediate_size // self.tensor_parallel if moe else 0

    @property
    def _dense(self) -> int:
        """Return the width of a dense feed-forward part, as much as this GPU has of it."""
        return self.model.intermediate_size // self.tensor_parallel

    def _norm(self, width: int) -> KernelCall:
        return Norm(rows=self.tokens.local, width=width)

    def _quantise(self, width: int, rows: int | None = None) -> KernelCall:
        return Quantise(rows=rows or self.tokens.local, width=width)

    def _product(self, columns: int, depth: int, rows: int | None = None) -> KernelCall:
        return Gemm(rows=rows or self.tokens.local, columns=columns, depth=depth, format=self.number_format)

    def _weight_gradient(self, columns: int, depth: int, tokens: int | None = None) -> KernelCall:
        """Return the gradient of a weight matrix [columns, depth]; tokens: all that add to it, by default its own."""
        tokens = tokens or self.tokens.local
        return Gemm(rows=columns, columns=depth, depth=tokens, format=self.number_format, accumulate=True)

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

    def _latent_inputs(self) -> Calls:
        """Yield latents turned to the inputs of the up-projections."""
        latent = self.latent
        if latent.q_lora_rank:
            yield self._norm(latent.q_lora_rank)
            yield self._quantise(latent.q_lora_rank)
        yield self._norm(latent.kv_lora_rank)
        yield self._quantise(latent.kv_lora_rank)

    def _up(self) -> Calls:
        """Yield queries, keys and values of this GPU's heads from the up-projections' inputs."""
        latent, tokens = self.latent, self._all_tokens
        yield self._product(self._query_width, latent.q_lora_rank or self.model.hidden_size, tokens)
        yield self._product(self._key_width, latent.kv_lora_rank, tokens)
        yield Rotary(rows=tokens * self.heads, width=latent.qk_rope_head_dim)
        # keys of each head are put together with the rotary part that heads share, and queries with their own
        yield from 2 * (Copy(size_bytes=BF16_BYTES * tokens * self._query_width),)

    def _attention(self, *, backward: bool) -> KernelCall:
        latent, sequence = self.latent, self.tokens.sequence
        return Attention(
            requests=self._all_tokens // sequence,
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
        tokens, width = self._all_tokens, self.heads * self.latent.v_head_dim
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

    def _input_again(self) -> Calls:
        """Yield the input of the feed-forward part, computed again and laid out for the gradient of weights."""
        yield self._norm(self.model.hidden_size)
        yield self._quantise(self.model.hidden_size)

    def _feed_forward(self, inner: int) -> Calls:
        hidden, tokens = self.model.hidden_size, self._all_tokens
        yield self._product(2 * inner, hidden, tokens)
        yield Activation(rows=tokens, width=inner)
        yield self._product(hidden, inner, tokens)

    def _feed_forward_backward(self, inner: int) -> Calls:
        hidden, tokens = self.model.hidden_size, self._all_tokens
        yield self._product(inner, hidden, tokens)
        yield Activation(rows=tokens, width=inner, backward=True)
        yield from 2 * (self._quantise(2 * inner, tokens),)  # for the product, and laid out for the gradient
        yield self._product(hidden, 2 * inner, tokens)

    def _feed_forward_weight(self, inner: int) -> Calls:
        hidden, tokens = self.model.hidden_size, self._all_tokens
        yield self._weight_gradient(hidden, inner, tokens)
        yield self._weight_gradient(2 * inner, hidden, tokens)
