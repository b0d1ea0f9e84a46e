"""Training steps on networks: reused or solved, folded or not, the same; what must hold of any run; stragglers."""

import numpy as np
import pytest

from simulator.engine import Recording, execute
from simulator.fault_clock import NO_FAULTS, Faults, Slowdown
from simulator.network import LinkCosts
from simulator.pricing import Pricing
from support.clusters import network
from support.params import mostly_slow
from support.training_steps import build
from workloads.folds import unfolded
from workloads.tasks import CommunicationKernel, ComputeKernel, TaskGraph

# 8 nodes of 4 GPUs: 2 or 4 pipeline ranks, with expert-parallel groups of 8 on two nodes.
NUM_NODES, GPUS = 8, 4
COSTS = {name: LinkCosts(0.9, 3e-6, 1e-6) for name in ("nvlink", "pcie", "infiniband")}
# Slow links, so that the small model's exchanges, sends and rings take as long as its kernels, and meet.
RATES = {"nvlink": "2 GB/s", "pcie": "1 GB/s", "nic": "400 MB/s"}
PLANES = {"kind": "multi-plane-fat-tree", "planes": 4, "switch_ports": 8}
RAILS = {"kind": "multi-rail-fat-tree", "switch_ports": 16}
STEP = {
    "pipeline_parallel": 4,
    "expert_parallel": 8,
    "sequence_length": 64,
    "sequences_per_step": 64,
    "gate": {"kind": "uniform"},
}
CASES = {
    "dualpipe": {"schedule": "dualpipe"},
    "dualpipe-v": {"schedule": "dualpipe-v", "pipeline_parallel": 2},
    "1f1b": {"schedule": "1f1b"},
    "interleaved": {"schedule": "interleaved-1f1b", "pipeline_parallel": 2, "chunks": 2},
    "zb1p, unsharded": {"schedule": "zb1p", "memory": {"shard_optimizer": False}},
    "gpipe, data outermost": {"schedule": "gpipe", "pipeline_parallel": 2, "rank_order": "data-outermost"},
    "tensor parallel": {"schedule": "dualpipe", "pipeline_parallel": 2, "tensor_parallel": 2},
    "loads per layer": {"schedule": "dualpipe", "pipeline_parallel": 2, "load_changes": "per-layer"},
    "loads per micro-batch": {"schedule": "zb1p", "pipeline_parallel": 2, "load_changes": "per-micro-batch"},
}
QUICK = ("dualpipe", "zb1p, unsharded", "loads per layer")

STRAGGLERS = (Slowdown(9, 1.5, 0.0, 0.01), Slowdown(30, 2.0, 0.004, 0.02))


def seconds(kernel: ComputeKernel) -> float:
    """A GPU of 20 GFLOP/s and 2 GB/s: what it computes takes about as long as what it sends."""
    return kernel.call.flops / 2e10 + kernel.call.moved_bytes / 2e9 + 1e-6


def price(kernel: CommunicationKernel) -> Pricing:
    """Start-ups, gaps and slowdowns, all of them."""
    return Pricing(2e-6 + 5e-6 * kernel.beside_compute, {"nvlink": 1e-8}, 100.0, 1.3 + 0.2 * kernel.combines)


def step(**fields) -> TaskGraph:
    return build(NUM_NODES * GPUS, GPUS, **STEP | fields).graph.priced(seconds)


def run(graph: TaskGraph, topology=PLANES, *, faults: Faults = NO_FAULTS, reuse: bool = True) -> Recording:
    compiled, layout = network(NUM_NODES, gpus=GPUS, costs=COSTS, rates=RATES, **topology)
    return execute(graph, compiled, layout.endpoint_of_rank, faults=faults, reuse=reuse, price=price)


