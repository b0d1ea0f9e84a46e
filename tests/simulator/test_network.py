from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from simulator.network import LinkCosts
from simulator.routing import NoPathError
from support.clusters import all_pairs, network, run
from workloads.tasks import Transfer, Transfers


def bill_of(compiled, layout, *rows: Transfer, flow: int = 0) -> dict[tuple[str, str], float]:
    """Return what one of the transfers charges, by the ends of each cable; cables of a bundle are told apart."""
    transfers = Transfers.from_rows(rows)
    numbers = np.arange(len(rows))
    bills, _ = compiled.bills(
        transfers, layout.endpoint_of_rank, numbers, lambda: np.zeros(compiled.num_links)
    )
    per_link = np.zeros(compiled.num_links)
    entries = slice(bills.offsets[flow], bills.offsets[flow + 1])
    per_link[bills.links[entries]] = bills.coefficients[entries]
    per_cable = compiled.per_cable(per_link)
    cables = compiled.cables
    charged: dict[tuple[str, str], float] = {}
    for cable in np.flatnonzero(per_cable):
        ends = (str(cables.source[cable]), str(cables.target[cable]))
        charged[ends] = charged.get(ends, 0.0) + float(per_cable[cable])
    return charged


def to(source: int, destination: int, size: float = 1.0, relays: tuple[int, ...] = ()) -> Transfer:
    return Transfer(source, relays, ((destination, 1.0),), size)


def wire(node: int, gpu: int, leaf: str) -> dict[tuple[str, str], float]:
    """The way from a GPU out to its leaf."""
    way = [f"node{node}/gpu{gpu}", f"node{node}/pcie{gpu}", f"node{node}/nic{gpu}", leaf]
    return dict.fromkeys(pairwise(way), 1.0)


