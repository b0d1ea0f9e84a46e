"""Random networks for property tests."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """Links and flows with exact numbers; `arrays` gives them as the solver takes them."""

    capacity: list[Fraction]
    bills: list[dict[int, Fraction]]
    weights: list[Fraction]

    @property
    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray, NDArray]:
        lengths = [len(bill) for bill in self.bills]
        return (
            np.array([float(value) for value in self.capacity]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.array([link for bill in self.bills for link in bill], np.int64),
            np.array([float(value) for bill in self.bills for value in bill.values()]),
            np.array([float(value) for value in self.weights]),
        )


def cases(max_links: int = 6, max_flows: int = 8) -> st.SearchStrategy[Case]:
    """Draw networks with capacities, coefficients and weights over three orders of magnitude."""
    number = st.fractions(min_value=Fraction(1, 8), max_value=100, max_denominator=8)

    def flows(num_links: int) -> st.SearchStrategy[Case]:
        bill = st.dictionaries(st.integers(0, num_links - 1), number, min_size=1, max_size=num_links)
        return st.builds(
            lambda capacity, rows: Case(capacity, [bill for bill, _ in rows], [weight for _, weight in rows]),
            st.lists(number, min_size=num_links, max_size=num_links),
            st.lists(st.tuples(bill, number), min_size=1, max_size=max_flows),
        )

    return st.integers(1, max_links).flatmap(flows)
