"""The fields of the workload `training-step`."""

from typing import Annotated, Final, Literal

from pydantic import Field

from workloads.expert_settings import ExpertSettings
from workloads.group_traffic import LoadChanges
from workloads.kernel_call import Arithmetic
from workloads.training.parallel_layout import RankOrder
from workloads.training_memory import MemorySettings

# Of 132 on an H800: DeepSeek-V3 technical report, section 3.2.2.
COMMUNICATION_SMS: Final = 20

ScheduleName = Literal["gpipe", "1f1b", "interleaved-1f1b", "zb1p", "dualpipe", "dualpipe-v"]


class TrainingSettings(ExpertSettings):
    """How a model is trained: its division over ranks, its schedule, and what a step works on."""

    kind: Literal["training-step"] = Field(
        description="one optimizer step of a mixture of experts: a pipeline schedule, its exchanges, sends between "
        "stages, and the synchronisation of gradients and weights"
    )
    pipeline_parallel: int = Field(
        ge=1,
        le=1024,
        description="pipeline-parallel degree: places of the pipeline, each of which holds a part of the layers; a "
        "count that divides the ranks; the ranks of each place are its data-parallel ranks, in expert-parallel "
        "groups (no default)",
    )
    tensor_parallel: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="tensor-parallel degree: neighbouring ranks that divide attention heads and dense feed-forward "
        "values, and their tokens elsewhere; a count that divides the ranks of a node (default 1, none)",
    )
    schedule: ScheduleName = Field(
        default="dualpipe",
        description="pipeline schedule; gpipe, 1f1b, interleaved-1f1b, zb1p, dualpipe or dualpipe-v: "
        "see docs/schedules.md (default dualpipe)",
    )
    chunks: int = Field(
        default=1,
        ge=1,
        le=64,
        description="stages that each pipeline rank holds, for interleaved-1f1b, which needs 2 or more; others have "
        "what they have (default 1)",
    )
    layers_per_stage: Annotated[tuple[int, ...], Field(strict=False)] | None = Field(
        default=None,
        description="layers of each stage, from the embedding on; a list of counts that add up to the model's "
        "(default as even in FLOPs as can be)",
    )
    sequences_per_step: int = Field(
        ge=1,
        le=2**24,
        description="global batch: sequences of an optimizer step; a count of which each data-parallel rank gets "
        "equally many, in whole micro-batches (no default)",
    )
    sequence_length: int = Field(
        default=4096, ge=1, le=2**20, description="tokens of a sequence; a count (default 4096)"
    )
    sequences_per_micro_batch: int = Field(
        default=1,
        ge=1,
        le=4096,
        description="sequences of a micro-batch on each data-parallel rank (default 1)",
    )
    number_format: Arithmetic = Field(
        default="fp8",
        description="arithmetic of linear layers; fp8 or bf16; embedding, head and gate are always bf16 (default "
        "fp8)",
    )
    communication_sms: int = Field(
        default=COMMUNICATION_SMS,
        ge=0,
        le=1024,
        description="streaming multiprocessors set aside for communication kernels on each GPU all the while, which "
        f"no other kernel uses; a count (default {COMMUNICATION_SMS}, as in DeepSeek-V3's training)",
    )
    load_changes: LoadChanges = Field(
        default="never",
        description="when popularities and tokens' experts are drawn anew; `never`: all layers and micro-batches "
        "have the same; `per-layer`; `per-micro-batch`: in each layer of each micro-batch (default never)",
    )
    rank_order: RankOrder = Field(
        default="pipeline-outermost",
        description="which ranks are neighbours; an expert-parallel group always has consecutive ranks; "
        "`pipeline-outermost`: all groups of the first pipeline rank come first, then those of the second, and so "
        "on; `data-outermost`: a group of each pipeline rank, then the next of each (default pipeline-outermost)",
    )
    node_order: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)] | None = Field(
        default=None,
        description="the node of the first ranks, of the next, and so on: a list that names each node once (default "
        "0, 1, 2, ...)",
    )
    memory: MemorySettings = Field(
        default=MemorySettings(),
        description="how parameters, the optimizer's state and activations are kept",
    )
    ignore_memory: bool = Field(
        default=False,
        description="run even if a GPU has too little memory; true or false (default false)",
    )

    def needed_ranks(self) -> int:
        """Return the ranks of one group that works in lockstep on each pipeline rank."""
        return self.pipeline_parallel * self.group_size

    @property
    def group_size(self) -> int:
        """Ranks that work in lockstep: an expert-parallel group, or a tensor-parallel one where that is larger."""
        return max(self.expert_parallel, self.tensor_parallel)

    @property
    def tokens_per_micro_batch(self) -> int:
        """Tokens of a micro-batch on one data-parallel rank."""
        return self.sequences_per_micro_batch * self.sequence_length

    @property
    def local_tokens(self) -> int:
        """Those of them that a GPU has for itself: tensor-parallel ranks divide them."""
        return self.tokens_per_micro_batch // self.tensor_parallel