def back(way: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    return {(target, source): share for (source, target), share in way.items()}


def nvlink(node: int, source: int, target: int, share: float = 1.0) -> dict[tuple[str, str], float]:
    switch = f"node{node}/nvswitch"
    return {(f"node{node}/gpu{source}", switch): share, (switch, f"node{node}/gpu{target}"): share}


def test_within_a_node_bytes_go_over_nvlink():
    compiled, layout = network(2)
    assert bill_of(compiled, layout, to(1, 5)) == nvlink(0, 1, 5)


def test_equal_indices_stay_in_their_plane():
    compiled, layout = network(2)
    plane = "plane3/leaf0"
    assert bill_of(compiled, layout, to(3, 11)) == wire(0, 3, plane) | back(wire(1, 3, plane))


def test_another_plane_is_reached_over_nvlink_first():
    # GPU 1 of node 0 to GPU 5 of node 1: over NVLink to GPU 5 of node 0, then in plane 5.
    compiled, layout = network(2)
    plane = "plane5/leaf0"
    expected = nvlink(0, 1, 5) | wire(0, 5, plane) | back(wire(1, 5, plane))
    assert bill_of(compiled, layout, to(1, 13)) == expected


def test_planes_that_hold_several_nics_of_a_node_need_no_crossing():
    # With 4 planes NICs 1 and 5 are both in plane 1.
    compiled, layout = network(2, planes=4)
    plane = "plane1/leaf0"
    assert bill_of(compiled, layout, to(1, 13)) == wire(0, 1, plane) | back(wire(1, 5, plane))


def test_multi_rail_crosses_rails_over_the_spines():
    # 2 nodes, 8 rails: NIC 1 hangs on rail 1's leaf, NIC 5 on rail 5's; all uplinks share the flow equally.
    compiled, layout = network(2, kind="multi-rail-fat-tree")
    charged = bill_of(compiled, layout, to(1, 13))
    for ends, share in (wire(0, 1, "rail1/leaf0") | back(wire(1, 5, "rail5/leaf0"))).items():
        assert charged.pop(ends) == share
    assert sum(share for (source, _), share in charged.items() if source == "rail1/leaf0") == pytest.approx(1)
    assert sum(share for (_, target), share in charged.items() if target == "rail5/leaf0") == pytest.approx(1)
    assert {end for ends in charged for end in ends} - {"rail1/leaf0", "rail5/leaf0"} == {
        f"spine{i}" for i in range(4)
    }


def test_a_relayed_multicast_charges_the_wire_once_and_nvlink_each_copy():
    # From GPU 2 of node 0 through GPU 2 of node 1 to its GPUs 2 (half of the tokens: stays), 4 (a quarter), 7 (all).
    compiled, layout = network(2)
    transfer = Transfer(2, (10,), ((10, 0.5), (12, 0.25), (15, 1.0)), 1.0)
    plane, switch = "plane2/leaf0", "node1/nvswitch"
    expected = wire(0, 2, plane) | back(wire(1, 2, plane))
    expected |= {("node1/gpu2", switch): 1.25, (switch, "node1/gpu4"): 0.25, (switch, "node1/gpu7"): 1.0}
    assert bill_of(compiled, layout, transfer) == expected


def test_a_reduction_charges_the_same_tree_turned_round():
    compiled, layout = network(2)
    scatter = Transfer(2, (10,), ((10, 0.5), (12, 0.25), (15, 1.0)), 1.0)
    gather = scatter._replace(reduce=True)
    assert bill_of(compiled, layout, gather) == back(bill_of(compiled, layout, scatter))


@pytest.mark.parametrize("policy", ["adaptive", "static", "ecmp", "least-loaded"])
def test_every_pair_of_gpus_has_a_path_that_chains(policy):
    # 5 nodes, 2 endpoints a leaf: three leaves a plane. Every bill must lead from the source's GPU to the target's:
    # all cables of a path carry the flow once, so that at every vertex in between as much leaves as arrives.
    compiled, layout = network(5, gpus=2, planes=2, switch_ports=4, policy=policy)
    source, target = all_pairs(10)
    rows = [to(int(a), int(b)) for a, b in zip(source, target, strict=True)]
    for flow, row in enumerate(rows):
        balance: dict[str, float] = {}
        for (start, end), share in bill_of(compiled, layout, *rows, flow=flow).items():
            balance[start] = balance.get(start, 0.0) - share
            balance[end] = balance.get(end, 0.0) + share
        rank = row.source_rank
        other = row.destinations[0][0]
        assert balance.pop(f"node{rank // 2}/gpu{rank % 2}") == pytest.approx(-1)
        assert balance.pop(f"node{other // 2}/gpu{other % 2}") == pytest.approx(1)
        assert list(balance.values()) == pytest.approx([0] * len(balance), abs=1e-12)


@pytest.mark.parametrize("policy", ["adaptive", "static"])
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("multi-plane-fat-tree", {"planes": 2}),  # GPUs of different planes meet over NVLink
        ("multi-rail-fat-tree", {}),
        ("multi-plane-fat-tree", {"planes": 2, "spines": 2}),  # two cables to one spine, one to the other
    ],
)
def test_pairs_of_one_kind_have_the_routes_that_each_would_find(kind, fields, policy):
    # Six nodes, two GPUs each, two leaves or more a plane. Told apart, every node is a sort of its own, and every
    # pair of GPUs finds its own route. In the second of two cases GPU 0's wire of node 1 is dead, and will be soon
    # with it an NVLink cable of node 2.
    source, target = all_pairs(12)
    transfers = Transfers.point_to_point(source, target, np.ones(len(source)))
    found = []
    for told_apart in (False, True):
        whole, layout = network(6, gpus=2, switch_ports=6, kind=kind, policy=policy, **fields)
        if told_apart:
            whole._node_cables = replace(whole._node_cables, sort=np.arange(6))
        dead = [cable_of(whole, "node1/nic0", None), cable_of(whole, "node2/gpu0", "node2/nvswitch")]
        for compiled in (whole, whole.without(frozenset(dead[:1]), (frozenset(dead),))):
            bills, latency_s = compiled.bills(
                transfers, layout.endpoint_of_rank, np.arange(len(source)), lambda: np.zeros(0)
            )
            found.append((bills, latency_s, len(compiled._routes.of_kind[False])))
    together, apart = found[:2], found[2:]
    for (bills, latency_s, num_kinds), (expected, expected_s, num_pairs) in zip(together, apart, strict=True):
        assert num_kinds < num_pairs == len(source)
        assert bills.offsets.tolist() == expected.offsets.tolist()
        assert bills.links.tolist() == expected.links.tolist()
        assert bills.coefficients == pytest.approx(expected.coefficients, rel=1e-15)
        assert latency_s.tolist() == expected_s.tolist()


