"""The order of kernels and exchanges within a phase of a schedule, on the two streams of a GPU.

In an overlapped pair the layers of one micro-batch's forward and of another's backward take turns, layer by layer, in
the order that the published trace of DeepSeek-V3's training shows (deepseek-ai/profile-data, train.json; figure 4 of
the technical report, arXiv 2412.19437, has the same operators):

    compute        attention F | experts B | experts W | experts F | attention B | attention W
    communication  combine B   | dispatch F | dispatch B | combine F

`combine B` is the backward of combine: gradients go to the experts, as tokens do in a dispatch. `dispatch B` is that
of dispatch: they come back, as results do in a combine. A forward or a backward alone has the same order without the
other's kernels; a dense layer has no exchanges.

Tensor-parallel ranks gather before a part that they divide and scatter after it. The communication stream takes its
turns in the order listed here, so that a short gather that computation waits for comes before a long exchange that
computation hides: `gather F` of attention before `combine B`, `gather B` of attention before `combine F`. Those of a
dense part stand where a layer with experts has its exchanges. Shared experts run beside `dispatch F` and
`dispatch B`; `gather W` is for a weight part.
"""

from typing import NamedTuple

from workloads.tasks import ComputeKernel
from workloads.training.stage_work import LayerWork, Part, StageWork
from workloads.training.tensor_parallel import Division


class Exchange(NamedTuple):
    """An exchange of a layer's tokens.

    gathers: whether results come back to their tokens, as in a combine; beside_compute: whether its GPU has a kernel
    to run meanwhile
    """

    layer: int
    gathers: bool
    beside_compute: bool


class Item(NamedTuple):
    """A kernel, an exchange, or a gathering or scattering of a phase.

    after: places in the phase of what must have ended before; ring_bytes: of what tensor-parallel ranks gather or
    scatter, all their tokens together; 0 for others
    """

    name: str
    kernel: ComputeKernel | None
    exchange: Exchange | None
    after: tuple[int, ...]
    ring_bytes: int = 0


def phase_items(
    forward: StageWork | None, backward: StageWork | None, *, weights: bool = True
) -> tuple[Item, ...]:
    """Return what a phase runs: a forward, a backward, or a pair of both; each stream's in its order.

    weights: whether the backward computes the gradients of weights too
    """
    items = _Items(weights=weights)
    forth = () if forward is None else forward.layers
    back = () if backward is None else tuple(reversed(backward.layers))
    if backward is not None:
        items.head_backward(backward.head)
    for place in range(max(len(forth), len(back))):
        items.add_layers(
            forth[place] if place < len(forth) else None, back[place] if place < len(back) else None
        )
    if forward is not None and forward.head is not None:
        items.forward(forward.head)
    return tuple(items.done)


def weight_items(work: StageWork) -> tuple[Item, ...]:
    """Return the gradients of a stage's weights, in the order of a backward.

    What one needs gathered is gathered while the one before it runs.
    """
    items: list[Item] = []
    kernels: list[int] = []
    for piece in work.pieces_backward():
        if piece.weight is None:
            continue
        gathered: tuple[int, ...] = ()
        if piece.division is not None:
            gathered = (len(items),)
            items.append(Item("gather W", None, None, tuple(kernels[-2:-1]), piece.division.gather_weight))
        kernels.append(len(items))
        items.append(Item(f"{piece.name} W", piece.weight, None, gathered))
    return tuple(items)


