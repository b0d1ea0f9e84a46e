"""Bytes of GPU memory that a rank needs in training, by part.

| part | bytes |
|---|---|
| weights | parameters of all stages held, x 2 (BF16) |
| gradients | as many, x 4 (FP32), whole on every rank: ZeRO-1 divides what is the optimizer's alone |
| optimizer | as many, x 8 (FP32 master weights, two BF16 moments), over the ranks that hold the same parameters |
| activations | what `workloads.kept_activations` lists, x tokens x micro-batches in flight; gradients that wait |
| working | one layer at work: 3 x its widest tensors in BF16 |
| communication_buffers | slots of the dispatch and combine kernels, and activations on their way between stages |

The formats are defaults, each a field, after DeepSeek-V3's training (arXiv 2412.19437, sections 3.2.3 and 3.3.3).

*Dense* parameters are on every rank that runs a stage, but for what tensor parallelism divides; routed experts are
divided over each expert-parallel group. DualPipe runs each stage on two pipeline ranks, which share the optimizer's
part. In DeepSeek-V3's layout, 128 ranks a pipeline rank, each dense parameter is on 2 x 128 = 256 ranks and each
expert on 2 x 128 / 64 = 4. MTP modules use the model's embedding and head: a rank that has both ends of the model
(DualPipe's first and last) holds them once; elsewhere the last stage holds a copy of the embedding, with gradients,
whose optimizer's part the first stage has, if it is divided.

*Working*: DualPipe computes one layer forward and one backward at once. The latter has the tensors of the former
again (recomputed), and their gradients: three times `kept_activations.values_at_work`.

*Buffers*: those of DeepEP's normal kernels (`workloads.exchange_buffers`); between stages a micro-batch's activation
and its gradient, in BF16, at each end of a stage that has a neighbour. Gradients are reduced, and weights gathered,
in place.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from pydantic import Field

from simulator.units import FieldError
from workloads.exchange_buffers import normal_buffer_bytes
from workloads.formats import FP32_BYTES
from workloads.kept_activations import (
    VALUE_BYTES,
    ActivationSettings,
    kept_by_head,
    kept_by_layer,
    kept_by_mtp,
    values_at_work,
    waiting_gradients,
    waiting_gradients_of_mtp,
)
from workloads.kernels import BF16_BYTES
from workloads.layer_parameters import Matrix, check_division, embedding
from workloads.memory_parts import PartsInBytes
from workloads.models import Model
from workloads.stage_layers import StageLayers, stage_matrices

MEMORY_ASSUMPTIONS: Final = (
    "Memory: each rank receives top-k rows of routed experts for each token that it has, as of a balanced gate.",
    "Memory: FP8 operands of weights are made from BF16 at each use; moving averages of weights are not on the GPU.",
    "Memory: logits are kept from the head's forward to its backward, which turns them into gradients in place.",
    "Memory: with tensor parallelism the ranks of a group divide all activations (sequence parallelism, arXiv "
    "2205.05198).",
    "Memory: CUDA's context, the buffers of NCCL and what the allocator wastes are not counted.",
)
_MOMENTS: Final = 2  # AdamW
_TENSORS_AT_WORK: Final = 3  # forward; backward's recomputed ones and their gradients


class MemorySettings(ActivationSettings):
    """How parameters, the optimizer's state and activations are kept in training."""

    weights: Literal["bf16", "fp32"] = Field(
        default="bf16",
        description="number format in which weights are held and gathered; bf16 or fp32 (default bf16)",
    )
    gradients: Literal["bf16", "fp32"] = Field(
        default="fp32",
        description="number format in which gradients are added up and reduced; bf16 or fp32 (default fp32)",
    )
    master_weights: Literal["none", "fp32"] = Field(
        default="fp32",
        description="number format of the optimizer's own copy of the weights; fp32, or none where `weights` serve "
        "(default fp32)",
    )
    moments: Literal["bf16", "fp32"] = Field(
        default="bf16", description="number format of AdamW's two moments; bf16 or fp32 (default bf16)"
    )
    shard_optimizer: bool = Field(
        default=True,
        description="divide the optimizer's state over the ranks that hold the same parameters (ZeRO-1); true or "
        "false (default true)",
    )

    @property
    def optimizer_bytes_per_parameter(self) -> int:
        """Bytes of master weights and moments: 8 in the defaults."""
        master = 0 if self.master_weights == "none" else FP32_BYTES
        return master + _MOMENTS * VALUE_BYTES[self.moments]


