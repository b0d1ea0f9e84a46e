"""How much a forward pass holds, counted from its plan and its items: no task, no transfer is made."""

from collections.abc import Sequence

from workloads.collectives import ring_count
from workloads.group_traffic import num_draws
from workloads.inference.order import Item
from workloads.inference.plan import InferencePlan
from workloads.inference.settings import DecodeSettings, HostCopies
from workloads.size import TransferCount, WorkSize, counted_numbers, exchange_count


def pass_size(plan: InferencePlan, items: Sequence[Item], *, relayed: bool) -> WorkSize:
    """Return how much a pass holds: tasks and collectives exactly, transfers of exchanges at most.

    items: of a group; relayed: whether a node's tokens are handed on there, as by normal kernels
    """
    settings = plan.settings
    groups, leaders = plan.num_ranks // settings.group_size, _leaders(plan)
    caches = settings.cache_transfers if isinstance(settings, DecodeSettings) else None
    layers = sum(item.begins_layer for item in items) if caches is not None else 0
    senders = layers if caches is not None and not isinstance(caches, HostCopies) else 0
    exchanges = sum(item.exchange is not None for item in items)
    rings = [item.step.ring_bytes for item in items if item.exchange is None and item.step.kernel is None]
    exchange = _exchange(plan, relayed=relayed)
    ring = ring_count(settings.tensor_parallel, settings.tensor_parallel).times(
        settings.group_size // settings.tensor_parallel
    )
    cache = TransferCount(settings.group_size, settings.group_size).times(1 if layers else 0)
    draws = _draws(plan)
    held = exchange.times(2 * draws).plus(ring.times(len(set(rings)))).plus(cache).times(groups)
    own_tasks = len(items) + layers + (settings.framework_overhead > 0.0)
    busy = exchange if not rings else exchange.plus(ring.times(settings.micro_batches))
    flows = exchanges * exchange.transfers + len(rings) * ring.transfers + layers * cache.transfers
    return WorkSize(
        tasks=groups * (leaders * own_tasks + senders),
        collectives=groups * (exchanges + len(rings) + layers),
        held=held,
        together=busy.plus(cache).times(groups),
        flows=groups * flows,
        drawn=_drawn(plan),
        repeats=not rings and not layers and leaders == 1,
        field="expert_parallel",
        remedy="use a lower degree, or fewer ranks"
        if settings.load_changes == "never"
        else "use a lower degree, or load_changes: never",
    )


def _leaders(plan: InferencePlan) -> int:
    """Return how many ranks of a group have tasks of their own."""
    return plan.settings.group_size if plan.settings.pace == "own" else 1


def _choices(plan: InferencePlan) -> int:
    """Return how many experts the tokens of a rank choose, of one micro-batch."""
    if plan.model.moe is None:
        return 0
    return plan.batch.own_tokens * plan.settings.experts(plan.setting).experts_per_token


def _exchange(plan: InferencePlan, *, relayed: bool) -> TransferCount:
    """Return the most transfers of an exchange of a group of ranks that work in lockstep."""
    settings = plan.settings
    degree, slots = settings.expert_parallel, settings.num_slots(plan.setting)
    of_experts = exchange_count(degree, slots, _choices(plan), relayed=relayed)
    return of_experts.times(settings.group_size // degree)


def _draws(plan: InferencePlan) -> int:
    """Return how often loads are drawn."""
    moe_layers = sum(plan.model.is_moe_layer(layer) for layer in plan.layers)
    if not moe_layers:
        return 0
    return num_draws(plan.settings.load_changes, moe_layers, plan.settings.micro_batches)


def _drawn(plan: InferencePlan) -> int:
    """Return the numbers of a draw's tables, and of requests' caches where these are drawn."""
    settings = plan.settings
    counted = settings.expert_parallel * counted_numbers(
        settings.expert_parallel, settings.num_slots(plan.setting)
    )
    caches = 0
    if isinstance(settings, DecodeSettings) and not isinstance(settings.cached_tokens, int):
        parts = settings.group_size // settings.tensor_parallel * settings.micro_batches
        caches = parts * plan.batch.requests
    return max(counted + _choices(plan), caches)
