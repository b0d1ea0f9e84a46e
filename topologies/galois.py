"""Finite fields: the arithmetic of GF(q) for a power q of a prime, by tables of powers of one element.

The q - 1 elements other than 0 are the powers of a primitive element x. Elements are written as whole numbers below
q = p^n: digit i, to the base of the characteristic p, is the coefficient of x^i in a polynomial below degree n.
Powers of x follow by shifting the digits and by x^n = -(c_0 + c_1 x + ...), where the c_i belong to the first
polynomial, in the order of its coefficients, whose root is primitive.

Reference: R. Lidl and H. Niederreiter, "Finite fields", Cambridge University Press (1997), chapters 1 to 3.
"""

from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True, slots=True)
class Field:
    """A finite field of `order` elements, written 0 .. order - 1.

    characteristic: the prime p; powers: [order - 1] element that is the power i of the primitive one;
    logarithms: [order] its inverse, -1 for the element 0
    """

    order: int
    characteristic: int
    powers: tuple[int, ...]
    logarithms: tuple[int, ...]

    def add(self, one: int, other: int) -> int:
        """Return the sum of two elements: digits add without a carry."""
        total, place = 0, 1
        while one or other:
            one, digit = divmod(one, self.characteristic)
            other, other_digit = divmod(other, self.characteristic)
            total += (digit + other_digit) % self.characteristic * place
            place *= self.characteristic
        return total

    def multiply(self, one: int, other: int) -> int:
        """Return the product of two elements."""
        if not (one and other):
            return 0
        return self.powers[(self.logarithms[one] + self.logarithms[other]) % (self.order - 1)]


def prime_power(number: int) -> tuple[int, int] | None:
    """Return the prime p and the exponent n with p^n = number, None where there are none."""
    if number < 2:
        return None
    prime = next((p for p in range(2, int(number**0.5) + 1) if number % p == 0), number)
    exponent = 0
    while number % prime == 0:
        number //= prime
        exponent += 1
    return (prime, exponent) if number == 1 else None


def galois_field(order: int) -> Field:
    """Return the field of `order` elements, a power of a prime."""
    factors = prime_power(order)
    if factors is None:
        msg = f"there is no field of {order} elements: the order must be a power of a prime"
        raise ValueError(msg)
    prime, degree = factors
    for polynomial in product(range(prime), repeat=degree):
        powers = _powers(polynomial, prime)
        if len(powers) == order - 1:
            logarithms = [-1] * order
            for exponent, element in enumerate(powers):
                logarithms[element] = exponent
            return Field(order, prime, tuple(powers), tuple(logarithms))
    raise AssertionError(order)  # every finite field has a primitive element


def _powers(polynomial: tuple[int, ...], prime: int) -> list[int]:
    """Return the distinct powers of the root of x^n + c_(n-1) x^(n-1) + ... + c_0, from the power 0 on.

    polynomial: [degree] the coefficients c_0, c_1, ...
    """
    one = (1, *(0 for _ in polynomial[1:]))
    # The root of a polynomial of degree 1, x + c, is -c; of others it is x itself. Both are "shift and reduce".
    digits, powers = one, []
    while True:
        powers.append(sum(digit * prime**place for place, digit in enumerate(digits)))
        top = digits[-1]
        shifted = (0, *digits[:-1])
        digits = tuple((below - top * c) % prime for below, c in zip(shifted, polynomial, strict=True))
        if digits == one or not any(digits) or len(powers) >= prime ** len(polynomial):
            return powers
