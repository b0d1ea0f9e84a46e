"""The fields of `decode-step` and `prefill-step`."""

from math import log
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from simulator.units import Bytes, FieldError, Seconds, Spec
from workloads.expert_settings import ExpertSettings
from workloads.group_traffic import LoadChanges
from workloads.kernel_call import Arithmetic
from workloads.tasks import IntArray


def check_cached(cached: int, most: int, field: str) -> None:
    """Raise FieldError at a field where a request would have more tokens in the cache than a model has room for."""
    if cached > most:
        msg = (
            f"with {cached:,} tokens in the cache a request would go beyond the model's context, which has room for "
            f"{most:,} beside the new ones; use at most {most:,}"
        )
        raise FieldError(field, msg)


class UniformTokens(Spec):
    """Any number between two, each as likely."""

    kind: Literal["uniform"] = Field(
        description="how many tokens a request has in the cache; `uniform`: any number between two, all as likely"
    )
    least: int = Field(ge=0, description="the fewest; a count (no default)")
    most: int = Field(ge=0, description="the most; a count (no default)")

    def draw(self, count: int, most: int, rng: np.random.Generator) -> IntArray:
        """Return so many numbers, none above `most`: [count]."""
        drawn: IntArray = np.minimum(rng.integers(self.least, self.most + 1, count), most)
        return drawn

    def check(self, most: int) -> None:
        """Raise FieldError where there is no number between the two, or some are above `most`."""
        if self.least > self.most:
            msg = f"the most must be at least the fewest, {self.least:,}, not {self.most:,}"
            raise FieldError("most", msg)
        check_cached(self.most, most, "most")

    def mean_of_all(self, _most: int) -> float:
        """Return the mean; none is above the most."""
        return (self.least + self.most) / 2


class LognormalTokens(Spec):
    """Numbers whose logarithms are normal."""

    kind: Literal["lognormal"] = Field(
        description="how many tokens a request has in the cache; `lognormal`: with a mean, cut off where the model's "
        "context ends"
    )
    mean: int = Field(ge=1, description="their mean, before the cut; a count (no default)")
    sigma: float = Field(ge=0, le=5, description="standard deviation of their logarithms (no default)")

    def draw(self, count: int, most: int, rng: np.random.Generator) -> IntArray:
        """Return so many numbers, cut off above `most`: [count]."""
        drawn = self.mean * np.exp(rng.normal(-(self.sigma**2) / 2, self.sigma, count))
        counts: IntArray = np.minimum(np.rint(drawn).astype(np.int64), most)
        return counts

    def check(self, most: int) -> None:
        """Raise FieldError where the mean is above `most`."""
        check_cached(self.mean, most, "mean")

    def mean_of_all(self, most: int) -> float:
        """Return the mean, of numbers cut off above `most`."""
        if self.sigma == 0.0:
            return float(min(self.mean, most))
        # E[min(X, m)] = mean P(Y <= m) + m P(X > m), log Y being as much above log X as sigma squared
        normal = NormalDist(log(self.mean) - self.sigma**2 / 2, self.sigma)
        below = normal.cdf(log(most) - self.sigma**2) if most else 0.0
        return self.mean * below + most * (1.0 - normal.cdf(log(most)) if most else 0.0)


TokenDistribution = Annotated[
    UniformTokens | LognormalTokens,
    Field(discriminator="kind", description="how many tokens a request has in the cache, by its `kind`"),
]


class InferenceSettings(ExpertSettings):
    """How a model is served: its division over ranks, and what the ranks overlap."""

    expert_parallel: int = Field(
        default=1,
        ge=1,
        le=65536,
        description="expert-parallel degree: the ranks of one group, which together hold all experts; a count that "
        "divides the ranks, and is a part of a node that divides it or some whole nodes; 1 for a model without "
        "experts (default 1)",
    )
    tensor_parallel: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="tensor-parallel degree of attention, dense parts, shared experts and head: neighbouring ranks "
        "that work on the requests of all of them, each on some heads; a count that divides the ranks of a node "
        "(default 1)",
    )
    number_format: Arithmetic = Field(
        default="fp8",
        description="arithmetic of linear layers, and how their weights are held; fp8 or bf16; embedding, head and "
        "gate are always bf16 (default fp8)",
    )
    cache_format: Literal["bf16", "fp8"] = Field(
        default="bf16",
        description="number format of the cache of keys and values; bf16 or fp8 (default bf16)",
    )
    micro_batches: Literal[1, 2] = Field(
        default=2,
        description="parts of the batch of which one computes while the other's tokens travel; 2, or 1: the batch "
        "as a whole, whose computation waits (default 2)",
    )
    load_changes: LoadChanges = Field(
        default="never",
        description="when popularities and tokens' experts are drawn anew; `never`: all layers and micro-batches "
        "have the same; `per-layer`; `per-micro-batch`: in each layer of each micro-batch (default never)",
    )
    pace: Literal["lockstep", "own"] = Field(
        default="lockstep",
        description="how the ranks of a group get on; `lockstep`: they start every kernel and exchange together, and "
        "compute as the one that has most to do; `own`: each starts what it can, and waits for others only where "
        "tokens from them are to come; that takes many times as long to simulate (default lockstep)",
    )
    framework_overhead: Seconds = Field(
        default=0.0,
        description="time of a step that is neither computation nor communication: scheduling, sampling, launches "
        "(default 0 s: none, which results say)",
    )
    ignore_memory: bool = Field(
        default=False,
        description="run even if a GPU has too little memory; true or false (default false)",
    )

    def needed_ranks(self) -> int:
        """Return the ranks of one group that works in lockstep."""
        return self.group_size

    @property
    def group_size(self) -> int:
        """Ranks that work in lockstep: an expert-parallel group, or a tensor-parallel one where that is larger."""
        return max(self.expert_parallel, self.tensor_parallel)


