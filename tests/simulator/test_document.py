"""YAML files as plain data with lines, and everything that is refused."""

import os
import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.document import MAX_FILE_BYTES, InputError, parse_document, read_document
from simulator.yaml_nodes import MAX_DEPTH, MAX_TEXT_CHARACTERS, MAX_VALUES, parse_scalar
from support.params import mostly_slow
from support.properties import tried_on

TEXT = """\
# a comment
name: run
cluster:
  nodes: 8
  faults:
    - {at: 1 s}
    - at: 2 s
      link: [a, b]
"""


def refusal(text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        parse_document(text, "f.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000
    return caught.value


def test_plain_data_and_the_line_of_every_field():
    document = parse_document(TEXT, "f.yaml")
    faults = [{"at": "1 s"}, {"at": "2 s", "link": ["a", "b"]}]
    assert document.data == {"name": "run", "cluster": {"nodes": 8, "faults": faults}}
    lines = {
        (): 2,
        ("name",): 2,
        ("cluster",): 3,
        ("cluster", "nodes"): 4,
        ("cluster", "faults"): 5,
        ("cluster", "faults", 0): 6,
        ("cluster", "faults", 0, "at"): 6,
        ("cluster", "faults", 1): 7,
        ("cluster", "faults", 1, "link"): 8,
        ("cluster", "faults", 1, "link", 1): 8,
    }
    assert {path: document.line_of(path) for path in lines} == lines


def test_what_is_not_written_has_the_line_of_what_should_hold_it():
    document = parse_document(TEXT, "f.yaml")
    assert document.line_of(("cluster", "topology", "planes")) == 3
    assert document.line_of(("cluster", "faults", 1, "node")) == 7
    assert document.line_of(("seed",)) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # YAML 1.2's core schema, beside what YAML 1.1 makes of the same text
        ("no", "no"),  # 1.1: false
        ("on", "on"),  # 1.1: true
        ("010", 10),  # 1.1: 8
        ("0o10", 8),
        ("0x1F", 31),
        ("50e9", 50e9),  # 1.1: text
        ("2:1", "2:1"),  # 1.1: 121
        ("2024-01-31", "2024-01-31"),  # 1.1: a date
        ("4_096", "4_096"),  # 1.1: 4096
        ("0b11", "0b11"),  # 1.1: 3
        ("1.0", 1.0),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("+7", 7),
        ("-9223372036854775807", -(2**63) + 1),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("~", None),
        ("", None),
        ("null", None),
        ("'8'", "8"),
        ('"no"', "no"),
        ("'.nan'", ".nan"),
        ("nan", "nan"),
        ("400 Gbit/s", "400 Gbit/s"),
        ("|\n  two\n  lines", "two\nlines"),
        ("é ☃ 𝄞", "é ☃ 𝄞"),
        ("{}", {}),
        ("[]", []),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    found = parse_document(f"field: {text}", "f.yaml").data["field"]
    assert found == value
    assert type(found) is type(value)


@given(
    st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
def test_numbers_read_back_as_python_writes_them(number):
    assert parse_scalar(repr(number)) == number


REFUSED = {
    "empty": ("", None, None, "empty"),
    "only comments": ("# nothing\n\n# here\n", None, None, "empty"),
    "only a marker": ("---\n", None, None, "empty"),
    "a list": ("- a\n- b\n", 1, None, "this is a list"),
    "a word": ("\nhello\n", 2, None, "this is a single value"),
    "not YAML": ("name: run\ncluster: [1, 2\nseed: 3\n", 3, None, "a bracket"),
    "prose": ("name: run\nthis is prose\n", 2, None, "neither 'field: value' nor '- item'"),
    "a colon too many": ("name: run: fast\n", 1, None, "quote text that holds ': '"),
    "bad indentation": ("a:\n    b: 1\n  c: 2\n", 3, None, "align its indentation"),
    "an open quote": ("name: run\nmodel: 'deep\nseed: 1\n", 2, None, "never closed"),
    "a reserved character": ("name: @home\n", 1, None, "put the value in quotes"),
    "an impossible escape": ('a: 1\nname: "\\UFFFFFFFF"\n', 2, None, "from here on"),
    "a tab for indentation": ("cluster:\n\tnodes: 8\n", 2, None, "a tab stands where YAML wants spaces"),
    "a tab after spaces": ("cluster:\n  nodes: 8\n \tseed: 1\n", 3, None, "a tab"),
    "a key twice": ("a:\n  b: 1\n  c: 2\n  b: 3\n", 4, "a.b", "given twice, first on line 2"),
    "a key twice in brackets": ("a: {b: 1, b: 1}\n", 1, "a.b", "given twice"),
    "a Python tag": ("a:\n  b: !!python/object/apply:os.system ['true']\n", 2, "a.b", "python/object/apply"),
    "a Python name": ("a: !!python/name:os.system\n", 1, "a", "tag '!!python/name:os.system' is refused"),
    "a local tag": ("a: !mine 5\n", 1, "a", "tag '!mine' is refused"),
    "a harmless tag": ("a: !!str 5\n", 1, "a", "tag '!!str' is refused"),
    "a tag on a key": ("a:\n  !x b: 5\n", 2, "a", "tag '!x' is refused"),
    "a tag on the top": ("!!map {a: 1}\n", 1, None, "tag '!!map' is refused"),
    "two documents": ("a: 1\n---\nb: 2\n", 2, None, "a second document"),
    "a directive": ("%YAML 1.1\n---\na: no\n", 2, None, "% directive"),
    "a cyclic alias": ("a: &x\n  - 1\n  - *x\n", 3, "a.1", "within what it names"),
    "an unknown alias": ("a: 1\nb: *x\n", 2, "b", "no anchor &x"),
    "a merge key": ("a: &x {p: 1}\nb:\n  <<: *x\n", 3, "b", "merge key"),
    "NaN": ("a:\n  b: .nan\n", 2, "a.b", ".nan is not a finite number"),
    "infinity": ("a: [1, -.inf]\n", 1, "a.1", "-.inf is not a finite number"),
    "too large a number": ("a: 1e999\n", 1, "a", "too large"),
    "a long whole number": ("a: 9223372036854775808\n", 1, "a", "too large"),
    "thousands of digits": (f"a: {'7' * 5000}\n", 1, "a", "5,000 characters"),
    "thousands of hexadecimal digits": (f"a: 0x{'7' * 4000}\n", 1, "a", "characters"),
    "long text": (f"a: '{'x' * (MAX_TEXT_CHARACTERS + 1)}'\n", 1, "a", "4,097 characters"),
    "a number as a key": ("a:\n  1: x\n", 2, "a", "field name '1' is not text"),
    "nothing as a key": ("a:\n  : x\n", 2, "a", "not text"),
    "true as a key": ("true: x\n", 1, None, "field name 'true' is not text"),
    "a list as a key": ("? [a]\n: 1\n", 1, None, "field's name"),
    "an alias as a key": ("a: &x b\n*x : 1\n", 2, None, "field's name"),
    "a control character": ("a: 1\nb: \x07\n", 2, None, "control character"),
    "an escaped control character": ('a: "\\e[31m"\n', 1, "a", "control character"),
    "half a surrogate pair": ('a: "\\ud800"\n', 1, "a", "control character"),
    "depth in lines": (
        "\n".join(" " * i + "a:" for i in range(100)),
        MAX_DEPTH + 1,
        "a.a.a",
        "deeper than 64",
    ),
    "depth in brackets": (f"a: {'[' * 5000}", 1, "a.0.0", "deeper than 64"),
    "depth by aliases": (
        "a0: &a0 x\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 90)),
        65,  # a1 is one level deep, and so a64 the first whose text lies 65 deep; a0 is on line 1
        "a64",
        "64 levels; use fewer aliases",
    ),
    "a billion laughs": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        5,
        "e",
        "more than 50,000 values",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_line_and_field(case):
    text, line, field, words = REFUSED[case]
    start = time.process_time()
    error = refusal(text)
    assert (
        time.process_time() - start < 60
    )  # a hang, not a slow machine: three at most where this was written
    assert words in error.message
    assert (error.line, error.field) == (line, field)
    place = "f.yaml" if error.line is None else f"f.yaml:{error.line}"
    field_text = f"{error.field}: " if error.field else ""
    assert str(error) == f"{place}: {field_text}{error.message}"


HOSTILE = {
    "brackets": "[",
    "braces": "{",
    "dashes": "- ",
    "keys": "a: ",
    "question marks": "? ",
    "quotes": "'",
    "double quotes": '"',
    "exclamation marks": "!",
    "anchors": "&a ",
    "percent signs": "%a\n",
    "colons": ": ",
    "documents": "---\n",
    "folded lines": '"x\n',
    "items": "- 1\n",
    "blanks": " ",
    "lines": "\n",
    "block text": "|\n x\n",
}


@pytest.mark.slow  # a list that is too deep, too long or too large in other ways is refused above
def test_very_many_values_are_refused_where_they_become_too_many():
    error = refusal("a: [" + "1," * (MAX_VALUES + 1) + "]")
    assert (error.line, error.field) == (1, "a.49998")
    assert "more than 50,000 values" in str(error)


@pytest.mark.no_cover
@pytest.mark.parametrize("case", mostly_slow(HOSTILE.keys(), "brackets", "keys", "folded lines", "blanks"))
def test_a_full_file_of_anything_is_refused_in_seconds(case):
    unit = HOSTILE[case]
    start = time.process_time()
    refusal(unit * (MAX_FILE_BYTES // len(unit)))
    assert (
        time.process_time() - start < 60
    )  # a hang, not a slow machine: three at most where this was written


def test_tabs_within_brackets_are_yaml():
    assert parse_document("a: {\n\tb: 1}\n", "f.yaml").data == {"a": {"b": 1}}


def test_aliases_stand_for_copies_with_lines_of_their_own():
    document = parse_document("a: &x\n  b: 1\nc: *x\n", "f.yaml")
    assert document.data == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.data["a"] is not document.data["c"]
    # what stands in an alias is written where its anchor is; the alias itself where it is used
    assert (document.line_of(("c",)), document.line_of(("c", "b"))) == (3, 2)


def test_what_files_can_be_read(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: run\r\nmodel: caf\xc3\xa9\r\n")  # as Windows may write it
    document = read_document(path)
    assert document.data == {"name": "run", "model": "café"}
    assert document.line_of(("model",)) == 2
    assert document.name == str(path)


def test_what_files_cannot_be_read(tmp_path, monkeypatch):
    def message(content: bytes | None, path=tmp_path / "f.yaml") -> str:
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_document(path)
        assert caught.value.file == str(path)
        assert str(caught.value).isprintable()
        return str(caught.value)

    assert "there is no such file" in message(None)
    assert "this is a directory" in message(None, tmp_path)
    assert "cannot be read: Not a directory" in message(None, _write(tmp_path / "g.yaml") / "f.yaml")
    assert "cannot be read: File name too long" in message(None, tmp_path / f"{'x' * 300}.yaml")
    assert "no file can have such a name" in message(None, tmp_path / "a\0b.yaml")
    assert "this file is empty" in message(b"")
    assert "larger than 262,144 bytes" in message(b"#" * (MAX_FILE_BYTES + 1))
    assert "save it as text in UTF-8" in message("name: run".encode("utf-16"))
    assert "save it as text in UTF-8" in message(b"\x7fELF\x02\x01\x01\0\0")
    assert "f.yaml:2: byte 0xe9 is not UTF-8" in message(b"name: run\nmodel: caf\xe9\n")
    os.mkfifo(tmp_path / "pipe")
    assert "this is a pipe; give the path of a regular file" in message(None, tmp_path / "pipe")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    assert "cannot be read: Permission denied" in message(None, tmp_path / "g.yaml")


def _write(path):
    path.write_text("a: 1\n")
    return path


@pytest.mark.parametrize(
    ("assignment", "data"),
    [
        ("a.b=16", {"a": {"b": 16, "c": [1, {"d": 2}]}, "e": None}),
        ("a.b=", {"a": {"b": None, "c": [1, {"d": 2}]}, "e": None}),
        ("a.b='16'", {"a": {"b": "16", "c": [1, {"d": 2}]}, "e": None}),
        ("a.b=x=y", {"a": {"b": "x=y", "c": [1, {"d": 2}]}, "e": None}),
        (" a . b = 16", {"a": {"b": 16, "c": [1, {"d": 2}]}, "e": None}),
        ("a={z: 1}", {"a": {"z": 1}, "e": None}),  # a mapping replaces the old one whole
        ("a.c.0=5", {"a": {"b": 8, "c": [5, {"d": 2}]}, "e": None}),
        ("a.c.1.d=5", {"a": {"b": 8, "c": [1, {"d": 5}]}, "e": None}),
        ("f=5", {"a": {"b": 8, "c": [1, {"d": 2}]}, "e": None, "f": 5}),
        ("e.f.g=5", {"a": {"b": 8, "c": [1, {"d": 2}]}, "e": {"f": {"g": 5}}}),
        ("h.0=5", {"a": {"b": 8, "c": [1, {"d": 2}]}, "e": None, "h": {"0": 5}}),
    ],
)
def test_overrides_set_and_add(assignment, data):
    document = parse_document("a: {b: 8, c: [1, {d: 2}]}\ne:\n", "f.yaml")
    assert document.with_override(assignment).data == data
    assert document.data == {"a": {"b": 8, "c": [1, {"d": 2}]}, "e": None}  # the document itself stays


@pytest.mark.parametrize(
    ("assignment", "field", "words"),
    [
        ("a.b", None, "PATH=VALUE"),
        ("=5", None, "PATH=VALUE"),
        ("a..b=5", None, "PATH=VALUE"),
        (".".join("a" * 100) + "=5", None, "PATH=VALUE"),
        ("a.b.c=5", "a.b", "this is 8, which has no field 'c'"),
        ("c.2=5", "c", "a list of 2, which has no item '2'"),
        ("c.-1=5", "c", "has no item '-1'"),
        ("c.x=5", "c", "has no item 'x'"),
        ("c.99999999999999999999=5", "c", "has no item"),
        ("a.b=[1", "a.b", "a bracket"),
        ("a.b=!!python/name:os.system", "a.b", "tag"),
        ("a.b={c: .nan}", "a.b.c", "not a finite number"),
        ("a.b={c: 1, c: 2}", "a.b.c", "given twice; keep one"),
        ("a.b=&x [*x]", "a.b.0", "within what it names"),
        ("a.b=1\n---\n2", "a.b", "a second document"),
        ("a.b=\t\t\t: {", "a.b", "tab"),
    ],
)
def test_wrong_overrides_are_named_in_place_of_a_file(assignment, field, words):
    document = parse_document("a: {b: 8}\nc: [1, 2]\n", "f.yaml")
    with pytest.raises(InputError) as caught:
        document.with_override(assignment)
    error = caught.value
    assert (error.file, error.line, error.field) == (f"--set {assignment}", None, field)
    assert words in error.message
    assert str(error).startswith("--set ")
    assert "\n" not in str(error)


def test_what_was_overridden_is_blamed_on_the_override():
    document = parse_document("a:\n  b: 8\n  c: 9\nd: 1\n", "f.yaml")
    changed = document.with_override("a.b={x: 1}").with_override("n.m=5")
    assert str(changed.error(("a", "b", "x"), "is wrong")) == "--set a.b={x: 1}: a.b.x: is wrong"
    assert str(changed.error(("a", "c"), "is wrong")) == "f.yaml:3: a.c: is wrong"
    assert str(changed.error(("n",), "is wrong")) == "--set n.m=5: n: is wrong"
    assert str(document.error(("a", "b"), "is wrong")) == "f.yaml:2: a.b: is wrong"
    # a whole mapping set anew takes its fields with it
    assert changed.with_override("a={c: 1}").place_of(("a", "c")).file == "--set a={c: 1}"


def test_an_error_is_one_line_and_travels_between_processes():
    error = InputError("f.yaml", 3, "a.b", "is\nwrong; " + "x" * 5000)
    assert str(error).startswith("f.yaml:3: a.b: is wrong; xxx")
    assert len(str(error)) < 2000
    again = pickle.loads(pickle.dumps(error))
    assert (again.file, again.line, again.field, again.message) == (error.file, 3, "a.b", error.message)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.sampled_from(["x", "400 Gbit/s", "no"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abcd"), below, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from("abcd"), PLAIN, min_size=1))
def test_json_is_yaml(data):
    # Every JSON text is YAML 1.2 of the same meaning, so that Python's json writes the document for us.
    import json

    assert parse_document(json.dumps(data, indent=1), "f.yaml").data == data


@given(st.text(alphabet=st.sampled_from("ab:-,?!&*|>'\"%@#{}[]<~ \n\t0.e"), max_size=60))
@tried_on(400)
def test_any_text_is_data_or_one_error(text):
    try:
        found = parse_document(text, "f.yaml").data
    except InputError as error:
        found = str(error)
    assert isinstance(found, dict) or (found.startswith("f.yaml") and "\n" not in found)
