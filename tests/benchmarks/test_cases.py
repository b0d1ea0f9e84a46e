"""The generator of benchmark cases against the real cluster graph; skipped where the benchmarks are not there."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from simulator.replay import replay_flows
from support.clusters import all_pairs, network
from workloads.tasks import Transfers

FOLDER = Path(__file__).parents[2] / "benchmarks"
if not FOLDER.is_dir():
    pytest.skip("the benchmarks are not part of this checkout", allow_module_level=True)


def load(name: str):
    # The benchmarks are scripts, not a package: they find each other by bare names, which must not stay on the path.
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


cases = load("cases")
known = load("known")


def sharing(capacity, offsets, links):
    """Return which flows share a link, and its capacity, for every link that has flows."""
    flow = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.argsort(links, kind="stable")
    used, first = np.unique(links[order], return_index=True)
    groups = np.split(flow[order], first[1:])
    return {(frozenset(group.tolist()), capacity[link]) for group, link in zip(groups, used, strict=True)}


def graph_sharing(num_nodes, policy, **topology):
    """Return the same of the simulator's own network, without PCIe, which the cases leave out."""
    compiled, layout = network(num_nodes, policy=policy, seed=1, **topology)
    source, destination = all_pairs(layout.num_ranks)
    transfers = Transfers.point_to_point(source, destination, np.ones(len(source)))
    no_backlog = np.zeros(compiled.num_links)
    bills, _ = compiled.bills(transfers, layout.endpoint_of_rank, np.arange(len(source)), lambda: no_backlog)
    kept = ~np.char.startswith(compiled.cables.kind[bills.links].astype(str), "pcie")
    offsets = np.concatenate([[0], np.cumsum(kept)])[bills.offsets]
    return sharing(compiled.capacity_bytes_per_s, offsets, bills.links[kept])


# One or several leaves, the last one not full; spines that divide the uplinks and that do not; parallel cables.
NETWORKS = [
    (10, cases.multi_plane(80), {}),
    (10, cases.multi_plane(80, 4, 4), {"endpoints_per_leaf": 4, "switch_ports": 8, "spines": 4}),
    (9, cases.multi_plane(72, 4, 3), {"endpoints_per_leaf": 4, "switch_ports": 8, "spines": 3}),
    (9, cases.multi_plane(72, 4), {"endpoints_per_leaf": 4, "switch_ports": 8}),
    (5, cases.multi_rail(40), {"kind": "multi-rail-fat-tree", "switch_ports": 10}),
    (8, cases.multi_rail(64), {"kind": "multi-rail-fat-tree", "switch_ports": 16}),
    (6, cases.multi_rail(48, uplinks=32), {"kind": "multi-rail-fat-tree"}),
    (10, cases.multi_rail(80, 8), {"kind": "multi-rail-fat-tree", "switch_ports": 16}),
]


@pytest.mark.parametrize("policy", [pytest.param("static", marks=pytest.mark.slow), "ecmp"])
@pytest.mark.parametrize(("num_nodes", "trees", "topology"), NETWORKS)
def test_flows_share_links_as_on_the_cluster_graph(num_nodes, trees, topology, policy):
    flows = cases.all_to_all(trees, ecmp=policy == "ecmp")
    ours = sharing(flows.capacity_bytes_per_s, flows.path_offsets, flows.path_links)
    assert ours == graph_sharing(num_nodes, policy, **topology)


def test_an_all_to_all_of_equal_sizes_takes_what_its_ports_need():
    # 16 GPUs on two nodes, one leaf a plane. A NIC sends what the 8 GPUs of its node have for the one of its index
    # on the other node: 8 flows of 1 MiB through 50e9 bytes/s. NVLink out of a GPU carries its 7 flows within the
    # node and the 7 that first go to another plane's NIC, 14 MiB at 200e9 bytes/s, which is less.
    flows = cases.all_to_all(cases.multi_plane(16), sizes=cases.equal)
    assert len(flows) == 16 * 15
    assert cases.busiest_link_s(flows) == pytest.approx(8 * 2**20 / 50e9)
    replay = replay_flows(
        flows.capacity_bytes_per_s, flows.path_offsets, flows.path_links, flows.size_bytes, flows.start_s
    )
    assert replay.finish_s.max() == pytest.approx(8 * 2**20 / 50e9)


def test_lognormal_sizes_have_their_mean_and_sigma():
    # The mean of exp(N(-1/2, 1)) is exp(-1/2 + 1/2) = 1. Of 100,000 draws, with standard deviation sqrt(e - 1) =
    # 1.31, it has a standard error of 0.0041; that of the logarithms' standard deviation, 1, is 0.0022.
    sizes = cases.lognormal(np.random.default_rng(1), 100_000) / 2**20
    assert sizes.mean() == pytest.approx(1.0, abs=5 * 0.0041)
    assert np.log(sizes).std() == pytest.approx(1.0, abs=5 * 0.0022)


def test_staggered_starts_fill_half_of_the_busiest_links_time():
    # The largest of 240 uniform numbers is below 0.95 of the range but once in 0.95^-240 = 222,000 cases.
    together = cases.all_to_all(cases.multi_plane(16))
    staggered = cases.all_to_all(cases.multi_plane(16), staggered=True)
    half_s = cases.busiest_link_s(together) / 2
    assert 0.95 * half_s < staggered.start_s.max() < half_s
    assert np.array_equal(together.size_bytes, staggered.size_bytes)


def test_random_networks_have_simple_paths_and_rising_starts():
    flows = cases.random_network(300)
    paths = np.split(flows.path_links, flows.path_offsets[1:-1])
    assert {len(path) for path in paths} == set(range(2, 9))
    assert all(len(set(path.tolist())) == len(path) for path in paths)
    assert set(np.concatenate(paths).tolist()) <= set(range(400))
    assert (np.diff(flows.start_s) > 0).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: cases.all_to_all(cases.multi_rail(32), ecmp=True, staggered=True, seed=seed),
        lambda seed: cases.random_network(50, seed=seed),
    ],
)
def test_the_same_seed_makes_the_same_case(make):
    first, again, other = make(1), make(1), make(2)
    names = ("capacity_bytes_per_s", "path_offsets", "path_links", "size_bytes", "start_s")
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in names)
    assert not np.array_equal(first.path_links, other.path_links)
    assert not np.array_equal(first.size_bytes, other.size_bytes)


@pytest.mark.parametrize("case", known.known_cases(), ids=lambda case: case.name)
def test_the_replay_gets_the_cases_right_that_are_solved_by_hand(case):
    flows = case.flows
    replay = replay_flows(
        flows.capacity_bytes_per_s, flows.path_offsets, flows.path_links, flows.size_bytes, flows.start_s
    )
    assert replay.finish_s == pytest.approx(case.finish_s, rel=1e-12)


def test_networks_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="20 GPUs do not fill nodes of 8"):
        cases.multi_plane(20)
    with pytest.raises(ValueError, match="2 uplinks does not reach 4 spines"):
        cases.multi_rail(16)