class HostCopies(Spec):
    """Caches that come out of the memory of a node's host."""

    kind: Literal["host"] = Field(
        description="where the caches of requests come from that arrive meanwhile; `host`: the memory of the node's "
        "host, over PCIe, which a GPU's NIC hangs off too"
    )
    size_per_step: Bytes = Field(
        gt=0, description="bytes that each GPU gets during a step, as many beside each layer (no default)"
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        description="share of a link relative to a flow of dispatch or combine of mean size, on links that both "
        "cross: less than 1 gives way to those, as priorities on PCIe would (default 1)",
    )


class PrefillTransfers(Spec):
    """Caches that come from GPUs that prefill."""

    kind: Literal["prefill"] = Field(
        description="where the caches of requests come from that arrive meanwhile; `prefill`: GPUs of the same "
        "cluster that decode nothing, over the network"
    )
    gpus: int = Field(
        ge=1,
        description="GPUs that prefill, the last ones of the cluster; a count, of whole nodes; each serves every "
        "so-manieth GPU that decodes (no default)",
    )
    size_per_step: Bytes = Field(
        gt=0, description="bytes that each GPU gets during a step, as many beside each layer (no default)"
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        description="share of a link relative to a flow of dispatch or combine of mean size, on links that both "
        "cross (default 1)",
    )


CacheTransfers = Annotated[
    HostCopies | PrefillTransfers,
    Field(
        discriminator="kind",
        description="caches of new requests that come in meanwhile, by where they come from",
    ),
]


class DecodeSettings(InferenceSettings):
    """One token more for each request."""

    kind: Literal["decode-step"] = Field(
        description="one step of decoding: a token, or with MTP one and a draft, for each request of a batch"
    )
    batch_per_gpu: Annotated[int, Field(ge=1, le=2**20)] | Literal["largest"] = Field(
        description="requests for each GPU; a count that divides into micro-batches, or `largest`: as many as its "
        "memory holds (no default)",
    )
    cached_tokens: Annotated[int, Field(ge=0, le=2**31)] | TokenDistribution = Field(
        description="tokens that each request has in the cache; a count for all, or a distribution by its `kind` (no "
        "default)",
    )
    mtp_acceptance: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="share of the tokens drafted by multi-token prediction that hold; 0.8 to 0.9 for DeepSeek-V3 "
        "(arXiv 2505.09343, section 2.3.3); a step then computes two tokens of each request, and the MTP module "
        "(default none: no draft)",
    )
    intra_node: Literal["nvlink", "rdma"] = Field(
        default="nvlink",
        description="how messages reach other GPUs of the sender's node; `nvlink`, or `rdma`: from NIC to NIC, which "
        "must reach each other (default nvlink)",
    )
    cache_transfers: CacheTransfers | None = Field(
        default=None,
        description="caches of new requests that come in meanwhile, by the `kind` of where they come from (default "
        "none)",
    )
    limit: bool = Field(
        default=False,
        description="the idealised limit of arXiv 2505.09343, section 2.3.2, in place of a simulation: bytes of "
        "dispatch and combine over bandwidth, and nothing else; true or false (default false)",
    )

    @property
    def prefill_gpus(self) -> int:
        """GPUs at the end of the cluster that prefill."""
        return self.cache_transfers.gpus if isinstance(self.cache_transfers, PrefillTransfers) else 0

    def needed_ranks(self) -> int:
        """Return the ranks of one group that works in lockstep, and those that prefill."""
        return self.group_size + self.prefill_gpus

    def mean_cached(self, most: int) -> float:
        """Return the tokens of a request in the cache, on average, where there is room for `most`."""
        cached = self.cached_tokens
        return float(cached) if isinstance(cached, int) else cached.mean_of_all(most)

    @property
    def mtp_modules(self) -> int:
        """MTP modules that draft: one token is drafted, or none."""
        return 0 if self.mtp_acceptance is None else 1

    @property
    def query_tokens(self) -> int:
        """Tokens that a step computes of each request."""
        return 1 if self.mtp_acceptance is None else 2

    @property
    def tokens_per_request(self) -> float:
        """Tokens that a step gives to each request, on average."""
        return 1.0 + (self.mtp_acceptance or 0.0)


class PrefillSettings(InferenceSettings):
    """The prompts of new requests."""

    kind: Literal["prefill-step"] = Field(description="one forward pass over the prompts of new requests")
    prompt_tokens: int = Field(ge=1, le=2**24, description="tokens of each prompt; a count (no default)")
    tokens_per_gpu: int = Field(
        ge=1,
        le=2**24,
        description="tokens of a step for each GPU; a count, of whole prompts over the micro-batches and "
        "tensor-parallel ranks (no default)",
    )
    communication_sms: int = Field(
        default=24,
        ge=0,
        le=1024,
        description="streaming multiprocessors that dispatch and combine hold on each GPU, and no other kernel "
        "uses; a count (default 24, as in DeepSeek-V3's prefill profile)",
    )
