"""What tensor-parallel ranks bring together and spread again around what they divide.

With sequence parallelism (Korthikanti et al. 2022, arXiv 2205.05198, figure 5 and section 4.2.2) each of t ranks
has 1/t of the tokens wherever nothing is divided. What goes into a divided part is all-gathered; what comes out, a
sum over ranks, is reduce-scattered; backward does the conjugates:

| divided | gathered F | scattered F | gathered B | scattered B | gathered W |
|---|---|---|---|---|---|
| attention's heads | latents | result | its gradient, latents | gradients of latents | its gradient, latents |
| dense part, shared experts | input | result | its gradient | gradient of the input | its gradient, input |
| embedding | - | vectors | - | - | their gradient |
| head | input | - | - | gradient of the input | input |

- *Latents, not hidden states.* Down-projections are on every rank (`workloads.layer_parameters`) and work on its own
  tokens, as their norms do, so that attention gathers what its up-projections take: of DeepSeek-V3 1,536 + 512 values
  and the rotary key's 64, rather than 7,168. Megatron-Core's MLASelfAttention does so where its down-projections are
  `TELinear` with parallel_mode "duplicated" (megatron/core/transformer/multi_latent_attention.py). A model whose
  queries have no latent gathers hidden states for them.
- *Formats.* What a product takes is gathered as it takes it: with FP8 products in FP8 with a scale per 128 values,
  quantised by the rank that has the tokens, which halves the bytes and leaves no rank the work of another. Sums are
  BF16, as products write them; so is the rotary key, which no product takes, and all at embedding and head.
- *Gathered again.* Only a rank's own part is kept of what was gathered (section 4.2.2): `workloads.training_memory`
  divides all activations, and gradients that wait for their weight part. Latents are gathered again to compute
  queries, keys and values again. Gradients of weights take inputs, and gradients of results, with scales along
  tokens: other values than the products took, which each rank makes of its own tokens and which are gathered as
  `gather W`, in a backward as in a weight phase of its own.
- The loss exchanges three numbers a token, its gradient none: left out.

Each transfer is a ring of NCCL's over neighbouring ranks of a node. Nothing but its links' time is counted.
"""

from typing import Final, NamedTuple

from workloads.collectives import ring_transfers
from workloads.formats import NumberFormat
from workloads.kept_activations import VALUE_BYTES
from workloads.kernel_call import Arithmetic
from workloads.kernels import BF16_BYTES
from workloads.models import Model, MultiHeadLatentAttention
from workloads.schedules import Schedule
from workloads.stage_layers import StageLayers, stage_matrices
from workloads.tasks import Collective, Layout
from workloads.training.parallel_layout import ParallelLayout
from workloads.training.synchronise import Joint, stages_held
from workloads.training_memory import MemorySettings

TENSOR_ASSUMPTIONS: Final = (
    "Tensor-parallel ranks divide the tokens wherever they do not divide the work; they gather and scatter by NCCL's "
    "rings, which cost nothing beside their links' time; the loss' exchange of three numbers a token is free.",
    "Gathering and scattering take turns with dispatch and combine on a GPU's communication stream.",
    "Gradients of parameters that tensor parallelism does not divide are summed over its ranks when the step's last "
    "phase has ended.",
)
_ALL_REDUCE_PASSES: Final = 2


class Division(NamedTuple):
    """Bytes of all ranks' tokens together that are gathered before, or scattered after, a part that ranks divide.

    By direction: forward, backward, and gradients of weights, which scatter nothing; 0 where nothing is exchanged.
    """

    gather_forward: int = 0
    scatter_forward: int = 0
    gather_backward: int = 0
    scatter_backward: int = 0
    gather_weight: int = 0


class Divisions(NamedTuple):
    """Makes the divisions of a model's parts; tokens: of all tensor-parallel ranks; number_format: of products."""

    model: Model
    latent: MultiHeadLatentAttention
    tokens: int
    number_format: Arithmetic

    def attention(self) -> Division:
        """Return that of attention's heads, from up-projections to output projection."""
        latent, hidden = self.latent, self.model.hidden_size
        queries = latent.q_lora_rank or hidden
        inputs = self._operand(queries) + self._operand(latent.kv_lora_rank)
        rotary = self._sum(latent.qk_rope_head_dim)
        return Division(
            gather_forward=inputs + rotary,
            scatter_forward=self._sum(hidden),
            gather_backward=self._operand(hidden) + inputs + rotary,
            scatter_backward=self._sum(queries + latent.kv_lora_rank) + rotary,
            gather_weight=self._operand(hidden) + inputs,
        )

    def feed_forward(self) -> Division:
        """Return that of a dense feed-forward part, or of shared experts."""
        operand, summed = self._operand(self.model.hidden_size), self._sum(self.model.hidden_size)
        return Division(operand, summed, operand, summed, gather_weight=2 * operand)

    def embedding(self) -> Division:
        """Return that of the embedding."""
        vectors = self._sum(self.model.hidden_size)
        return Division(scatter_forward=vectors, gather_weight=vectors)

    def head(self) -> Division:
        """Return that of the head, the norm before it not included."""
        values = self._sum(self.model.hidden_size)
        return Division(gather_forward=values, scatter_backward=values, gather_weight=values)

    def head_and_embedding(self) -> Division:
        """Return that of both together."""
        return Division(*map(sum, zip(self.head(), self.embedding(), strict=True)))

    def _operand(self, width: int) -> int:
        """Return the bytes of an input of products."""
        return self.tokens * NumberFormat.named(self.number_format).payload_bytes(width)

    def _sum(self, width: int) -> int:
        """Return the bytes of values in BF16."""
        return self.tokens * BF16_BYTES * width


def undivided_gradients(
    schedule: Schedule,
    stages: tuple[StageLayers, ...],
    model: Model,
    layout: ParallelLayout,
    degree: int,
    settings: MemorySettings,
    cluster: Layout,
) -> tuple[Joint, ...]:
    """Return the sums over tensor-parallel ranks of gradients that each has of its own tokens alone.

    Those of parameters that are whole on every rank: norms, gate, down-projections, MTP projection, which
    Megatron-Core sums likewise (megatron/core/distributed/finalize_model_grads.py). None without tensor parallelism.
    """
    joints = []
    for pipeline_rank in range(schedule.num_ranks if degree > 1 else 0):
        parameters = sum(
            matrix.parameters
            for stage in stages_held(schedule, stages, pipeline_rank)
            for matrix in stage_matrices(model, stage)
            if matrix.pieces == 1
        )
        transfers = ring_transfers(
            layout.ranks[pipeline_rank].reshape(-1, degree),
            cluster,
            VALUE_BYTES[settings.gradients] * parameters,
            _ALL_REDUCE_PASSES,
        )
        joints.append(Joint((pipeline_rank,), Collective("undivided gradients", transfers)))
    return tuple(joints)
