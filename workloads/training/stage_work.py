"""What a GPU computes for a stage of the pipeline: its layers' kernels, and those at the ends of the model.

Each piece of work has a forward part, a backward part for the gradients of its inputs, and one for those of its
weights; each part is a sequence of kernels without a gap.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from workloads.kernel_call import Arithmetic, CallSequence, KernelCall
from workloads.layer_kernels import LayerKernels, Tokens
from workloads.models import Model, MultiHeadLatentAttention
from workloads.stage_layers import StageLayers
from workloads.tasks import ComputeKernel
from workloads.training.end_kernels import EndKernels
from workloads.training.tensor_parallel import Division, Divisions


class Part(NamedTuple):
    """A piece of work by direction, None where it has nothing to do; name: what results call it.

    division: what tensor-parallel ranks exchange before and after it, if they divide it; first, last: what each then
    does for its own tokens, before what is gathered forward and after what is scattered, and backward the other way
    round
    """

    name: str
    forward: ComputeKernel | None
    backward: ComputeKernel | None
    weight: ComputeKernel | None
    division: Division | None = None
    first: "Part | None" = None
    last: "Part | None" = None

    def pieces_backward(self) -> "tuple[Part, ...]":
        """Return it and what is of a rank's own tokens around it, in the order of a backward."""
        return tuple(piece for piece in (self.last, self, self.first) if piece is not None)


