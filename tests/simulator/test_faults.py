import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine import execute
from simulator.fault_clock import CableFault, Faults, Slowdown, kernel_end_s
from simulator.faults import on_the_clock
from simulator.network import LinkCosts
from simulator.rerouting import FaultError
from support.clusters import all_pairs, network
from support.faults import UPLINK, end_s, parse, start
from workloads.tasks import Collective, Transfers, run_in_turn

POLICIES = ["adaptive", "ecmp", "static", "least-loaded"]


def carried(compiled, recording, kind: str) -> np.ndarray:
    """Return the bytes of each cable of a kind."""
    return compiled.per_cable(recording.meter.bytes)[compiled.cables.kind == kind]


# A permutation on a tree: eight nodes of one GPU, two leaves of four, four spines, every cable 10 bytes/s. GPU i
# sends 40 bytes to GPU i + 4 and back, so that four flows cross from each leaf, over four uplinks.
PERMUTATION = Transfers.point_to_point(np.arange(8), (np.arange(8) + 4) % 8, np.full(8, 40.0))


def tree(policy: str = "adaptive", seed: int = 0):
    rates = {"nic": "10 B/s", "pcie": "1 kB/s"}
    return network(
        8, gpus=1, planes=1, switch_ports=8, spines=4, policy=policy, seed=seed, rates=rates, bundle=False
    )


def test_a_permutation_runs_at_line_rate_under_adaptive_routing():
    # No oversubscription: 4 flows x 10 bytes/s over 4 uplinks of 10. 40 bytes take 4 s.
    assert end_s(*tree(), PERMUTATION) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        # Three of four uplinks: 30 bytes/s for four flows, 7.5 each: 40 / 7.5 s.
        ({**UPLINK}, 40 / 7.5),
        # Dead from 1 s on: 10 bytes are sent, 30 are left at 7.5 bytes/s: 1 + 4 s.
        ({**UPLINK, "at": "1 s"}, 5.0),
        # Dead from 1 s to 3 s: 10 + 2 x 7.5 = 25 bytes by then, 15 are left, at 10 bytes/s again: 3 + 1.5 s.
        ({**UPLINK, "at": "1 s", "for": "2 s"}, 4.5),
        # A spine dead is an uplink less of each leaf: the same.
        ({"kind": "switch", "name": "plane0/spine1", "at": "1 s"}, 5.0),
        # Half an uplink: spraying puts a quarter of every flow on it, so that 4 x r / 4 = 5: 40 / 5 s.
        ({**UPLINK, "capacity": 0.5}, 8.0),
        # Any time after the end changes nothing.
        ({**UPLINK, "at": "4 s"}, 4.0),
        ({**UPLINK, "at": "3600 s"}, 4.0),
    ],
)
def test_an_uplink_less_costs_its_share(line, seconds):
    compiled, layout = tree()
    recording = start(compiled, layout, PERMUTATION, line)
    assert recording.times.step_time_s == pytest.approx(seconds, rel=1e-12)
    assert carried(compiled, recording, "leaf_spine").sum() == pytest.approx(8 * 40 * 2, rel=1e-12)


def test_faults_that_overlap_multiply_and_dead_wins():
    # Half from 0 s on, half of that from 2 s to 4 s: r = 5 (see above), then 2.5 while both last. 10 + 5 bytes by
    # 4 s, 25 are left at 5 bytes/s.
    half = {**UPLINK, "capacity": 0.5}
    compiled, layout = tree()
    found = end_s(compiled, layout, PERMUTATION, half, {**half, "at": "2 s", "for": "2 s"})
    assert found == pytest.approx(9.0, rel=1e-12)
    # Dead and half at once is dead: 7.5 bytes/s; when the dead time ends, at 2 s, half is left: 25 bytes at 5.
    found = end_s(compiled, layout, PERMUTATION, half, {**UPLINK, "for": "2 s"})
    assert found == pytest.approx(7.0, rel=1e-12)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ecmp_is_slower_by_its_collisions(seed):
    # Each flow takes one spine; n flows of a leaf on one share its uplink: 10 / n bytes/s, 4 n seconds. Two leaves,
    # so that the same flows share the cable down.
    compiled, layout = tree("ecmp", seed)
    bills, _ = compiled.bills(
        PERMUTATION, layout.endpoint_of_rank, np.arange(8), lambda: np.zeros(compiled.num_links)
    )
    flows_on = np.bincount(bills.links, minlength=compiled.num_links)
    flow = np.repeat(np.arange(8), np.diff(bills.offsets))
    sharing = np.zeros(8)
    np.maximum.at(sharing, flow, flows_on[bills.links])
    assert sharing.max() > 1  # these seeds collide
    recording = start(compiled, layout, PERMUTATION)
    assert recording.transfers[0].end_s == pytest.approx(4 * sharing, rel=1e-12)


