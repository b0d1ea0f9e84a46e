"""Steps of whole models: training, prefill and decoding."""

from typing import Any

from hypothesis import strategies as st

from fuzz.strategies_cluster import DrawnCluster
from fuzz.strategies_exchanges import DrawnWorkload, degrees
from fuzz.strategies_experts import expert_fields
from fuzz.strategies_models import DrawnModel, dense_models, mixtures
from fuzz.strategies_text import one_in, quantities, some_of
from workloads.schedules import SCHEDULES

_PRECISIONS = {
    "linear_inputs": ["fp8", "bf16"],
    "attention_outputs": ["e5m6", "fp8", "bf16"],
    "logits": ["bf16", "fp32"],
    "recompute_norms": [True, False],
    "recompute_up_projections": [True, False],
    "recompute_swiglu": [True, False],
    "weights": ["bf16", "fp32"],
    "gradients": ["bf16", "fp32"],
    "master_weights": ["none", "fp32"],
    "moments": ["bf16", "fp32"],
    "shard_optimizer": [True, False],
}
_CACHED = st.one_of(
    st.sampled_from([0, 17, 1000]),
    st.builds(
        lambda least, more: {"kind": "uniform", "least": least, "most": least + more},
        st.integers(0, 99),
        st.integers(0, 99),
    ),
    st.builds(
        lambda mean, sigma: {"kind": "lognormal", "mean": mean, "sigma": sigma},
        st.integers(1, 400),
        st.sampled_from([0, 0.5, 2.0]),
    ),
)
_LOADS = st.sampled_from(["never", "per-layer", "per-micro-batch"])


def _sms(cluster: DrawnCluster) -> list[int]:
    """Return how many multiprocessors communication kernels may hold: none where nobody says how many there are."""
    return [0, 20, 24] if cluster.knows_sms else [0]


def _balance_once(fields: dict[str, Any]) -> None:
    """Have loads drawn once where they are balanced: the earlier traffic of each draw takes long to draw, too."""
    if fields.get("balance", "none") != "none":
        fields["load_changes"] = "never"


def _tensor_degrees(expert: int, gpus: int, heads: int) -> list[int]:
    return [
        degree
        for degree in (1, 2, 4)
        if gpus % degree == 0 and heads % degree == 0 and (expert % degree == 0 or degree % expert == 0)
    ]


