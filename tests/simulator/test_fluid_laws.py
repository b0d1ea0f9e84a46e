from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.bills import Bills
from simulator.fairness import max_min_rates
from simulator.flow_rows import unfinished
from simulator.fluid import FluidNetwork
from simulator.replay import replay_flows
from simulator.rows import csr_select
from support.exact_fluid import ExactFluid
from support.networks import (
    Case,
    FloatArray,
    IntArray,
    Traffic,
    add_flows,
    alike_cases,
    bills_of,
    cases,
    random_traffic,
    tree_cases,
)
from support.properties import tried_on

SEEDS = range(12)


def same_as_the_twin(case: Case, size: list[Fraction], start: list[Fraction]) -> None:
    """Check that flows end when they do in exact fractions."""
    exact = ExactFluid(case.capacity)
    flows = [
        exact.add(bill, size_bytes, start_s, weight)
        for bill, size_bytes, start_s, weight in zip(case.bills, size, start, case.weights, strict=True)
    ]
    exact.advance()
    network = FluidNetwork(case.arrays[0])
    as_floats = [np.array([float(value) for value in values]) for values in (size, start, case.weights)]
    add_flows(network, bills_of(*case.bills), *as_floats)
    network.advance(np.inf)
    assert network.finish_s == pytest.approx([float(flow.finish_s) for flow in flows], rel=1e-9)


SIZES = st.one_of(st.integers(1, 100).map(Fraction), st.sampled_from([Fraction(1), Fraction(10)]))
STARTS = st.one_of(
    st.just(Fraction(0)), st.integers(0, 4).map(Fraction), st.fractions(0, 8, max_denominator=16)
)


def draw_flows(data: st.DataObject, count: int) -> tuple[list[Fraction], list[Fraction]]:
    """Draw sizes and starts, many of them equal."""
    size = data.draw(st.lists(SIZES, min_size=count, max_size=count), "size")
    return size, data.draw(st.lists(STARTS, min_size=count, max_size=count), "start")


@tried_on(100)
@given(cases(), st.data())
def test_flows_end_when_exact_fractions_say(case: Case, data: st.DataObject):
    same_as_the_twin(case, *draw_flows(data, len(case.bills)))


@tried_on(100)
@given(alike_cases(), st.data())
def test_alike_flows_end_when_exact_fractions_say(case: Case, data: st.DataObject):
    same_as_the_twin(case, *draw_flows(data, len(case.bills)))


@tried_on(100)
@given(tree_cases(), st.data())
def test_flows_on_a_tree_end_when_exact_fractions_say(case: Case, data: st.DataObject):
    same_as_the_twin(case, *draw_flows(data, len(case.bills)))


def finish(traffic: Traffic, **options: float) -> FloatArray:
    """Return when each flow ends."""
    return replay_flows(**traffic.arguments, **options).finish_s


def finish_with_all_rates_anew(traffic: Traffic) -> FloatArray:
    """Return when each flow ends, all rates being solved from nothing at every instant: slow, and nothing is kept."""
    left, finish_s, now_s = traffic.size.copy(), np.full(len(traffic.size), np.nan), 0.0
    while np.isnan(finish_s).any():
        next_s = traffic.start[traffic.start > now_s].min(initial=np.inf)
        going = np.flatnonzero(np.isnan(finish_s) & (traffic.start <= now_s))
        offsets, entries = csr_select(traffic.bills.offsets, going)
        links, coefficients = traffic.bills.links[entries], traffic.bills.coefficients[entries]
        rates = max_min_rates(traffic.capacity, offsets, links, coefficients, traffic.weight[going])
        step_s = (left[going] / rates).min(initial=np.inf)
        to_s = min(now_s + step_s, next_s)
        left[going] -= rates * (to_s - now_s)
        now_s = to_s
        finish_s[going[left[going] <= 1e-12 * traffic.size[going]]] = now_s
    return finish_s


@pytest.mark.parametrize("seed", range(40))
def test_what_is_kept_between_instants_gives_what_solving_all_anew_does(seed: int):
    traffic = random_traffic(seed)
    assert finish(traffic) == pytest.approx(finish_with_all_rates_anew(traffic), rel=1e-9)


def permuted(traffic: Traffic, random: np.random.Generator) -> tuple[Traffic, IntArray]:
    """Return the traffic with flows, links and the entries of bills in another order, and the order of flows."""
    flows, links = random.permutation(len(traffic.size)), random.permutation(len(traffic.capacity))
    bills = traffic.bills
    offsets, entries = csr_select(bills.offsets, flows)
    for start, end in pairwise(offsets):
        random.shuffle(entries[start:end])
    capacity = np.empty_like(traffic.capacity)
    capacity[links] = traffic.capacity
    moved = Bills(offsets, links[bills.links[entries]], bills.coefficients[entries])
    return Traffic(capacity, moved, traffic.size[flows], traffic.start[flows], traffic.weight[flows]), flows


def longest_spells(traffic: Traffic, count: int) -> list[tuple[float, float]]:
    """Return the longest spells in which no flow starts or ends, in order of time."""
    instants = np.unique(np.concatenate([traffic.start, finish(traffic)]))
    chosen = np.sort(np.argsort(-np.diff(instants))[:count])
    return [(instants[place], instants[place + 1]) for place in chosen]


