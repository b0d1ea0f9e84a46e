"""The specs: which kernels they ask a cost table for, what is drawn, and what a step says it takes for granted."""

import numpy as np
import pytest

from simulator.units import FieldError
from support.inference_steps import build, dense_model, setting, spec
from workloads.folds import unfolded
from workloads.kernel_call import calls_of


def kernels_of(graph):
    return {each.kernel for each in graph.collectives if each.kernel is not None}


def test_low_latency_kernels_are_neither_slowed_nor_hold_sms():
    # 40 values in FP8 with a scale and 16 bytes of metadata there, in BF16 back
    dispatch, combine = spec().communication_kernels(setting())
    assert (dispatch.name, dispatch.message_bytes, dispatch.combines) == ("low-latency", 40 + 4 + 16, False)
    assert (combine.name, combine.message_bytes, combine.combines) == ("low-latency", 80, True)
    for kernel in (dispatch, combine):
        assert not kernel.beside_compute
        assert not kernel.over_nics
        assert kernel.num_sms == 0
    assert kernels_of(build().graph) == {dispatch, combine}


def test_normal_kernels_hold_sms_and_are_priced_beside_computation():
    # 16 bytes are the alignment of 40 + 4 values, 8 of their source and 2 x 8 of top-k there, 80 + 8 + 2 x 4 back
    found = spec(kind="prefill-step").communication_kernels(setting())
    assert {kernel.name for kernel in found} == {"normal"}
    assert {kernel.num_sms for kernel in found} == {24}
    assert [(kernel.combines, kernel.beside_compute) for kernel in found] == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]
    assert [kernel.message_bytes for kernel in found] == [80, 80, 96, 96]
    # two micro-batches: each beside something; one: dispatch beside the shared experts, combine alone
    overlapped, alone = (build(kind="prefill-step", micro_batches=count).graph for count in (2, 1))
    assert {kernel.beside_compute for kernel in kernels_of(overlapped)} == {True}
    assert {(kernel.combines, kernel.beside_compute) for kernel in kernels_of(alone)} == {
        (False, True),
        (True, False),
    }


def test_messages_from_nic_to_nic():
    assert all(kernel.over_nics for kernel in spec(intra_node="rdma").communication_kernels(setting()))


def test_dispatch_and_combine_have_formats_of_their_own():
    found = spec(combine_format="logfmt10").communication_kernels(setting())
    assert [kernel.codec for kernel in found] == ["", "logfmt"]
    assert found[1].message_bytes < 80


@pytest.mark.parametrize("fields", [{"limit": True}, {"expert_parallel": 1}])
def test_what_does_not_exchange_asks_for_no_communication_kernel(fields):
    assert spec(**fields).communication_kernels(setting()) == ()
    assert kernels_of(build(**fields).graph) == set()


def test_a_limit_asks_for_no_kernel():
    assert spec(limit=True).compute_kernels(setting()) == ()
    graph = build(limit=True).graph
    # 4 layers, two exchanges in each
    assert [task.name for task in graph.tasks] == 8 * ["exchange"]
    assert all(task.kernel is None for task in graph.tasks)
    assert {task.duration_s for task in graph.tasks} == {4 * 3 * 40 * 3 / 50e9}


@pytest.mark.parametrize(
    "fields", [{}, {"kind": "prefill-step"}, {"mtp_acceptance": 0.8}, {"tensor_parallel": 2}]
)
def test_kernels_of_balanced_experts_are_those_that_are_checked(fields):
    # the balanced gate gives each rank as many pairs as its own tokens make
    listed = set(spec(**fields).compute_kernels(setting()))
    run = {task.kernel for task in build(**fields).graph.tasks if task.kernel is not None}
    names = {kernel.call.name for kernel in run}
    assert names == {kernel.call.name for kernel in listed}
    # all but attention, whose keys are not known before, and prefill's packing of tokens that come once
    same = {"experts", "shared experts", "dense", "ends"} - ({"experts"} if "kind" in fields else set())
    assert {kernel for kernel in run if kernel.call.name in same} == {
        kernel for kernel in listed if kernel.call.name in same
    }


@pytest.mark.parametrize(("degree", "sms"), [(4, 24), (1, 0)])
def test_kernels_lose_sms_only_where_something_is_exchanged(degree, sms):
    fields = {"kind": "prefill-step", "expert_parallel": degree}
    run = [task.kernel for task in build(**fields).graph.tasks if task.kernel is not None]
    for kernels in (run, spec(**fields).compute_kernels(setting())):
        assert {kernel.communication_sms for kernel in kernels} == {sms}


def test_decoding_gives_all_sms_to_kernels():
    assert {task.kernel.communication_sms for task in build().graph.tasks if task.kernel} == {0}


def rows(step):
    """Rows of the products of experts, layer by layer."""
    return [
        max(call.rows for call in calls_of(task.kernel.call) if call.kind == "gemm")
        for task in step.graph.tasks
        if task.name == "experts"
    ]


@pytest.mark.parametrize(("changes", "draws"), [("never", 1), ("per-layer", 3), ("per-micro-batch", 6)])
def test_loads_are_drawn_as_often_as_asked(changes, draws):
    # 3 layers with experts, two micro-batches; lognormal loads of 512 tokens are hardly ever equal
    step = build(batch_per_gpu=1024, gate={"kind": "lognormal", "sigma": 1.0}, load_changes=changes)
    found = rows(step)
    assert len(found) == 6
    assert len(set(found)) == draws
    if changes == "per-layer":
        assert found[0::2] == found[1::2]


