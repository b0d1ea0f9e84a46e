"""Quantities: text with units at the edge, SI floats inside, and back."""

import re
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from simulator.units import (
    UNITS,
    Bytes,
    BytesPerSecond,
    Dollars,
    FlopPerSecond,
    Seconds,
    Spec,
    fitting_unit,
    parse_quantity,
    show_count,
    show_quantity,
    write_quantity,
)
from support.properties import tried_on

FIELDS = {
    "time": Seconds,
    "bytes": Bytes,
    "bytes per second": BytesPerSecond,
    "flop per second": FlopPerSecond,
    "dollars": Dollars,
}
UNIT = st.sampled_from([(dimension, unit) for dimension, units in UNITS.items() for unit in units])
DIMENSION = st.sampled_from(list(UNITS))
FINITE = st.floats(min_value=0, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("3.7 us", "time", 3.7e-6),
        ("0 s", "time", 0.0),
        ("1e-3 ms", "time", 1e-6),
        ("2 ns", "time", 2e-9),
        ("80 GiB", "bytes", 80 * 2**30),
        ("80GB", "bytes", 80e9),
        ("  80  GB  ", "bytes", 80e9),
        ("+5. kB", "bytes", 5e3),
        (".5 TiB", "bytes", 2**39),
        ("400 Gbit/s", "bytes per second", 50e9),  # eight bits to a byte
        ("8 bit/s", "bytes per second", 1.0),
        ("50 GB/s", "bytes per second", 50e9),
        ("1 KiB/s", "bytes per second", 1024.0),
        ("989.4 TFLOP/s", "flop per second", 989.4e12),
        ("1 FLOP/s", "flop per second", 1.0),
        ("12000 USD", "dollars", 12e3),
        ("1.2 kUSD", "dollars", 1200.0),
        ("3 MUSD", "dollars", 3e6),
        ("2 GUSD", "dollars", 2e9),
    ],
)
def test_quantities_in_si_units(text, dimension, value):
    assert parse_quantity(text, dimension) == value


# Each word must be in the message: what is wrong, or what would be right.
@pytest.mark.parametrize(
    ("text", "dimension", "words"),
    [
        ("400", "bytes per second", ("'400' has no unit", "'400 Gbit/s'")),
        (400, "bytes per second", ("400 has no unit", "'400 Gbit/s'")),
        (4e11, "bytes per second", ("has no unit", "'400 Gbit/s'")),
        ("", "time", ("'' is not a quantity", "'3.7 us'")),
        ("fast", "time", ("'fast' is not a quantity", "'3.7 us'")),
        ("us", "time", ("'us' is not a quantity", "'3.7 us'")),
        ("3.7 parsec", "time", ("'parsec' is not a unit of time", "s, ms, us, ns")),
        ("80 GB", "time", ("'GB' is not a unit of time", "s, ms, us, ns")),
        ("400 Gb/s", "bytes per second", ("'Gb/s' is not a unit", "Gbit/s")),
        ("80 gb", "bytes", ("'gb' is not a unit of bytes", "GB")),
        ("400 Gbit", "bytes per second", ("'Gbit' is not a unit", "Gbit/s")),
        ("-1 s", "time", ("'-1 s' must be finite and not negative",)),
        ("1e400 s", "time", ("must be finite",)),
        ("1e308 TB", "bytes", ("must be finite",)),
        ("nan s", "time", ("not a quantity",)),
        ("inf s", "time", ("not a quantity",)),
        ("1,000 B", "bytes", ("not a quantity",)),
        ("1_000 B", "bytes", ("not a quantity",)),
        ("0x10 B", "bytes", ("not a quantity",)),
        ("1 2 B", "bytes", ("not a quantity",)),
        ("1.2.3 B", "bytes", ("not a quantity",)),
        ("１ B", "bytes", ("not a quantity",)),  # noqa: RUF001 -- a digit, but not an ASCII one
        ("1 B\n2 B", "bytes", ("not a quantity",)),
        (True, "bytes", ("expected bytes as text", "'80 GiB'")),
        (None, "bytes", ("expected bytes as text", "'80 GiB'")),
        (["1 B"], "bytes", ("expected bytes as text", "'80 GiB'")),
        ({"B": 1}, "bytes", ("expected bytes as text", "'80 GiB'")),
    ],
)
def test_what_is_no_quantity_is_refused(text, dimension, words):
    with pytest.raises(ValueError) as caught:
        parse_quantity(text, dimension)
    for word in words:
        assert word in str(caught.value)