@st.composite
def training_steps(draw: st.DrawFn, cluster: DrawnCluster) -> DrawnWorkload:
    """Draw training steps of every schedule, with few micro-batches."""
    schedule = draw(st.sampled_from(sorted(SCHEDULES)))
    recipe = SCHEDULES[schedule]
    fitting = [
        degree
        for degree in (2, 1, 3, 4)
        if cluster.num_ranks % degree == 0 and degree % recipe.ranks_multiple == 0
    ] or [recipe.ranks_multiple]  # which does not fit, and is refused
    pipeline = draw(st.sampled_from(fitting))
    chunks = draw(st.integers(2, 3)) if recipe.takes_chunks else 1
    stages = pipeline * (chunks if recipe.takes_chunks else 2 if schedule == "dualpipe-v" else 1)
    model = draw(mixtures(min_layers=max(2, stages), max_layers=max(4, stages)))
    members = max(1, cluster.num_ranks // pipeline)
    experts = [degree for degree in degrees(members, cluster.gpus) if model.num_experts % degree == 0]
    expert = draw(st.sampled_from(experts[::-1] or [1]))
    tensor = draw(
        st.sampled_from(
            [1, *(each for each in _tensor_degrees(expert, cluster.gpus, 4) if members % each == 0)]
        )
    )
    multiple = recipe.micro_batches_multiple(pipeline)
    least = -(-recipe.least_micro_batches(pipeline) // multiple) * multiple
    micro_batches = least + multiple * draw(st.integers(0, 1))
    of_micro_batch = draw(st.sampled_from([1, 1, 2]))
    fields, files = draw(expert_fields(model, expert, cluster.gpus, training=True))
    fields |= {
        "kind": "training-step",
        "pipeline_parallel": pipeline,
        "sequences_per_step": micro_batches * of_micro_batch * (members // tensor),
        "sequence_length": draw(st.sampled_from([8, 64, 256])),
        "communication_sms": draw(st.sampled_from(_sms(cluster))),
        "load_changes": draw(_LOADS),
    }
    if schedule != "dualpipe" or draw(one_in(2)):
        fields["schedule"] = schedule
    if recipe.takes_chunks or draw(one_in(6)):
        fields["chunks"] = chunks
    if of_micro_batch > 1:
        fields["sequences_per_micro_batch"] = of_micro_batch
    if tensor > 1 or draw(one_in(6)):
        fields["tensor_parallel"] = tensor
    if draw(one_in(6)) and stages <= model.num_layers:
        fields["layers_per_stage"] = [1] * (stages - 1) + [model.num_layers - stages + 1]
    if draw(one_in(5)):
        fields["node_order"] = draw(st.permutations(range(cluster.num_nodes)))
    fields |= draw(
        some_of(
            {
                "number_format": st.sampled_from(["bf16", "fp8"]),
                "rank_order": st.sampled_from(["data-outermost", "pipeline-outermost"]),
                "memory": some_of({name: st.sampled_from(values) for name, values in _PRECISIONS.items()}, 2),
                "ignore_memory": st.booleans(),
            }
        )
    )
    _balance_once(fields)
    if not cluster.knows_sms and draw(one_in(20)):
        del fields["communication_sms"]  # the default holds some, of nobody knows how many
    return DrawnWorkload(fields, model, {**model.files, **files})


@st.composite
def _inference(
    draw: st.DrawFn, cluster: DrawnCluster, num_ranks: int
) -> tuple[dict[str, Any], DrawnModel, dict[str, bytes]]:
    """Draw what prefill and decoding share, on so many ranks of a cluster."""
    if draw(one_in(6)):
        model, expert = draw(dense_models()), 1
        fields: dict[str, Any] = {}
        files: dict[str, bytes] = {}
        tensors = [degree for degree in (1, 2, 4) if cluster.gpus % degree == 0]
    else:
        model = draw(mixtures())
        expert = draw(st.sampled_from(degrees(num_ranks, cluster.gpus)[::-1]))
        fields, files = draw(expert_fields(model, expert, cluster.gpus))
        if expert == 1 and draw(one_in(2)):
            del fields["expert_parallel"]
        tensors = _tensor_degrees(expert, cluster.gpus, model.num_heads)
    if draw(one_in(3)):
        fields["tensor_parallel"] = draw(st.sampled_from(tensors))
    fields |= draw(
        some_of(
            {
                "number_format": st.sampled_from(["bf16", "fp8"]),
                "cache_format": st.sampled_from(["fp8", "bf16"]),
                "micro_batches": st.sampled_from([1, 2]),
                "load_changes": _LOADS,
                "pace": st.sampled_from(["own", "lockstep"]),
                "framework_overhead": quantities("time", 1e-6, 1e-3),
                "ignore_memory": st.booleans(),
            }
        )
    )
    _balance_once(fields)
    return fields, model, {**model.files, **files}


@st.composite
def prefill_steps(draw: st.DrawFn, cluster: DrawnCluster) -> DrawnWorkload:
    """Draw prompts that fill the micro-batches."""
    fields, model, files = draw(_inference(cluster, cluster.num_ranks))
    prompt = draw(st.sampled_from([1, 16, 100]))
    fields |= {
        "kind": "prefill-step",
        "prompt_tokens": prompt,
        "tokens_per_gpu": prompt * fields.get("micro_batches", 2) * draw(st.integers(1, 3)),
        "communication_sms": draw(st.sampled_from(_sms(cluster))),
    }
    if cluster.knows_sms and draw(one_in(3)):
        del fields["communication_sms"]
    return DrawnWorkload(fields, model, files)


@st.composite
def decode_steps(draw: st.DrawFn, cluster: DrawnCluster) -> DrawnWorkload:
    """Draw a token for each request, caches that come in meanwhile, and the limit."""
    transfers = None
    size = quantities("bytes", 1e3, 1e8)
    weight = some_of({"weight": st.sampled_from([0.01, 1.0, 3])}, 2)
    num_ranks = cluster.num_ranks
    if cluster.num_nodes > 1 and draw(one_in(3)):
        nodes = draw(st.integers(1, cluster.num_nodes - 1))
        transfers = {
            "kind": "prefill",
            "gpus": nodes * cluster.gpus,
            "size_per_step": draw(size),
            **draw(weight),
        }
        num_ranks -= transfers["gpus"]
    elif draw(one_in(5)):
        transfers = {"kind": "host", "size_per_step": draw(size), **draw(weight)}
    fields, model, files = draw(_inference(cluster, num_ranks))
    if transfers is not None or draw(one_in(12)):
        fields["cache_transfers"] = transfers
    batch = fields.get("micro_batches", 2) * draw(st.sampled_from([1, 2, 8, 31]))
    fields |= {"kind": "decode-step", "batch_per_gpu": batch, "cached_tokens": draw(_CACHED)}
    if model.drafts and draw(one_in(2)):
        fields["mtp_acceptance"] = draw(st.sampled_from([0.8, 0, 1]))
    if draw(one_in(4)):
        fields["intra_node"] = draw(st.sampled_from(["nvlink", "rdma"] if cluster.nics_meet else ["nvlink"]))
    if draw(one_in(5)):
        fields["limit"] = fields.get("expert_parallel", 1) > 1 and draw(st.booleans())
    return DrawnWorkload(fields, model, files)