def test_a_rank_computes_as_the_fullest_of_its_group():
    # 64 tokens of each of 4 ranks make 128 pairs a rank in the mean
    gate = {"kind": "lognormal", "sigma": 1.0}
    assert set(rows(build(batch_per_gpu=128))) == {128}
    assert min(rows(build(batch_per_gpu=128, gate=gate))) > 140


@pytest.mark.parametrize("kind", ["decode-step", "prefill-step"])
def test_at_their_own_pace_ranks_compute_what_they_get(kind):
    # 64 tokens of each of 4 ranks, 2 experts each: 512 pairs in all, in each of 3 layers of two micro-batches
    size = {"batch_per_gpu": 128} if kind == "decode-step" else {"tokens_per_gpu": 128}
    fields = {"kind": kind, "gate": {"kind": "lognormal", "sigma": 1.0}, **size}
    own, together = build(pace="own", **fields), build(**fields)
    of_ranks = np.array(rows(own)).reshape(6, 4)
    assert (of_ranks.sum(axis=1) == 512).all()
    assert of_ranks.max(axis=1).tolist() == rows(together)
    assert of_ranks[0].min() < of_ranks[0].max()
    # the tokens to pack are of each rank too
    if kind == "prefill-step":
        packs = [calls_of(task.kernel.call)[0] for task in own.graph.tasks if task.name == "experts"]
        assert [call.kind for call in packs] == ["pack"] * 24
        assert len({call.tokens for call in packs}) > 1


def test_their_own_pace_is_refused_where_nobody_would_wait_for_it(monkeypatch):
    folded = build().graph
    monkeypatch.setattr("workloads.inference.spec._MOST_OWN_TASKS", 4 * len(folded.tasks))
    assert len(build(pace="own").graph.tasks) == 4 * len(folded.tasks)
    for fields in ({}, {"kind": "prefill-step"}):
        monkeypatch.setattr(
            "workloads.inference.spec._MOST_OWN_TASKS", 4 * len(build(**fields).graph.tasks) - 1
        )
        with pytest.raises(
            FieldError, match=r"at their own pace 4 ranks have .* tasks.* at most 3 ranks"
        ) as error:
            build(pace="own", **fields)
        assert error.value.field == "pace"
        build(**fields)


def test_a_rank_without_tokens_computes_nothing():
    # one token of each of 4 ranks a micro-batch: 4 pairs of one expert each, all on the rank of the favourite
    step = build(
        pace="own", batch_per_gpu=2, gate={"kind": "lognormal", "sigma": 4.0}, experts_per_token=1, seed=3
    )
    idle = [task for task in step.graph.tasks if task.name == "experts" and task.kernel is None]
    assert idle
    assert all(task.duration_s == 0.0 for task in step.graph.priced(lambda _: 1.0).tasks if task in idle)


def test_seeds_draw_other_loads_and_equal_ones_the_same():
    fields = {"batch_per_gpu": 1024, "gate": {"kind": "lognormal", "sigma": 1.0}}
    first, again, other = (build(seed=seed, **fields).graph for seed in (1, 1, 2))
    assert first.tasks == again.tasks != other.tasks
    sizes = [each.collectives[0].transfers.size_bytes for each in (first, again, other)]
    assert np.array_equal(sizes[0], sizes[1])
    assert not np.array_equal(sizes[0], sizes[2])


def test_attention_reads_the_tokens_in_the_cache_and_the_new_ones():
    for acceptance, keys in ((None, 21.0), (0.8, 22.0)):
        step = build(mtp_acceptance=acceptance)
        attention = [
            call
            for task in step.graph.tasks
            if task.name == "attention"
            for call in calls_of(task.kernel.call)
            if call.kind == "latent-attention"
        ]
        assert {call.cached_tokens for call in attention} == {keys}
        assert {call.requests for call in attention} == {4}
        # 4 layers, and the module's
        assert len(attention) == 2 * (4 if acceptance is None else 5)


def test_prefill_expands_keys_of_the_prompt():
    attention = {
        call
        for task in build(kind="prefill-step").graph.tasks
        if task.name == "attention"
        for call in calls_of(task.kernel.call)
        if call.kind == "attention"
    }
    assert [(call.requests, call.query_tokens, call.cached_tokens) for call in attention] == [(2, 8, 8.0)]


def test_grouped_query_attention_reads_keys_of_its_heads():
    attention = {
        call
        for task in build(of=dense_model(), expert_parallel=1, tensor_parallel=2).graph.tasks
        if task.name == "attention"
        for call in calls_of(task.kernel.call)
        if call.kind == "attention"
    }
    # 8 requests of two ranks; 2 of 4 heads, one of 2 key heads
    assert [(call.requests, call.heads, call.kv_heads) for call in attention] == [(8, 2, 1)]


def said(step):
    return " ".join(step.assumptions)


def test_a_step_says_what_it_leaves_out():
    plain = said(build())
    assert "Gate: " in plain
    assert "Low-latency kernels hold no SM" in plain
    assert "a serving framework does take no time" in plain
    assert "drafted" not in plain
    assert "what the scenario says" in said(build(framework_overhead="1 ms"))
    assert "Of drafted tokens 85% hold" in said(build(mtp_acceptance=0.85))
    assert "Gate: " not in said(build(of=dense_model(), expert_parallel=1))
    assert "Prompts have no tokens in the cache" in said(build(kind="prefill-step"))
    assert "section 2.3.2" in said(build(limit=True))


@pytest.mark.parametrize("fields", [{}, {"kind": "prefill-step"}, {"tensor_parallel": 2}])
def test_graphs_can_be_unfolded(fields):
    graph = build(8, **fields).graph
    assert len(unfolded(graph).tasks) == len(graph.tasks) * (4 + 1)
