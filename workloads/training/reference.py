"""What docs/training.md shows of the order within phases and of memory, written by the workload itself."""

from pathlib import Path
from typing import Final

from workloads.models import load_model
from workloads.schedules import Kind
from workloads.stage_layers import StageLayers
from workloads.tasks import Setting
from workloads.training.items import Item, phase_items, weight_items
from workloads.training.plan import TrainingPlan
from workloads.training.spec import TrainingStepSpec
from workloads.training.stage_work import StageWork
from workloads.training_memory import MemoryParts

_NUM_RANKS: Final = 2048
_GPUS_PER_NODE: Final = 8
# DeepSeek-V3's layout: technical report, arXiv 2412.19437, sections 3.2 and 4.2.
_LAYOUT: Final = {
    "kind": "training-step",
    "schedule": "dualpipe",
    "pipeline_parallel": 16,
    "expert_parallel": 64,
    "sequences_per_step": 15360,
    "groups": "nodes",
    "groups_kept": 4,
}
_GB: Final = 1e9


def phase_order_reference() -> str:
    """Return the order of what each kind of phase runs for one layer with experts, as Markdown."""
    plan = _plan()
    tokens = plan.tokens(1, 1)  # sizes have no say in the order
    whole = plan.kernels(lambda _: tokens).of(plan.stages[1])
    layer = StageWork(whole.layers[:1], None)
    rows = {
        Kind.FORWARD: phase_items(layer, None),
        Kind.BACKWARD: phase_items(None, layer),
        Kind.BACKWARD_INPUT: phase_items(None, layer, weights=False),
        Kind.WEIGHT: weight_items(layer),
        Kind.FORWARD_BACKWARD: phase_items(layer, layer),
    }
    lines = "".join(
        f"| `{kind}` | {_listed(items, computes=True)} | {_listed(items, computes=False)} |\n"
        for kind, items in rows.items()
    )
    return f"| phase | compute stream | communication stream |\n| --- | --- | --- |\n{lines}"


def _listed(items: tuple[Item, ...], *, computes: bool) -> str:
    return ", ".join(item.name for item in items if (item.kernel is not None) == computes)


def training_memory_reference() -> str:
    """Return what a GPU of each pipeline rank needs, as Markdown, in GB; of ranks that mirror each other, once."""
    plan = _plan()
    parts = [name.replace("_", " ") for name, _ in plan.memory[0].items()]
    head = ("pipeline rank", "stages", "layers", *parts, "all")
    lines = [head, ["---"] * len(head)]
    half = plan.settings.pipeline_parallel // 2
    for rank, memory in enumerate(plan.memory[:half]):
        stages = [stage for _, stage in plan.schedule.stages_of(rank)]
        layers = " + ".join(_layers(plan.stages[stage]) for stage in stages)
        mirrored = plan.settings.pipeline_parallel - 1 - rank
        lines.append([f"{rank}, {mirrored}", ", ".join(map(str, stages)), layers, *_sizes(memory)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _plan() -> TrainingPlan:
    setting = Setting(load_model("deepseek-v3", Path()), _NUM_RANKS, _GPUS_PER_NODE, Path())
    return TrainingPlan.of(TrainingStepSpec.model_validate(_LAYOUT), setting)


def _layers(stage: StageLayers) -> str:
    ends = {
        "embedding": stage.has_embedding,
        "head": stage.has_head,
        "MTP": bool(stage.mtp_layers),
    }
    beside = [name for name, is_there in ends.items() if is_there]
    return str(stage.num_layers) + (f" ({', '.join(beside)})" if beside else "")


def _sizes(memory: MemoryParts) -> list[str]:
    return [f"{size / _GB:.1f}" for size in (*(size for _, size in memory.items()), memory.total)]
