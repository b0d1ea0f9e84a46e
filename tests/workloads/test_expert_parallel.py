"""The workload `expert-parallel`: its metrics counted independently, its kernels, and faults of its fields named."""

from math import comb, sqrt

import numpy as np
import pytest

from simulator.units import FieldError
from support.expert_exchanges import build, setting, spec, summarise
from workloads.gate import sample_experts
from workloads.tasks import CommunicationKernel


def metrics(*args, **more):
    return summarise(build(*args, **more)).metrics


def traffic_of(workload):
    return workload.exchanges[0].traffic


def draw(seed, num_ranks, num_tokens):
    """[num_ranks, num_tokens, 8] the experts of DeepSeek-V3's uniform gate, drawn rank after rank."""
    rng = np.random.default_rng(seed)
    return np.array([sample_experts(rng, num_tokens, 256, 8, 8, 4) for _ in range(num_ranks)])


def targets_of_tokens(seed, num_ranks, num_tokens, degree, experts_per_target):
    """(copies, copies that leave home, pairs, pairs that leave home): targets of each token, counted one by one."""
    copies = leaving = pairs = pairs_leaving = 0
    for rank, tokens in enumerate(draw(seed, num_ranks, num_tokens).tolist()):
        home = rank % degree * (256 // degree) // experts_per_target
        for token in tokens:
            targets = [expert // experts_per_target for expert in token]
            copies += len(set(targets))
            leaving += len(set(targets) - {home})
            pairs += len(targets)
            pairs_leaving += sum(target != home for target in targets)
    return copies, leaving, pairs, pairs_leaving


def test_bandwidths_between_nodes():
    # Two groups of 16 ranks on 4 nodes: a node holds 128 of the 256 experts of its group. Logical bandwidth counts
    # distinct nodes at 7,392 and 14,336 bytes, wire bandwidth nodes but the own at 7,472 and 14,384.
    summary = summarise(build(4), 2e-3, 5e-3)
    copies, leaving, _, _ = targets_of_tokens(1, 32, 32, 16, 128)
    assert summary.breakdown_s == {"dispatch": 2e-3, "combine": pytest.approx(5e-3)}
    found = summary.metrics
    assert found["dispatch_s"] == 2e-3
    assert found["combine_s"] == pytest.approx(5e-3)
    assert found["dispatch_logical_bytes"] == pytest.approx(copies * 7392 / 32)
    assert found["combine_logical_bytes"] == pytest.approx(copies * 14336 / 32)
    assert found["dispatch_logical_bytes_per_s"] == pytest.approx(copies * 7392 / 32 / 2e-3)
    assert found["dispatch_wire_bytes_per_s"] == pytest.approx(leaving * 7472 / 32 / 2e-3)
    assert found["combine_logical_bytes_per_s"] == pytest.approx(copies * 14336 / 32 / 5e-3)
    assert found["combine_wire_bytes_per_s"] == pytest.approx(leaving * 14384 / 32 / 5e-3)
    assert found["nodes_per_token"] == copies / (32 * 32)


def test_bandwidths_within_a_node():
    # Groups of 4 ranks, two on each node: a GPU holds 64 experts. Logical bandwidth counts distinct GPUs, the own
    # included, wire bandwidth the others: what crosses NVLink.
    found = summarise(build(2, expert_parallel=4), 2e-3, 5e-3).metrics
    copies, leaving, _, _ = targets_of_tokens(1, 16, 32, 4, 64)
    assert found["dispatch_logical_bytes_per_s"] == pytest.approx(copies * 7392 / 16 / 2e-3)
    assert found["dispatch_wire_bytes_per_s"] == pytest.approx(leaving * 7472 / 16 / 2e-3)
    assert found["combine_wire_bytes_per_s"] == pytest.approx(leaving * 14384 / 16 / 5e-3)
    assert found["gpus_per_token"] == copies / (16 * 32)
    assert found["nodes_per_token"] == 1.0


@pytest.mark.parametrize("degree", [8, 64, 144, 320])
def test_low_latency_bytes_of_128_tokens(degree):
    # 128 tokens of 8 experts are 1,024 messages, wherever the experts lie and however many copies they have: in
    # dispatch of 7,168 values, 56 scales of 4 bytes and 16 of metadata, back of 7,168 values of 2 bytes.
    found = metrics(degree // 8, expert_parallel=degree, tokens_per_rank=128, kernel="low-latency")
    assert found["dispatch_logical_bytes"] == 1024 * (7168 + 56 * 4 + 16) == 7_585_792
    assert found["combine_logical_bytes"] == 1024 * 7168 * 2 == 14_680_064


@pytest.mark.parametrize(("degree", "experts_per_target"), [(16, 128), (4, 64)])
def test_low_latency_bandwidths(degree, experts_per_target):
    # Logical: 8 messages a token. Wire: those for other nodes (128 experts each) or, in a node, other GPUs (64 each).
    found = summarise(build(2, expert_parallel=degree, kernel="low-latency"), 2e-3, 5e-3).metrics
    _, _, pairs, leaving = targets_of_tokens(1, 16, 32, degree, experts_per_target)
    assert pairs == 8 * 16 * 32
    assert found["dispatch_logical_bytes_per_s"] == pytest.approx(pairs * 7408 / 16 / 2e-3)
    assert found["dispatch_wire_bytes_per_s"] == pytest.approx(leaving * 7408 / 16 / 2e-3)
    assert found["combine_logical_bytes_per_s"] == pytest.approx(pairs * 14336 / 16 / 5e-3)
    assert found["combine_wire_bytes_per_s"] == pytest.approx(leaving * 14336 / 16 / 5e-3)


def test_low_latency_transfers_are_the_messages_that_leave_their_rank():
    # A rank holds 16 experts: 128 tokens of 8 go to some on it, which does not move.
    workload = build(2, kernel="low-latency", combine_format="logfmt10")
    _, _, _, leaving = targets_of_tokens(1, 16, 32, 16, 16)
    dispatch, combine = (collective.transfers for collective in workload.graph.collectives)
    assert dispatch.size_bytes.sum() == leaving * 7408
    assert combine.size_bytes.sum() == leaving * 9408  # 7,168 values of 10 bits, 56 tiles of 8 bytes
    assert np.array_equal(combine.source_rank, dispatch.destination_ranks)
    assert np.array_equal(combine.destination_ranks, dispatch.source_rank)
    assert len(dispatch.relay_ranks) == len(combine.relay_ranks) == 0


def test_wire_bytes_are_those_of_the_relayed_transfers():
    workload = build(4)
    for collective, message_bytes in zip(workload.graph.collectives, (7472, 14384), strict=True):
        transfers = collective.transfers
        relayed = np.diff(transfers.relay_offsets) > 0
        assert transfers.size_bytes[relayed].sum() == traffic_of(workload).to_other_nodes() * message_bytes


@pytest.mark.parametrize("kernel", ["normal", "low-latency"])
def test_nothing_moves_where_each_rank_holds_all_experts(kernel):
    workload = build(1, expert_parallel=1, kernel=kernel)
    assert [len(collective.transfers) for collective in workload.graph.collectives] == [0, 0]
    found = summarise(workload, 0.0, 0.0).metrics
    assert found["dispatch_logical_bytes_per_s"] == found["combine_wire_bytes_per_s"] == 0.0
    assert summarise(workload, 1.0, 1.0).metrics["dispatch_wire_bytes_per_s"] == 0.0


def test_loads_are_the_most_loaded_over_the_mean_of_the_worst_group():
    # Two groups of 16 ranks: 512 tokens of 8 experts, 16 an expert on average, 256 a GPU, 2,048 a node.
    load = np.stack([np.bincount(group.ravel(), minlength=256) for group in np.split(draw(1, 32, 32), 2)])
    found = metrics(4)
    assert found["expert_load_max_over_mean"] == load.max() / 16
    assert found["gpu_load_max_over_mean"] == load.reshape(2, 16, 16).sum(axis=2).max() / 256
    assert found["node_load_max_over_mean"] == load.reshape(2, 2, 128).sum(axis=2).max() / 2048
    assert not [name for name in found if name.endswith("_before_balancing")]


def chance_of_distinct(num_targets, top_k=8, num_experts=256):
    """Mean and standard deviation of the distinct targets of a token whose experts are drawn without replacement.

    A target holds n = num_experts / num_targets. With a = C(E - n, k) / C(E, k) the chance that one is missed and
    b = C(E - 2n, k) / C(E, k) that two are, the mean is N (1 - a), the variance N a (1 - a) + N (N - 1) (b - a a).
    """
    size, hands = num_experts // num_targets, comb(num_experts, top_k)
    missed, two_missed = (comb(max(0, num_experts - parts * size), top_k) / hands for parts in (1, 2))
    variance = num_targets * missed * (1 - missed) + num_targets * (num_targets - 1) * (
        two_missed - missed**2
    )
    return num_targets * (1 - missed), sqrt(max(variance, 0.0))


@pytest.mark.parametrize("kernel", ["normal", "low-latency"])
@pytest.mark.parametrize("degree", [8, 32, 64, 256])
def test_targets_of_a_token_are_hypergeometric_without_a_limit(degree, kernel):
    # Tokens are independent, so that the mean over T of them is off by more than four standard errors once in 16,000.
    found = metrics(
        degree // 8, expert_parallel=degree, tokens_per_rank=8192 // degree, groups=1, kernel=kernel
    )
    for name, num_targets in (("gpus_per_token", degree), ("nodes_per_token", degree // 8)):
        mean, deviation = chance_of_distinct(num_targets)
        assert abs(found[name] - mean) <= 4 * deviation / sqrt(8192) + 1e-9
    # One expert on each of 256 GPUs: eight of them, without chance. One node: that.
    assert (found["gpus_per_token"] == 8.0) == (degree == 256)
    assert (found["nodes_per_token"] == 1.0) == (degree == 8)


def test_overrides_take_the_place_of_the_model_s():
    # One expert per token: one copy each, so that copies are the tokens: 16 ranks x 32.
    assert traffic_of(build(2, experts_per_token=1)).tokens_to_rank.sum() == 16 * 32
    # A node's 128 experts form one of two groups; with one kept every token goes to one node.
    assert traffic_of(build(2, groups=2, groups_kept=1)).tokens_to_node.sum() == 16 * 32
    assert metrics(8, expert_parallel=64, groups="nodes", groups_kept=2)["nodes_per_token"] <= 2
    # The model keeps 4 groups; where only one is left the gate keeps that: no limit, so that most of the 512 tokens
    # have experts on both nodes, all eight being on one node with probability 2 x C(128,8)/C(256,8) < 1%.
    assert traffic_of(build(2, groups=1)).tokens_to_node.sum() > 1.9 * 16 * 32


def test_a_dispatched_shared_expert_is_one_more_for_every_token():
    # Nine messages a token, their metadata no more: 32 x 9 x 7,408. 32 tokens of 16 ranks go to it, and 16 to each
    # other on average; of 257 experts 9/257 x 512 on average.
    found = metrics(2, shared_experts="dispatched", kernel="low-latency")
    assert found["dispatch_logical_bytes"] == 32 * 9 * 7408
    assert found["expert_load_max_over_mean"] == pytest.approx(257 / 9)
    # Normal messages have room for an index and a weight of it: 7,392 + 8 + 10 x 8 = 7,480, up to 7,488; of nine
    # they would take 7,472.
    dispatch, _ = spec(experts_per_token=9, shared_experts="dispatched").communication_kernels(setting(16))
    assert dispatch.message_bytes == 7488


def test_a_balanced_gate_loads_all_experts_alike():
    # 16 ranks x 32 tokens x 8 experts are 16 rounds of 256.
    for degree, num_nodes in ((16, 2), (16, 4), (64, 8)):
        workload = build(num_nodes, expert_parallel=degree, gate={"kind": "balanced"})
        load = traffic_of(workload).expert_load
        assert (load == degree * 32 * 8 // 256).all()
        found = summarise(workload).metrics
        for what in ("expert", "gpu", "node"):
            assert found[f"{what}_load_max_over_mean"] == 1.0


def test_kernels_of_dispatch_and_combine():
    # Messages as of `token_bytes`: 7,472 and, in LogFMT of 10 bits, 9,408 + 8 + 32 up to 9,456.
    normal = spec(combine_format="logfmt10", communication_sms=24, beside_compute=True)
    assert normal.communication_kernels(setting(16)) == (
        CommunicationKernel("normal", 7472, "", beside_compute=True, num_sms=24),
        CommunicationKernel("normal", 9456, "logfmt", combines=True, beside_compute=True, num_sms=24),
    )
    low_latency = spec(kernel="low-latency", dispatch_format="logfmt8", intra_node="rdma")
    assert low_latency.communication_kernels(setting(16)) == (
        CommunicationKernel("low-latency", 7632, "logfmt", over_nics=True),
        CommunicationKernel("low-latency", 14336, "", combines=True, over_nics=True),
    )
    assert not any(
        kernel.over_nics for kernel in spec(kernel="low-latency").communication_kernels(setting(16))
    )


@pytest.mark.parametrize("more", [{}, {"kernel": "low-latency", "intra_node": "rdma"}])
def test_collectives_run_the_kernels_that_are_told(more):
    kernels = [collective.kernel for collective in build(2, layers=2, **more).graph.collectives]
    assert kernels == [*spec(**more).communication_kernels(setting(16))] * 2


@pytest.mark.parametrize(
    ("more", "num_sms"),
    [
        ({}, 20),
        ({"communication_sms": 24}, 24),
        ({"communication_sms": 0}, 0),
        ({"kernel": "low-latency"}, 0),
    ],
)
def test_multiprocessors_held_are_told(more, num_sms):
    assert metrics(2, **more)["communication_sms"] == num_sms
    assert [kernel.num_sms for kernel in spec(**more).communication_kernels(setting(16))] == [num_sms] * 2


LOW_LATENCY = {"kernel": "low-latency"}


@pytest.mark.parametrize(
    ("more", "nics_meet", "field", "message"),
    [
        ({"intra_node": "nvlink"}, True, "intra_node", "intra_node is for low-latency kernels; normal ones"),
        ({"intra_node": "rdma"}, True, "intra_node", "intra_node is for low-latency kernels; normal ones"),
        (
            {"cross_plane": "nvlink"},
            False,
            "cross_plane",
            "cross_plane is for low-latency kernels; normal ones",
        ),
        ({**LOW_LATENCY, "communication_sms": 1}, True, "communication_sms", "leave communication_sms out"),
        ({**LOW_LATENCY, "intra_node": "rdma"}, False, "intra_node", "write nvlink, or another topology"),
        ({**LOW_LATENCY, "cross_plane": "nvlink"}, True, "cross_plane", "every NIC reaches every other"),
        (
            {"redundant_experts": 3},
            True,
            "redundant_experts",
            "write auto, or 0 or that and a multiple of 16",
        ),
    ],
)
def test_what_does_not_fit_is_named(more, nics_meet, field, message):
    with pytest.raises(FieldError, match=message) as caught:
        spec(**more).check(setting(16, nics_meet))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("more", "nics_meet"),
    [
        ({"communication_sms": 0}, False),
        ({**LOW_LATENCY, "intra_node": "rdma"}, True),
        ({**LOW_LATENCY, "intra_node": "nvlink"}, False),
        ({**LOW_LATENCY, "intra_node": "nvlink", "cross_plane": "nvlink"}, False),
        ({**LOW_LATENCY, "communication_sms": 0}, True),
    ],
)
def test_what_fits_is_accepted(more, nics_meet):
    spec(**more).check(setting(16, nics_meet))


def test_assumptions_name_the_bytes_of_a_token_and_the_kernel():
    told = " ".join(build(2).assumptions)
    assert "7,472 bytes in dispatch (fp8) and 14,384 in combine (bf16)" in told
    assert "Every expert's message" not in told
    assert "compute all the while" not in told
    told = " ".join(build(2, **LOW_LATENCY, combine_format="logfmt10", beside_compute=True).assumptions)
    assert "7,408 bytes in dispatch (fp8) and 9,408 in combine (logfmt10)" in told
    assert "Every expert's message goes straight to its rank" in told
    assert "The ranks compute all the while" in told


@pytest.mark.parametrize(
    "more",
    [
        {"tokens_per_rank": 0},
        {"tokens_per_rank": 2**20 + 1},
        {"tokens_per_rank": 4096.0},
        {"tokens_per_rank": True},
        {"expert_parallel": -1},
        {"kernel": "fast"},
        {"gate": {"kind": "zipf"}},
        {"intra_node": "pcie"},
        {"cross_plane": "rdma"},
        {"communication_sms": -1},
        {"beside_compute": "yes"},
        {"layers": 0},
        {"load_changes": "per-micro-batch"},
        {"dispatch_format": "fp4"},
        {"token_per_rank": 1},
    ],
)
def test_values_out_of_range_are_refused(more):
    with pytest.raises(ValueError, match=next(iter(more))):
        spec(**more)


def test_messages_that_leave_nvlink_unused_cross_the_wire_within_a_node_too():
    # Both count the same pairs; over NICs those of the own node cross a NIC as well.
    by_nvlink, by_nics = (build(2, kernel="low-latency", intra_node=way) for way in ("nvlink", "rdma"))
    traffic = by_nics.exchanges[0].traffic
    wire = [
        summarise(workload).metrics["dispatch_wire_bytes_per_s"] * 16 / 7408
        for workload in (by_nvlink, by_nics)
    ]
    assert wire == pytest.approx([traffic.pairs_to_other_nodes(), traffic.pairs_to_other_ranks()])


def test_more_pairs_than_can_be_simulated_are_refused():
    # 1,024 ranks that send to 1,023 each are simulated, 2,048 that do so are not; with one token they send to 8 each.
    case = {"kernel": "low-latency", "groups": 1}
    spec(expert_parallel=1024, tokens_per_rank=128, **case).check(setting(1024))
    with pytest.raises(
        FieldError, match=r"between 4,192,256 pairs of ranks are more than the 2,097,152"
    ) as caught:
        spec(expert_parallel=2048, tokens_per_rank=256, **case).check(setting(2048))
    assert caught.value.field == "expert_parallel"
    spec(expert_parallel=2048, tokens_per_rank=1, **case).check(setting(2048))
