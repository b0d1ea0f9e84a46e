"""What a user may get wrong: each fault is one InputError with file, line and field, and never anything else."""

import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulator.input_error import InputError
from simulator.scenario import load_scenario
from support.properties import tried_on

TEXT = """\
name: dispatch-64
seed: 1
cluster:
  node: h800
  nodes: 8
  topology: {kind: multi-plane-fat-tree, planes: 8}
  routing: adaptive
model: deepseek-v3
workload:
  kind: expert-parallel
  tokens_per_rank: 4096
  expert_parallel: 64
  kernel: normal
costs: h800-published
"""
WORKLOAD = TEXT[TEXT.index("workload:") : TEXT.index("costs:")]


def flows(rows: str) -> tuple[str, str]:
    """Return the exchange of the workload for a list of flows of that name, which `folder` holds."""
    return WORKLOAD, f"workload:\n  kind: flows\n  path: {rows}.csv\n"


def collective(fields: str) -> tuple[str, str]:
    return WORKLOAD, f"workload:\n  kind: collective\n  {fields}\n"


HEADER = "source,destination,size_bytes,start_s\n"
FLOW_FILES = {
    "unknown": f"{HEADER}0,1,5,0\n0,64,5,0\n",
    "unknown-gpu": f"{HEADER}0,node8/gpu0,5,0\n",
    "negative": f"{HEADER}0,1,5,0\n1,2,5,0\n2,3,-5,0\n",
    "nan": f"{HEADER}0,1,nan,0\n",
    "itself": f"{HEADER}3,3,5,0\n",
    "late": f"{HEADER}0,1,5,-1\n",
    "columns": "source,destination,bytes\n0,1,5\n",
    "ragged": f"{HEADER}0,1,5\n",
    "rows": HEADER,
    "nothing": "",
}

