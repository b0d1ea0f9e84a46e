import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.bills import Bills
from simulator.components import find_components
from simulator.fluid import FluidNetwork
from simulator.replay import replay_flows
from simulator.rows import csr_offsets
from support.networks import Case, cases


def bills_of(*paths: list[int]) -> Bills:
    links = np.array([link for path in paths for link in path], np.int64)
    return Bills(csr_offsets([len(path) for path in paths]), links, np.ones(len(links)))


def rows(offsets: np.ndarray, flat: np.ndarray) -> list[list[int]]:
    return [row.tolist() for row in np.split(flat, offsets[1:-1])]


def test_flows_that_share_a_link_even_through_others_are_together():
    # 0 and 2 share link 1, 2 and 3 link 4: together. 1 is alone on link 0, and 4, without links, is a component of
    # its own. They are numbered by their first flows, and a component's flows stand in order of their starts.
    bills = bills_of([1], [0], [1, 4], [4, 2], [])
    found = find_components(bills, np.array([3.0, 0.0, 2.0, 1.0, 0.0]), num_links=6)
    assert rows(found.flow_offsets, found.flows) == [[3, 2, 0], [1], [4]]
    assert rows(found.link_offsets, found.links) == [[1, 2, 4], [0], []]
    assert found.local_links.tolist() == [0, 0, 0, 2, 2, 1]


def test_no_flows_have_no_components():
    found = find_components(bills_of(), np.zeros(0), num_links=3)
    assert len(found.flows) == len(found.links) == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), min_size=1, max_size=12))
def test_components_are_those_of_the_graph_of_flows_and_links(paths):
    graph = nx.Graph()
    for flow, path in enumerate(paths):
        graph.add_edges_from((("flow", flow), ("link", link)) for link in path)
    expected = {
        (
            frozenset(number for kind, number in part if kind == "flow"),
            frozenset(number for kind, number in part if kind == "link"),
        )
        for part in nx.connected_components(graph)
    }
    bills = bills_of(*paths)
    found = find_components(bills, np.zeros(len(paths)), num_links=10)
    flows, links = rows(found.flow_offsets, found.flows), rows(found.link_offsets, found.links)
    assert {(frozenset(a), frozenset(b)) for a, b in zip(flows, links, strict=True)} == expected
    component_of_flow = {flow: part for part, row in enumerate(flows) for flow in row}
    for flow, path in enumerate(paths):
        local = found.local_links[bills.offsets[flow] : bills.offsets[flow + 1]]
        assert [links[component_of_flow[flow]][place] for place in local] == path


@settings(max_examples=100, deadline=None)
@given(st.lists(cases(max_links=3, max_flows=4), min_size=2, max_size=3), st.data())
def test_networks_side_by_side_run_as_each_alone(parts: list[Case], data):
    # Several networks in one, sharing nothing, with a horizon now and then: every flow ends as in its own network,
    # and every link has carried as much.
    sizes = [
        data.draw(st.lists(st.integers(1, 50), min_size=len(p.bills), max_size=len(p.bills))) for p in parts
    ]
    starts = [
        data.draw(st.lists(st.integers(0, 3), min_size=len(p.bills), max_size=len(p.bills))) for p in parts
    ]
    alone = []
    for part, size, start in zip(parts, sizes, starts, strict=True):
        capacity, offsets, links, coefficients, weights = part.arrays
        alone.append(replay_flows(capacity, offsets, links, size, start, coefficients, weights).finish_s)

    shift, bills, capacity, weights = 0, [], [], []
    for part in parts:
        bills += [{link + shift: value for link, value in bill.items()} for bill in part.bills]
        capacity += part.capacity
        weights += part.weights
        shift += len(part.capacity)
    joined_capacity, offsets, links, coefficients, joined_weights = Case(capacity, bills, weights).arrays
    network = FluidNetwork(joined_capacity)
    none = np.zeros(len(bills) + 1, np.int64), np.zeros(0, np.int64)
    size, start = np.concatenate(sizes).astype(float), np.concatenate(starts).astype(float)
    network.add_flows(Bills(offsets, links, coefficients), size, start, joined_weights, *none)
    for horizon_s in data.draw(st.lists(st.floats(0, 10), max_size=4)):
        network.advance(horizon_s)
        assert network.now_s >= horizon_s
    network.advance(np.inf)
    assert network.finish_s == pytest.approx(np.concatenate(alone), rel=1e-9)
    charged = np.bincount(links, coefficients * np.repeat(size, np.diff(offsets)), minlength=len(capacity))
    assert network.meter.bytes == pytest.approx(charged, rel=1e-9)
    assert network.meter.bins.sum(axis=1) == pytest.approx(charged, rel=1e-9)


def test_a_component_is_not_solved_for_what_others_do():
    # Ten flows on links of their own end at 1 .. 10 s: each is solved once, at the start, in one run of the loop.
    replay = replay_flows(np.ones(10), np.arange(11), np.arange(10), np.arange(1.0, 11.0))
    assert replay.finish_s.tolist() == list(range(1, 11))
    assert replay.solves == 10


def test_what_is_waited_for_is_not_overtaken():
    # Flow 0 (link 0) ends at 1 s and is watched; flow 1 (link 1) has then 9 of 10 bytes left, and a flow that joins
    # it halves its rate: 1 + 9 / 0.5 = 19 s if the newcomer is large.
    network = FluidNetwork(np.ones(2))
    watch = network.add_watches(np.array([1]))
    network.add_flows(
        bills_of([0], [1]), np.array([1.0, 10.0]), np.zeros(2), np.ones(2), np.array([0, 1, 1]), watch
    )
    assert network.advance(np.inf) == watch.tolist()
    assert network.now_s == 1.0
    assert network.backlog_bytes().tolist() == [0.0, 9.0]
    none = np.zeros(2, np.int64), np.zeros(0, np.int64)
    network.add_flows(bills_of([1]), np.array([100.0]), np.array([0.0]), np.ones(1), *none)
    network.advance(np.inf)
    assert network.finish_s.tolist() == [1.0, 19.0, 110.0]


def test_all_watches_of_an_instant_fire_together():
    network = FluidNetwork(np.ones(3))
    watches = network.add_watches(np.array([1, 1, 1]))
    paths = bills_of([0], [1], [2])
    network.add_flows(paths, np.array([2.0, 2.0, 3.0]), np.zeros(3), np.ones(3), np.arange(4), watches)
    assert network.advance(np.inf) == watches[:2].tolist()
    assert network.advance(np.inf) == watches[2:].tolist()


@pytest.mark.parametrize("num_components", [511, 512, 513, 2000])
def test_many_components_come_to_an_end(num_components):
    # Two flows a component, on a link of their own: the short one ends at 2 s (half of 1 byte/s for 1 byte), the
    # long one has a byte left then and ends at 3 s. More components than the loop solves at once must not hold it.
    count = 2 * num_components
    replay = replay_flows(
        np.ones(num_components),
        np.arange(count + 1),
        np.repeat(np.arange(num_components), 2),
        [1.0, 2.0] * num_components,
    )
    assert replay.finish_s.tolist() == [2.0, 3.0] * num_components
    assert replay.solves <= 4 * num_components
