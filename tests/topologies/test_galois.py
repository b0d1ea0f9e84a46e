"""The field axioms, on every pair of small fields, and which orders have a field."""

import pytest

from topologies.galois import galois_field, prime_power


def test_prime_powers_up_to_32() -> None:
    # 6, 10, 12, 14, 15, 18, ... have two prime factors; 1 has none.
    found = [number for number in range(33) if prime_power(number)]
    assert found == [2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19, 23, 25, 27, 29, 31, 32]
    assert (prime_power(27), prime_power(32), prime_power(29)) == ((3, 3), (2, 5), (29, 1))


@pytest.mark.parametrize("order", [2, 3, 4, 5, 7, 8, 9, 16, 25, 27])
def test_the_axioms(order: int) -> None:
    field = galois_field(order)
    elements = range(order)
    add = [[field.add(a, b) for b in elements] for a in elements]
    times = [[field.multiply(a, b) for b in elements] for a in elements]
    # 0 and 1 change nothing, and every row is a permutation: there is always one difference and one quotient.
    assert add[0] == times[1] == list(elements)
    assert times[0] == [0] * order
    assert all(sorted(row) == list(elements) for row in add)
    assert all(sorted(row) == list(elements) for row in times[1:])
    for a in elements:
        for b in elements:
            assert add[a][b] == add[b][a]
            assert times[a][b] == times[b][a]
            for c in elements:
                assert add[add[a][b]][c] == add[a][add[b][c]]
                assert times[times[a][b]][c] == times[a][times[b][c]]
                assert times[a][add[b][c]] == add[times[a][b]][times[a][c]]


@pytest.mark.parametrize("order", [4, 9, 27, 29, 32, 49, 64, 81, 121, 125])
def test_the_powers_of_the_primitive_element_are_all_others_than_0(order: int) -> None:
    field = galois_field(order)
    assert sorted(field.powers) == list(range(1, order))
    assert all(field.logarithms[element] == i for i, element in enumerate(field.powers))


def test_no_field_of_other_orders() -> None:
    with pytest.raises(ValueError, match="no field of 28 elements: the order must be a power of a prime"):
        galois_field(28)
