"""Random networks for property tests, and short ways to write flows down."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from simulator.bills import Bills
from simulator.fluid import FluidNetwork
from simulator.rows import csr_offsets

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Path = Sequence[int] | dict[int, float]


@dataclass(frozen=True)
class Case:
    """Links and flows with exact numbers; `arrays` gives them as the solver takes them."""

    capacity: list[Fraction]
    bills: list[dict[int, Fraction]]
    weights: list[Fraction]

    @property
    def arrays(self) -> tuple[FloatArray, IntArray, IntArray, FloatArray, FloatArray]:
        bills = bills_of(*self.bills)
        return (
            np.array([float(value) for value in self.capacity]),
            bills.offsets,
            bills.links,
            bills.coefficients,
            np.array([float(value) for value in self.weights]),
        )


NUMBERS = st.fractions(min_value=Fraction(1, 8), max_value=100, max_denominator=8)


def cases(max_links: int = 6, max_flows: int = 8) -> st.SearchStrategy[Case]:
    """Draw networks with capacities, coefficients and weights over three orders of magnitude."""

    def flows(num_links: int) -> st.SearchStrategy[Case]:
        bill = st.dictionaries(st.integers(0, num_links - 1), NUMBERS, min_size=1, max_size=num_links)
        return st.builds(
            lambda capacity, rows: Case(capacity, [bill for bill, _ in rows], [weight for _, weight in rows]),
            st.lists(NUMBERS, min_size=num_links, max_size=num_links),
            st.lists(st.tuples(bill, NUMBERS), min_size=1, max_size=max_flows),
        )

    return st.integers(1, max_links).flatmap(flows)


def alike_cases(max_links: int = 5, max_flows: int = 10) -> st.SearchStrategy[Case]:
    """Draw networks in which several flows have the same bill and weight, so that groups have several members."""

    def repeat(case: Case, chosen: list[int]) -> Case:
        rows = [number % len(case.bills) for number in chosen]
        return replace(
            case, bills=[case.bills[row] for row in rows], weights=[case.weights[row] for row in rows]
        )

    numbers = st.lists(st.integers(0, 11), min_size=2, max_size=max_flows)
    return st.builds(repeat, cases(max_links, max_flows=3), numbers)


def tree_cases(max_flows: int = 10) -> st.SearchStrategy[Case]:
    """Draw trees of links: ports 0 to 5, uplinks 6 and 7 that three ports share each, and a core, 8.

    Where the uplinks and the core are wide, they are dominated or slack; where they are not, they are full.
    """
    small, coefficient = (
        st.sampled_from([1, 2, Fraction(1, 2)]),
        st.sampled_from([1, 1, 1, Fraction(1, 2), 2]),
    )

    def bill(port: int, num_links: int, charges: list[Fraction]) -> dict[int, Fraction]:
        path = (port, 6 + port // 3, 8)[:num_links]
        return dict(zip(path, map(Fraction, charges), strict=False))

    bills = st.builds(
        bill, st.integers(0, 5), st.integers(1, 3), st.lists(coefficient, min_size=3, max_size=3)
    )
    wide = st.sampled_from([Fraction(1, 2), 1, 2, 3, Fraction(9, 2)])
    capacity = st.builds(
        lambda ports, shared: [Fraction(value) for value in ports + shared],
        st.lists(small, min_size=6, max_size=6),
        st.lists(wide, min_size=3, max_size=3),
    )
    return st.builds(
        lambda capacity, rows: Case(
            capacity, [bill for bill, _ in rows], [Fraction(weight) for _, weight in rows]
        ),
        capacity,
        st.lists(st.tuples(bills, small), min_size=1, max_size=max_flows),
    )


def bills_of(*paths: Path) -> Bills:
    """Return the bills of flows given as links, charged once, or as coefficients by link."""
    charges = [
        value for path in paths for value in (path.values() if isinstance(path, dict) else [1.0] * len(path))
    ]
    return Bills(
        csr_offsets([len(path) for path in paths]),
        np.array([link for path in paths for link in path], np.int64),
        np.array([float(value) for value in charges]),
    )


def add_flows(
    network: FluidNetwork, bills: Bills, size: ArrayLike, start: ArrayLike = 0.0, weight: ArrayLike = 1.0
) -> IntArray:
    """Add flows that nobody watches; return their ids. Numbers alone stand for all flows."""
    count = bills.num_flows
    size, start, weight = (
        np.array(np.broadcast_to(each, count), np.float64) for each in (size, start, weight)
    )
    return network.add_flows(bills, size, start, weight, np.zeros(count + 1, np.int64), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Traffic:
    """Flows to replay, too many for the slow twin.

    capacity: [num_links] bytes/s; size, start, weight: [num_flows] bytes, seconds and 1
    """

    capacity: FloatArray
    bills: Bills
    size: FloatArray
    start: FloatArray
    weight: FloatArray

    @property
    def arguments(self) -> dict[str, FloatArray | IntArray]:
        """Return the traffic as arguments of `replay_flows`."""
        return {
            "capacity_bytes_per_s": self.capacity,
            "path_offsets": self.bills.offsets,
            "path_links": self.bills.links,
            "size_bytes": self.size,
            "start_s": self.start,
            "coefficients": self.bills.coefficients,
            "weights": self.weight,
        }


def random_paths(random: np.random.Generator, num_flows: int) -> tuple[list[list[int]], int]:
    """Return the paths of flows, and the number of links: a mesh of no order, a fat-tree of two layers, or a line."""
    shape = random.choice(["mesh", "tree", "line"])
    if shape == "mesh":
        return [random.permutation(24)[: random.integers(1, 7)].tolist() for _ in range(num_flows)], 24
    if shape == "line":
        begin = random.integers(0, 30, num_flows)
        return [list(range(first, min(30, first + random.integers(1, 8)))) for first in begin], 30
    # ports out are 0 to 11, ports in 12 to 23; a leaf has 3 of both, an uplink (24 to 27) and a downlink (28 to 31)
    pairs = random.integers(0, 12, (num_flows, 2)).tolist()
    return [
        [out, *([24 + out // 3, 28 + into // 3] if out // 3 != into // 3 else []), 12 + into]
        for out, into in pairs
    ], 32


def random_traffic(seed: int, num_flows: int = 150) -> Traffic:
    """Return flows on a network, drawn by a seed: some alike, some in bursts, some links narrow and some wide."""
    random = np.random.default_rng(seed)

    def numbers(count: int) -> FloatArray:
        """Return numbers that are all 1, or of three values, or all different, over two orders of magnitude."""
        values = 10.0 ** random.uniform(-1, 1, count)
        return [np.ones(count), random.choice(values[:3], count), values][random.integers(0, 3)]

    paths, num_links = random_paths(random, num_flows)
    capacity, lengths = numbers(num_links), [len(path) for path in paths]
    coefficients = np.repeat(numbers(num_flows), lengths) if random.random() < 0.5 else numbers(sum(lengths))
    bills = replace(bills_of(*paths), coefficients=coefficients)
    size = numbers(num_flows)
    # starts at once, in bursts, or all different, over about as long as the busiest link needs
    busy_s = np.max(np.bincount(bills.links, coefficients * np.repeat(size, lengths), num_links) / capacity)
    start = random.uniform(0, busy_s, num_flows)
    start = [np.zeros(num_flows), random.choice(start[:4], num_flows), start][random.integers(0, 3)]
    return Traffic(capacity, bills, size, start, numbers(num_flows))
