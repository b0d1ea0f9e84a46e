"""Which layers each pipeline stage holds: given, or as even in training FLOPs as whole layers can be.

The first stage has the embedding, which costs no multiplication. The last has the final norm, the head and the
multi-token prediction modules, each of which computes the head once more (arXiv 2412.19437, section 2.2), so that
it gets fewer layers. Forward FLOPs decide: backward is twice as many of each.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from simulator.units import FieldError
from workloads.layer_parameters import Matrix, embedding, head_matrices, layer_matrices, mtp_matrices
from workloads.models import GroupedQueryAttention, Model

_FIELD: Final = "layers_per_stage"
_FLOPS_PER_PARAMETER: Final = 2  # a multiply-add


@dataclass(frozen=True, slots=True)
class StageLayers:
    """What one stage of a pipeline holds.

    first_layer: index in the model; dense_layers, moe_layers: how many of each; mtp_layers: MTP modules
    """

    first_layer: int
    dense_layers: int
    moe_layers: int
    has_embedding: bool
    has_head: bool
    mtp_layers: int

    @property
    def num_layers(self) -> int:
        """How many layers it holds, MTP modules not counted."""
        return self.dense_layers + self.moe_layers

    @property
    def layers(self) -> range:
        """Indices of its layers in the model, in order; MTP modules not among them."""
        return range(self.first_layer, self.first_layer + self.num_layers)

    def mtp_modules(self, model: Model) -> range:
        """Return the indices of its MTP modules, which continue the count of the model's layers."""
        return range(model.num_layers, model.num_layers + self.mtp_layers)


def split_layers(
    model: Model,
    num_stages: int,
    layers_per_stage: tuple[int, ...] | None = None,
    *,
    sequence_length: int = 4096,
    causal: bool = True,
) -> tuple[StageLayers, ...]:
    """Return what each stage holds, [num_stages].

    layers_per_stage: [num_stages] layers of each, None for as even as can be: the least largest stage, then the
    least sum of squares, then the fewest layers in the last stage, in the last but one, and so on.
    sequence_length: tokens that attend to each other; causal: as in `workloads.flops`.

    DeepSeek-V3 on 16 stages: 4 layers each, 1 in the last beside the head and the MTP module.
    Raises FieldError where stages and layers do not fit each other.
    """
    if num_stages > model.num_layers:
        msg = f"{model.num_layers} layers cannot fill {num_stages} stages; use at most {model.num_layers}"
        raise FieldError(_FIELD, msg)
    if layers_per_stage is None:
        flops = [
            layer_flops(model, layer, sequence_length, causal=causal) for layer in range(model.num_layers)
        ]
        extra = _flops_after_layers(model, sequence_length, causal=causal)
        layers_per_stage = _even_split(flops, extra, num_stages)
    else:
        _check(layers_per_stage, num_stages, model.num_layers)
    ends = list(accumulate(layers_per_stage))
    stages = []
    for stage, (first, end) in enumerate(zip([0, *ends], ends, strict=False)):
        moe_layers = sum(model.is_moe_layer(layer) for layer in range(first, end))
        is_last = stage == num_stages - 1
        stages.append(
            StageLayers(
                first_layer=first,
                dense_layers=end - first - moe_layers,
                moe_layers=moe_layers,
                has_embedding=stage == 0,
                has_head=is_last,
                mtp_layers=model.num_mtp_layers if is_last else 0,
            )
        )
    return tuple(stages)


def stage_matrices(model: Model, stage: StageLayers) -> tuple[Matrix, ...]:
    """Return what a stage holds of its own, matrix by matrix: over all stages, the model and its MTP modules."""
    matrices: list[Matrix] = [embedding(model)] if stage.has_embedding else []
    for layer in stage.layers:
        matrices += layer_matrices(model, layer)
    if stage.has_head:
        matrices += head_matrices(model)
    for module in stage.mtp_modules(model):
        matrices += mtp_matrices(model, module)
    return tuple(matrices)


def layer_flops(model: Model, layer: int, sequence_length: int, *, causal: bool) -> int:
    """Return the forward FLOPs of a token in a layer: 2 per activated parameter, and attention's products."""
    return _matrix_flops(model, layer_matrices(model, layer)) + _attention_flops(
        model, sequence_length, causal=causal
    )


