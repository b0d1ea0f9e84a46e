"""The graph of a pass: alike in every group, folded, with transfers that stay within groups and bring all tokens."""

import numpy as np
import pytest

from support.inference_steps import build, dense_model
from support.training_steps import model
from workloads.inference.graph import OVERHEAD
from workloads.tasks import Stream

CASES = {
    "decode": {},
    "one micro-batch": {"micro_batches": 1},
    "with MTP": {"mtp_acceptance": 0.85},
    "tensor parallel": {"tensor_parallel": 2},
    "more tensor-parallel than expert-parallel": {
        "tensor_parallel": 4,
        "expert_parallel": 2,
        "gpus_per_node": 4,
        "of": model(num_heads=4),
    },
    "of dense layers": {"of": dense_model(), "expert_parallel": 1, "tensor_parallel": 2},
    "alone": {"expert_parallel": 1},
    "prefill": {"kind": "prefill-step"},
    "prefill, tensor parallel": {"kind": "prefill-step", "tensor_parallel": 2},
    "loads per layer": {"load_changes": "per-layer", "gate": {"kind": "uniform"}},
}
NUM_RANKS = 8


def made(**fields):
    return build(NUM_RANKS, **fields).graph


@pytest.fixture(params=CASES.values(), ids=CASES)
def graph(request):
    return made(**request.param)


def group_size(graph):
    return len(graph.fold_of(0))


