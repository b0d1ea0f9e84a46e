"""How much a training step holds, counted from its outline: no schedule is made, no task, no transfer."""

from typing import NamedTuple

from workloads.collectives import ring_count
from workloads.schedules import SCHEDULES
from workloads.size import TransferCount, WorkSize, counted_numbers, exchange_count
from workloads.training.items import Item, phase_items
from workloads.training.outline import TrainingOutline


class _MicroBatch(NamedTuple):
    """What one micro-batch makes a group do on all stages.

    items: kernels, exchanges and rings; exchanges, rings: of them; ring_sizes: the different bytes of rings
    """

    items: int
    exchanges: int
    rings: int
    ring_sizes: int
    moe_layers: int


def training_size(outline: TrainingOutline) -> WorkSize:
    """Return how much a step holds: tasks and collectives almost exactly, transfers at most."""
    settings = outline.settings
    batch, groups = _micro_batch(outline), outline.num_members // settings.group_size
    pipeline, micro_batches = settings.pipeline_parallel, outline.num_micro_batches
    sends = 2 * (len(outline.stages) - 1) if pipeline > 1 else 0
    exchange = _exchange(outline)
    ring = ring_count(settings.tensor_parallel, settings.tensor_parallel).times(
        settings.group_size // settings.tensor_parallel
    )
    send = TransferCount(settings.group_size, settings.group_size)
    ending, joints = _ending(outline)
    held = exchange.times(2 * groups * _draws(outline, batch.moe_layers))
    held = held.plus(ring.times(groups * pipeline * batch.ring_sizes if settings.tensor_parallel > 1 else 0))
    held = held.plus(send.times(2 * pipeline * groups if pipeline > 1 else 0)).plus(ending)
    busy = max(exchange, ring).plus(send.times(2)).times(groups * pipeline)
    runs = micro_batches * groups
    flows = runs * (
        batch.exchanges * exchange.transfers + batch.rings * ring.transfers + sends * send.transfers
    )
    degree, slots = settings.expert_parallel, settings.num_slots(outline.setting)
    return WorkSize(
        tasks=runs * (batch.items + sends) + groups * pipeline * (joints + 1) + 1,
        collectives=runs * (batch.exchanges + batch.rings + sends) + pipeline * joints,
        held=held,
        together=max(busy, ending),
        flows=flows + ending.transfers,
        drawn=degree * counted_numbers(degree, slots) + _choices(outline),
        repeats=settings.tensor_parallel == 1,
        field="sequences_per_step",
        remedy="use fewer sequences, or more of them in a micro-batch"
        if settings.load_changes == "never"
        else "use fewer sequences, or load_changes: never",
    )


def _choices(outline: TrainingOutline) -> int:
    """Return how many experts the tokens of a rank choose."""
    settings = outline.settings
    return settings.local_tokens * settings.experts(outline.setting).experts_per_token


def _exchange(outline: TrainingOutline) -> TransferCount:
    """Return the most transfers of an exchange of a group of ranks that work in lockstep."""
    settings = outline.settings
    degree, slots = settings.expert_parallel, settings.num_slots(outline.setting)
    of_experts = exchange_count(degree, slots, _choices(outline), relayed=True)
    return of_experts.times(settings.group_size // degree)


def _micro_batch(outline: TrainingOutline) -> _MicroBatch:
    """Return what a micro-batch comes to, its experts getting equally many tokens, which changes sizes alone."""
    tokens = outline.tokens(_choices(outline), _choices(outline))
    kernels = outline.kernels(lambda _: tokens)
    items: list[Item] = []
    moe_layers = 0
    for stage in outline.stages:
        work = kernels.of(stage)
        moe_layers += sum(layer.exchanges for layer in work.layers)
        items += phase_items(work, None)
        items += phase_items(None, work)  # gradients of weights are as many items in a phase of their own
    rings = [item.ring_bytes for item in items if item.ring_bytes]
    exchanges = sum(item.exchange is not None for item in items)
    return _MicroBatch(len(items), exchanges, len(rings), len(set(rings)), moe_layers)


def _draws(outline: TrainingOutline, moe_layers: int) -> int:
    """Return the draws by which pipeline ranks work, each as often as there are ranks that do."""
    settings = outline.settings
    if settings.load_changes == "never":
        return settings.pipeline_parallel
    if settings.load_changes == "per-layer":
        return moe_layers * SCHEDULES[settings.schedule].pipelines
    return moe_layers * outline.num_micro_batches


def _ending(outline: TrainingOutline) -> tuple[TransferCount, int]:
    """Return the transfers that sum gradients and spread weights, and how many collectives a rank joins for it."""
    settings, gpus = outline.settings, outline.setting.gpus_per_node
    num_ranks, tensor = outline.setting.num_ranks, settings.tensor_parallel
    times = 2 if settings.memory.shard_optimizer else 1
    same = SCHEDULES[settings.schedule].pipelines * outline.num_members  # ranks that hold the same stages
    found, joints = TransferCount(), 0
    for degree in (tensor, settings.expert_parallel):
        ring_size = same // degree  # ranks with the same parameters
        if ring_size > 1:
            rings = ring_count(ring_size, max(1, gpus // degree)).times(num_ranks // ring_size)
            found, joints = found.plus(rings.times(times)), joints + times
    if outline.stages[-1].has_head and len(outline.stages) > 1:  # which may come with a copy of the embedding
        found, joints = found.plus(TransferCount(2 * same, 2 * same)), joints + 2
    if tensor > 1:
        found, joints = found.plus(ring_count(tensor, tensor).times(num_ranks // tensor)), joints + 1
    return found, joints