def head_flops(model: Model) -> int:
    """Return the forward FLOPs of a token in the final norm and the head, be it the embedding or its own."""
    return _FLOPS_PER_PARAMETER * (model.hidden_size + model.vocab_size * model.hidden_size)


def mtp_flops(model: Model, layer: int, sequence_length: int, *, causal: bool) -> int:
    """Return the forward FLOPs of a token in an MTP module, its use of the head included."""
    matrices = _matrix_flops(model, mtp_matrices(model, layer))
    head = _FLOPS_PER_PARAMETER * model.vocab_size * model.hidden_size
    return matrices + head + _attention_flops(model, sequence_length, causal=causal)


def _flops_after_layers(model: Model, sequence_length: int, *, causal: bool) -> int:
    modules = range(model.num_layers, model.num_layers + model.num_mtp_layers)
    return head_flops(model) + sum(
        mtp_flops(model, module, sequence_length, causal=causal) for module in modules
    )


def _matrix_flops(model: Model, matrices: tuple[Matrix, ...]) -> int:
    """Return 2 FLOPs per parameter that a token is multiplied with: of routed experts, those of its top-k."""
    activated = 0
    for matrix in matrices:
        if matrix.is_routed and model.moe is not None:
            activated += matrix.parameters // matrix.pieces * model.moe.experts_per_token
        else:
            activated += matrix.parameters
    return _FLOPS_PER_PARAMETER * activated


def _attention_flops(model: Model, sequence_length: int, *, causal: bool) -> int:
    """Return the FLOPs of a token's score and value products in a layer, over half of the sequence if causal."""
    attention = model.attention
    if isinstance(attention, GroupedQueryAttention):
        values_per_key = 2 * attention.head_dim
    else:
        values_per_key = attention.qk_nope_head_dim + attention.qk_rope_head_dim + attention.v_head_dim
    multiply_adds = model.num_heads * values_per_key * sequence_length
    return multiply_adds if causal else 2 * multiply_adds


def _even_split(flops: list[int], extra: int, num_stages: int) -> tuple[int, ...]:
    """Return how many layers each stage gets; extra: FLOPs of the last stage beside its layers.

    By dynamic programming over cuts: for each number of stages and of layers in them the best is kept, as
    (sum of squares, layers of the stages from the last to the first), which is also the order of preference.
    """
    limit = _least_limit(flops, extra, num_stages)
    sums = [0, *accumulate(flops)]
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for stage in range(num_stages):
        own = extra if stage == num_stages - 1 else 0
        following: dict[int, tuple[int, tuple[int, ...]]] = {}
        for first, (squares, sizes) in best.items():
            for end in range(first + 1, len(flops) + 1):
                cost = sums[end] - sums[first] + own
                if cost > limit:
                    break
                candidate = (squares + cost**2, (end - first, *sizes))
                following[end] = min(following.get(end, candidate), candidate)
        best = following
    return best[len(flops)][1][::-1]


def _least_limit(flops: list[int], extra: int, num_stages: int) -> int:
    """Return the FLOPs of the largest stage where that is least, by bisection over whole FLOPs."""
    low, high = max(*flops, flops[-1] + extra), sum(flops) + extra
    while low < high:
        middle = (low + high) // 2
        if _stages_needed(flops, extra, middle) <= num_stages:
            high = middle
        else:
            low = middle + 1
    return low


def _stages_needed(flops: list[int], extra: int, limit: int) -> int:
    """Return the fewest stages of at most `limit` FLOPs, filled from the last layer backwards."""
    stages, filled = 1, extra
    for cost in reversed(flops):
        if filled + cost > limit:
            stages, filled = stages + 1, 0
        filled += cost
    return stages


def _check(layers_per_stage: tuple[int, ...], num_stages: int, num_layers: int) -> None:
    """Raise FieldError unless there is a count of at least 1 for each stage, and they add up to the layers."""
    if len(layers_per_stage) != num_stages:
        msg = f"gives layers of {len(layers_per_stage)} stages, and there are {num_stages}; give one count for each"
        raise FieldError(_FIELD, msg)
    for stage, count in enumerate(layers_per_stage):
        if count < 1:
            msg = f"stage {stage} would have {count} layers; every stage needs at least 1"
            raise FieldError(_FIELD, msg)
    if sum(layers_per_stage) != num_layers:
        msg = f"the stages' layers add up to {sum(layers_per_stage)}, and the model has {num_layers}"
        raise FieldError(_FIELD, msg)
