"""The KV cache in inference: the bytes of a token, as ranks divide them, and attention that reads them in FP8.

| cache | a token in one layer, DeepSeek-V3 | Qwen-2.5-72B (8 key heads of 128) |
|---|---|---|
| bf16 | 512 latent + 64 rotary values x 2 = 1,152 | 2 x 8 x 128 x 2 = 4,096 |
| fp8 | 512 + 4 scales x 4 + 64 x 2 = 656 | 2 x 8 x (128 + 4) = 2,112 |

FP8 of latent attention is FlashMLA's "FP8 with scale" (its README): the latent with an FP32 scale per 128 values, the
rotary key in BF16; its kernel turns values to BF16 and multiplies those. Keys and values with heads of their own get
an FP32 scale per 128 values too, by our own choice: engines differ there.

Tensor-parallel ranks divide key heads; where there are more ranks than heads, a head is on several. The latent is
what all heads share, so that each rank has it whole (DeepSeek-V2, arXiv 2405.04434, section 2.1).
"""

from typing import Literal

from pydantic import Field

from simulator.units import FieldError
from workloads.formats import NumberFormat
from workloads.kernels import BF16_BYTES, Attention, LatentAttention
from workloads.layer_parameters import check_division
from workloads.models import GroupedQueryAttention, Model

CacheFormat = Literal["bf16", "fp8"]


def cached_bytes(model: Model, cache_format: CacheFormat, tensor_parallel: int = 1) -> int:
    """Return the bytes that a token leaves in one layer's cache on a rank."""
    attention = model.attention
    if isinstance(attention, GroupedQueryAttention):
        kv_heads = kv_heads_held(attention, tensor_parallel)
        return 2 * kv_heads * NumberFormat.named(cache_format).payload_bytes(attention.head_dim)
    return _latent_bytes(attention.kv_lora_rank, attention.qk_rope_head_dim, cache_format)


def kv_heads_held(attention: GroupedQueryAttention, tensor_parallel: int) -> int:
    """Return the key heads on a rank."""
    return -(-attention.num_kv_heads // tensor_parallel)


def check_heads(model: Model, tensor_parallel: int) -> None:
    """Raise FieldError where ranks cannot divide the model: heads, feed-forward values, queries of a key head."""
    check_division(model, tensor_parallel, expert_parallel=1)
    attention = model.attention
    if isinstance(attention, GroupedQueryAttention):
        queries, keys = model.num_heads // tensor_parallel, kv_heads_held(attention, tensor_parallel)
        if queries % keys:
            msg = (
                f"{attention.num_kv_heads} key heads do not divide over {tensor_parallel} tensor-parallel ranks: "
                f"{queries} query heads of a rank would share {keys}; use a divisor or a multiple of the key heads"
            )
            raise FieldError("tensor_parallel", msg)


class Fp8LatentAttention(LatentAttention):
    """Absorbed latent attention over a cache in FP8, in FlashMLA's layout; products are BF16."""

    cache_format: Literal["fp8"] = Field(default="fp8", description="number format of the cache: fp8")

    @property
    def moved_bytes(self) -> float:
        """Return the bytes of the cache in FP8, and of the queries and the result in BF16."""
        cached = self.requests * self.cached_tokens
        saved = BF16_BYTES * (self.latent + self.rotary) - _latent_bytes(self.latent, self.rotary, "fp8")
        return super().moved_bytes - cached * saved


class Fp8Attention(Attention):
    """Attention over keys and values in FP8 with an FP32 scale per 128; products are BF16."""

    cache_format: Literal["fp8"] = Field(default="fp8", description="number format of the cache: fp8")

    @property
    def moved_bytes(self) -> float:
        """Return the bytes of keys and values in FP8, and of queries and result in BF16."""
        fp8 = NumberFormat.named("fp8")
        cached = self.requests * self.cached_tokens * self.kv_heads
        saved = BF16_BYTES * (self.key_width + self.value_width)
        saved -= fp8.payload_bytes(self.key_width) + fp8.payload_bytes(self.value_width)
        return super().moved_bytes - cached * saved


def _latent_bytes(latent: int, rotary: int, cache_format: CacheFormat) -> int:
    return NumberFormat.named(cache_format).payload_bytes(latent) + BF16_BYTES * rotary
