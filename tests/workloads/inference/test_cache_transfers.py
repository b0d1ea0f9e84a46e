"""Caches that come in while a step decodes."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from simulator import load_scenario, simulate
from simulator.network import LinkCosts
from simulator.pricing import Pricing
from support.clusters import network
from workloads.inference.cache_transfers import layer_transfers
from workloads.inference.settings import CacheTransfers
from workloads.tasks import Transfers

ADAPTER = TypeAdapter(CacheTransfers)
COSTS = {name: LinkCosts(1.0, 0.0, 0.0) for name in ("nvlink", "pcie", "infiniband")}


def settings(**fields):
    return ADAPTER.validate_python({"size_per_step": "120 MB"} | fields)


def test_each_rank_gets_its_share_beside_each_layer():
    transfers = layer_transfers(settings(kind="host", weight=0.5), np.arange(4, 8), 8, num_layers=60)
    assert transfers.source_rank.tolist() == transfers.destination_ranks.tolist() == [4, 5, 6, 7]
    assert transfers.size_bytes.tolist() == [2e6] * 4
    assert transfers.weight.tolist() == [0.5] * 4


def test_gpus_that_prefill_serve_those_that_decode_in_turn():
    # 8 ranks, of which the last 2 prefill: 0, 2 and 4 get theirs from rank 6, the others from rank 7.
    transfers = layer_transfers(settings(kind="prefill", gpus=2), np.arange(6), 8, num_layers=1)
    assert transfers.source_rank.tolist() == [6, 7, 6, 7, 6, 7]
    assert transfers.destination_ranks.tolist() == [0, 1, 2, 3, 4, 5]


def test_bytes_from_the_host_cross_its_cable_to_the_pcie_switch_and_the_gpu_s_port():
    compiled, layout = network(2, gpus=2, planes=2, switch_ports=4, costs=COSTS)
    ranks = np.array([1, 2])
    transfers = Transfers.point_to_point(ranks, ranks, np.full(2, 1e6))
    bills, latency_s = compiled.bills(
        transfers, layout.endpoint_of_rank, np.arange(2), lambda: np.zeros(0), Pricing(from_host=True)
    )
    names = compiled.cables.source, compiled.cables.target
    crossed = [
        [tuple(str(column[compiled.first_cable[link]]) for column in names) for link in links]
        for links in np.split(bills.links, bills.offsets[1:-1])
    ]
    assert crossed == [
        [("node0/host", "node0/pcie1"), ("node0/pcie1", "node0/gpu1")],
        [("node1/host", "node1/pcie0"), ("node1/pcie0", "node1/gpu0")],
    ]
    assert bills.coefficients.tolist() == [1.0] * 4
    assert latency_s.tolist() == [0.0, 0.0]


@pytest.fixture(scope="module")
def contention():
    """Steps of the shipped scenario in a small: how long dispatches take, by what comes in."""

    def run(*caches):
        small = ("workload.batch_per_gpu=8", "workload.cached_tokens=64")
        loaded = load_scenario("scenarios/pcie_contention.yaml", (*small, *caches))
        return simulate(loaded).summary

    return run


def test_caches_slow_tokens_unless_they_give_way(contention):
    copies = "workload.cache_transfers={{kind: host, size_per_step: 600 MB, weight: {}}}"
    alone = contention("workload.cache_transfers=null")
    first, last = (contention(copies.format(weight)) for weight in (100, 1e-4))
    dispatch_s = [each["metrics"]["dispatch_s"] for each in (alone, last, first)]
    assert dispatch_s[2] > 1.02 * dispatch_s[0]
    assert dispatch_s[1] == pytest.approx(dispatch_s[0], rel=1e-3)
    # all bytes come, over the host's cables, and nothing else crosses those
    assert first["links"]["pcie_host"]["bytes"] == pytest.approx(16 * 600e6, rel=1e-9)
    assert alone["links"]["pcie_host"]["bytes"] == 0.0


def test_caches_from_gpus_that_prefill_cross_the_network(contention):
    with_caches = contention(
        "workload.cache_transfers={kind: prefill, gpus: 16, size_per_step: 600 MB}", "cluster.nodes=4"
    )
    alone = contention("workload.cache_transfers=null")
    more = with_caches["links"]["nic"]["bytes"] - alone["links"]["nic"]["bytes"]
    # out of one NIC and into another, 16 times
    assert more == pytest.approx(2 * 16 * 600e6, rel=1e-6)
    assert with_caches["links"]["pcie_host"]["bytes"] == 0.0
