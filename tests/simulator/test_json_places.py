import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.input_error import InputError
from simulator.json_places import parse_json

TEXT = """\
{
  "name": "x",
  "list": [1,
    {"deep": [
      true, "a,b:{\\"", null]}],
  "empty": {}, "none": [],
  "odd \\u00e9 key": {
    "x": -1.5e3
  }
}
"""
LINES = {
    ("name",): 2,
    ("list",): 3,
    ("list", 0): 3,
    ("list", 1): 4,
    ("list", 1, "deep"): 4,
    ("list", 1, "deep", 0): 5,
    ("list", 1, "deep", 1): 5,
    ("list", 1, "deep", 2): 5,
    ("empty",): 6,
    ("none",): 6,
    ("odd é key",): 7,
    ("odd é key", "x"): 8,
}


def test_every_value_has_the_line_of_its_name():
    read = parse_json(TEXT.encode(), "t.json")
    assert read.data == json.loads(TEXT)
    assert read.lines() == LINES
    assert {path: read.line_of(path) for path in LINES} == LINES


def test_what_is_absent_has_the_line_of_what_is_around_it():
    read = parse_json(TEXT.encode(), "t.json")
    assert read.line_of(("list", 1, "deep", 7)) == 4
    assert read.line_of(("list", 1, "other")) == 4
    assert read.line_of(("other",)) is None
    error = read.error(("list", 1, "other"), "is missing")
    assert str(error) == "t.json:4: list.1.other: is missing"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
)


@given(PLAIN, st.booleans())
def test_every_value_has_a_line_however_it_is_written(data, ascii_only):
    # With an indent each value that is in an object or a list starts a line of its own, in order.
    text = json.dumps(data, indent=1, ensure_ascii=ascii_only)
    found = parse_json(
        text.encode("utf-8", "surrogatepass") if ascii_only else text.encode(), "t.json"
    ).lines()

    def paths(value, path):
        below = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, inner in below:
            yield (*path, key)
            yield from paths(inner, (*path, key))

    assert list(found) == list(paths(data, ()))
    assert list(found.values()) == sorted(set(found.values()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.json:1: this is not JSON: Expecting value (column 1)"),
        (b'{"a": 1,\n"b" 2}', "t.json:2: this is not JSON: Expecting ':' delimiter (column 5)"),
        (
            b'{"a": {"b": 1,\n\n"b": 2}}',
            "t.json:3: a.b: this key stands twice in one object; keep one of them",
        ),
        (
            b'[{"a": 1}, {"a": 1,\n"a": 2}]',
            "t.json:2: 1.a: this key stands twice in one object; keep one of them",
        ),
        (b"[\n" * 100_000, "t.json: the values of this file are nested too deeply; write fewer levels"),
        (b'"\n\xff"', "t.json:2: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("{}".encode("utf-16"), "t.json: this is UTF-16 or not text at all; save it as text in UTF-8"),
    ],
)
def test_what_is_not_json_is_named_with_its_line(content, message):
    with pytest.raises(InputError) as caught:
        parse_json(content, "t.json")
    assert str(caught.value) == message


def test_numbers_of_many_digits_are_infinite():
    # Python takes 640 digits whatever its limit is; no field comes near.
    data = parse_json(f"[{'1' * 10_000}, -{'1' * 10_000}, 1e999, {'1' * 600}]".encode(), "t.json").data
    assert data == [math.inf, -math.inf, math.inf, int("1" * 600)]


def test_a_byte_order_mark_is_passed_over():
    assert parse_json(b"\xef\xbb\xbf[1]", "t.json").data == [1]