# What is wrong: (text in TEXT, text in its place, line, field, words of the message).
WRONG = {
    # fields
    "misspelt field": ("  nodes:", "  nodez:", 5, "cluster.nodez", "unknown field 'nodez'; did you mean 'nodes'?"),
    "misspelt at the top": ("seed:", "sead:", 2, "sead", "did you mean 'seed'?"),
    "misspelt and required": (
        "tokens_per_rank", "token_per_rank", 11, "workload.token_per_rank", "did you mean 'tokens_per_rank'?",
    ),
    "misspelt in a topology": ("planes: 8", "plains: 8", 6, "cluster.topology.plains", "did you mean 'planes'?"),
    "a field of another kind": (
        "multi-plane-fat-tree", "multi-rail-fat-tree", 6, "cluster.topology.planes", "unknown field 'planes'",
    ),
    "far from every field": ("seed:", "quux:", 2, "quux", "known are name, seed, cluster, model, workload, costs"),
    "missing": ("  tokens_per_rank: 4096\n", "", 9, "workload.tokens_per_rank", "missing; add it: tokens that each"),
    "missing at the top": ("name: dispatch-64\n", "", 1, "name", "this field is missing"),
    "missing in brackets": ("{kind: multi-plane-fat-tree, planes: 8}", "{planes: 8}", 6, "cluster.topology.kind",
                            "add it: one of two-layer-fat-tree, multi-plane-fat-tree,"),
    "missing model": ("model: deepseek-v3\n", "", 1, "model", "needs a model; write one of deepseek-v2, deepseek-v3"),
    "unknown kind": ("multi-plane-fat-tree", "multi-plain-fat-tree", 6, "cluster.topology.kind",
                     "unknown kind 'multi-plain-fat-tree'; did you mean 'multi-plane-fat-tree'?"),
    "unknown workload": ("kind: expert-parallel", "kind: experts", 10, "workload.kind", "known are collective"),
    "unknown node": ("node: h800", "node: h801", 4, "cluster.node", "unknown node 'h801'; did you mean 'h800'?"),
    "unknown model": ("model: deepseek-v3", "model: deepsek-v3", 8, "model", "did you mean 'deepseek-v3'?"),
    "unknown cost table": ("costs: h800-published", "costs: h900", 14, "costs", "unknown cost table 'h900'"),
    "unknown routing": ("routing: adaptive", "routing: magic", 7, "cluster.routing",
                        "'least-loaded', 'minimal' or 'valiant', not the text 'magic'"),
    "unknown kernel": ("kernel: normal", "kernel: fast", 13, "workload.kernel", "expected 'normal'"),
    # types
    "text for a number": ("nodes: 8", "nodes: eight", 5, "cluster.nodes", "a whole number or 'auto', not the text"),
    "quotes round a number": ("nodes: 8", "nodes: '8'", 5, "cluster.nodes", "not the text '8'"),
    "a fraction": ("nodes: 8", "nodes: 8.5", 5, "cluster.nodes", "expected a whole number or 'auto', not 8.5"),
    "a whole fraction": ("seed: 1", "seed: 1.0", 2, "seed", "expected a whole number, not 1.0"),
    "true for a number": ("seed: 1", "seed: true", 2, "seed", "expected a whole number, not true"),
    "nothing for a number": ("seed: 1", "seed:", 2, "seed", "expected a whole number, not nothing"),
    "a number for text": ("name: dispatch-64", "name: 64", 1, "name", "expected text, not 64"),
    "a number for a node": ("node: h800", "node: 800", 4, "cluster.node", "write one of h800"),
    "a list for a mapping": ("{kind: multi-plane-fat-tree, planes: 8}", "[none]", 6, "cluster.topology",
                             "expected a mapping of fields, not a list"),
    "a word for a mapping": ("{kind: multi-plane-fat-tree, planes: 8}", "none", 6, "cluster.topology",
                             "expected a mapping of fields, not the text 'none'"),
    "a list for a kind": ("{kind: multi-plane-fat-tree,", "{kind: [a],", 6, "cluster.topology.kind",
                       "none, not a list"),
    "a list of the wrong things": (*collective("operation: all-gather\n  size: 1 B\n  ranks: [0, x]"), 13,
                                   "workload.ranks.1", "expected a whole number, not the text 'x'"),
    "empty name": ("name: dispatch-64", "name: ''", 1, "name", "text of at least 1 character,"),
    "long name": ("name: dispatch-64", f"name: {'x' * 201}", 1, "name", "text of at most 200 characters"),
    "name on two lines": ("name: dispatch-64", 'name: "a\\nb"', 1, "name", "one line"),
    # units
    "missing unit": (*collective("operation: all-gather\n  size: 8"), 12, "workload.size",
                     "8 has no unit; write a quantity with its unit, such as '80 GiB'"),
    "missing unit in text": (*collective("operation: all-gather\n  size: '8'"), 12, "workload.size", "has no unit"),
    "unknown unit": (*collective("operation: all-gather\n  size: 8 GO"), 12, "workload.size", "'GO' is not a unit"),
    "unit of another kind": (*collective("operation: all-gather\n  size: 8 s"), 12, "workload.size", "of bytes"),
    "negative size": (*collective("operation: all-gather\n  size: -8 GiB"), 12, "workload.size", "not negative"),
    "no size at all": (*collective("operation: all-gather\n  size: 0 B"), 12, "workload.size", "more than 0, not 0"),
    "absurd size": (*collective("operation: all-gather\n  size: 1e30 B"), 12, "workload.size", "must be at most"),
    "endless digits": (*collective(f"operation: all-gather\n  size: '{'1' * 4000}!'"), 12, "workload.size",
                       "is not a quantity"),
    # counts
    "no nodes": ("nodes: 8", "nodes: 0", 5, "cluster.nodes", "must be at least 1, not 0"),
    "negative nodes": ("nodes: 8", "nodes: -8", 5, "cluster.nodes", "must be at least 1, not -8"),
    "absurdly many nodes": ("nodes: 8", "nodes: 99999999999", 5, "cluster.nodes", "must be at most 1,000,000"),
    "more nodes than fit": ("nodes: 8", "nodes: 1000000", 5, "cluster.nodes", "holds at most 2,048 of these nodes"),
    "beyond 64 bits": ("nodes: 8", f"nodes: {10**30}", 5, "cluster.nodes", "too large for a whole number"),
    "negative seed": ("seed: 1", "seed: -1", 2, "seed", "must be at least 0, not -1"),
    "negative tokens": ("4096", "-4096", 11, "workload.tokens_per_rank", "must be at least 1, not -4096"),
    "absurdly many tokens": ("4096", "4096000000", 11, "workload.tokens_per_rank", "must be at most 1,048,576"),
    "absurdly many ranks": ("expert_parallel: 64", "expert_parallel: 6400000", 12, "workload.expert_parallel",
                            "must be at most 65,536"),
    "more planes than NICs": ("planes: 8", "planes: 9", 6, "cluster.topology.planes", "planes must be at most 8"),
    # what does not fit together
    "a degree that the ranks cannot hold": ("nodes: 8", "nodes: 4", 12, "workload.expert_parallel",
                                            "degree 64 needs 64 ranks, and the cluster has 32"),
    "a degree that does not divide": ("expert_parallel: 64", "expert_parallel: 48", 12, "workload.expert_parallel",
                                      "does not divide the 64 ranks into groups"),
    "a network of none": ("{kind: multi-plane-fat-tree, planes: 8}", "{kind: none}", 5, "cluster.nodes",
                          "nodes must be 1, not 8"),
    "auto without ranks": ("nodes: 8\n", "nodes: auto\n", 5, "cluster.nodes", "write a number of nodes"),
    "no experts": ("model: deepseek-v3", "model: qwen-2.5-72b", 10, "workload.kind", "has no experts"),
    "a table for other GPUs": ("node: h800", "node: gb200-nvl72", 14, "costs", "the cluster's are blackwell"),
    # other files
    "a model that is no config": ("model: deepseek-v3", "model: s.yaml", 8, "model", "this is not JSON"),
    "a model that is a folder": ("model: deepseek-v3", "model: .", 8, "model", "this is a directory"),
    "a model of an impossible name": ("deepseek-v3", "x" * 300, 8, "model", "File name too long"),
    "a cost table that is none": ("h800-published", "missing.json", 14, "costs",
                                "missing.json: there is no such file"),
    "flows file missing": (*flows("missing"), 11, "workload.path", "there is no such file"),
    "flows file of an impossible name": (*flows("x" * 300), 11, "workload.path", "File name too long"),
    "flow from an unknown rank": (*flows("unknown"), 11, "workload.path", "line 3, column destination: unknown"),
    "flow to an unknown GPU": (*flows("unknown-gpu"), 11, "workload.path", "unknown endpoint 'node8/gpu0'"),
    "flow of negative size": (*flows("negative"), 11, "workload.path", "line 4, column size_bytes: '-5'"),
    "flow of NaN size": (*flows("nan"), 11, "workload.path", "'nan' is not a number"),
    "flow to itself": (*flows("itself"), 11, "workload.path", "rank 3 would send to itself"),
    "flow before the start": (*flows("late"), 11, "workload.path", "column start_s: '-1'"),
    "flows with other columns": (*flows("columns"), 11, "workload.path", "missing column 'size_bytes'"),
    "flows with a short row": (*flows("ragged"), 11, "workload.path", "line 2: 3 values where the header has 4"),
    "flows without rows": (*flows("rows"), 11, "workload.path", "holds no flows"),
    "flows in an empty file": (*flows("nothing"), 11, "workload.path", "nothing.csv"),
    # YAML; tests/simulator/test_document.py has every form of these
    "not YAML": ("nodes: 8", "nodes: [8", 6, None, "this is not YAML"),
    "tabs": ("  nodes: 8", "\tnodes: 8", 5, None, "a tab stands where YAML wants spaces"),
    "duplicate keys": ("  nodes: 8", "  nodes: 8\n  nodes: 16", 6, "cluster.nodes", "given twice, first on line 5"),
    "Python tag": ("seed: 1", "seed: !!python/object/apply:os.system ['touch x']", 2, "seed", "python/object/apply"),
    "cyclic alias": ("  nodes: 8", "  nodes: &x [*x]", 5, "cluster.nodes.0", "within what it names"),
    "huge alias": ("name: dispatch-64", "a: &a [" + "x," * 999 + "]\nb: &b [" + "*a," * 999 + "]", 2, "b",
                   "more than 50,000 values"),
    "NaN": ("nodes: 8", "nodes: .nan", 5, "cluster.nodes", ".nan is not a finite number"),
    "infinity": ("seed: 1", "seed: -.inf", 2, "seed", "-.inf is not a finite number"),
    "empty": (TEXT, "", None, None, "this file is empty"),
    "comments alone": (TEXT, "# name: x\n", None, None, "this file is empty"),
    "no mapping": (TEXT, "- name: x\n", 1, None, "this is a list"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenarios")
    for name, text in FLOW_FILES.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def fault(path: Path, overrides: tuple[str, ...] = ()) -> InputError:
    """Return the error of loading, which must come soon and be one line that starts with its place."""
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        load_scenario(path, overrides)
    assert time.process_time() - start < 60  # a hang, not a slow machine
    error = caught.value
    place = error.file if error.line is None else f"{error.file}:{error.line}"
    beginning = f"{place}: {error.field}: " if error.field else f"{place}: "
    assert str(error).startswith(beginning)
    assert str(error).splitlines() == [str(error)]
    return error


@pytest.mark.parametrize("case", WRONG)
def test_a_fault_in_the_file_is_named_with_its_line_and_field(folder, case):
    old, new, line, field, words = WRONG[case]
    assert TEXT.count(old) == 1, "the test would change something else"
    text = TEXT.replace(old, new)
    if case == "auto without ranks":
        text = text.replace(*collective("operation: all-gather\n  size: 8 GiB"))
    path = folder / "s.yaml"
    path.write_text(text)
    error = fault(path)
    assert (error.file, error.line, error.field) == (str(path), line, field)
    assert words in error.message
    assert not (folder / "x").exists()  # nothing in the file was run


def test_the_file_that_the_faults_are_made_from_loads(folder):
    path = folder / "good.yaml"
    path.write_text(TEXT)
    assert load_scenario(path).num_nodes == 8


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.yaml", "there is no such file"), ("", "this is a directory")],
    ids=["file", "folder"],
)
def test_a_scenario_that_is_no_file(folder, name, words):
    error = fault(folder / name)
    assert (error.file, error.line, error.field) == (str(folder / name), None, None)
    assert words in error.message


@pytest.mark.parametrize(
    ("override", "field", "words"),
    [
        ("cluster.nodes=0", "cluster.nodes", "must be at least 1, not 0"),
        ("cluster.nodes=", "cluster.nodes", "expected a whole number or 'auto', not nothing"),
        ("cluster.nodez=9", "cluster.nodez", "unknown field 'nodez'"),
        ("cluster.topology={kind: fat-tree}", "cluster.topology.kind", "unknown kind 'fat-tree'"),
        ("cluster.topology={kind: none}", "cluster.nodes", "nodes must be 1, not 8"),
        (
            "workload.expert_parallel=128",
            "workload.expert_parallel",
            "needs 128 ranks, and the cluster has 64",
        ),
        ("workload=5", "workload", "expected a mapping of fields, not 5"),
        ("model=", "model", "needs a model"),
        ("model=gpt", "model", "'gpt' is no known model"),
        ("no.such.field=5", "no", "unknown field 'no'"),
        ("nodes", None, "PATH=VALUE"),
        ("cluster.nodes=!!python/name:os.system", "cluster.nodes", "tag"),
        ("cluster.nodes=[", "cluster.nodes", "not YAML"),
    ],
)
def test_a_fault_in_an_override_is_named_with_the_override(folder, override, field, words):
    path = folder / "o.yaml"
    path.write_text(TEXT)
    error = fault(path, (override,))
    assert error.field == field
    assert words in error.message
    # what the override did not write is blamed on the file, where the user must look
    where = (str(path), 5) if override.endswith("{kind: none}") else (f"--set {override}", None)
    assert (error.file, error.line) == where


def test_the_most_telling_fault_comes_first_and_the_others_are_counted(folder):
    path = folder / "many.yaml"
    text = TEXT.replace("seed: 1", "seed: x").replace("nodes: 8", "nodes: 0").replace("kernel:", "kernle:")
    path.write_text(text)
    error = fault(path)
    assert error.field == "workload.kernle"
    assert error.message.endswith("(and 2 more: seed, cluster.nodes)")


def test_a_misspelt_field_is_not_also_counted_as_missing(folder):
    path = folder / "one.yaml"
    path.write_text(TEXT.replace("tokens_per_rank", "token_per_rank"))
    assert "more:" not in fault(path).message


def test_very_many_faults_are_one_short_message(folder):
    path = folder / "thousands.yaml"
    path.write_text(TEXT + "".join(f"field{number}: 1\n" for number in range(10_000)))
    error = fault(path)
    assert error.field == "field0"
    assert "(and over 200 more: field1, field2, field3, field4, field5, ...)" in error.message


MUTATION = st.tuples(
    st.sampled_from(["delete", "insert", "replace", "double"]),
    st.integers(0, len(TEXT)),
    st.integers(1, 30),
    st.one_of(
        st.sampled_from(
            [b"\t", b":", b"-", b"[", b"]", b"{", b"}", b"&a ", b"*a", b"!", b"'", b'"', b"\n", b"#", b"?"]
        ),
        st.sampled_from(
            [b"0", b"-1", b".nan", b"1e9", b"null", b"auto", b"99999999", b"\0", b"\xff", b"\xef\xbb\xbf"]
        ),
        st.binary(min_size=1, max_size=4),
    ),
)


@given(st.lists(MUTATION, min_size=1, max_size=6), st.integers(0, 2 * len(TEXT)))
@example([("insert", 0, 1, b"\xff\xfe")], 2 * len(TEXT))
@tried_on(300)
def test_a_damaged_file_loads_or_is_one_input_error(tmp_path_factory, mutations, length):
    content = TEXT.encode()
    for kind, position, size, inserted in mutations:
        before, hit, after = (
            content[:position],
            content[position : position + size],
            content[position + size :],
        )
        content = {
            "delete": before + after,
            "insert": before + inserted + hit + after,
            "replace": before + inserted + after,
            "double": before + hit + hit + after,
        }[kind]
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(content[:length])  # longer than the file as often as not, so that half are not cut off
    try:
        load_scenario(path)
    except InputError as error:
        message = str(error)
        assert message.startswith(str(path))
        assert len(message.splitlines()) == 1
