"""What a GPU does in each layer of a forward pass, as chains of kernels and of rings around what ranks divide.

Tensor-parallel ranks have the tokens of all of them where they divide the work (attention's heads, dense parts,
shared experts, head), and each its own elsewhere: inputs are gathered before, sums scattered behind. Attention
gathers latents where the model has them, as in training (`workloads.training.tensor_parallel`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from workloads.formats import NumberFormat
from workloads.inference.kernels import InferenceKernels
from workloads.inference.order import Chain, LayerWork, Step
from workloads.kernel_call import CallSequence, KernelCall
from workloads.kernels import BF16_BYTES
from workloads.models import MultiHeadLatentAttention
from workloads.tasks import ComputeKernel


@dataclass(frozen=True, slots=True)
class LayerWorks:
    """Makes the work of layers.

    kernels: of one micro-batch; communication_sms: that dispatch and combine hold meanwhile; shared_stay: whether
    shared experts are on every rank, rather than dispatched like others; is_dispatched: whether tokens travel
    rank_experts: the experts' kernels of each rank of the group, None of one that got no token; None where all are
    taken to do as much
    """

    kernels: InferenceKernels
    communication_sms: int
    shared_stay: bool
    is_dispatched: bool
    rank_experts: tuple[ComputeKernel | None, ...] | None = None

    def of(self, layer: int) -> LayerWork:
        """Return the work of a layer."""
        kernels = self.kernels
        before, attention = self._before(layer), self._attention(layer)
        if not kernels.model.is_moe_layer(layer):
            dense = self._divided("dense", kernels.dense)
            return LayerWork(layer, before, attention, (), dense, exchanges=False)
        shared = self._divided("shared experts", kernels.shared) if self.shared_stay else ()
        return LayerWork(layer, before, attention, shared, self.experts(), self.is_dispatched)

    def experts(self) -> Chain:
        """Return the routed experts, nothing where no token came."""
        return tuple(
            step._replace(rank_kernels=self.rank_experts)
            for step in self._step("experts", self.kernels.experts())
        )

    def head(self) -> Chain:
        """Return what follows the last layer."""
        # in prefill the last token of each request
        tokens = self._tokens if self.kernels.absorbed else self.kernels.work.requests
        hidden = BF16_BYTES * tokens * self.kernels.model.hidden_size
        return (*self._ring("gather", hidden), *self._step("ends", self.kernels.head(tokens)))

    @property
    def _tokens(self) -> int:
        return self.kernels.work.tokens

    def _before(self, layer: int) -> Chain:
        kernels, model = self.kernels, self.kernels.model
        hidden = BF16_BYTES * self._tokens * model.hidden_size
        embedding = (*self._step("ends", kernels.embedding()), *self._ring("scatter", hidden))
        if layer == 0:
            return embedding
        if layer >= model.num_layers:  # an MTP module: the head of what comes before stands between
            return (*self.head(), *embedding, *self._step("ends", kernels.mtp_input()))
        return ()

    def _attention(self, layer: int) -> Chain:
        kernels, model = self.kernels, self.kernels.model
        if kernels.tensor_parallel == 1:
            return self._step("attention", kernels.attention(layer))
        latent = model.attention
        gathered = self._operand_bytes(model.hidden_size)
        if isinstance(latent, MultiHeadLatentAttention):
            gathered = self._operand_bytes(latent.q_lora_rank or model.hidden_size)
            gathered += BF16_BYTES * self._tokens * (latent.kv_lora_rank + latent.qk_rope_head_dim)
        return (
            *self._step("attention", kernels.inputs()),
            *self._ring("gather", gathered),
            *self._step("attention", kernels.heads()),
            *self._ring("scatter", BF16_BYTES * self._tokens * model.hidden_size),
            *self._step("attention", kernels.routing(layer)),
        )

    def _divided(self, name: str, calls: Callable[[], Iterable[KernelCall]]) -> Chain:
        hidden = self.kernels.model.hidden_size
        return (
            *self._ring("gather", self._operand_bytes(hidden)),
            *self._step(name, calls()),
            *self._ring("scatter", BF16_BYTES * self._tokens * hidden),
        )

    def _operand_bytes(self, width: int) -> int:
        """Return the bytes of an input of products, of all tokens."""
        return self._tokens * NumberFormat.named(self.kernels.number_format).payload_bytes(width)

    def _ring(self, name: str, size_bytes: float) -> Chain:
        return () if self.kernels.tensor_parallel == 1 else (Step(name, None, float(size_bytes)),)

    def _step(self, name: str, calls: Iterable[KernelCall]) -> Chain:
        sequence = tuple(calls)
        if not sequence:
            return ()
        return (Step(name, ComputeKernel(CallSequence(name, sequence), self.communication_sms)),)
