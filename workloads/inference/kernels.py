"""The kernels of one GPU in a forward pass of inference: of a layer, and of the ends of the model.

As DeepSeek-V3 serves (technical report, arXiv 2412.19437, section 3.4, and the reference code, inference/model.py):

- *Decoding* absorbs the up-projection of keys into the query and that of values into the output: per head
  [tokens, 128] x [128, 512] and [tokens, 512] x [512, 128] in BF16, to which the reference code turns these weights;
  attention then reads one latent a cached token for all heads (FlashMLA). The projections cost what they cost
  otherwise; attention's products have 2 x 512 + 64 multiply-adds a pair and head instead of 192 + 128.
- *Prefill* expands latents to keys and values of each head, those of tokens cached before included.
- Both down-projections are one product, 2,112 columns in DeepGEMM's list of the model's shapes (its README); so are
  the projections to queries, keys and values of grouped-query attention, and gate and up of a feed-forward part.
- *Tensor parallelism* divides heads, feed-forward values and vocabulary, and tokens elsewhere (sequence parallelism,
  section 3.4.1), as in training: what ranks divide works on all tokens of the group, the rest on each one's own.
  FLOPs of the ranks add up to those of one, but for tokens that do not divide and key heads on several ranks.
- *Experts*: DeepEP's normal kernels deliver each token once, so that tokens are packed by expert before the products
  and copies added up behind them; its low-latency kernels deliver rows in the order of their experts, and weigh and
  add up on the way back (`low_latency_dispatch` and `low_latency_combine` of deep_ep/buffer.py).
- FP8 inputs of products are quantised by kernels of their own; gate, attention, embedding, head and the projection of
  an MTP module stay BF16 (section 3.3.1; the published checkpoint has no scales for them).

A fused implementation is assumed otherwise: residuals are added by the next norm, the absorbed query is written next
to its rotary part, biases are added by the products.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from workloads.inference.cache import (
    CacheFormat,
    Fp8Attention,
    Fp8LatentAttention,
    check_heads,
    kv_heads_held,
)
from workloads.kernel_call import Arithmetic, KernelCall
from workloads.kernels import BF16_BYTES, Attention, Gemm, LatentAttention
from workloads.models import GroupedQueryAttention, Model, MultiHeadLatentAttention
from workloads.streaming_kernels import Activation, Copy, Gate, Norm, Pack, Quantise, Reduce, Rotary
from workloads.training.end_kernels import EndKernels

Calls = Iterator[KernelCall]


@dataclass(frozen=True, slots=True)
class Work:
    """What a GPU works on: one micro-batch.

    requests: that its attention works on, those of its whole tensor-parallel group
    query_tokens: new tokens of each request: 1 in decoding, 2 with one drafted; the prompt in prefill
    cached_tokens: keys of each request, its new ones included; mean over requests
    rows: pairs of a token and an expert that its experts get; may be 0
    received: tokens that dispatch brings it, each once; no matter where rows are packed
    experts: that this GPU holds of a layer, copies included
    """

    requests: int
    query_tokens: int
    cached_tokens: float
    rows: int = 0
    received: int = 0
    experts: int = 0

    @property
    def tokens(self) -> int:
        """New tokens of the whole tensor-parallel group."""
        return self.requests * self.query_tokens

    @property
    def keys(self) -> int:
        """Cached tokens of all requests, rounded up."""
        return ceil(self.requests * self.cached_tokens)


@dataclass(frozen=True, slots=True)
class InferenceKernels:
    """The kernels of a model on one GPU.

    tensor_parallel: degree; number_format: of weights and products, but for those that are always BF16
    absorbed: whether latent attention reads latents (decoding) or expands them (prefill); no matter to other models
    packed: whether dispatch delivers rows by expert, as low-latency kernels do, or tokens, each once

    Raises FieldError where the degree does not divide the model.
    """

    model: Model
    work: Work
    tensor_parallel: int
    number_format: Arithmetic
    absorbed: bool
    cache_format: CacheFormat = "bf16"
    packed: bool = False

    def __post_init__(self) -> None:
        check_heads(self.model, self.tensor_parallel)

    # Attention

    def attention(self, layer: int) -> Calls:
        """Yield the kernels up to the feed-forward part, or up to dispatch; layer: from 0, MTP modules continue."""
        yield from self.inputs()
        yield from self.heads()
        yield from self.routing(layer)

    def inputs(self) -> Calls:
        """Yield the norm, and latents where the model has them: of a rank's own tokens."""
        attention, hidden = self.model.attention, self.model.hidden_size
        yield Norm(rows=self._own, width=hidden)
        yield from self._quantise(self._own, hidden)
        if isinstance(attention, MultiHeadLatentAttention):
            rank = attention.q_lora_rank or 0
            columns = rank + attention.kv_lora_rank + attention.qk_rope_head_dim
            yield self._product(self._own, columns, hidden)
            if rank:
                yield Norm(rows=self._own, width=rank)
                yield from self._quantise(self._own, rank)
            yield Norm(rows=self._own, width=attention.kv_lora_rank)

    def heads(self) -> Calls:
        """Yield queries and keys, attention, and the output projection: of all tokens, for this GPU's heads."""
        attention = self.model.attention
        if isinstance(attention, GroupedQueryAttention):
            width = attention.head_dim
            yield from self._grouped_query(attention)
        else:
            width = attention.v_head_dim
            yield from self._absorbed(attention) if self.absorbed else self._expanded(attention)
        tokens, result = self.work.tokens, self._heads * width
        yield from self._quantise(tokens, result)
        yield self._product(tokens, self.model.hidden_size, result)

    def routing(self, layer: int) -> Calls:
        """Yield the norm before the feed-forward part, gate and quantisation for dispatch: of a rank's own tokens."""
        moe, hidden, tokens = self.model.moe, self.model.hidden_size, self._own
        yield Norm(rows=tokens, width=hidden)
        if moe is not None and self.model.is_moe_layer(layer):
            yield Gemm(rows=tokens, columns=moe.num_routed_experts, depth=hidden, format="bf16")
            yield Gate(tokens=tokens, experts=moe.num_routed_experts, chosen=moe.experts_per_token)
            yield from self._quantise(tokens, hidden)

    # Feed-forward parts

    def experts(self) -> Calls:
        """Yield the kernels between dispatch and combine: none where no token came.

        An expert without tokens is passed over, so that the weights of at most as many experts are read as rows came.
        """
        work, hidden, moe = self.work, self.model.hidden_size, self.model.moe
        if moe is None or not work.rows:
            return
        if not self.packed:
            yield Pack(
                tokens=work.received,
                rows=work.rows,
                width=hidden,
                from_format=self.number_format,
                to_format=self.number_format,
            )
        yield from self._feed_forward(work.rows, moe.intermediate_size, groups=min(work.experts, work.rows))
        if not self.packed:
            yield Reduce(tokens=work.received, rows=work.rows, width=hidden)

    def shared(self) -> Calls:
        """Yield the shared experts' kernels: of all tokens, for this GPU's values; inputs are those of dispatch."""
        moe = self.model.moe
        if moe is not None and moe.num_shared_experts:
            width = moe.num_shared_experts * moe.intermediate_size // self.tensor_parallel
            yield from self._feed_forward(self.work.tokens, width)

    def dense(self) -> Calls:
        """Yield the kernels of a dense feed-forward part: of all tokens, for this GPU's values."""
        yield from self._quantise(self._own, self.model.hidden_size)
        yield from self._feed_forward(self.work.tokens, self.model.intermediate_size // self.tensor_parallel)

    # Ends of the model

    def embedding(self) -> Calls:
        """Yield the look-up of all tokens; of those whose vectors another rank holds, zeros."""
        yield from self._ends(self.work.tokens).embedding_forward()

    def head(self, tokens: int | None = None) -> Calls:
        """Yield the final norm, the logits for the vocabulary that is here, and one reading of them.

        tokens: of the tensor-parallel group that need logits, by default all; in prefill the last of each request
        """
        yield from self._ends(self.work.tokens if tokens is None else tokens).head_forward()

    def mtp_input(self) -> Calls:
        """Yield how an MTP module joins the next tokens' embeddings before its layer: two norms, the projection."""
        hidden = self.model.hidden_size
        yield from 2 * (Norm(rows=self._own, width=hidden),)
        yield Gemm(rows=self._own, columns=hidden, depth=2 * hidden, format="bf16")

    # Parts

    @property
    def _own(self) -> int:
        """Return a rank's own tokens, where sequence parallelism divides them."""
        return -(-self.work.tokens // self.tensor_parallel)

    @property
    def _heads(self) -> int:
        return self.model.num_heads // self.tensor_parallel

    def _ends(self, tokens: int) -> EndKernels:
        return EndKernels(
            self.model,
            tokens=-(-tokens // self.tensor_parallel),
            vocabulary=-(-self.model.vocab_size // self.tensor_parallel),
            number_format="bf16",
            tensor_parallel=self.tensor_parallel,
        )

    def _product(self, rows: int, columns: int, depth: int, groups: int = 1) -> KernelCall:
        return Gemm(rows=rows, columns=columns, depth=depth, groups=groups, format=self.number_format)

    def _quantise(self, rows: int, width: int) -> Calls:
        """Yield the conversion of a product's input, where products are FP8."""
        if self.number_format == "fp8":
            yield Quantise(rows=rows, width=width)

    def _feed_forward(self, rows: int, inner: int, groups: int = 1) -> Calls:
        """Yield gate and up, SwiGLU, and down; groups: experts with weights of their own."""
        hidden = self.model.hidden_size
        yield self._product(rows, 2 * inner, hidden, groups)
        yield Activation(rows=rows, width=inner, to_format=self.number_format)
        yield self._product(rows, hidden, inner, groups)

    def _cache_latents(self, latent: MultiHeadLatentAttention) -> Calls:
        """Yield the writing of the cache: of all tokens, since each rank has the latents whole."""
        tokens, rotary = self.work.tokens, latent.qk_rope_head_dim
        if self.cache_format == "fp8":
            yield Quantise(rows=tokens, width=latent.kv_lora_rank)
            yield Copy(size_bytes=BF16_BYTES * tokens * rotary)
        else:
            yield Copy(size_bytes=BF16_BYTES * tokens * (latent.kv_lora_rank + rotary))

    def _queries(self, latent: MultiHeadLatentAttention) -> Calls:
        """Yield queries of this GPU's heads, the turning of all rotary parts, and the writing of the cache."""
        tokens, query = self.work.tokens, latent.qk_nope_head_dim + latent.qk_rope_head_dim
        yield self._product(tokens, self._heads * query, latent.q_lora_rank or self.model.hidden_size)
        yield Rotary(rows=tokens * (self._heads + 1), width=latent.qk_rope_head_dim)
        yield from self._cache_latents(latent)

    def _absorbed(self, latent: MultiHeadLatentAttention) -> Calls:
        work, heads, rank = self.work, self._heads, latent.kv_lora_rank
        rows = work.tokens * heads
        yield from self._queries(latent)
        yield Gemm(rows=rows, columns=rank, depth=latent.qk_nope_head_dim, groups=heads, format="bf16")
        kind = Fp8LatentAttention if self.cache_format == "fp8" else LatentAttention
        yield kind(
            requests=work.requests,
            query_tokens=work.query_tokens,
            cached_tokens=float(work.cached_tokens),
            heads=heads,
            latent=rank,
            rotary=latent.qk_rope_head_dim,
        )
        yield Gemm(rows=rows, columns=latent.v_head_dim, depth=rank, groups=heads, format="bf16")

    def _expanded(self, latent: MultiHeadLatentAttention) -> Calls:
        work, heads = self.work, self._heads
        query = latent.qk_nope_head_dim + latent.qk_rope_head_dim
        yield from self._queries(latent)
        yield from self._quantise(work.keys, latent.kv_lora_rank)
        yield self._product(
            work.keys, heads * (latent.qk_nope_head_dim + latent.v_head_dim), latent.kv_lora_rank
        )
        # each head's keys are put together with the rotary part that heads share
        yield Copy(size_bytes=BF16_BYTES * work.keys * heads * query)
        yield Attention(  # keys and values were just expanded: BF16, whatever the cache is
            requests=work.requests,
            query_tokens=work.query_tokens,
            cached_tokens=float(work.cached_tokens),
            heads=heads,
            kv_heads=heads,
            key_width=query,
            value_width=latent.v_head_dim,
        )

    def _grouped_query(self, attention: GroupedQueryAttention) -> Calls:
        work, heads, width = self.work, self._heads, attention.head_dim
        kv_heads = kv_heads_held(attention, self.tensor_parallel)
        yield self._product(work.tokens, (heads + 2 * kv_heads) * width, self.model.hidden_size)
        yield Rotary(rows=work.tokens * (heads + kv_heads), width=width)
        if self.cache_format == "fp8":
            yield Quantise(rows=work.tokens * 2 * kv_heads, width=width)
        else:
            yield Copy(size_bytes=BF16_BYTES * work.tokens * 2 * kv_heads * width)
        kind = Fp8Attention if self.cache_format == "fp8" else Attention
        yield kind(
            requests=work.requests,
            query_tokens=work.query_tokens,
            cached_tokens=float(work.cached_tokens),
            heads=heads,
            kv_heads=kv_heads,
            key_width=width,
            value_width=width,
        )