@dataclass(frozen=True, slots=True)
class TrainingRanks:
    """How ranks divide a model, as far as memory goes.

    ranks_per_pipeline_rank: data parallel x tensor parallel; expert_parallel, tensor_parallel: degrees;
    pipelines: on how many pipeline ranks each stage runs, 2 in DualPipe, else 1; communication_sms: of dispatch and
    combine. Raises FieldError where the degrees do not divide the ranks.
    """

    ranks_per_pipeline_rank: int
    expert_parallel: int
    tensor_parallel: int
    pipelines: int
    gpus_per_node: int
    communication_sms: int

    def __post_init__(self) -> None:
        for name in ("expert_parallel", "tensor_parallel"):
            degree = getattr(self, name)
            if degree < 1 or self.ranks_per_pipeline_rank % degree:
                msg = (
                    f"degree {degree} does not divide the {self.ranks_per_pipeline_rank} ranks of a pipeline rank; "
                    "use a divisor of it"
                )
                raise FieldError(name, msg)

    @property
    def dense_shards(self) -> int:
        """How many ranks hold the same dense parameters."""
        return self.ranks_per_pipeline_rank // self.tensor_parallel * self.pipelines

    @property
    def expert_shards(self) -> int:
        """How many ranks hold the same experts."""
        return self.ranks_per_pipeline_rank // self.expert_parallel * self.pipelines