@pytest.mark.parametrize("policy", ["ecmp", "static", "least-loaded"])
def test_only_flows_on_the_dead_cable_move_and_they_stay(policy):
    # The uplink of leaf 0 to spine 1 is dead from 1 s to 2 s. What it carried by then it carries no more of, though
    # it heals while flows are under way; flows of other uplinks keep to theirs.
    compiled, layout = tree(policy, seed=1)
    whole = start(compiled, layout, PERMUTATION)
    hurt = start(compiled, layout, PERMUTATION, {**UPLINK, "at": "1 s", "for": "1 s"})
    ends = [(s, t) for s, t in zip(compiled.cables.source, compiled.cables.target, strict=True)]
    up = ends.index(("plane0/leaf0", "plane0/spine1"))
    before = compiled.per_cable(whole.meter.bytes)[up]
    after = compiled.per_cable(hurt.meter.bytes)[up]
    assert before > 10.0
    assert after == pytest.approx(10.0)  # one second at line rate, shared by however many flows
    on_it = round(before / 40)
    back = compiled.per_cable(whole.meter.bytes)[ends.index(("plane0/spine1", "plane0/leaf0"))]
    assert hurt.flows_rerouted == on_it + round(back / 40)


@pytest.mark.parametrize(("lost", "seconds"), [(0, 6.0), (1, 6.0 * 8 / 7), (3, 6.0 * 8 / 5)])
def test_lost_planes_cost_what_the_remaining_capacity_says(lost, seconds):
    # Four nodes, eight planes, all-to-all of 2.5 bytes a pair: each NIC sends to 3 nodes 8 GPUs' data for its index,
    # 60 bytes at 10 bytes/s. A dead plane's share goes out over NICs that are alive: data for a GPU of a dead plane
    # leaves by its sender's own NIC (1/8 of a NIC's load more), and what its counterparts send by all 7, equally
    # (1/7 of 1/8 more). All NICs then carry 1 + 1/8 + 1/56 = 8/7 of before: the whole over what is left.
    compiled, layout = network(4, rates={"nic": "10 B/s", "pcie": "1 kB/s", "nvlink": "1 kB/s"}, bundle=False)
    source, destination = all_pairs(32)
    transfers = Transfers.point_to_point(source, destination, np.full(len(source), 2.5))
    lines = [{"kind": "plane", "plane": 2 * plane} for plane in range(lost)]
    assert end_s(compiled, layout, transfers, *lines) == pytest.approx(seconds, rel=1e-9)


