"""The workload `collective`: bytes in and out of each rank by formula, rings, and PXN's relays."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.layout import RankLayout
from simulator.units import FieldError
from workloads.collectives import CollectiveSpec, all_to_all_transfers, ring_orders, ring_transfers
from workloads.tasks import Setting, TaskTimes

RING_OPERATIONS = {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2}


def setting(num_ranks, gpus_per_node=8):
    return Setting(None, num_ranks, gpus_per_node, Path())


def spec(**fields):
    return CollectiveSpec(kind="collective", **({"operation": "all-to-all", "size": "64 MB"} | fields))


def build(num_nodes, gpus_per_node, **fields):
    case = setting(num_nodes * gpus_per_node, gpus_per_node)
    spec(**fields).check(case)
    layout = RankLayout.in_order(num_nodes, gpus_per_node)
    return spec(**fields).build(case, layout, np.random.default_rng(1))


def bytes_in_and_out(transfers, num_ranks):
    """What each rank sends of its own and gets for itself: [num_ranks] each."""
    return (
        np.bincount(transfers.destination_ranks, transfers.size_bytes * transfers.fractions, num_ranks),
        np.bincount(transfers.source_rank, transfers.size_bytes, num_ranks),
    )


def relay_of(transfers):
    """(source, destination) -> relay, None for none."""
    relays = [transfers.relay_ranks[slice(*pair)] for pair in zip(*offsets(transfers), strict=True)]
    pairs = zip(transfers.source_rank.tolist(), transfers.destination_ranks.tolist(), strict=True)
    return {pair: (int(relay[0]) if len(relay) else None) for pair, relay in zip(pairs, relays, strict=True)}


def offsets(transfers):
    return transfers.relay_offsets[:-1], transfers.relay_offsets[1:]


def test_all_to_all_sends_a_part_to_every_other_rank():
    # 16 ranks, 64 MB each as nccl-tests counts: 4 MB per pair, of which a rank keeps its own: 60 MB out, 60 MB in.
    transfers = build(2, 8).graph.collectives[0].transfers
    assert set(relay_of(transfers)) == {(a, b) for a in range(16) for b in range(16) if a != b}
    assert (transfers.size_bytes == 4e6).all()
    received, sent = bytes_in_and_out(transfers, 16)
    assert (received == 60e6).all()
    assert (sent == 60e6).all()


def test_all_to_all_relays_have_the_destination_s_index():
    # Two nodes of four: to rank 6 (GPU 2 of node 1), rank 0 goes by rank 2 (GPU 2 of node 0); rank 2 is already
    # there, and within node 0 nothing is relayed.
    relays = relay_of(all_to_all_transfers(np.arange(8).reshape(1, 8), RankLayout.in_order(2, 4), 8.0))
    assert relays[0, 6] == 2
    assert relays[7, 0] == 4
    assert relays[2, 6] is None
    assert relays[0, 3] is None
    for (source, destination), relay in relays.items():
        same_node, same_index = source // 4 == destination // 4, source % 4 == destination % 4
        expected = None if same_node or same_index else source // 4 * 4 + destination % 4
        assert relay == expected


def test_all_to_all_goes_direct_where_the_relay_takes_no_part():
    # Ranks 0, 1 and 6 on nodes of four: rank 0's way to rank 6 (GPU 2) would be rank 2, which is not in the group,
    # and rank 6's to rank 0 (GPU 0) rank 4. From rank 5, in the group, to rank 0 it would be rank 4, too.
    relays = relay_of(all_to_all_transfers(np.array([[0, 1, 5, 6]]), RankLayout.in_order(2, 4), 4.0))
    assert relays[0, 6] is None
    assert relays[6, 0] is None
    assert relays[0, 5] == 1
    assert relays[6, 1] == 5
    # A GPU without a rank relays nothing: node 0 has GPUs 0 and 1 only.
    layout = RankLayout(2, 4, np.array([0, 0, 1]), np.array([0, 1, 2]))
    assert relay_of(all_to_all_transfers(np.array([[0, 1, 2]]), layout, 3.0))[0, 2] is None


def test_groups_exchange_at_once_and_not_with_each_other():
    # 8 ranks in two groups of four: 16 MB per pair of a group, none across.
    transfers = build(2, 4, group_size=4).graph.collectives[0].transfers
    relays = relay_of(transfers)
    assert set(relays) == {(a, b) for a in range(8) for b in range(8) if a != b and a // 4 == b // 4}
    assert (transfers.size_bytes == 16e6).all()
    # In rails, the ranks of a group have one index each: nothing needs a relay.
    by_rail = build(2, 4, ranks=[0, 4, 1, 5], group_size=2)
    assert relay_of(by_rail.graph.collectives[0].transfers) == {
        (0, 4): None,
        (4, 0): None,
        (1, 5): None,
        (5, 1): None,
    }
    assert [task.rank for task in by_rail.graph.tasks] == [0, 4, 1, 5]


@pytest.mark.parametrize("operation", RING_OPERATIONS)
@pytest.mark.parametrize("ranks", ["all", [1, 2, 3, 4, 6], [0, 3]])
def test_ring_bytes(operation, ranks):
    # In a ring of n each rank sends and gets (n - 1)/n of the buffer per pass, over all rings together; latency is
    # paid n - 1 times per pass.
    workload = build(2, 4, operation=operation, ranks=ranks)
    transfers = workload.graph.collectives[0].transfers
    members = list(range(8)) if ranks == "all" else ranks
    n, passes = len(members), RING_OPERATIONS[operation]
    expected = np.zeros(8)
    expected[members] = passes * (n - 1) / n * 64e6
    for moved in bytes_in_and_out(transfers, 8):
        assert moved == pytest.approx(expected, rel=1e-12)
    assert (transfers.rounds == passes * (n - 1)).all()
    assert not transfers.relay_ranks.size


@given(st.integers(1, 5), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_rings_visit_every_rank_once_and_cross_within_rails(num_nodes, gpus_per_node):
    layout = RankLayout.in_order(num_nodes, gpus_per_node)
    num_ranks = num_nodes * gpus_per_node
    rings = ring_orders(np.arange(num_ranks), layout)
    assert rings.shape == (gpus_per_node, num_ranks)
    leaving, entering = [], []
    for ring in rings:
        assert sorted(ring.tolist()) == list(range(num_ranks))
        hops = list(zip(ring.tolist(), np.roll(ring, -1).tolist(), strict=True))
        crossings = [hop for hop in hops if hop[0] // gpus_per_node != hop[1] // gpus_per_node]
        # Each node is left once; with an even number of nodes always for the same index, with an odd one the last
        # crossing, which closes the ring, moves one place on.
        assert len(crossings) == (num_nodes if num_nodes > 1 else 0)
        shifts = [(entered - left) % gpus_per_node for left, entered in crossings]
        closing = 1 % gpus_per_node if num_nodes % 2 else 0
        assert shifts == ([0] * (num_nodes - 1) + [closing] if crossings else [])
        leaving += [left for left, _ in crossings]
        entering += [entered for _, entered in crossings]
    # Every GPU's NIC carries one ring out and one in.
    everyone = list(range(num_ranks)) if num_nodes > 1 else []
    assert sorted(leaving) == sorted(entering) == everyone


def test_ring_of_two_nodes_by_hand():
    # Ranks 0, 1, 2 and 3, 4, 5. Ring 0 goes up the first node from its place 0 and down the second to its place 0;
    # ring 1 starts and ends at place 1: 1, 2, 0, crossing to 3 (place 0), then down 5 (2) and 4 (1).
    rings = ring_orders(np.arange(6), RankLayout.in_order(2, 3))
    assert rings.tolist() == [[0, 1, 2, 5, 4, 3], [1, 2, 0, 3, 5, 4], [2, 0, 1, 4, 3, 5]]


def test_unequal_nodes_get_one_ring():
    layout = RankLayout.in_order(2, 4)
    # Three ranks on node 1, two on node 0, listed in turn: one ring, node 1 first as it is named first.
    assert ring_orders(np.array([5, 0, 6, 1, 7]), layout).tolist() == [[5, 6, 7, 1, 0]]
    transfers = ring_transfers(np.array([[5, 0, 6, 1, 7]]), layout, 10.0, 1)
    # One ring of five: 4/5 of 10 bytes on each hop.
    assert transfers.size_bytes.tolist() == [8.0] * 5


@pytest.mark.parametrize(
    ("operation", "factor"),
    [("all-to-all", 0.75), ("all-gather", 0.75), ("reduce-scatter", 0.75), ("all-reduce", 1.5)],
)
def test_bandwidths_are_those_of_nccl_tests(operation, factor):
    # 64 MB in 2 ms is 32 GB/s of algorithm bandwidth; the bus factor of groups of four is 3/4, or twice that.
    workload = build(2, 4, operation=operation, group_size=4)
    end_s = np.full(len(workload.graph.tasks), 2e-3)
    end_s[0] = 1e-3  # the slowest rank decides
    summary = workload.summarise(TaskTimes(np.zeros_like(end_s), end_s))
    assert summary.breakdown_s == {"collective": 2e-3}
    assert summary.metrics["algbw_bytes_per_s"] == pytest.approx(32e9)
    assert summary.metrics["busbw_bytes_per_s"] == pytest.approx(32e9 * factor)


def test_needed_ranks():
    assert spec().needed_ranks() is None
    assert spec(ranks=[3, 17, 5]).needed_ranks() == 18


@pytest.mark.parametrize(
    ("fields", "num_ranks", "field", "message"),
    [
        ({}, 1, "ranks", "at least 2 ranks, and there are 1"),
        ({"ranks": []}, 8, "ranks", "at least 2 ranks, and there are 0"),
        ({"ranks": [3]}, 8, "ranks", "at least 2 ranks, and there are 1"),
        ({"ranks": [0, 8]}, 8, "ranks", "there is no rank 8; the cluster's are 0 to 7"),
        ({"ranks": [0, 1, 2, 1]}, 8, "ranks", "rank 1 is listed more than once"),
        ({"group_size": 3}, 8, "group_size", "8 ranks do not split into groups of 3"),
        ({"group_size": 16}, 8, "group_size", "8 ranks do not split into groups of 16"),
    ],
)
def test_what_does_not_fit_is_named(fields, num_ranks, field, message):
    with pytest.raises(FieldError, match=message) as caught:
        spec(**fields).check(setting(num_ranks))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "fields",
    [
        {"operation": "broadcast"},
        {"size": 64},
        {"size": "0 B"},
        {"size": "-1 B"},
        {"size": "1e30 B"},
        {"size": "5 s"},
        {"ranks": "some"},
        {"ranks": [0, -1]},
        {"ranks": [0, 1.5]},
        {"ranks": [0, True]},
        {"ranks": [0, 10**9]},
        {"group_size": 1},
        {"groupsize": 2},
    ],
)
def test_values_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        spec(**fields)


def test_a_stride_puts_groups_across_nodes():
    # 4 nodes of 2 GPUs, every second rank a neighbour: 0, 2, 4, 6, then 1, 3, 5, 7. Groups of 4 are the GPUs of one
    # index, so that each ring goes from node to node and sends 3/4 of 64 MB a hop.
    transfers = build(4, 2, operation="all-gather", stride=2, group_size=4).graph.collectives[0].transfers
    hops = list(zip(transfers.source_rank.tolist(), transfers.destination_ranks.tolist(), strict=True))
    assert hops == [(0, 2), (2, 4), (4, 6), (6, 0), (1, 3), (3, 5), (5, 7), (7, 1)]
    assert transfers.size_bytes == pytest.approx([48e6] * 8, rel=1e-15)


def test_a_stride_divides_the_ranks():
    with pytest.raises(FieldError, match="16 ranks do not split into rows of 3") as caught:
        spec(stride=3).check(setting(16))
    assert caught.value.field == "stride"
