"""Inference steps on networks: sums of kernels, exchanges alone, reuse, folds, and laws that any step must keep."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine import Recording, execute
from simulator.network import LinkCosts
from simulator.pricing import FREE, Pricing
from support.clusters import IDEAL, network
from support.inference_steps import build, dense_model
from support.params import mostly_slow
from support.training_steps import model
from workloads.folds import unfolded
from workloads.tasks import Collective, CommunicationKernel, ComputeKernel, Stream, TaskGraph, run_in_turn

# 4 nodes of 4 GPUs: groups of 8 on two nodes, or one of 16
NUM_NODES, GPUS = 4, 4
LATENCIES = {name: LinkCosts(0.9, 3e-6, 1e-6) for name in IDEAL}
# Slow links, so that the small model's exchanges take as long as its kernels.
RATES = {"nvlink": 2e9, "pcie": 1e9, "nic": 4e8}
ENDLESS = dict.fromkeys(RATES, 1e18)
PLANES = {"kind": "multi-plane-fat-tree", "planes": 4, "switch_ports": 8}
RAILS = {"kind": "multi-rail-fat-tree", "switch_ports": 16}
STEP = {"expert_parallel": 8, "batch_per_gpu": 32, "cached_tokens": 100, "gate": {"kind": "uniform"}}
CASES = {
    "decode": {},
    "one micro-batch": {"micro_batches": 1},
    "a draft": {"mtp_acceptance": 0.8},
    "tensor parallel": {"tensor_parallel": 2},
    "one group of all": {"expert_parallel": 16, "gate": {"kind": "lognormal", "sigma": 1.0}},
    "more tensor-parallel than expert-parallel": {
        "expert_parallel": 2,
        "tensor_parallel": 4,
        "of": model(num_heads=4),
    },
    "shared experts dispatched": {"shared_experts": "dispatched", "balance": "eplb"},
    "loads per layer": {"load_changes": "per-layer"},
    "loads per micro-batch": {"load_changes": "per-micro-batch"},
    "dense layers": {"of": dense_model(), "expert_parallel": 1, "tensor_parallel": 2},
    "overhead": {"framework_overhead": "100 us"},
    "prefill": {"kind": "prefill-step"},
    "prefill, tensor parallel": {"kind": "prefill-step", "tensor_parallel": 2},
}

QUICK = ("decode", "loads per layer", "prefill", "tensor parallel")


def seconds(kernel: ComputeKernel) -> float:
    """A GPU of 20 GFLOP/s and 2 GB/s: what it computes takes about as long as what it sends."""
    return kernel.call.flops / 2e10 + kernel.call.moved_bytes / 2e9 + 1e-6


def price(kernel: CommunicationKernel) -> Pricing:
    """Start-ups, gaps and slowdowns, all of them."""
    return Pricing(2e-6 + 5e-6 * kernel.beside_compute, {"nvlink": 1e-8}, 100.0, 1.3 + 0.2 * kernel.combines)


def step(kernel_s=seconds, **fields) -> TaskGraph:
    common = STEP | fields
    if common.get("kind") == "prefill-step":
        common = {
            name: value for name, value in common.items() if name not in {"batch_per_gpu", "cached_tokens"}
        }
    return build(NUM_NODES * GPUS, GPUS, **common).graph.priced(kernel_s)


def run(
    graph: TaskGraph, topology=PLANES, *, rates=RATES, costs=LATENCIES, pricing=price, reuse=True
) -> Recording:
    named = {name: f"{rate!r} B/s" for name, rate in rates.items()}
    compiled, layout = network(NUM_NODES, gpus=GPUS, costs=costs, rates=named, **topology)
    return execute(graph, compiled, layout.endpoint_of_rank, reuse=reuse, price=pricing)


def unhindered(graph: TaskGraph) -> Recording:
    """On links without limits and latencies, with communication kernels that cost nothing."""
    return run(graph, rates=ENDLESS, costs=IDEAL, pricing=lambda _: FREE)


# Sums of kernels, and exchanges alone


def kernels_s(graph: TaskGraph, rank: int = 0) -> float:
    return sum(task.duration_s for task in graph.tasks if task.rank == rank and task.stream is Stream.COMPUTE)


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_without_limits_a_step_is_the_sum_of_its_kernels(fields):
    # exchanges and rings take no time, so that the compute stream never waits
    graph = step(**fields)
    taken_s = unhindered(graph).times.step_time_s
    assert taken_s == pytest.approx(kernels_s(graph), rel=1e-9)
    assert taken_s > 0


def critical_path_s(graph: TaskGraph, exchange_s: float) -> float:
    """When rank 0 has done its tasks, each stream in its order, if every exchange takes so long: the slow twin."""
    end_s: dict[int, float] = {}
    free_s = {Stream.COMPUTE: 0.0, Stream.COMMUNICATION: 0.0}
    for number, task in enumerate(graph.tasks):
        if task.rank != 0:
            continue
        begin_s = max((end_s[before] for before in task.after), default=0.0)
        if task.stream is not None:
            begin_s = max(begin_s, free_s[task.stream])
        end_s[number] = (
            begin_s + task.duration_s + (exchange_s if task.stream is Stream.COMMUNICATION else 0.0)
        )
        if task.stream is not None:
            free_s[task.stream] = end_s[number]
    return max(end_s.values())


@pytest.mark.parametrize("exchange_s", [2e-6, 2e-5, 2e-4, 2e-3])
@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_exchanges_of_known_length_overlap_as_the_order_says(fields, exchange_s):
    # nothing but a start-up: from exchanges that hide wholly to such that rule the step
    graph = step(**fields)
    taken_s = run(graph, rates=ENDLESS, costs=IDEAL, pricing=lambda _: Pricing(exchange_s)).times.step_time_s
    assert taken_s == pytest.approx(critical_path_s(graph, exchange_s), rel=1e-9)


def test_exchanges_hide_or_show_as_their_length_has_it():
    # what the case before is for is in it
    graph = step()
    kernels = kernels_s(graph)
    assert critical_path_s(graph, 2e-6) == pytest.approx(
        kernels, rel=1e-12
    )  # the other's head hides the last
    assert 1.2 * kernels < critical_path_s(graph, 2e-4) < kernels + 3 * 4 * 2e-4
    assert critical_path_s(graph, 2e-3) == pytest.approx(3 * 4 * 2e-3, rel=0.1)


def alone_s(collective: Collective) -> float:
    graph = run_in_turn((collective,), range(NUM_NODES * GPUS), NUM_NODES * GPUS)
    return run(graph).times.step_time_s


@pytest.mark.parametrize(
    "fields", [{}, {"load_changes": "per-layer"}, {"mtp_acceptance": 0.8}, {"micro_batches": 1}]
)
def test_without_kernels_a_step_is_its_exchanges_alone(fields):
    # one group of all 16: they follow one another, each as if by itself
    graph = step(lambda _: 0.0, expert_parallel=16, **fields)
    known = {id(each.transfers): each for each in graph.collectives}
    took_s = {key: alone_s(each) for key, each in known.items()}
    expected = sum(took_s[id(each.transfers)] for each in graph.collectives)
    assert run(graph).times.step_time_s == pytest.approx(expected, rel=1e-9)
    if not fields:
        dispatch, combine = (alone_s(each) for each in known.values())
        assert expected == pytest.approx(3 * 2 * (dispatch + combine), rel=1e-9)


# Reuse and folds


def assert_alike(ours: Recording, theirs: Recording) -> None:
    for one, other in zip(ours.transfers, theirs.transfers, strict=True):
        assert one.start_s == pytest.approx(other.start_s, rel=1e-9)
        assert one.end_s == pytest.approx(other.end_s, rel=1e-9)
    assert ours.meter.bytes == pytest.approx(theirs.meter.bytes, rel=1e-9)


@pytest.mark.parametrize(
    ("fields", "topology"),
    mostly_slow(
        {name: (fields, PLANES) for name, fields in CASES.items()}
        | {"decode on rails": ({}, RAILS), "prefill on rails": ({"kind": "prefill-step"}, RAILS)},
        *QUICK,
    ),
)
def test_reused_and_solved_are_the_same(fields, topology):
    graph = step(**fields)
    reused, solved = run(graph, topology), run(graph, topology, reuse=False)
    assert reused.times.start_s == pytest.approx(solved.times.start_s, rel=1e-9)
    assert reused.times.end_s == pytest.approx(solved.times.end_s, rel=1e-9)
    assert_alike(reused, solved)
    assert solved.collectives_reused == 0
    assert reused.collectives_solved + reused.collectives_reused == solved.collectives_solved


def test_most_exchanges_of_a_step_are_reused():
    recording = run(step(of=model(num_layers=12)))
    assert recording.collectives_reused > 0.7 * (recording.collectives_solved + recording.collectives_reused)


@pytest.mark.parametrize("fields", mostly_slow(CASES, *QUICK))
def test_folded_and_unfolded_are_the_same(fields):
    folded = step(**fields)
    one, each = run(folded), run(unfolded(folded))
    sizes = np.array([len(folded.fold_of(task.rank)) for task in folded.tasks])
    barriers = np.cumsum(sizes + 1) - 1
    assert each.times.end_s[barriers] == pytest.approx(one.times.end_s, rel=1e-9)
    assert each.times.start_s[barriers - sizes] == pytest.approx(one.times.start_s, rel=1e-9)
    assert_alike(one, each)


# Ranks at their own pace

UNEVEN = {"gate": {"kind": "lognormal", "sigma": 1.0}, "expert_parallel": 16, "pace": "own"}
UNEVEN_CASES = {
    "drawn once": {},
    "per micro-batch": {"load_changes": "per-micro-batch"},
    "per micro-batch, one at a time": {"load_changes": "per-micro-batch", "micro_batches": 1},
    "shared experts dispatched": {"load_changes": "per-layer", "shared_experts": "dispatched"},
}


def own_path_s(graph: TaskGraph, exchange_s: float) -> list[float]:
    """When each task has ended, if every transfer takes so long from when its source has joined: the slow twin."""
    end_s: dict[int, float] = {}
    begin_s: dict[int, float] = {}
    free_s: dict[tuple[int, Stream], float] = {}
    members: dict[int, list[int]] = {}
    for number, task in enumerate(graph.tasks):
        if task.collective is not None:
            members.setdefault(task.collective, []).append(number)
    for number, task in enumerate(graph.tasks):
        key = task.rank, task.stream
        begin_s[number] = max([free_s.get(key, 0.0), *(end_s[before] for before in task.after)])
        if task.collective is None:
            end_s[number] = free_s[key] = begin_s[number] + task.duration_s
        elif number == members[task.collective][-1]:
            transfers = graph.collectives[task.collective].transfers
            assert not transfers.reduce.any()
            assert len(transfers.source_rank) == len(transfers.destination_ranks)
            numbers = {graph.tasks[each].rank: each for each in members[task.collective]}
            for each in numbers.values():
                end_s[each] = begin_s[each]
            ends = zip(transfers.source_rank.tolist(), transfers.destination_ranks.tolist(), strict=True)
            for source, destination in ends:
                for rank in (source, destination):
                    there_s = begin_s[numbers[source]] + exchange_s
                    end_s[numbers[rank]] = max(end_s[numbers[rank]], there_s)
            for rank, each in numbers.items():
                free_s[rank, task.stream] = end_s[each]
    return [end_s[number] for number in range(len(graph.tasks))]


@pytest.mark.parametrize("exchange_s", [2e-6, 2e-5, 2e-4])
@pytest.mark.parametrize("fields", UNEVEN_CASES.values(), ids=UNEVEN_CASES)
def test_at_their_own_pace_ranks_wait_for_their_peers_alone(fields, exchange_s):
    graph = step(**UNEVEN | fields)
    times = run(graph, rates=ENDLESS, costs=IDEAL, pricing=lambda _: Pricing(exchange_s)).times
    assert times.end_s == pytest.approx(own_path_s(graph, exchange_s), rel=1e-9)
    # and not all do the same
    experts_s = {task.duration_s for task in graph.tasks if task.name == "experts"}
    assert len(experts_s) > 1


@pytest.mark.parametrize("fields", UNEVEN_CASES.values(), ids=UNEVEN_CASES)
def test_their_own_pace_is_none_slower_than_lockstep(fields):
    own, together = step(**UNEVEN | fields), step(**UNEVEN | fields | {"pace": "lockstep"})
    own_s, together_s = run(own).times.step_time_s, run(together).times.step_time_s
    assert own_s <= together_s * (1 + 1e-9)
    if fields == UNEVEN_CASES["per micro-batch"]:
        assert own_s < 0.999 * together_s  # another rank is the fullest in each exchange
    for rank in range(NUM_NODES * GPUS):
        assert kernels_s(own, rank) <= kernels_s(together) * (1 + 1e-12)


@pytest.mark.parametrize("fields", [{}, {"mtp_acceptance": 0.8}, {"tensor_parallel": 2}])
def test_ranks_with_alike_loads_keep_step_by_themselves(fields):
    # 16 requests a micro-batch fill 8 experts evenly; no links that some share and others do not
    common = {"gate": {"kind": "balanced"}, "expert_parallel": 16, **fields}
    own, together = unhindered(step(pace="own", **common)), unhindered(step(**common))
    assert own.times.step_time_s == pytest.approx(together.times.step_time_s, rel=1e-9)


CACHES = {
    "from the host": {"cache_transfers": {"kind": "host", "size_per_step": "1 MB"}},
    "from GPUs that prefill": {
        "expert_parallel": 4,
        "cache_transfers": {"kind": "prefill", "gpus": 4, "size_per_step": "1 MB"},
    },
}


@pytest.mark.parametrize("fields", CACHES.values(), ids=CACHES)
def test_at_their_own_pace_each_rank_gets_its_caches_beside_each_layer(fields):
    graph = step(**UNEVEN | fields)
    times = run(graph).times
    decoding = {task.rank for task in graph.tasks if task.stream is Stream.COMPUTE}
    for rank in decoding:
        came = [
            number
            for number, task in enumerate(graph.tasks)
            if task.rank == rank and task.name == "cache transfer"
        ]
        assert len(came) == 4  # layers
        # one after the other, and each when its own layer begins
        assert all(times.end_s[one] <= times.start_s[other] for one, other in itertools.pairwise(came))
        assert all(
            graph.tasks[before].rank == rank for number in came for before in graph.tasks[number].after
        )


@pytest.mark.parametrize("fields", mostly_slow(UNEVEN_CASES | CACHES, "drawn once", "from the host"))
def test_at_their_own_pace_too_reused_and_solved_are_the_same(fields):
    graph = step(**UNEVEN | fields)
    reused, solved = run(graph), run(graph, reuse=False)
    assert reused.times.end_s == pytest.approx(solved.times.end_s, rel=1e-9)
    assert_alike(reused, solved)


# Laws


@pytest.mark.parametrize("fields", mostly_slow(CASES, *QUICK))
def test_no_step_beats_its_links_or_its_kernels(fields):
    graph = step(**fields)
    recording = run(graph)
    compiled, _ = network(
        NUM_NODES,
        gpus=GPUS,
        costs=LATENCIES,
        rates={name: f"{rate!r} B/s" for name, rate in RATES.items()},
        **PLANES,
    )
    step_s = recording.times.step_time_s
    assert (recording.meter.bytes / compiled.capacity_bytes_per_s).max() <= step_s
    assert kernels_s(graph) <= step_s
    assert critical_path_s(graph, 0.0) <= step_s
    # and it takes no longer than everything in turn
    in_turn = kernels_s(graph) + sum(
        recording.times.end_s[number] - recording.times.start_s[number]
        for number, task in enumerate(graph.tasks)
        if task.rank == 0 and task.collective is not None
    )
    assert step_s <= in_turn * (1 + 1e-9)
    if not fields:
        assert recording.meter.saturated_s.max() > 0.05 * step_s  # exchanges really wait for links


def tpot_s(kernel_s=seconds, **fields) -> float:
    """Time per token with a balanced gate: what is drawn does not change with the batch."""
    drafts = fields.get("mtp_acceptance")
    return run(step(kernel_s, gate={"kind": "balanced"}, **fields)).times.step_time_s / (1 + (drafts or 0.0))


VARIANTS = st.sampled_from(
    [{}, {"tensor_parallel": 2}, {"micro_batches": 1}, {"mtp_acceptance": 0.8}, {"expert_parallel": 16}]
)
FEW = settings(max_examples=6, deadline=None)


@given(VARIANTS, st.integers(1, 6), st.integers(1, 6))
@FEW
def test_time_per_token_rises_with_the_batch(fields, batch, more):
    # of a whole number of tokens for each of 8 experts on every rank, as the balanced gate fills them
    fewer, most = 8 * batch, 8 * (batch + more)
    assert tpot_s(batch_per_gpu=fewer, **fields) < tpot_s(batch_per_gpu=most, **fields)


@given(VARIANTS, st.integers(0, 1000), st.integers(1, 1000))
@FEW
def test_time_per_token_rises_with_cached_tokens(fields, cached, more):
    assert tpot_s(cached_tokens=cached, **fields) < tpot_s(cached_tokens=cached + more, **fields)


@given(VARIANTS, st.floats(1.01, 10.0), st.sampled_from(["attention", "experts", "ends", "dense", ""]))
@FEW
def test_time_per_token_rises_with_kernel_times(fields, slower, name):
    def slowed(kernel):
        return seconds(kernel) * (slower if name in kernel.call.name else 1.0)

    # kernels may hide behind exchanges, the longest parts do not
    assert tpot_s(slowed, **fields) >= tpot_s(**fields) * (1 - 1e-9)
    if not name:
        assert tpot_s(slowed, **fields) > tpot_s(**fields)


@given(VARIANTS, st.floats(0.1, 1000.0), st.sampled_from([PLANES, RAILS]))
@FEW
def test_a_cluster_that_is_k_times_faster_takes_a_kth(fields, k, topology):
    # capacities and kernels' speeds by k; latencies, start-ups, gaps and overhead by 1 / k
    def price_faster(kernel):
        usual = price(kernel)
        gaps = {name: gap_s / k for name, gap_s in usual.per_message_s.items()}
        return Pricing(usual.start_up_s / k, gaps, usual.message_bytes, usual.slowdown)

    usual_s = run(step(framework_overhead="100 us", **fields), topology).times.step_time_s
    faster = run(
        step(lambda kernel: seconds(kernel) / k, framework_overhead=f"{100 / k!r} us", **fields),
        topology,
        rates={name: rate * k for name, rate in RATES.items()},
        costs={name: LinkCosts(0.9, 3e-6 / k, 1e-6 / k) for name in IDEAL},
        pricing=price_faster,
    )
    assert faster.times.step_time_s == pytest.approx(usual_s / k, rel=1e-9)