@dataclass(frozen=True, slots=True)
class MemoryParts(PartsInBytes):
    """Bytes of GPU memory that a rank needs, by part; see the module."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    working: int
    communication_buffers: int


@dataclass(frozen=True, slots=True)
class HeldParameters:
    """Parameters on one rank, without those that other ranks of its groups hold.

    dense: all but routed experts; experts; borrowed: a copy of the embedding, of which the optimizer's part is
    another stage's where it is divided
    """

    dense: int
    experts: int
    borrowed: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.dense + self.experts + self.borrowed


def held_parameters(model: Model, stages_held: Sequence[StageLayers], ranks: TrainingRanks) -> HeldParameters:
    """Return how many parameters a rank holds; FieldError where the model does not divide over the ranks."""
    check_division(model, ranks.tensor_parallel, ranks.expert_parallel)
    matrices = [matrix for stage in stages_held for matrix in stage_matrices(model, stage)]

    def held(chosen: Iterable[Matrix], num_ranks: int) -> int:
        return sum(matrix.held(num_ranks) for matrix in chosen)

    return HeldParameters(
        dense=held((matrix for matrix in matrices if not matrix.is_routed), ranks.tensor_parallel),
        experts=held((matrix for matrix in matrices if matrix.is_routed), ranks.expert_parallel),
        borrowed=held(_borrowed(model, stages_held), ranks.tensor_parallel),
    )


def training_memory(
    model: Model,
    stages_held: Sequence[StageLayers],
    ranks: TrainingRanks,
    in_flight: Sequence[int],
    tokens_per_micro_batch: int,
    settings: MemorySettings,
    *,
    awaiting_weights: Sequence[int],
) -> MemoryParts:
    """Return the bytes that a rank needs at one moment of a step.

    stages_held: [num_stages] what it holds of the pipeline, or of both pipelines in DualPipe
    in_flight: [num_stages] micro-batches whose forward pass has begun and whose backward, weight part included, has
        not ended
    awaiting_weights: [num_stages] those among them of which only the weight part is missing
    tokens_per_micro_batch: of one data-parallel rank, all its tensor-parallel ranks together

    Raises FieldError where the model does not divide over the ranks.
    """
    held = held_parameters(model, stages_held, ranks)
    owned = held.total  # a copy of the embedding too: its rank updates it
    if settings.shard_optimizer:
        owned = -(-held.dense // ranks.dense_shards) + -(-held.experts // ranks.expert_shards)
    per_token = sum(
        flying * _kept(model, stage, settings) + waiting * _waiting(model, stage, settings)
        for stage, flying, waiting in zip(stages_held, in_flight, awaiting_weights, strict=True)
    )
    tokens = -(-tokens_per_micro_batch // ranks.tensor_parallel)
    layers = [layer for stage in stages_held for layer in (*stage.layers, *stage.mtp_modules(model))]
    at_work = max(values_at_work(model, layer) for layer in layers)
    return MemoryParts(
        weights=held.total * VALUE_BYTES[settings.weights],
        gradients=held.total * VALUE_BYTES[settings.gradients],
        optimizer=owned * settings.optimizer_bytes_per_parameter,
        activations=tokens * per_token,
        working=_TENSORS_AT_WORK * BF16_BYTES * tokens * at_work,
        communication_buffers=_exchange_buffers(model, layers, ranks)
        + _pipeline_buffers(model, stages_held, tokens),
    )


def worst_memory(
    model: Model,
    stages_held: Sequence[StageLayers],
    ranks: TrainingRanks,
    moments: Iterable[tuple[tuple[int, ...], tuple[int, ...]]],
    tokens_per_micro_batch: int,
    settings: MemorySettings,
) -> MemoryParts:
    """Return what a rank needs at the moment at which that is most.

    moments: at least one of (in_flight, awaiting_weights), as in `training_memory`; repeats cost nothing
    """
    needs = (
        training_memory(
            model,
            stages_held,
            ranks,
            in_flight,
            tokens_per_micro_batch,
            settings,
            awaiting_weights=awaiting_weights,
        )
        for in_flight, awaiting_weights in sorted(set(moments))
    )
    return max(needs, key=lambda parts: parts.total)


def _borrowed(model: Model, stages_held: Sequence[StageLayers]) -> list[Matrix]:
    """Return the embedding if MTP modules or a head that is the embedding need it and no stage held has it."""
    needed = any(stage.mtp_layers or (stage.has_head and model.tie_word_embeddings) for stage in stages_held)
    has_it = any(stage.has_embedding for stage in stages_held)
    return [embedding(model)] if needed and not has_it else []


@cache
def _kept(model: Model, stage: StageLayers, settings: MemorySettings) -> int:
    """Return bytes of a token that a stage keeps from forward to backward."""
    modules = stage.mtp_modules(model)
    layers = (*stage.layers, *modules)
    kept = sum(sum(kept_by_layer(model, layer, settings).values()) for layer in layers)
    head = kept_by_head(model, settings) if stage.has_head else 0
    return kept + head + len(modules) * kept_by_mtp(model, settings)


@cache
def _waiting(model: Model, stage: StageLayers, settings: MemorySettings) -> int:
    """Return bytes of a token's gradients that a stage keeps while its weight part waits."""
    layers = sum(waiting_gradients(model, layer, settings) for layer in stage.layers)
    modules = stage.mtp_modules(model)
    return layers + sum(waiting_gradients_of_mtp(model, module, settings) for module in modules)


def _exchange_buffers(model: Model, layers: Sequence[int], ranks: TrainingRanks) -> int:
    """Return the bytes of the dispatch and combine kernels' buffer, which all layers share."""
    group = ranks.expert_parallel
    if group == 1 or not any(model.is_moe_layer(layer) for layer in layers):
        return 0
    return normal_buffer_bytes(model.hidden_size, group, ranks.gpus_per_node, ranks.communication_sms)


def _pipeline_buffers(model: Model, stages_held: Sequence[StageLayers], tokens: int) -> int:
    """Return the bytes of activations and gradients on their way to and from neighbouring stages."""
    ends = sum((not stage.has_embedding) + (not stage.has_head) for stage in stages_held)
    return 2 * ends * BF16_BYTES * tokens * model.hidden_size