def cable_of(compiled, source: str, target: str | None) -> int:
    """Return the first cable from a device, to another or to a switch."""
    cables = compiled.cables
    leads = cables.target == target if target else ~np.char.startswith(cables.target.astype(str), "node")
    return int(np.flatnonzero((cables.source == source) & leads)[0])


def test_latency_adds_up_along_the_way():
    # Table 5 of the paper: 2.8 us through one leaf, 3.7 us through leaf, spine, leaf, 3.33 us over NVLink.
    costs = {
        "nvlink": LinkCosts(1.0, 3.33e-6, 0.0),
        "pcie": LinkCosts(1.0, 0.0, 0.0),
        "infiniband": LinkCosts(1.0, 2.8e-6, 0.45e-6),
    }
    compiled, layout = network(6, gpus=2, planes=2, switch_ports=4, costs=costs)
    rows = [
        to(0, 1),  # NVLink
        to(0, 2),  # same leaf: nodes 0 and 1
        to(0, 4),  # another leaf: node 2
        to(0, 5),  # NVLink, then another leaf
        to(0, 4)._replace(rounds=3),
        Transfer(0, (2,), ((2, 1.0), (3, 1.0)), 1.0),  # same leaf, then NVLink to one of two
        Transfer(0, (), ((0, 1.0),), 1.0),  # to itself
    ]
    _, latency_s = compiled.bills(
        Transfers.from_rows(rows),
        layout.endpoint_of_rank,
        np.arange(len(rows)),
        lambda: np.zeros(compiled.num_links),
    )
    assert latency_s * 1e6 == pytest.approx([3.33, 2.8, 3.7, 3.33 + 3.7, 11.1, 2.8 + 3.33, 0.0])


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (
            "multi-plane-fat-tree",
            {"planes": 2, "switch_ports": 4},
        ),  # regular: leaves to spines, one cable each
        ("multi-plane-fat-tree", {"planes": 1, "switch_ports": 8}),
        ("multi-rail-fat-tree", {"switch_ports": 12}),
        ("multi-plane-fat-tree", {"planes": 1, "switch_ports": 6, "spines": 2}),  # irregular: 2 and 1 cables
    ],
)
def test_bundles_change_no_time_and_no_cable(kind, fields):
    # Sizes drawn at random, so that flows end one by one and every solve is another.
    source, target = all_pairs(12)
    size = np.random.default_rng(5).lognormal(size=len(source)) * 1e6
    transfers = Transfers.point_to_point(source, target, size)
    outcomes = []
    for bundle in (True, False):
        compiled, layout = network(6, gpus=2, kind=kind, bundle=bundle, **fields)
        recording = run(compiled, layout, transfers)
        outcomes.append(
            (compiled.num_links, recording.transfers[0].end_s, compiled.per_cable(recording.meter.bytes))
        )
    (fewer, bundled_s, bundled_bytes), (more, single_s, single_bytes) = outcomes
    assert fewer < more
    assert bundled_s == pytest.approx(single_s, rel=1e-9)
    assert bundled_bytes == pytest.approx(single_bytes, rel=1e-9)


