"""Tensor parallelism in a training step: what ranks divide, what they gather and scatter, and where it runs."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.layout import RankLayout
from simulator.units import FieldError
from support.tensor_parallel import DENSE, EVERYTHING, ONE, ROWS, SMALL, TOKENS, work
from support.training_steps import build, plan, play, setting, spec
from workloads.group_traffic import in_each_group, tensor_rings
from workloads.kernel_call import CallSequence, calls_of
from workloads.layer_kernels import LayerKernels, Tokens
from workloads.layer_parameters import layer_matrices
from workloads.models import MultiHeadLatentAttention, load_model
from workloads.tasks import ComputeKernel, Stream
from workloads.training.items import phase_items
from workloads.training.stage_work import Part, StageWork
from workloads.training.tensor_parallel import Division, Divisions

DEEPSEEK = load_model("deepseek-v3", Path())
assert isinstance(DEEPSEEK.attention, MultiHeadLatentAttention)


def flops(kernel: ComputeKernel | None) -> float:
    if kernel is None:
        return 0.0
    assert isinstance(kernel.call, CallSequence)
    return sum(call.flops for call in kernel.call.calls)


def total_flops(done: StageWork) -> tuple[float, float, float]:
    """FLOPs forward, backward and for weights."""
    pieces = list(done.pieces_backward())
    return (
        sum(flops(piece.forward) for piece in pieces),
        sum(flops(piece.backward) for piece in pieces),
        sum(flops(piece.weight) for piece in pieces),
    )


@pytest.mark.parametrize("degree", [2, 4])
@pytest.mark.parametrize("number_format", ["fp8", "bf16"])
def test_ranks_share_the_flops_of_one_and_repeat_none(degree, number_format):
    # What is divided takes all tokens and 1/t of heads, values or vocabulary; what is not takes 1/t of the tokens. So
    # each product has 1/t of its FLOPs, in each direction. Only bytes are repeated: the weights that all ranks read.
    alone = total_flops(work(EVERYTHING, 1, number_format=number_format))
    shared = total_flops(work(EVERYTHING, degree, number_format=number_format))
    assert [degree * each for each in shared] == list(alone)
    assert min(alone) > 0


def test_a_vocabulary_that_does_not_divide_is_padded():
    # 161 rows on 4 ranks are 41 on each: 3 more than there are, for logits and both their gradients, of the head and
    # of an MTP module's: 2 x tokens x hidden FLOPs each
    of = replace(SMALL, vocab_size=161)
    alone, shared = total_flops(work(EVERYTHING, 1, of)), total_flops(work(EVERYTHING, 4, of))
    padding = 3 * 2 * (2 * TOKENS * of.hidden_size)
    assert [4 * each for each in shared] == [each + padding for each in alone]


def test_memory_bound_kernels_take_what_a_rank_has():
    # norms and the gate on a rank's own tokens, SwiGLU of the shared expert on all, for its share of 32 values
    (layer,) = work(ONE, 4).layers
    assert layer.attention.first is not None
    assert layer.attention.last is not None
    assert layer.shared is not None
    own = [
        call for piece in (layer.attention.first, layer.attention.last) for call in piece.forward.call.calls
    ]
    assert {call.rows for call in own if call.kind in {"norm", "quantise", "gemm"}} == {16}
    assert [
        (call.rows, call.width) for call in layer.shared.forward.call.calls if call.kind == "activation"
    ] == [(64, 8)]
    (attention,) = [call for call in layer.attention.forward.call.calls if call.kind == "attention"]
    assert (attention.requests, attention.query_tokens, attention.heads) == (4, 16, 1)


def test_without_it_nothing_is_divided():
    for layer in work(EVERYTHING, 1).layers:
        assert layer.shared is None
        for part in layer.parts_backward():
            assert part.pieces_backward() == (part,)
            assert part.division is None
    items = phase_items(work(EVERYTHING, 1), work(EVERYTHING, 1))
    assert not any(item.ring_bytes for item in items)
    names_of = {collective.name for collective in build(of=SMALL).graph.collectives}
    assert not [name for name in names_of if name.split()[0] in {"gather", "scatter", "undivided"}]


@pytest.mark.parametrize("piece", ["attention", "dense"])
def test_pieces_are_the_kernels_of_the_whole_part(piece):
    # By kind of call, a part in pieces has as many as the whole.
    def kinds(part: Part, direction: str) -> Counter[str]:
        kernels = [getattr(each, direction) for each in part.pieces_backward()]
        return Counter(call.kind for kernel in kernels if kernel is not None for call in kernel.call.calls)

    field = "feed_forward" if piece == "dense" else piece
    whole, pieces = (getattr(work(DENSE, degree).layers[0], field) for degree in (1, 2))
    for direction in ("forward", "backward", "weight"):
        assert kinds(pieces, direction) == kinds(whole, direction)


@pytest.mark.parametrize("part", ["attention", "experts", "dense"])
def test_a_part_as_a_whole_has_the_kernels_that_it_has_undivided(part):
    tokens = Tokens(TOKENS, 16, ROWS, ROWS, 4)
    for direction in ("forward", "backward", "weight"):
        alone, shared = (
            LayerKernels(SMALL, SMALL.attention, tokens, 4 // degree, "fp8", part == "dense", degree)
            for degree in (1, 2)
        )
        kinds = [
            Counter(call.kind for call in getattr(each, f"{part}_{direction}")()) for each in (alone, shared)
        ]
        assert kinds[0] == kinds[1]


def test_a_check_lists_all_kernels_that_run():
    # so that a cost table that lacks one is refused before anything runs; sizes may differ, all else not
    fields = {"tensor_parallel": 2, "expert_parallel": 4, "sequences_per_step": 32, "schedule": "zb1p"}
    graph = build(16, 4, SMALL, **fields).graph

    def kinds(kernels):
        return {(call.cost_names, call.variant) for kernel in kernels for call in calls_of(kernel.call)}

    listed = kinds(spec(**fields).compute_kernels(setting(16, 4, SMALL)))
    assert kinds(task.kernel for task in graph.tasks if task.kernel) == listed


def test_bytes_of_deepseek_v3():
    # FP8 with a scale per 128 values: 7,168 -> 7,392 bytes, 1,536 -> 1,584, 512 -> 528; the rotary key's 64 in BF16
    fp8 = Divisions(DEEPSEEK, DEEPSEEK.attention, 4096, "fp8")
    assert fp8.attention() == Division(
        gather_forward=4096 * (1584 + 528 + 128),
        scatter_forward=4096 * 14_336,
        gather_backward=4096 * (7392 + 1584 + 528 + 128),
        scatter_backward=4096 * 2 * (1536 + 512 + 64),
        gather_weight=4096 * (7392 + 1584 + 528),
    )
    assert fp8.feed_forward() == Division(
        4096 * 7392, 4096 * 14_336, 4096 * 7392, 4096 * 14_336, gather_weight=4096 * 2 * 7392
    )
    # embedding and head are BF16 whatever the format
    assert fp8.embedding() == Division(scatter_forward=4096 * 14_336, gather_weight=4096 * 14_336)
    both = fp8.head_and_embedding()
    assert both == fp8._replace(number_format="bf16").head_and_embedding()
    assert both == Division(4096 * 14_336, 4096 * 14_336, 0, 4096 * 14_336, gather_weight=2 * 4096 * 14_336)


def test_queries_without_a_latent_need_hidden_states():
    attention = replace(DEEPSEEK.attention, q_lora_rank=None)
    division = Divisions(DEEPSEEK, attention, 1, "bf16").attention()
    assert division.gather_forward == 2 * (7168 + 512 + 64)
    assert division.scatter_backward == 2 * (7168 + 512 + 64)


def test_backward_scatters_the_gradients_of_what_forward_gathered():
    # With BF16 throughout, as many bytes. Attention's gathering backward also has what it computes again.
    of = Divisions(DEEPSEEK, DEEPSEEK.attention, 4096, "bf16")
    for division in (of.attention(), of.feed_forward(), of.head()):
        assert division.scatter_backward == division.gather_forward > 0
    feed_forward, attention = of.feed_forward(), of.attention()
    assert feed_forward.gather_backward == feed_forward.scatter_forward
    assert attention.gather_backward == attention.scatter_forward + attention.gather_forward


@pytest.mark.parametrize("degree", [2, 4, 8])
def test_rings_carry_what_others_have(degree):
    # each rank sends (t - 1)/t of the buffer to its neighbour, in groups of t consecutive ranks
    ranks, size_bytes = np.arange(8, 24), 4096.0 * 7392
    transfers = tensor_rings(ranks, degree, RankLayout.in_order(3, 8), size_bytes)
    sent = np.bincount(transfers.source_rank, transfers.size_bytes, minlength=24)
    expected = np.where(np.arange(24) < 8, 0.0, (degree - 1) / degree * size_bytes)
    np.testing.assert_allclose(sent, expected, rtol=1e-12)
    assert (transfers.source_rank // degree == transfers.destination_ranks // degree).all()
    assert (transfers.rounds == degree - 1).all()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rank_order": "data-outermost"},
        {"node_order": [3, 1, 0, 2]},
        {"expert_parallel": 2, "tensor_parallel": 4},
        {"schedule": "zb1p", "expert_parallel": 8},
        {"schedule": "dualpipe", "memory": {"shard_optimizer": False}},
    ],
)
def test_tensor_parallel_ranks_are_on_one_node(fields):
    given = {"tensor_parallel": 2, "expert_parallel": 4, "sequences_per_step": 32} | fields
    step = build(16, 4, SMALL, **given)
    rings = [
        collective
        for collective in step.graph.collectives
        if collective.name.split()[0] in {"gather", "scatter", "undivided"}
    ]
    assert {collective.name for collective in rings} == {
        "gather F",
        "scatter F",
        "gather B",
        "scatter B",
        "gather W",
        "undivided gradients",
    }
    for collective in rings:
        assert collective.kernel is None
        source, destination = collective.transfers.source_rank, collective.transfers.destination_ranks
        degree = given["tensor_parallel"]
        # neighbours among GPUs of one node, so that a group stays in its own
        assert (source // degree == destination // degree).all()
        assert (source // 4 == destination // 4).all()
        assert (source != destination).all()


@pytest.mark.parametrize("degree", [3, 8])
def test_a_degree_that_leaves_a_node_is_refused(degree):
    # 4 GPUs a node: 3 does not divide them, 8 has more
    with pytest.raises(FieldError, match="node") as caught:
        plan(16, 4, SMALL, tensor_parallel=degree, expert_parallel=8)
    assert caught.value.field == "tensor_parallel"


def test_all_ranks_of_a_group_take_part_in_its_rings():
    graph = build(8, 4, SMALL, tensor_parallel=2, expert_parallel=4, sequences_per_step=8).graph
    for task in graph.tasks:
        if task.collective is not None and task.name in {"gather F", "scatter B"}:
            assert task.stream is Stream.COMMUNICATION
            sources = set(graph.collectives[task.collective].transfers.source_rank.tolist())
            assert sources == set(graph.fold_of(task.rank).tolist())


def test_every_expert_parallel_group_of_a_tensor_parallel_one_exchanges():
    # 2 groups of 2 in a group of 4: ranks 2 and 3 exchange as 0 and 1 do
    graph = build(8, 4, SMALL, tensor_parallel=4, expert_parallel=2, sequences_per_step=8).graph
    dispatch = next(each.transfers for each in graph.collectives if each.name == "dispatch F")
    pairs = sorted(zip(dispatch.source_rank.tolist(), dispatch.destination_ranks.tolist(), strict=True))
    assert pairs
    assert [(a + 2, b + 2) for a, b in pairs if a < 2] == [(a, b) for a, b in pairs if a >= 2]
    assert {rank for pair in pairs for rank in pair} == {0, 1, 2, 3}
    assert in_each_group(dispatch, 4, 1) is dispatch


def test_memory_divides_all_that_is_kept():
    # Half the tokens on each of two ranks, or half the heads, values and vocabulary of all tokens: half the bytes.
    alone = plan(16, 4, SMALL, expert_parallel=4, sequences_per_step=32)
    shared = plan(16, 4, SMALL, expert_parallel=4, sequences_per_step=16, tensor_parallel=2)
    assert alone.num_micro_batches == shared.num_micro_batches
    for whole, half in zip(alone.memory, shared.memory, strict=True):
        assert 2 * half.activations == whole.activations


def test_gradients_of_what_is_whole_on_every_rank_are_summed():
    # A rank has gradients of norms, gate and down-projections of its own tokens alone. All-reduce over 2 ranks: each
    # sends 2 x 1/2 of the FP32 gradients.
    step = build(4, 2, SMALL, tensor_parallel=2, sequences_per_step=8)
    sums = [each for each in step.graph.collectives if each.name == "undivided gradients"]
    assert len(sums) == 2  # pipeline ranks
    for pipeline_rank, collective in enumerate(sums):
        stage = step.plan.stages[pipeline_rank]
        layers = [*stage.layers, *stage.mtp_modules(SMALL)]
        whole = sum(each.parameters for n in layers for each in layer_matrices(SMALL, n) if each.pieces == 1)
        hidden = SMALL.hidden_size
        whole += stage.has_head * hidden + stage.mtp_layers * (3 * hidden + 2 * hidden * hidden)
        sent = np.bincount(collective.transfers.source_rank, collective.transfers.size_bytes, minlength=4)
        expected = np.zeros(4)
        expected[step.plan.layout.ranks[pipeline_rank]] = 4 * whole
        np.testing.assert_allclose(sent, expected, rtol=1e-12)
    # by hand, one layer of the small model with experts: norms 2 x 40 + 24 + 16, down-projections 40 x (24 + 16 + 4),
    # gate 8 x (40 + 1)
    moe = sum(each.parameters for each in layer_matrices(SMALL, 2) if each.pieces == 1)
    assert moe == 2 * 40 + 24 + 16 + 40 * 44 + 8 * 41


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb1p", "dualpipe", "dualpipe-v"])
def test_free_transfers_leave_the_time_of_the_kernels(schedule):
    # Each phase is a chain on the compute stream, with no gap where nothing else takes time.
    step = build(4, 2, SMALL, tensor_parallel=2, sequences_per_step=8, schedule=schedule)
    start, end = play(step.graph, lambda task: 1 if task.kernel is not None else 0)
    for phase in step.graph.phases:
        tasks = range(phase.first_task, phase.end_task)
        if phase.kind not in {"reduce-gradients", "optimizer", "gather-weights"}:
            kernels = sum(step.graph.tasks[task].kernel is not None for task in tasks)
            assert max(end[task] for task in tasks) - min(start[task] for task in tasks) == kernels > 0


def test_each_part_of_each_micro_batch_is_gathered_and_scattered_once():
    # 4 layers (one dense, three with experts), an MTP module with experts, embedding, module's entry and head, of
    # each micro-batch of one group: attention and feed-forward of 5 layers; the head twice, the embedding twice
    step = build(4, 2, SMALL, tensor_parallel=2, sequences_per_step=8)
    micro_batches = step.plan.num_micro_batches
    counts = Counter(each.name for each in step.graph.collectives)
    assert micro_batches == 8
    assert counts["gather F"] == micro_batches * (2 * 5 + 2)
    assert counts["scatter F"] == micro_batches * (2 * 5 + 2)
    assert counts["gather B"] == micro_batches * 2 * 5
    assert counts["scatter B"] == micro_batches * (2 * 5 + 2)
    # head and module's entry, with the embedding, and the first stage's embedding
    assert counts["gather W"] == micro_batches * (2 * 5 + 3)