@pytest.mark.parametrize(("at", "seconds"), [("0 s", 4 * 8 / 7), ("2 s", 2 + 2 * 8 / 7)])
def test_a_plane_lost_under_a_permutation_is_shared_by_the_others(at, seconds):
    # GPU i of node 0 sends 40 bytes to GPU i of node 1: 4 s at 10 bytes/s. Plane 2 dies: its flow goes over NVLink to
    # all seven others, a seventh each, over which so 8/7 of before has to go.
    compiled, layout = network(2, rates={"nic": "10 B/s", "pcie": "1 kB/s", "nvlink": "1 kB/s"}, bundle=False)
    transfers = Transfers.point_to_point(np.arange(8), np.arange(8, 16), np.full(8, 40.0))
    recording = start(compiled, layout, transfers, {"kind": "plane", "plane": 2, "at": at})
    # all share the seven NICs by max-min: the others are slowed to 10 / (1 + 1/7), as is the one
    assert recording.times.step_time_s == pytest.approx(seconds, rel=1e-9)
    assert carried(compiled, recording, "nic").sum() == pytest.approx(2 * 8 * 40, rel=1e-9)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_dead_nic_leaves_its_gpu_the_others(policy):
    # Multi-rail, 2 nodes of 4 GPUs: NIC 1 of node 1 is dead, on the way out and in. Both transfers still arrive, and
    # nothing crosses that NIC.
    compiled, layout = network(2, kind="multi-rail-fat-tree", gpus=4, policy=policy, bundle=False)
    transfers = Transfers.point_to_point(np.array([1, 5]), np.array([5, 2]), np.full(2, 40.0))
    recording = start(compiled, layout, transfers, {"kind": "nic", "node": 1, "index": 1})
    bytes_of = compiled.per_cable(recording.meter.bytes)
    touched = (compiled.cables.source == "node1/nic1") | (compiled.cables.target == "node1/nic1")
    assert bytes_of[touched].sum() == 0.0
    assert carried(compiled, recording, "nic").sum() == pytest.approx(2 * 80, rel=1e-12)
    into = [bytes_of[compiled.cables.target == f"node{n}/gpu{g}"].sum() for n, g in ((1, 1), (0, 2))]
    assert into == pytest.approx([40.0, 40.0], rel=1e-12)


MIXED = {
    "pairs": (np.array([0, 1, 2, 5, 7, 9, 11, 3]), np.array([6, 9, 10, 0, 2, 1, 4, 8])),
    "size": np.array([30.0, 50.0, 20.0, 80.0, 10.0, 60.0, 40.0, 70.0]),
}


@settings(deadline=None, max_examples=30)
@given(
    policy=st.sampled_from(POLICIES),
    at_s=st.floats(0.0, 12.0),
    for_s=st.none() | st.floats(1e-6, 12.0),
    line=st.sampled_from(
        [
            {"kind": "link", "between": ["plane0/leaf0", "plane0/spine0"]},
            {"kind": "switch", "name": "plane1/spine1"},
            {"kind": "nic", "node": 1, "index": 0},
            {"kind": "plane", "plane": 1},
            {"kind": "plane", "plane": 0, "capacity": 0.25},
        ]
    ),
)
def test_nothing_is_lost_or_sent_twice(policy, at_s, for_s, line):
    # Six nodes of two GPUs, two planes, three leaves each. Whatever happens when: every byte leaves its node once and
    # arrives once, and at its own GPU. Every GPU's ports (PCIe, NVLink) so bring in what is for it or passes through.
    rates = {"nic": "10 B/s", "pcie": "1 kB/s", "nvlink": "1 kB/s"}
    compiled, layout = network(6, gpus=2, planes=2, switch_ports=4, policy=policy, rates=rates, bundle=False)
    source, target = MIXED["pairs"]
    transfers = Transfers.point_to_point(source, target, MIXED["size"])
    timing = {"at": f"{at_s!r} s"} | ({} if for_s is None else {"for": f"{for_s!r} s"})
    recording = start(compiled, layout, transfers, {**line, **timing})
    total = MIXED["size"].sum()
    bytes_of = compiled.per_cable(recording.meter.bytes)
    outward = compiled.cables.kind == "nic"
    leaves = outward & np.array([name.startswith("plane") for name in compiled.cables.target])
    assert bytes_of[leaves].sum() == pytest.approx(total, rel=1e-9)
    assert bytes_of[outward & ~leaves].sum() == pytest.approx(total, rel=1e-9)
    for gpu in range(12):
        name = compiled.gpu_name(gpu)
        net = bytes_of[compiled.cables.target == name].sum() - bytes_of[compiled.cables.source == name].sum()
        wanted = MIXED["size"][target == gpu].sum() - MIXED["size"][source == gpu].sum()
        assert net == pytest.approx(wanted, rel=1e-9, abs=1e-6)
    # Faults never speed anything up by more than a policy's luck: under adaptive routing not at all.
    if policy == "adaptive":
        assert recording.times.step_time_s >= end_s(compiled, layout, transfers) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("kind", "nodes", "fields", "switch"),
    [
        ("two-layer-fat-tree", 4, {"switch_ports": 8}, "leaf"),
        ("three-layer-fat-tree", 16, {"switch_ports": 8}, "spine"),
        ("three-layer-fat-tree", 16, {"switch_ports": 8}, "core"),
        ("slim-fly", 20, {"q": 5}, "router"),
        ("dragonfly", 20, {"switch_ports": 8}, "router"),
    ],
)
@pytest.mark.parametrize("policy", [*POLICIES, "minimal", "valiant"])
def test_every_family_goes_on_without_a_switch(kind, nodes, fields, switch, policy):
    # The second switch of its layer dies and comes back while a seventh of all pairs send: each byte still leaves its
    # node once and arrives once, and every transfer ends. NICs under a dead leaf or router go by their neighbours.
    compiled, layout = network(nodes, kind=kind, gpus=2, policy=policy, bundle=False, **fields)
    source, target = (ranks[::7] for ranks in all_pairs(2 * nodes))
    transfers = Transfers.point_to_point(source, target, np.full(len(source), 1e8))
    whole = start(compiled, layout, transfers)
    third_s = whole.times.step_time_s / 3
    names = [name for name in dict.fromkeys(compiled.cables.source) if switch in name.rpartition("/")[2]]
    line = {"kind": "switch", "name": names[1], "at": f"{third_s!r} s", "for": f"{third_s!r} s"}
    hurt = start(compiled, layout, transfers, line)
    assert carried(compiled, hurt, "nic").sum() == pytest.approx(
        carried(compiled, whole, "nic").sum(), rel=1e-9
    )
    assert not np.isnan(hurt.transfers[0].end_s).any()