@dataclass(frozen=True, slots=True)
class LayerWork:
    """One layer.

    entry: what comes before it and is not of the layer itself, None in most: the embedding, or what joins an MTP
    module to the model; exchanges: whether tokens travel to their experts; shared: the shared experts where
    tensor-parallel ranks divide them; elsewhere they are of the feed-forward part
    """

    layer: int
    entry: Part | None
    attention: Part
    feed_forward: Part
    exchanges: bool
    shared: Part | None = None

    def parts_backward(self) -> tuple[Part, ...]:
        """Return its parts, in the order of a backward."""
        parts = (self.feed_forward, self.shared, self.attention, self.entry)
        return tuple(part for part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class StageWork:
    """All of a stage; head: what follows its last layer, None but on the last stage."""

    layers: tuple[LayerWork, ...]
    head: Part | None

    def pieces_backward(self) -> Iterator[Part]:
        """Yield all its pieces, in the order of a backward."""
        if self.head is not None:
            yield from self.head.pieces_backward()
        for layer in reversed(self.layers):
            for part in layer.parts_backward():
                yield from part.pieces_backward()


@dataclass(frozen=True, slots=True)
class StageKernels:
    """Makes the work of stages.

    tokens_of: layer -> what a GPU works on there; heads: attention heads on a GPU; vocabulary: rows of embedding and
    head on a GPU; communication_sms: that communication kernels hold all the while; tensor_parallel: degree
    """

    model: Model
    latent: MultiHeadLatentAttention
    tokens_of: Callable[[int], Tokens]
    heads: int
    vocabulary: int
    number_format: Arithmetic
    communication_sms: int
    tensor_parallel: int = 1

    def of(self, stage: StageLayers) -> StageWork:
        """Return the work of a stage."""
        modules = stage.mtp_modules(self.model)
        entries: dict[int, Part] = {}
        tokens = self.tokens_of(stage.first_layer)
        if stage.has_embedding:
            entries[stage.first_layer] = self._embedding(tokens)
        for module in modules:
            entries[module] = self._module_entry(tokens)
        layers = tuple(self._layer(layer, entries.get(layer)) for layer in (*stage.layers, *modules))
        return StageWork(layers, self._head(tokens) if stage.has_head else None)

    def kernels(self, stages: Iterable[StageLayers]) -> Iterator[ComputeKernel]:
        """Yield all kernels of some stages."""
        for stage in stages:
            for piece in self.of(stage).pieces_backward():
                kernels = (piece.forward, piece.backward, piece.weight)
                yield from (kernel for kernel in kernels if kernel is not None)

    def _layer(self, layer: int, entry: Part | None) -> LayerWork:
        is_moe = self.model.is_moe_layer(layer)
        tokens = self.tokens_of(layer)
        kernels = LayerKernels(
            self.model,
            self.latent,
            tokens,
            self.heads,
            self.number_format,
            not is_moe,
            self.tensor_parallel,
        )
        attention = self._attention(kernels, tokens)
        if not is_moe:
            return LayerWork(layer, entry, attention, self._dense(kernels, tokens), exchanges=False)
        shared = self._shared(kernels, tokens)
        if shared is None:
            experts = self._part(
                "experts", kernels.experts_forward(), kernels.experts_backward(), kernels.experts_weight()
            )
        else:
            experts = self._part(
                "experts", kernels.routed_forward(), kernels.routed_backward(), kernels.routed_weight()
            )
        return LayerWork(layer, entry, attention, experts, exchanges=True, shared=shared)

    def _attention(self, kernels: LayerKernels, tokens: Tokens) -> Part:
        if self.tensor_parallel == 1:
            return self._part(
                "attention",
                kernels.attention_forward(),
                kernels.attention_backward(),
                kernels.attention_weight(),
            )
        latents, heads, routing = (
            self._part(
                "latents", kernels.latents_forward(), kernels.latents_backward(), kernels.latents_weight()
            ),
            self._part(
                "attention", kernels.heads_forward(), kernels.heads_backward(), kernels.heads_weight()
            ),
            self._part("routing", kernels.routing_forward(), kernels.routing_backward(), ()),
        )
        return heads._replace(division=self._divisions(tokens).attention(), first=latents, last=routing)

    def _dense(self, kernels: LayerKernels, tokens: Tokens) -> Part:
        if self.tensor_parallel == 1:
            return self._part(
                "dense", kernels.dense_forward(), kernels.dense_backward(), kernels.dense_weight()
            )
        divided = self._part(
            "dense",
            kernels.dense_divided_forward(),
            kernels.dense_divided_backward(),
            kernels.dense_weight(),
        )
        return divided._replace(
            division=self._divisions(tokens).feed_forward(),
            first=self._part("dense input", kernels.dense_own_forward(), (), ()),
            last=self._part("dense result", (), kernels.dense_own_backward(), ()),
        )

    def _shared(self, kernels: LayerKernels, tokens: Tokens) -> Part | None:
        """Return the shared experts, None where they are of the experts' part or there are none."""
        shared = self._part(
            "shared experts", kernels.shared_forward(), kernels.shared_backward(), kernels.shared_weight()
        )
        if self.tensor_parallel == 1 or shared.forward is None:
            return None
        return shared._replace(division=self._divisions(tokens).feed_forward())

    def _embedding(self, tokens: Tokens) -> Part:
        ends = self._ends(tokens)
        embedding = self._part("embedding", ends.embedding_forward(), (), ends.embedding_weight())
        if self.tensor_parallel == 1:
            return embedding
        return embedding._replace(division=self._divisions(tokens).embedding())

    def _head(self, tokens: Tokens) -> Part:
        ends = self._ends(tokens)
        if self.tensor_parallel == 1:
            return self._part("head", ends.head_forward(), ends.head_backward(), ends.head_weight())
        logits = self._part("head", ends.logits_forward(), ends.logits_backward(), ends.head_weight())
        return logits._replace(division=self._divisions(tokens).head(), first=self._final_norm(ends))

    def _module_entry(self, tokens: Tokens) -> Part:
        """Return what joins an MTP module to the model; the head of what comes before stands between them."""
        ends = self._ends(tokens)
        if self.tensor_parallel == 1:
            return self._part(
                "head and MTP input",
                (*ends.head_forward(), *ends.mtp_forward()),
                (*ends.mtp_backward(), *ends.head_backward()),
                (*ends.mtp_weight(), *ends.head_weight()),
            )
        divided = self._part(
            "head and embedding",
            (*ends.logits_forward(), *ends.embedding_forward()),
            ends.logits_backward(),
            (*ends.embedding_weight(), *ends.head_weight()),
        )
        return divided._replace(
            division=self._divisions(tokens).head_and_embedding(),
            first=self._final_norm(ends),
            last=self._part("MTP input", ends.joining_forward(), ends.mtp_backward(), ends.joining_weight()),
        )

    def _final_norm(self, ends: EndKernels) -> Part:
        return self._part("final norm", ends.final_norm(), ends.final_norm(), ())

    def _ends(self, tokens: Tokens) -> EndKernels:
        return EndKernels(self.model, tokens.local, self.vocabulary, self.number_format, self.tensor_parallel)

    def _divisions(self, tokens: Tokens) -> Divisions:
        return Divisions(self.model, self.latent, tokens.local * self.tensor_parallel, self.number_format)

    def _part(
        self,
        name: str,
        forward: Iterable[KernelCall],
        backward: Iterable[KernelCall],
        weight: Iterable[KernelCall],
    ) -> Part:
        def kernel(direction: str, calls: Iterable[KernelCall]) -> ComputeKernel | None:
            sequence = tuple(calls)
            named = f"{name} {direction}"
            return ComputeKernel(CallSequence(named, sequence), self.communication_sms) if sequence else None

        return Part(name, kernel("F", forward), kernel("B", backward), kernel("W", weight))