def test_groups_of_consecutive_ranks_are_folds(graph):
    size = group_size(graph)
    assert size in {1, 2, 4}
    assert graph.leader_of_rank.tolist() == [rank // size * size for rank in range(NUM_RANKS)]
    assert {task.rank for task in graph.tasks} == set(range(0, NUM_RANKS, size))


def test_every_group_has_the_same_tasks_and_traffic(graph):
    size = group_size(graph)
    of_group = [[task for task in graph.tasks if task.rank == leader] for leader in range(0, NUM_RANKS, size)]
    first_tasks = of_group[0]
    for number, tasks in enumerate(of_group):
        shift = number * len(first_tasks)
        assert len(tasks) == len(first_tasks)
        for one, other in zip(first_tasks, tasks, strict=True):
            assert (one.name, one.stream, one.kernel) == (other.name, other.stream, other.kernel)
            assert other.after == tuple(place + shift for place in one.after)
            assert (one.collective is None) == (other.collective is None)
            if one.collective is None:
                continue
            ours, theirs = graph.collectives[one.collective], graph.collectives[other.collective]
            assert ours.kernel == theirs.kernel
            assert ours.transfers.size_bytes.tolist() == theirs.transfers.size_bytes.tolist()
            for column in ("source_rank", "relay_ranks", "destination_ranks"):
                moved = getattr(ours.transfers, column) + number * size
                assert moved.tolist() == getattr(theirs.transfers, column).tolist()
                assert set((moved // size).tolist()) <= {number}


def test_exchanges_are_on_the_communication_stream_and_rings_on_none(graph):
    for task in graph.tasks:
        if task.name in {"dispatch", "combine"}:
            assert task.stream is Stream.COMMUNICATION
            assert graph.collectives[task.collective].kernel is not None
        elif task.collective is not None:
            assert task.name in {"gather", "scatter"}
            assert task.stream is None
            assert graph.collectives[task.collective].kernel is None
        else:
            assert task.stream is Stream.COMPUTE
            assert task.kernel is not None


def test_exchanges_that_are_alike_share_their_transfers():
    # so that the engine need not solve them again: dispatch and combine, of each of two groups
    graph = made()
    assert len({id(each.transfers) for each in graph.collectives}) == 4
    # three layers with experts, each with loads of its own
    anew = made(**CASES["loads per layer"])
    assert len({id(each.transfers) for each in anew.collectives}) == 4 * 3
    every = made(load_changes="per-micro-batch", gate={"kind": "uniform"})
    assert len({id(each.transfers) for each in every.collectives}) == 4 * 3 * 2


def sent(graph, name):
    found = next(each for each in graph.collectives if each.name == name)
    return float(found.transfers.size_bytes.sum())


@pytest.mark.parametrize(
    "fields", [{}, {"tensor_parallel": 2}, CASES["more tensor-parallel than expert-parallel"]]
)
def test_a_group_sends_every_token_to_its_experts_and_gets_it_back(fields):
    # 2 of 8 experts for each token: of 4 requests a micro-batch and rank 4 x 2 pairs, in groups of 4 ranks 32 pairs.
    # A pair is local to one in so many ranks as there are in an expert-parallel group, in the mean of the balanced
    # gate, which gives every token's pairs to all experts in turn: exactly. 40 values in BF16 back; in FP8 40 bytes,
    # a scale and 16 bytes of metadata there. With tensor parallelism each rank still sends its own tokens.
    graph = made(**fields)
    degree = fields.get("expert_parallel", 4)
    remote = 32 * (degree - 1) / degree
    assert group_size(graph) == 4
    assert sent(graph, "dispatch") == remote * (40 + 4 + 16)
    assert sent(graph, "combine") == remote * 80


def test_dispatched_shared_experts_take_every_token():
    # 8 routed experts and a shared one, 3 copies: 12 on 4 ranks; three pairs a token, fewer than 24 of 48 local
    local, dispatched = sent(made(), "combine"), sent(made(shared_experts="dispatched"), "combine")
    assert local < dispatched < 1.8 * local


def test_the_framework_overhead_comes_last_in_every_group():
    graph = made(framework_overhead="2 ms")
    overheads = [place for place, task in enumerate(graph.tasks) if task.name == OVERHEAD]
    assert [graph.tasks[place].rank for place in overheads] == [0, 4]
    for place in overheads:
        task = graph.tasks[place]
        assert task.duration_s == 2e-3
        own = [number for number, other in enumerate(graph.tasks) if other.rank == task.rank]
        assert list(task.after) == own[:-1]
        assert own[-1] == place
    assert not any(task.name == OVERHEAD for task in made().tasks)


def test_rings_join_neighbouring_ranks():
    # tensor-parallel groups of 2: all bytes stay between ranks 0 and 1, and 2 and 3
    graph = made(tensor_parallel=2)
    rings = [each.transfers for each in graph.collectives if each.name in {"gather", "scatter"}]
    assert rings
    for ring in rings:
        assert np.array_equal(ring.source_rank // 2, ring.destination_ranks // 2)
        assert not np.array_equal(ring.source_rank, ring.destination_ranks)
    assert {rank // 4 for ring in rings for rank in ring.source_rank.tolist()} == {0, 1}


def test_ring_bytes_by_hand():
    # 4 requests a micro-batch and rank, 8 tokens of two ranks; 40 values of each in BF16: each of two hops of the
    # ring that scatters them carries half
    graph = made(tensor_parallel=2)
    scatter = next(each for each in graph.collectives if each.name == "scatter")
    assert scatter.transfers.size_bytes.sum() == 2 * 2 * (8 * 40 * 2 / 2)


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_at_their_own_pace_ranks_have_the_tasks_of_their_group(fields):
    folded, own = made(**fields), made(pace="own", **fields)
    assert own.leader_of_rank.tolist() == list(range(NUM_RANKS))
    assert len(own.collectives) == len(folded.collectives)
    leaders = folded.leader_of_rank
    place_of_own = {
        rank: [i for i, task in enumerate(own.tasks) if task.rank == rank] for rank in range(NUM_RANKS)
    }
    for rank, places in place_of_own.items():
        group = [i for i, task in enumerate(folded.tasks) if task.rank == leaders[rank]]
        number = {place: i for i, place in enumerate(places)}
        first = group[0]
        assert len(places) == len(group)
        for place, other in zip(places, group, strict=True):
            mine, theirs = own.tasks[place], folded.tasks[other]
            assert (mine.name, mine.stream, mine.collective) == (
                theirs.name,
                theirs.stream,
                theirs.collective,
            )
            # on the same of its own
            assert [number[before] for before in mine.after] == [before - first for before in theirs.after]