def test_an_unreachable_gpu_is_an_error_that_names_it():
    # No NIC of node 1 hangs on a switch: nothing leads to its GPU 1.
    compiled, layout = network(2, gpus=2)
    compiled._wiring._known.update({2: (), 3: ()})
    with pytest.raises(NoPathError, match="no path from GPU 0 to GPU 3"):
        bill_of(compiled, layout, to(0, 3))


def test_a_gpu_without_a_way_of_its_own_shares_those_of_its_node():
    # GPU 1 of node 1 has no port, and no other NIC of its node is in its plane. Bytes from GPU 1 of node 0 cross
    # NVLink at both ends, and go between the GPUs 0 and 2, half over each; those from GPU 0 leave by its own NIC,
    # and cross NVLink at the end.
    compiled, layout = network(2, gpus=3)
    compiled._wiring._known[4] = ()
    half = {ends: share / 2 for ends, share in bill_of(compiled, layout, to(0, 3)).items()}
    half |= {ends: share / 2 for ends, share in bill_of(compiled, layout, to(2, 5)).items()}
    crossing = [(0, 1, 0), (0, 1, 2), (1, 0, 1), (1, 2, 1)]
    for ends, share in [pair for detour in crossing for pair in nvlink(*detour, 0.5).items()]:
        half[ends] = half.get(ends, 0.0) + share
    assert bill_of(compiled, layout, to(1, 4)) == half
    straight = bill_of(compiled, layout, to(0, 3)) | nvlink(1, 0, 1)
    assert bill_of(compiled, layout, to(0, 4)) == straight


def with_ports(num_nodes: int, policy: str = "adaptive"):
    """Two GPUs a node, each with a NIC of two ports of 5 bytes/s, one in each of two planes."""
    rates = {"nic": "10 B/s", "pcie": "1 kB/s", "nvlink": "1 kB/s"}
    return network(
        num_nodes, gpus=2, planes=2, switch_ports=4, policy=policy, nic_ports=2, rates=rates, bundle=False
    )


@pytest.mark.parametrize("policy", ["adaptive", "static", "ecmp", "least-loaded", "minimal", "valiant"])
def test_a_nic_with_ports_in_several_planes_uses_all_of_them(policy):
    # Nodes 0 and 1 have two ports in each plane, one leaf each: every byte goes half over each plane, whichever NICs.
    compiled, layout = with_ports(2, policy)
    charged = bill_of(compiled, layout, to(0, 3))
    for plane in (0, 1):
        leaves, arrives = f"plane{plane}/leaf0", f"plane{plane}/leaf1"
        assert charged["node0/nic0", leaves] == 0.5
        assert charged[arrives, "node1/nic1"] == 0.5
        up = {ends: share for ends, share in charged.items() if ends[0] == leaves}
        assert sum(up.values()) == pytest.approx(0.5)
    assert charged["node0/gpu0", "node0/pcie0"] == 1.0
    assert charged["node0/pcie0", "node0/nic0"] == 1.0
    # Both ports run at once: 40 bytes at 10 bytes/s.
    rows = Transfers.from_rows([to(0, 3, 40.0)])
    assert run(compiled, layout, rows).times.step_time_s == pytest.approx(4.0)


def test_a_dead_plane_leaves_a_nic_its_other_ports():
    compiled, layout = with_ports(2)
    dead = np.flatnonzero((compiled.cables.plane == 1) & (compiled.cables.kind != "pcie_nic"))
    charged = bill_of(compiled.without(frozenset(dead.tolist())), layout, to(0, 3))
    assert charged["node0/nic0", "plane0/leaf0"] == 1.0
    assert not any("plane1" in end or "nvswitch" in end for ends in charged for end in ends)


def test_ports_are_numbered_switch_by_switch():
    # `static` spreads destinations by their number: that of all ports on a switch, of the lower numbered GPU first.
    compiled, _ = with_ports(3)
    ports = [(gpu, port) for gpu in range(6) for port in compiled._wiring.ports_of(gpu)]
    assert sorted(port.number for _, port in ports) == list(range(12))
    in_order = sorted(ports, key=lambda pair: pair[1].number)
    keys = [(port.switch, gpu) for gpu, port in in_order]
    assert keys == sorted(keys)