@given(UNIT, st.floats(min_value=0, max_value=1e200))
def test_a_unit_is_a_factor(unit, number):
    # The law that defines units: `x unit` is x times `1 unit`.
    dimension, name = unit
    assert parse_quantity(f"{number!r} {name}", dimension) == number * parse_quantity(f"1 {name}", dimension)


@pytest.mark.parametrize(
    ("base", "dimension"),
    [
        ("B", "bytes"),
        ("B/s", "bytes per second"),
        ("bit/s", "bytes per second"),
        ("FLOP/s", "flop per second"),
    ],
)
def test_prefixes_are_steps_of_1000_or_1024(base, dimension):
    # k, M, G, T and P each multiply by 1000, and Ki, Mi, Gi and Ti, which only bytes have, by 1024.
    ladders = [(("", "k", "M", "G", "T", "P"), 1000)]
    ladders += [(("", "Ki", "Mi", "Gi", "Ti"), 1024)] if base.startswith("B") else []
    for prefixes, step in ladders:
        for small, large in pairwise(prefixes):
            value = parse_quantity(f"{step} {small}{base}", dimension)
            assert value == parse_quantity(f"1 {large}{base}", dimension)


@given(DIMENSION, FINITE)
def test_what_is_written_reads_back_exactly(dimension, value):
    assert parse_quantity(write_quantity(value, dimension), dimension) == value


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("3.7 us", "time"),
        ("250 ns", "time"),
        ("80 GiB", "bytes"),
        ("7168 B", "bytes"),
        ("400 Gbit/s", "bytes per second"),
        ("989.4 TFLOP/s", "flop per second"),
        ("1 us", "time"),  # the least number that a unit is written with
        ("1.5 us", "time"),
        ("500 ms", "time"),
        ("999.5 GB", "bytes"),
        ("1.234567 us", "time"),
    ],
)
def test_what_people_write_is_written_back_tidily(text, dimension):
    # 7168 B is 7 KiB exactly, which is tidier; the others are already in the largest unit that needs few digits.
    tidy = {"7168 B": "7 KiB"}.get(text, text)
    assert write_quantity(parse_quantity(text, dimension), dimension) == tidy


@pytest.mark.parametrize(
    ("text", "dimension", "written"),
    [
        ("1.0000001 s", "time", "1.0000001 s"),
        ("1.2500001 ms", "time", "0.0012500001 s"),  # eight digits are too many to be tidy
        ("1000 s", "time", "1000.0 s"),  # as is a number of four digits before the point
        ("2000 s", "time", "2000.0 s"),
        ("0.5 B", "bytes", "0.5 B"),
    ],
)
def test_what_fits_no_unit_is_written_in_the_si_unit_with_all_digits(text, dimension, written):
    assert write_quantity(parse_quantity(text, dimension), dimension) == written


@given(DIMENSION, FINITE.filter(lambda value: value > 0))
@tried_on(200)
def test_fields_read_what_they_write_and_their_schema_allows_it(dimension, value):
    field = TypeAdapter(FIELDS[dimension])
    text = field.dump_python(value)
    assert field.validate_python(text) == value
    assert re.search(field.json_schema()["pattern"], text)


@pytest.mark.parametrize("dimension", ["bytes per second", "flop per second"])
def test_rates_are_more_than_nothing(dimension):
    unit = next(iter(UNITS[dimension]))
    with pytest.raises(ValidationError, match="greater than 0"):
        TypeAdapter(FIELDS[dimension]).validate_python(f"0 {unit}")


@pytest.mark.parametrize("dimension", ["bytes per second", "flop per second"])
def test_rates_may_be_less_than_one(dimension):
    unit = next(iter(UNITS[dimension]))
    assert TypeAdapter(FIELDS[dimension]).validate_python(f"0.5 {unit}") == 0.5


@pytest.mark.parametrize("dimension", ["time", "bytes", "dollars"])
def test_times_sizes_and_prices_may_be_nothing_and_not_less(dimension):
    unit = next(iter(UNITS[dimension]))
    assert TypeAdapter(FIELDS[dimension]).validate_python(f"0 {unit}") == 0
    with pytest.raises(ValidationError, match="not negative"):
        TypeAdapter(FIELDS[dimension]).validate_python(f"-1 {unit}")