def assert_alike(ours: Recording, theirs: Recording) -> None:
    """What passed the network is the same to 1e-9."""
    for one, other in zip(ours.transfers, theirs.transfers, strict=True):
        assert one.start_s == pytest.approx(other.start_s, rel=1e-9)
        assert one.end_s == pytest.approx(other.end_s, rel=1e-9)
    assert ours.meter.bytes == pytest.approx(theirs.meter.bytes, rel=1e-9)
    full_s = pytest.approx(theirs.meter.saturated_s, rel=1e-7, abs=1e-9 * theirs.times.step_time_s)
    assert ours.meter.saturated_s == full_s


@pytest.mark.parametrize(
    ("fields", "topology"),
    mostly_slow(
        {name: (fields, PLANES) for name, fields in CASES.items()}
        | {"dualpipe on rails": (CASES["dualpipe"], RAILS)},
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


@pytest.mark.parametrize(
    ("fields", "slow"),
    mostly_slow(
        {name: (fields, STRAGGLERS) for name, fields in CASES.items()}
        | {"dualpipe without stragglers": (CASES["dualpipe"], ())},
        *QUICK,
    ),
)
def test_folded_and_unfolded_are_the_same(fields, slow):
    folded, faults = step(**fields), Faults(slowdowns=slow)
    one, each = run(folded, faults=faults), run(unfolded(folded), faults=faults)
    sizes = np.array([len(folded.fold_of(task.rank)) for task in folded.tasks])
    barriers = np.cumsum(sizes + 1) - 1
    assert each.times.end_s[barriers] == pytest.approx(one.times.end_s, rel=1e-9)
    assert each.times.start_s[barriers - sizes] == pytest.approx(one.times.start_s, rel=1e-9)
    assert_alike(one, each)


@pytest.mark.parametrize("fields", mostly_slow(CASES, *QUICK))
def test_no_run_beats_its_links_or_its_kernels(fields):
    # A step takes no less than the busiest link needs for what passes it, or a rank for its kernels; and all bytes
    # that transfers have arrive once: what GPUs put on NVLink or NICs is no less than what they send.
    graph = step(**fields)
    recording = run(graph)
    compiled, _ = network(NUM_NODES, gpus=GPUS, costs=COSTS, rates=RATES, **PLANES)
    step_s = recording.times.step_time_s
    assert (recording.meter.bytes / compiled.capacity_bytes_per_s).max() <= step_s
    of_rank: dict[int, float] = {}
    for task in graph.tasks:
        of_rank[task.rank] = of_rank.get(task.rank, 0.0) + task.duration_s
    assert max(of_rank.values()) <= step_s
    sent = sum(float(collective.transfers.size_bytes.sum()) for collective in graph.collectives)
    assert recording.meter.bytes.sum() >= sent
    # The case is one in which exchanges and sends really wait for links.
    assert recording.meter.saturated_s.max() > 0.05 * step_s


def test_most_collectives_of_a_balanced_step_are_reused():
    # 16 micro-batches of 4 layers with experts and as many groups with the same traffic: little is new after a while.
    recording = run(step(schedule="dualpipe", sequences_per_step=256, gate={"kind": "balanced"}))
    total = recording.collectives_solved + recording.collectives_reused
    assert recording.collectives_reused > 0.5 * total


def test_a_straggler_slows_its_group_and_all_that_wait_for_it():
    graph = step(schedule="dualpipe")
    whole = run(graph).times.step_time_s
    slow = run(graph, faults=Faults(slowdowns=(Slowdown(5, 1.5, 0.0, 1e9),))).times.step_time_s
    # No more than if every kernel of every group were as slow, and no less than its own group's extra work.
    own = sum(task.duration_s for task in graph.tasks if task.rank == int(graph.leader_of_rank[5]))
    everybody = Faults(slowdowns=tuple(Slowdown(gpu, 1.5, 0.0, 1e9) for gpu in range(NUM_NODES * GPUS)))
    assert whole < slow <= run(graph, faults=everybody).times.step_time_s
    assert slow >= 1.5 * own