@pytest.mark.parametrize("line", [{"at": "0 s", "for": "1 s"}, {"at": "0.25 s", "for": "0.5 s"}])
def test_a_fault_that_heals_before_traffic_starts_changes_nothing(line):
    compiled, layout = tree()
    whole = start(compiled, layout, PERMUTATION, wait_s=1.0)
    hurt = start(compiled, layout, PERMUTATION, {"kind": "plane", "plane": 0, **line}, wait_s=1.0)
    assert hurt.transfers[0].end_s.tolist() == whole.transfers[0].end_s.tolist()
    assert hurt.flows_rerouted == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_a_flow_that_starts_later_is_routed_then(policy):
    # From GPU 0 to GPU 2, the other node's first, from 1 s on. Had it been routed at once, while its plane was dead,
    # it would have paid the latency of a way over NVLink and another plane.
    costs = {
        name: LinkCosts(1.0, latency_s, 0.0) for name, latency_s in (("nvlink", 0.5), ("infiniband", 0.25))
    }
    costs["pcie"] = LinkCosts(1.0, 0.0, 0.0)
    compiled, layout = network(2, gpus=2, planes=2, policy=policy, costs=costs, bundle=False)
    later = Transfers.point_to_point(np.array([0]), np.array([2]), np.array([10.0]), delay_s=np.array([1.0]))
    healed = {"kind": "plane", "plane": 0, "for": "0.5 s"}
    for lines in ((), (healed,), (healed, {"kind": "plane", "plane": 1, "at": "9 s"})):
        recording = start(compiled, layout, later, *lines)
        assert recording.transfers[0].start_s.tolist() == [1.25]
        assert recording.flows_rerouted == 0