@pytest.mark.parametrize("policy", ["minimal", "valiant"])
def test_a_path_that_is_not_shortest_pays_for_its_switches(policy):
    # 2 us through one switch, 1 us for each further one. Minimal: leaf, spine, leaf: 4 us. Valiant goes over some
    # other switch, by 2 to 4 cables between switches.
    costs = {
        "nvlink": LinkCosts(1.0, 0.0, 0.0),
        "pcie": LinkCosts(1.0, 0.0, 0.0),
        "infiniband": LinkCosts(1.0, 2e-6, 1e-6),
    }
    compiled, layout = network(8, gpus=1, planes=1, switch_ports=4, policy=policy, costs=costs)
    for number in range(8):
        charged = bill_of(compiled, layout, *[to(0, 7)] * 8, flow=number)
        _, latency_s = compiled.bills(
            Transfers.from_rows([to(0, 7)] * 8), layout.endpoint_of_rank, np.arange(8), lambda: np.zeros(0)
        )
        cables = sum(share for ends, share in charged.items() if all("plane" in end for end in ends))
        assert latency_s[number] * 1e6 == pytest.approx(2 + cables)
        assert cables == 2 if policy == "minimal" else cables in {2, 4}


@pytest.mark.parametrize("policy", ["minimal", "valiant"])
def test_a_minimal_path_crosses_one_cable_between_groups_of_a_dragonfly(policy):
    # Valiant's goes to the end of a cable into a third group first: two between groups, or none within one's own.
    compiled, layout = network(20, kind="dragonfly", gpus=2, switch_ports=8, policy=policy)
    between = compiled.cables.kind == "router_global"
    ends = set(zip(compiled.cables.source[between], compiled.cables.target[between], strict=True))
    counts = set()
    for target in range(2, 40):
        charged = bill_of(compiled, layout, to(0, target))
        counts.add(sum(share for pair, share in charged.items() if pair in ends))
    assert counts == ({0.0, 1.0} if policy == "minimal" else {0.0, 2.0})


def test_by_load_a_slowed_cable_counts_as_slow():
    # Eight nodes of one GPU on two leaves, an uplink to each of two spines, every cable 10 bytes/s but those of spine
    # 0, of which a tenth is left. The first flow has both free and takes the first: 2 bytes at 1 byte/s, 2 s. The
    # second finds spine 1 free. The third would wait 2 s for spine 0, and waits 1 s for spine 1; whole, spine 0 would
    # have been free after 0.2 s.
    rates = {"nic": "10 B/s", "pcie": "1 kB/s"}
    compiled, layout = network(
        8,
        gpus=1,
        planes=1,
        switch_ports=8,
        uplinks_per_leaf=2,
        spines=2,
        policy="least-loaded",
        rates=rates,
        bundle=False,
    )
    ends = list(zip(compiled.cables.source, compiled.cables.target, strict=True))
    transfers = Transfers.point_to_point(np.array([0, 1, 2]), np.array([4, 5, 6]), np.array([2.0, 10.0, 1.0]))

    def spines(asked) -> list[str]:
        bills, _ = asked.bills(
            transfers, layout.endpoint_of_rank, np.arange(3), lambda: np.zeros(asked.num_links)
        )
        up = [
            ends[cable][1]
            for cable in bills.links
            if ends[cable][0] == "plane0/leaf0" and "spine" in ends[cable][1]
        ]
        return [spine.removeprefix("plane0/") for spine in up]

    share = np.array([0.1 if "plane0/spine0" in pair else 1.0 for pair in ends])
    assert spines(compiled) == ["spine0", "spine1", "spine0"]
    assert spines(compiled.at_shares(share)) == ["spine0", "spine1", "spine1"]