@pytest.mark.parametrize("seed", SEEDS)
def test_rates_are_max_min_fair_at_all_times(seed: int):
    # The definition, on rates seen from outside: what flows have left falls steadily between two instants, no link is
    # over its capacity, and each flow crosses a full link on which no flow is faster over its weight.
    traffic = random_traffic(seed)
    network = FluidNetwork(traffic.capacity)
    add_flows(network, traffic.bills, traffic.size, traffic.start, traffic.weight)
    spells = longest_spells(traffic, 20)
    for begin_s, end_s in spells:
        first_s, second_s = begin_s + 0.1 * (end_s - begin_s), begin_s + 0.9 * (end_s - begin_s)
        network.advance(first_s)
        before = unfinished(network._state)
        network.advance(second_s)
        after = unfinished(network._state)
        assert after.ids.tolist() == before.ids.tolist()
        rates = (before.left_bytes - after.left_bytes) / (second_s - first_s)
        assert (rates[before.start_s > second_s] == 0.0).all()
        going = before.at(np.flatnonzero(before.start_s < first_s))
        levels = rates[before.start_s < first_s] / going.weights
        level = np.repeat(levels, np.diff(going.bills.offsets))
        links = going.bills.links
        charges = going.bills.coefficients * level * np.repeat(going.weights, np.diff(going.bills.offsets))
        load = np.bincount(links, charges, len(traffic.capacity))
        assert (load <= traffic.capacity * (1 + 1e-6)).all()
        fastest = np.zeros(len(traffic.capacity))
        np.maximum.at(fastest, links, level)
        holds = (load[links] >= traffic.capacity[links] * (1 - 1e-6)) & (level >= fastest[links] * (1 - 1e-6))
        assert all(holds[start:end].any() for start, end in pairwise(going.bills.offsets))


@pytest.mark.parametrize("seed", SEEDS)
def test_units_do_not_matter(seed: int):
    traffic = random_traffic(seed)
    expected = finish(traffic)
    # Three or five times as much: capacities and so rates (times a third), bytes (times longer), weights (no matter),
    # and what is charged with the capacity that it is charged to (no matter either).
    capacity, size, start, weight = traffic.capacity, traffic.size, traffic.start, traffic.weight
    faster = finish(replace(traffic, capacity=3 * capacity, start=start / 3))
    larger = finish(replace(traffic, size=5 * size, start=5 * start))
    heavier = finish(replace(traffic, weight=3 * weight))
    dearer_bills = replace(traffic.bills, coefficients=5 * traffic.bills.coefficients)
    dearer = finish(replace(traffic, capacity=5 * capacity, bills=dearer_bills))
    assert faster == pytest.approx(expected / 3, rel=1e-9)
    assert larger == pytest.approx(expected * 5, rel=1e-9)
    assert heavier == pytest.approx(expected, rel=1e-9)
    assert dearer == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_names_and_order_do_not_matter(seed: int):
    traffic = random_traffic(seed)
    other, flows = permuted(traffic, np.random.default_rng(seed))
    assert finish(other) == pytest.approx(finish(traffic)[flows], rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_link_that_is_never_full_changes_nothing(seed: int):
    # One more link on half of the paths, wide enough for all flows that cross it at the rates they would have alone.
    traffic, random = random_traffic(seed), np.random.default_rng(seed)
    bills, capacity = traffic.bills, traffic.capacity
    paths = [
        dict(zip(bills.links[start:end].tolist(), bills.coefficients[start:end].tolist(), strict=True))
        for start, end in pairwise(bills.offsets)
    ]
    alone = [min(capacity[link] / coefficient for link, coefficient in path.items()) for path in paths]
    crossing = random.permutation(len(paths))[: len(paths) // 2]
    for flow in crossing:
        paths[flow][len(capacity)] = 2.0
    wide = np.append(capacity, 2.0 * sum(alone[flow] for flow in crossing) * 1.01)
    other = replace(traffic, capacity=wide, bills=bills_of(*paths))
    assert finish(other) == pytest.approx(finish(traffic), rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_flow_split_in_two_halves_ends_when_the_whole_does(seed: int):
    traffic = random_traffic(seed)
    count = len(traffic.size)
    halved = np.arange(0, count, 3)
    rows = np.concatenate([np.arange(count), halved])
    offsets, entries = csr_select(traffic.bills.offsets, rows)
    share = np.where(np.isin(rows, halved), 0.5, 1.0)
    split = Traffic(
        traffic.capacity,
        Bills(offsets, traffic.bills.links[entries], traffic.bills.coefficients[entries]),
        traffic.size[rows] * share,
        traffic.start[rows],
        traffic.weight[rows] * share,
    )
    assert finish(split) == pytest.approx(finish(traffic)[rows], rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tolerance_of_zero_is_exact_and_a_run_repeats_to_the_last_bit(seed: int):
    traffic = random_traffic(seed)
    exact, again = replay_flows(**traffic.arguments), replay_flows(**traffic.arguments, tolerance=0)
    assert exact.finish_s.tolist() == again.finish_s.tolist()
    assert (again.solves, again.merged, again.stale_share) == (exact.solves, 0, 0.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_meter_holds_every_byte_of_random_traffic(seed: int):
    traffic = random_traffic(seed)
    network = FluidNetwork(traffic.capacity)
    add_flows(network, traffic.bills, traffic.size, traffic.start, traffic.weight)
    network.advance(np.inf)
    bills = traffic.bills
    charges = bills.coefficients * np.repeat(traffic.size, np.diff(bills.offsets))
    charged = np.bincount(bills.links, charges, len(traffic.capacity))
    assert network.meter.bytes == pytest.approx(charged, rel=1e-9)
    # A link that is full for so long has carried as much at the least, and no link is full for longer than it runs.
    full_bytes = network.meter.saturated_s * traffic.capacity
    assert (full_bytes <= charged * (1 + 1e-6)).all()
    assert full_bytes.sum() > 0.0
