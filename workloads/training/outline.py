"""What the fields of `training-step` come to before its schedule is made, everything that can be wrong checked."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

from simulator.units import FieldError
from workloads.expert_settings import model_and_experts
from workloads.group_traffic import num_draws
from workloads.layer_kernels import Tokens
from workloads.models import Model, MultiHeadLatentAttention
from workloads.placement import fits_nodes, working_degrees
from workloads.schedules import SCHEDULES, check_schedule, stages_per_rank
from workloads.stage_layers import StageLayers, split_layers
from workloads.tasks import Setting
from workloads.training.parallel_layout import members_of
from workloads.training.settings import TrainingSettings
from workloads.training.stage_work import StageKernels

# Of check_schedule -> of the scenario.
_FIELD_OF: dict[str, str] = {
    "name": "schedule",
    "num_ranks": "pipeline_parallel",
    "num_micro_batches": "sequences_per_step",
    "chunks": "chunks",
}


@dataclass(frozen=True, slots=True)
class TrainingOutline:
    """A step before its schedule is made: cheap, however many micro-batches there are.

    num_members: ranks of each pipeline rank; num_micro_batches: that each data-parallel rank works on
    stages: [num_stages]
    """

    settings: TrainingSettings
    setting: Setting
    model: Model
    latent: MultiHeadLatentAttention
    num_members: int
    num_micro_batches: int
    stages: tuple[StageLayers, ...]

    @classmethod
    @lru_cache(
        maxsize=4
    )  # a scenario asks for it when its size is estimated, when it is checked, and when it is built
    def of(cls, settings: TrainingSettings, setting: Setting) -> Self:
        """Return what a step comes to on a cluster; FieldError where fields, model and cluster do not fit."""
        model, _ = model_and_experts(setting.model)
        latent = model.attention
        if not isinstance(latent, MultiHeadLatentAttention):
            msg = (
                f"training steps are known of models with latent attention, and {model.name} has none; deepseek-v3 "
                "has it"
            )
            raise FieldError("kind", msg)
        num_members = members_of(setting.num_ranks, settings.pipeline_parallel)
        _check_tensor_parallel(settings, setting, num_members)
        micro_batches = _micro_batches(settings, num_members)
        _check_experts(
            settings,
            setting,
            num_members,
            num_draws(settings.load_changes, len(model.moe_layers()), micro_batches),
        )
        model = _with_experts_per_token(model, settings)
        _check_schedule(settings, micro_batches, num_members)
        num_stages = settings.pipeline_parallel * stages_per_rank(settings.schedule, settings.chunks)
        stages = _stages(settings, model, num_stages)
        return cls(settings, setting, model, latent, num_members, micro_batches, stages)

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a step, of all ranks."""
        return self.settings.sequences_per_step * self.settings.sequence_length

    def tokens(self, received: int, rows: int) -> Tokens:
        """Return what a GPU works on in a layer where it gets so many tokens for its experts, and pairs."""
        settings = self.settings
        experts = settings.experts(self.setting).num_physical // settings.expert_parallel
        return Tokens(settings.local_tokens, settings.sequence_length, received, rows, experts)

    def kernels(self, tokens_of: Callable[[int], Tokens]) -> StageKernels:
        """Return what makes the kernels of stages; tokens_of: layer -> what a GPU works on there."""
        settings, tensor_parallel = self.settings, self.settings.tensor_parallel
        return StageKernels(
            self.model,
            self.latent,
            tokens_of,
            self.model.num_heads // tensor_parallel,
            -(-self.model.vocab_size // tensor_parallel),
            settings.number_format,
            settings.communication_sms,
            tensor_parallel,
        )


def _check_tensor_parallel(settings: TrainingSettings, setting: Setting, num_members: int) -> None:
    tensor, expert = settings.tensor_parallel, settings.expert_parallel
    if tensor > 1 and (setting.gpus_per_node % tensor or num_members % tensor):
        fault = f"divide the {setting.gpus_per_node} GPUs of a node and the {num_members} ranks of a pipeline rank"
        raise FieldError("tensor_parallel", f"degree {tensor} must {fault}")
    if expert % tensor and tensor % expert:
        msg = f"degree {tensor} and expert_parallel {expert} must divide one another"
        raise FieldError("tensor_parallel", msg)
    if settings.tokens_per_micro_batch % tensor:
        tokens = f"{settings.tokens_per_micro_batch:,} tokens of a micro-batch"
        msg = f"{tokens} do not divide over {tensor} tensor-parallel ranks; use a divisor of it"
        raise FieldError("tensor_parallel", msg)


def _check_experts(settings: TrainingSettings, setting: Setting, num_members: int, draws: int) -> None:
    """Raise FieldError where experts do not fit; tokens' experts are drawn for one group, so many times."""
    degree, gpus_per_node = settings.expert_parallel, setting.gpus_per_node
    if num_members % degree or not fits_nodes(degree, gpus_per_node):
        working = ", ".join(map(str, working_degrees(num_members, gpus_per_node)))
        msg = (
            f"degree {degree} must divide the {num_members:,} ranks of a pipeline rank, and divide a node of "
            f"{gpus_per_node} GPUs or be a multiple of it; these work: {working}"
        )
        raise FieldError("expert_parallel", msg)
    try:
        settings.check_experts(replace(setting, num_ranks=degree), settings.local_tokens, draws)
    except FieldError as error:
        field, msg = error.field, str(error)
        if field == "tokens_per_rank":
            field = "sequence_length"
            if draws > 1:
                field, msg = "load_changes", f"{msg}, or draw loads less often: never, which is the default"
        raise FieldError("load_changes" if field == "layers" else field, msg) from error
    if settings.redundant_experts not in {"auto", 0}:
        raise FieldError("redundant_experts", "training has one copy of each expert in a group; write 0")
    if settings.shared_experts != "local":
        msg = "training steps are known with shared experts on every rank; write local"
        raise FieldError("shared_experts", msg)


def _with_experts_per_token(model: Model, settings: TrainingSettings) -> Model:
    """Return the model with as many experts per token as asked for; groups, which move tokens only, put aside."""
    if settings.experts_per_token is None or model.moe is None:
        return model
    moe = replace(model.moe, experts_per_token=settings.experts_per_token, num_groups=1, groups_kept=1)
    return replace(model, moe=moe)


def _micro_batches(settings: TrainingSettings, num_members: int) -> int:
    """Return the micro-batches of a data-parallel rank; FieldError where sequences do not divide into them."""
    data_parallel = num_members // settings.tensor_parallel
    per_round = data_parallel * settings.sequences_per_micro_batch
    if settings.sequences_per_step % per_round:
        below = settings.sequences_per_step // per_round * per_round
        near = f"{below:,} or {below + per_round:,}" if below else f"{per_round:,}"
        msg = (
            f"{settings.sequences_per_step:,} sequences do not divide into micro-batches of "
            f"{settings.sequences_per_micro_batch:,} on {data_parallel:,} data-parallel ranks; {near} would"
        )
        raise FieldError("sequences_per_step", msg)
    return settings.sequences_per_step // per_round


def _check_schedule(settings: TrainingSettings, micro_batches: int, num_members: int) -> None:
    try:
        check_schedule(settings.schedule, settings.pipeline_parallel, micro_batches, settings.chunks)
    except FieldError as error:
        msg = str(error)
        if error.field == "num_micro_batches":
            per_round = num_members // settings.tensor_parallel * settings.sequences_per_micro_batch
            msg += f" (a micro-batch of each data-parallel rank takes {per_round:,} sequences)"
        raise FieldError(_FIELD_OF[error.field], msg) from error


def _stages(settings: TrainingSettings, model: Model, num_stages: int) -> tuple[StageLayers, ...]:
    if num_stages > model.num_layers:
        degree = settings.pipeline_parallel
        field, most = "pipeline_parallel", model.num_layers // (num_stages // degree)
        if SCHEDULES[settings.schedule].takes_chunks and model.num_layers // degree > 1:
            field, most = "chunks", model.num_layers // degree
        msg = (
            f"{settings.schedule} would have {num_stages} stages, and the model has {model.num_layers} layers; use "
            f"at most {most}"
        )
        raise FieldError(field, msg)
    return split_layers(
        model, num_stages, settings.layers_per_stage, sequence_length=settings.sequence_length
    )
