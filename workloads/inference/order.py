"""The order of kernels and exchanges in a forward pass of one micro-batch, or of two that overlap.

Of two micro-batches A and B, layer by layer, on the two streams of a GPU:

    compute        attention A | attention B  | experts A  | experts B
    communication              | dispatch A   | dispatch B | combine A | combine B

so that attention of the one and experts of the other run beside each exchange (DeepSeek-V3 technical report, arXiv
2412.19437, sections 3.4.1 and 3.4.2; deepseek-ai/profile-data). Shared experts that stay on their rank run before the
routed ones, while tokens travel. In a layer without experts dense parts follow both attentions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from workloads.tasks import ComputeKernel


class Step(NamedTuple):
    """A kernel, or a ring of tensor-parallel ranks that gather or scatter so many bytes.

    rank_kernels: what each rank of the group computes, None for nothing, where ranks differ; `kernel` is then that of
    the one that has most to do
    """

    name: str
    kernel: ComputeKernel | None
    ring_bytes: float = 0.0
    rank_kernels: tuple[ComputeKernel | None, ...] | None = None


Chain = tuple[Step, ...]


class Exchange(NamedTuple):
    """An exchange of tokens; gathers: whether results come back; beside_compute: whether kernels can run."""

    layer: int
    micro_batch: int
    gathers: bool
    beside_compute: bool


class Item(NamedTuple):
    """A step or an exchange.

    after: places in the list of what must have ended before; begins_layer: whether it is the first of a layer
    """

    step: Step
    exchange: Exchange | None
    after: tuple[int, ...]
    begins_layer: bool = False


@dataclass(frozen=True, slots=True)
class LayerWork:
    """What one GPU does of a layer for one micro-batch.

    before: what precedes its attention and is not of the layer: embedding, head and input of an MTP module
    shared: shared experts on their rank; feed_forward: routed experts, or a dense part; exchanges: whether tokens
    travel
    """

    layer: int
    before: Chain
    attention: Chain
    shared: Chain
    feed_forward: Chain
    exchanges: bool


def pass_items(
    layers: Sequence[int], work: Callable[[int, int], LayerWork], head: Chain, num_micro_batches: int
) -> tuple[Item, ...]:
    """Return the items of a pass, each stream's in its order.

    work: (layer, micro-batch) -> what is done there; head: what follows the last layer, of each micro-batch
    """
    items = _Items(num_micro_batches)
    for layer in layers:
        items.add_layer([work(layer, micro_batch) for micro_batch in range(num_micro_batches)])
    for micro_batch in range(num_micro_batches):
        items.add_chain(micro_batch, head)
    return tuple(items.done)


class _Items:
    """The items so far; last: of each micro-batch, what its next item waits for."""

    def __init__(self, num_micro_batches: int) -> None:
        self.done: list[Item] = []
        self._last: list[tuple[int, ...]] = [()] * num_micro_batches
        self._overlaps = num_micro_batches > 1

    def add_chain(self, micro_batch: int, chain: Chain) -> None:
        """Add steps, each after the one before."""
        for step in chain:
            self._add(micro_batch, step, None)

    def add_layer(self, works: Sequence[LayerWork]) -> None:
        """Add a layer of all micro-batches."""
        first = len(self.done)
        sent = []  # of each micro-batch, what its dispatch waits for: shared experts wait for no more
        for micro_batch, work in enumerate(works):
            self.add_chain(micro_batch, (*work.before, *work.attention))
            sent.append(self._last[micro_batch])
            if work.exchanges:
                beside = self._overlaps or bool(work.shared)
                self._add(
                    micro_batch, Step("dispatch", None), Exchange(work.layer, micro_batch, False, beside)
                )
        for micro_batch, work in enumerate(works):
            arrived, self._last[micro_batch] = self._last[micro_batch], sent[micro_batch]
            self.add_chain(micro_batch, work.shared)
            shared, self._last[micro_batch] = self._last[micro_batch], arrived
            self.add_chain(micro_batch, work.feed_forward)
            if work.exchanges:
                exchange = Exchange(work.layer, micro_batch, True, self._overlaps)
                self._add(micro_batch, Step("combine", None), exchange)
            if work.shared:
                self._last[micro_batch] += shared
        self.done[first] = self.done[first]._replace(begins_layer=True)

    def _add(self, micro_batch: int, step: Step, exchange: Exchange | None) -> None:
        self.done.append(Item(step, exchange, self._last[micro_batch]))
        self._last[micro_batch] = (len(self.done) - 1,)
