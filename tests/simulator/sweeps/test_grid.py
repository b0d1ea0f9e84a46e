from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.document import parse_document
from simulator.input_error import InputError
from simulator.sweeps.grid import make_grid, read_over
from simulator.sweeps.values import flow_text, sameness


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("16,32", [16, 32]),
        (" 16 , 0x20 ", [16, 32]),
        ("16", [16]),
        ("0.5,1e9,.5", [0.5, 1e9, 0.5]),
        ("no,true,null,~", ["no", True, None, None]),  # YAML 1.2: `no` is text
        ("400 Gbit/s,800 Gbit/s", ["400 Gbit/s", "800 Gbit/s"]),
        ("'a,b',\"c, d\",e", ["a,b", "c, d", "e"]),
        ("{kind: a, planes: 8},{kind: b}", [{"kind": "a", "planes": 8}, {"kind": "b"}]),
        ("[1, 2],[3]", [[1, 2], [3]]),
        ("[{a: [1, '],{']}],2", [[{"a": [1, "],{"]}], 2]),
        ("16 # as a comment says", [16]),
        ("'',1", ["", 1]),
    ],
)
def test_commas_separate_values_but_not_within_brackets_and_quotes(text, values):
    assert read_over([f"a.b={text}"]) == {"a.b": values}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a.b"], "write PATH=V1,V2"),
        (["=1"], "write PATH=V1,V2"),
        (["a.b="], "no values are given"),
        (["a.b=  "], "no values are given"),
        (["a.b=1,"], "a value is missing behind the last comma"),
        (["a.b=1,,2"], "this is not YAML"),
        (["a.b=,1"], "this is not YAML"),
        (["a.b={kind: a"], "this is not YAML"),
        (["a.b='1,2"], "this is not YAML"),
        (["a.b=1],[2"], "this is not YAML"),
        (["a.b=1] # "], "this is not YAML"),
        (["a.b=1]\nother: [2"], "more than one list"),
        (["a.b=.inf"], "not a finite number"),
        (["a.b=!!int 3"], "the tag"),
        (["a.b=1", "a.c=2", " a . b=3"], "swept twice"),
    ],
)
def test_what_is_no_list_of_values_is_refused_with_its_option(options, message):
    with pytest.raises(InputError, match=message) as caught:
        read_over(options)
    assert caught.value.file == f"--over {options[-1]}"
    assert caught.value.line is None  # an option has no lines


def test_points_are_the_product_and_the_first_field_is_the_slowest():
    grid = make_grid({"a": [1, 2], "b": ["x", "y"], "c": [True]})
    assert grid.points == list(product(("1", "2"), ("x", "y"), ("true",)))
    assert grid.points[1] == ("1", "y", "true")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "at least one"),
        ([8, 16, 8], "8 is given twice"),
        ([1, 1.0], "1 and 1.0 are the same"),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1.0}], "are the same"),
        (["x", "x"], "x is given twice"),
        ([None, None], "null is given twice"),
        ("16", "give a list of values"),
        (16, "give a list of values"),
        ({"a": 1}, "give a list of values"),
        ([float("nan")], "cannot stand in a scenario"),
        ([object()], "cannot stand in a scenario"),
        ([{1: 2}], "cannot stand in a scenario"),
    ],
)
def test_values_that_sweep_nothing_are_refused(values, message):
    with pytest.raises(InputError, match=message) as caught:
        make_grid({"a.b": values})
    assert caught.value.field == "a.b"


def test_values_that_only_look_alike_are_not_the_same():
    assert len(make_grid({"a": [1, True, "1", "true", [1], 0, False, None]}).points) == 8
    assert len(make_grid({"a": np.array([1, 2, 3])}).points) == 3


@pytest.mark.parametrize(
    ("over", "overrides", "message"),
    [
        ({}, (), "nothing is swept"),
        ({"a": range(1000), "b": range(1000)}, (), "1,000,000 points; sweep at most 100,000"),
        ({"a.b": [1, 2]}, ("a.b=3",), "leave one of them out"),
        ({"a": [{}, {"b": 1}]}, ("a.b=3",), "give the whole before its parts"),
        ({"a.b": [1, 2], "a": [{}, {"b": 1}]}, (), "give the whole before its parts"),
        ({"a.b": [1, 2], " a.b ": [3]}, (), "leave one of them out"),
    ],
)
def test_grids_in_which_an_assignment_comes_to_nothing_are_refused(over, overrides, message):
    with pytest.raises(InputError, match=message):
        make_grid(over, overrides)


def test_parts_may_follow_their_whole():
    # each point sets the whole, then the part; names that only begin alike are other fields
    assert len(make_grid({"a": [{}, {"b": 1}], "a.b": [2, 3], "ab": [1]}, ("aa=1",)).points) == 4


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("C",)), max_size=8)
    | st.sampled_from(
        ["no", "010", "1e3", "null", "~", "a: b", "- a", "...", ".nan", "<<", "#", "x #y", "a,b", "[", "'"]
    )
)
_KEYS = st.text("ab-_.: {", min_size=1, max_size=3)
_VALUES = st.recursive(
    _SCALARS, lambda held: st.lists(held, max_size=3) | st.dictionaries(_KEYS, held, max_size=3), max_leaves=6
)


@given(st.lists(_VALUES, min_size=1, max_size=4))
def test_values_read_back_from_their_yaml_in_an_option_and_in_a_list(values):
    texts = [flow_text(value) for value in values]
    assert all("\n" not in text for text in texts)
    together = read_over([f"a={','.join(texts)}"])["a"] if texts[-1] else [None]
    assert sameness(together) == sameness(values)
    for value, text in zip(values, texts, strict=True):
        alone = parse_document("x: 0", "x").with_override(f"a={text}").data["a"]
        assert sameness(alone) == sameness(value)