def test_a_fault_while_nothing_moves_counts_for_what_starts_later():
    # Dead from 0.5 s on, traffic from 1 s on: 1 + 40 / 7.5 s, and no flow had to move.
    compiled, layout = tree()
    recording = start(compiled, layout, PERMUTATION, {**UPLINK, "at": "0.5 s"}, wait_s=1.0)
    assert recording.times.step_time_s == pytest.approx(1 + 40 / 7.5, rel=1e-12)
    assert recording.flows_rerouted == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_flows_without_a_way_wait_for_what_will_heal(policy):
    # The only NIC of node 3 is dead from 1 s to 3 s: its flows stand still for 2 s. What collides does so as before.
    compiled, layout = tree(policy)
    one = Transfers.point_to_point(np.array([3]), np.array([7]), np.array([40.0]))
    line = {"kind": "nic", "node": 3, "index": 0, "at": "1 s", "for": "2 s"}
    assert end_s(compiled, layout, one, line) == pytest.approx(6.0, rel=1e-12)
    # One that starts meanwhile waits too: 3 + 4 s.
    assert end_s(compiled, layout, one, line, wait_s=2.0) == pytest.approx(7.0, rel=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
def test_flows_wait_on_the_way_that_heals_first(policy):
    # Leaf 0 loses one uplink for good, and the three others from 1 s to 3 s. A flow of 40 bytes at its NIC's 10
    # bytes/s has sent 10, waits for 2 s, on whichever way, and needs 3 s more: 6 s. Which uplink is lost for good
    # must not matter.
    compiled, layout = tree(policy)
    one = Transfers.point_to_point(np.array([0]), np.array([4]), np.array([40.0]))
    for lost in range(4):
        lines = [
            {"kind": "link", "between": ["plane0/leaf0", f"plane0/spine{spine}"]}
            | ({} if spine == lost else {"at": "1 s", "for": "2 s"})
            for spine in range(4)
        ]
        assert end_s(compiled, layout, one, *lines) == pytest.approx(6.0, rel=1e-12)


def test_uplinks_that_never_live_at_one_time_with_the_rest_of_a_way_end_the_run():
    # One uplink is dead until 2 s, and the other three for good from 1 s on; at 2 s the NIC dies for good.
    compiled, layout = tree()
    one = Transfers.point_to_point(np.array([0]), np.array([4]), np.array([40.0]))
    lines = [
        {"kind": "link", "between": ["plane0/leaf0", f"plane0/spine{spine}"], "at": "1 s"}
        | ({"for": "1 s"} if spine == 0 else {})
        for spine in range(4)
    ]
    with pytest.raises(
        FaultError, match=r"from 1 s on 1 of the flows have no way left: node0/gpu0 -> node4/gpu0"
    ):
        start(compiled, layout, one, *lines, {"kind": "nic", "node": 0, "index": 0, "at": "2 s"})


@pytest.mark.parametrize("wait_s", [0.0, 2.0])
def test_flows_without_a_way_for_good_end_the_run_with_their_names(wait_s):
    compiled, layout = tree()
    line = {"kind": "nic", "node": 3, "index": 0, "at": "1 s"}
    message = (
        r"from \d s on 2 of the flows have no way left: node3/gpu0 -> node7/gpu0, node7/gpu0 -> node3/gpu0; "
        "dead on their way, and not to heal: .*node3/nic0 -> plane0/leaf0"
    )
    with pytest.raises(FaultError, match=message):
        start(compiled, layout, PERMUTATION, line, wait_s=wait_s)


def test_a_dead_gpu_ends_the_run_unless_its_work_is_done():
    compiled, layout = tree()
    dead = {"kind": "gpu", "node": 3, "index": 0}
    with pytest.raises(
        FaultError,
        match=r"node3/gpu0 dies at 1 s with tasks to end \(1, first send\); other ranks wait .*\(7\)",
    ):
        start(compiled, layout, PERMUTATION, {**dead, "at": "1 s"})
    assert end_s(compiled, layout, PERMUTATION, {**dead, "at": "4.5 s"}) == pytest.approx(4.0)


def test_a_straggler_holds_up_those_that_wait_for_it():
    # Kernels of 1 s, then 4 s of traffic; GPU 3's takes 1.5 s, and so do its flow and what GPU 7 waits for: 5.5 s.
    compiled, layout = tree()
    line = {"kind": "straggler", "node": 3, "index": 0, "slower": 1.5}
    recording = start(compiled, layout, PERMUTATION, line, wait_s=1.0)
    ends = recording.transfers[0].end_s
    assert recording.times.step_time_s == pytest.approx(5.5, rel=1e-12)
    assert ends[[0, 1, 2]] == pytest.approx(5.0, rel=1e-12)
    assert ends[3] == pytest.approx(5.5, rel=1e-12)


@pytest.mark.parametrize(
    ("slowdowns", "end"),
    [
        ([], 12.0),
        ([(0, 3.0, np.inf)], 16.0),  # 2 s of work at a third: 6 s
        ([(0, 3.0, 13.0)], 12.0 + 2.0),  # 3 s of the clock do 1 s of work, another second follows
        ([(11, 2.0, np.inf)], 13.0),  # a second before it begins, another takes 2 s
        ([(0, 2.0, np.inf), (0, 3.0, np.inf)], 22.0),  # both: six times as long
        ([(12, 5.0, np.inf), (0, 5.0, 10.0)], 12.0),  # after it has ended, and before it begins
    ],
)
def test_kernels_take_longer_while_a_gpu_is_slow(slowdowns, end):
    # A kernel of 2 s that starts at 10 s.
    faults = [Slowdown(0, slower, begin_s, end_s) for begin_s, slower, end_s in slowdowns]
    assert kernel_end_s(10.0, 2.0, faults) == pytest.approx(end, rel=1e-12)


def test_shares_come_and_go():
    # Cable 1 is at half from 0 s to 4 s and dead from 2 s to 3 s; cable 2 is dead from 2 s on.
    faults = Faults(
        (
            CableFault(np.array([1]), 0.5, 0.0, 4.0),
            CableFault(np.array([1]), 0.0, 2.0, 3.0),
            CableFault(np.array([2]), 0.0, 2.0, np.inf),
        )
    )
    found = [(change.at_s, change.cables.tolist(), change.shares.tolist()) for change in faults.changes()]
    assert found == [(0.0, [1], [0.5]), (2.0, [1, 2], [0.0, 0.0]), (3.0, [1], [0.5]), (4.0, [1], [1.0])]


def test_a_network_without_cables_knows_it_and_what_it_came_from():
    compiled, layout = tree()
    arguments = (PERMUTATION, layout.endpoint_of_rank, np.arange(8), lambda: np.zeros(compiled.num_links))
    dead = frozenset(np.flatnonzero(compiled.cables.source == "plane0/spine2").tolist())
    bills, latency_s = compiled.without(dead).bills(*arguments)
    assert not set(bills.links.tolist()) & dead
    assert latency_s.tolist() == compiled.bills(*arguments)[1].tolist()
    healed = compiled.without(dead).without(frozenset()).bills(*arguments)[0]
    assert healed.links.tolist() == compiled.bills(*arguments)[0].links.tolist()


def test_several_runs_give_equal_bytes():
    compiled, layout = tree("least-loaded")
    lines = [
        {**UPLINK, "at": "1 s", "for": "1 s"},
        {"kind": "switch", "name": "plane0/spine2", "at": "1.5 s"},
    ]
    first, second = (start(compiled, layout, PERMUTATION, *lines) for _ in range(2))
    third = start(compiled, layout, PERMUTATION, *reversed(lines))
    for other in (second, third):
        assert other.transfers[0].end_s.tobytes() == first.transfers[0].end_s.tobytes()
        assert other.meter.bytes.tobytes() == first.meter.bytes.tobytes()


def test_run_in_turn_is_no_slower_for_faults_that_never_come():
    # Three collectives in turn, a fault long after: reuse is off, and times are those of the whole network.
    compiled, layout = tree()
    collectives = tuple(Collective(f"c{number}", PERMUTATION) for number in range(3))
    graph = run_in_turn(collectives, range(8), 8)
    never = on_the_clock(parse({**UPLINK, "at": "1000 s"}), compiled.cables, 1)
    hurt = execute(graph, compiled, layout.endpoint_of_rank, faults=never)
    whole = execute(graph, compiled, layout.endpoint_of_rank)
    assert hurt.times.end_s == pytest.approx(whole.times.end_s, rel=1e-12)
    assert (hurt.collectives_reused, whole.collectives_reused) == (0, 2)