class _Items:
    """The items of a phase so far; what the next of each direction must wait for."""

    def __init__(self, *, weights: bool) -> None:
        self.done: list[Item] = []
        self._weights = weights
        self._forward: tuple[int, ...] = ()
        self._backward: tuple[int, ...] = ()
        self._backward_kernel: tuple[int, ...] = ()  # the latest
        self._weights_run = False  # whether gradients of weights may still run when the next layer starts
        # What shared experts must wait for, or give, beside the routed ones; what is gathered for weights, by part.
        self._shared_forward: tuple[int, ...] = ()
        self._shared_backward: tuple[int, ...] = ()
        self._for_weights: dict[str, tuple[int, ...]] = {}

    def head_backward(self, head: Part | None) -> None:
        """Add the backward of what follows the last layer."""
        if head is not None:
            self._backward_to_gather(head)
            self._backward_from_gather(head)
            self._compute_weight(head)

    def forward(self, part: Part) -> None:
        """Add the forward of a piece of work."""
        self._forward_to_gather(part)
        self._forward_from_gather(part)

    def add_layers(self, forth: LayerWork | None, back: LayerWork | None) -> None:
        """Add the forward of one layer and the backward of another."""
        is_pair = forth is not None and back is not None
        if forth is not None and forth.attention.division is not None:
            self._entry_forward(forth)
            self._forward_to_gather(forth.attention)
        if back is not None:
            self._start_backward(back, is_pair)
        if forth is not None:
            self._attention_forward(forth, is_pair)
        if back is not None:
            self._feed_forward_backward(back, is_pair)
        if forth is not None:
            self._feed_forward_forward(forth)
        if back is not None:
            self._backward_to_gather(back.attention)
        if forth is not None and forth.exchanges:
            combined = self._exchange("combine F", forth, True, is_pair, self._forward)
            self._forward = (*self._shared_forward, combined)
        if back is not None:
            self._attention_backward(back)

    # Forward

    def _entry_forward(self, layer: LayerWork) -> None:
        if layer.entry is not None:
            self.forward(layer.entry)

    def _attention_forward(self, layer: LayerWork, is_pair: bool) -> None:
        if layer.attention.division is None:
            self._entry_forward(layer)
        self._forward_from_gather(layer.attention)
        if not layer.exchanges:
            self._forward_to_gather(layer.feed_forward)
            return
        before = self._forward
        self._shared_forward = ()
        beside = is_pair
        if layer.shared is not None and layer.shared.division is not None:
            self._shared_forward = self._ring(before, "gather F", layer.shared.division.gather_forward)
            beside = True
        self._forward = (self._exchange("dispatch F", layer, False, beside, before),)

    def _feed_forward_forward(self, layer: LayerWork) -> None:
        if layer.shared is not None and layer.shared.division is not None:
            division = layer.shared.division
            computed = self._kernel(self._shared_forward, f"{layer.shared.name} F", layer.shared.forward)
            self._shared_forward = self._ring(computed, "scatter F", division.scatter_forward)
        self._forward_from_gather(layer.feed_forward)

    def _forward_to_gather(self, part: Part) -> None:
        """Add what comes before the kernel of a part that ranks divide: nothing of one that they do not."""
        if part.first is not None:
            self._forward = self._kernel(self._forward, f"{part.first.name} F", part.first.forward)
        if part.division is not None:
            self._forward = self._ring(self._forward, "gather F", part.division.gather_forward)

    def _forward_from_gather(self, part: Part) -> None:
        """Add the kernel of a part and, if ranks divide it, what comes after."""
        self._forward = self._kernel(self._forward, f"{part.name} F", part.forward)
        if part.division is not None:
            self._forward = self._ring(self._forward, "scatter F", part.division.scatter_forward)
        if part.last is not None:
            self._forward = self._kernel(self._forward, f"{part.last.name} F", part.last.forward)

    # Backward

    def _start_backward(self, layer: LayerWork, is_pair: bool) -> None:
        if not layer.exchanges:
            self._backward_to_gather(layer.feed_forward)
            return
        before = self._backward
        beside = is_pair or self._weights_run
        self._backward = (self._exchange("combine B", layer, False, beside, before),)
        if layer.shared is not None and layer.shared.division is not None:
            self._shared_backward = self._ring(before, "gather B", layer.shared.division.gather_backward)

    def _feed_forward_backward(self, layer: LayerWork, is_pair: bool) -> None:
        self._backward_from_gather(layer.feed_forward)
        if layer.shared is not None and layer.shared.division is not None:
            self._experts_backward(layer, layer.shared, layer.shared.division)
            return
        self._compute_weight(layer.feed_forward)
        if layer.exchanges:
            beside = is_pair or self._weights
            self._backward = (self._exchange("dispatch B", layer, True, beside, self._backward),)

    def _experts_backward(self, layer: LayerWork, shared: Part, division: Division) -> None:
        """Add what follows the routed experts' backward where ranks divide the shared experts."""
        routed = self._backward
        self._gather_for_weights(shared, routed)
        dispatched = self._exchange("dispatch B", layer, True, True, routed)
        computed = self._kernel(self._shared_backward, f"{shared.name} B", shared.backward)
        self._backward_kernel = computed
        self._backward = (dispatched, *self._ring(computed, "scatter B", division.scatter_backward))
        for part in (layer.feed_forward, shared):
            self._compute_weight(part)

    def _attention_backward(self, layer: LayerWork) -> None:
        self._backward_from_gather(layer.attention)
        if layer.entry is not None:
            self._backward_to_gather(layer.entry)
            self._backward_from_gather(layer.entry)
        for part in (layer.attention, layer.entry):
            if part is not None:
                self._compute_weight(part)

    def _backward_to_gather(self, part: Part) -> None:
        """Add what comes before the backward of a part that ranks divide: nothing of one that they do not."""
        if part.last is not None:
            self._compute_backward(part.last)
        if part.division is not None:
            before = self._backward
            self._backward = self._ring(before, "gather B", part.division.gather_backward)
            self._gather_for_weights(part, before)

    def _backward_from_gather(self, part: Part) -> None:
        """Add the backward of a part and, if ranks divide it, what comes after."""
        self._compute_backward(part)
        if part.division is not None:
            self._backward = self._ring(self._backward, "scatter B", part.division.scatter_backward)
        if part.first is not None:
            self._compute_backward(part.first)

    def _compute_backward(self, part: Part) -> None:
        if part.backward is not None:
            self._backward = self._kernel(self._backward, f"{part.name} B", part.backward)
            self._backward_kernel = self._backward

    def _gather_for_weights(self, part: Part, before: tuple[int, ...]) -> None:
        if self._weights and part.division is not None:
            self._for_weights[part.name] = self._ring(before, "gather W", part.division.gather_weight)

    def _compute_weight(self, part: Part) -> None:
        """Add the gradients of a part's weights, after the latest kernel of the backward."""
        for piece in part.pieces_backward() if self._weights else ():
            if piece.weight is not None:
                after = (*self._backward_kernel, *self._for_weights.pop(piece.name, ()))
                self._add(f"{piece.name} W", piece.weight, None, after)
                self._weights_run = True

    # Single items

    def _exchange(
        self, name: str, work: LayerWork, gathers: bool, beside_compute: bool, after: tuple[int, ...]
    ) -> int:
        return self._add(name, None, Exchange(work.layer, gathers, beside_compute), after)

    def _kernel(self, after: tuple[int, ...], name: str, kernel: ComputeKernel | None) -> tuple[int, ...]:
        """Add a kernel, if there is one; return what to wait for next."""
        return after if kernel is None else (self._add(name, kernel, None, after),)

    def _ring(self, after: tuple[int, ...], name: str, ring_bytes: int) -> tuple[int, ...]:
        """Add a gathering or scattering, if it has bytes; return what to wait for next."""
        return (self._add(name, None, None, after, ring_bytes),) if ring_bytes else after

    def _add(
        self,
        name: str,
        kernel: ComputeKernel | None,
        exchange: Exchange | None,
        after: tuple[int, ...],
        ring_bytes: int = 0,
    ) -> int:
        self.done.append(Item(name, kernel, exchange, after, ring_bytes))
        return len(self.done) - 1