@pytest.mark.parametrize("dimension", FIELDS)
@pytest.mark.parametrize("text", ["400", "-1 B", "1 bogus", "GB/s"])
def test_the_schema_refuses_what_the_reader_refuses(dimension, text):
    # An editor that knows only the schema must not call right what we call wrong.
    with pytest.raises(ValueError):
        parse_quantity(text, dimension)
    assert not re.search(TypeAdapter(FIELDS[dimension]).json_schema()["pattern"], text)


@given(DIMENSION, st.floats(min_value=1e-30, max_value=1e30))
def test_people_see_a_number_near_the_value(dimension, value):
    # Shown with 4 digits: at most half a unit in the fourth digit away, 5e-4 of the value.
    number, unit = show_quantity(value, dimension).split()
    assert float(number) * UNITS[dimension][unit] == pytest.approx(value, rel=5.001e-4)


@given(DIMENSION, FINITE)
def test_a_unit_fits_if_the_number_is_between_1_and_1000(dimension, value):
    # Decimal units are steps of 1000 between the smallest, which takes all below it, and the largest.
    unit, factor = fitting_unit(value, dimension)
    assert UNITS[dimension][unit] == factor
    smallest, largest = fitting_unit(0, dimension)[0], fitting_unit(1e300, dimension)[0]
    assert value / factor >= 1 or unit == smallest
    assert value / factor <= 1000 or unit in {smallest, largest}


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (1.0, "time", "1 s"),  # a unit fits its own factor
        (1e-6, "time", "1 us"),
        (1.23456e-6, "time", "1.235 us"),
        (0.0, "time", "0 ns"),  # the smallest unit takes what is smaller still
        (1e-12, "time", "0.001 ns"),
        (-2e-3, "time", "-2 ms"),
        (2**30, "bytes", "1.074 GB"),  # in steps of 1000, not of 1024
        (5e10, "bytes per second", "50 GB/s"),
        (3e9, "dollars", "3 GUSD"),
    ],
)
def test_quantities_for_people(value, dimension, text):
    assert show_quantity(value, dimension) == text


def test_people_may_ask_for_more_digits():
    assert show_quantity(1.23456e-6, "time", digits=6) == "1.23456 us"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (671026419200, "671 B"),
        (1e12, "1 T"),
        (1e12 - 1, "1,000 B"),  # less than a T, though four digits do not show it
        (1e9, "1 B"),
        (1e9 - 1, "1,000 M"),
        (1e6, "1 M"),
        (1e6 - 1, "999,999"),
        (-2.5e9, "-2.5 B"),
        (1234.5678, "1,235"),
        (0, "0"),
    ],
)
def test_counts_for_people(value, text):
    assert show_count(value) == text


def test_the_si_unit_comes_first():
    # `write_quantity` takes it where no unit is tidy
    assert [next(iter(units.items())) for units in UNITS.values()] == [
        ("s", 1.0),
        ("B", 1.0),
        ("B/s", 1.0),
        ("FLOP/s", 1.0),
        ("USD", 1.0),
    ]


def test_a_spec_is_strict_and_frozen():
    class Sized(Spec):
        size: Bytes
        count: int

    sized = Sized(size="1 KiB", count=3)
    assert sized.size == 1024
    for wrong in (
        {"size": "1 KiB", "count": "3"},
        {"size": "1 KiB", "count": 3.0},
        {"size": 1024, "count": 3},
    ):
        with pytest.raises(ValidationError):
            Sized.model_validate(wrong)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Sized.model_validate({"size": "1 KiB", "count": 3, "colour": "red"})
    with pytest.raises(ValidationError, match="frozen"):
        sized.count = 4


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_of_a_spec_is_finite(value):
    class Share(Spec):
        share: float

    with pytest.raises(ValidationError, match="finite number"):
        Share(share=value)


@pytest.mark.parametrize(("kind", "limits"), [(Dollars, ("ge", 0)), (BytesPerSecond, ("gt", 0))])
def test_a_type_tells_its_least_value(kind, limits):
    # what is negative is refused as text; the limit stands there for whoever documents the field
    name, least = limits
    fields = [part for part in get_args(kind) if isinstance(part, FieldInfo)]
    assert [getattr(limit, name) for field in fields for limit in field.metadata] == [least]
