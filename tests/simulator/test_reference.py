"""The generated reference: complete by the JSON Schema, right on a spec of our own, up to date in documents."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from simulator.cli import main
from simulator.reference import GENERATED, field_reference, graph_reference, refreshed, units_reference
from simulator.scenario import json_schema
from simulator.units import UNITS, Bytes, Seconds, Spec, parse_quantity
from topologies.schema import EDGE_ATTRIBUTES, EDGE_KINDS, GRAPH_ATTRIBUTES, VERTEX_KINDS

ROOT = Path(__file__).parents[2]
DOCUMENTS = {
    "scenarios/README.md": {"fields", "units"},
    "docs/graph.md": {"graph"},
    "docs/schedules.md": {"schedules"},
    "docs/training.md": {"phase_order", "training_memory"},
}


def rows(markdown: str) -> list[list[str]]:
    """Return the cells of all rows of all tables, heads and rules left out."""
    lines = markdown.splitlines()
    kept = [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith("| ") and not line.startswith("| ---") and not following.startswith("| ---")
    ]
    return [re.split(r" (?<!\\)\| ", line[2:-2]) for line in kept]


def parts_of(field: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a field and the members of its unions, which may be unions themselves."""
    yield field
    for member in [*field.get("oneOf", []), *field.get("anyOf", [])]:
        yield from parts_of(member)


def fields_by_schema(schema: dict[str, Any], node: dict[str, Any], prefix: str) -> Iterator[tuple[str, bool]]:
    """Yield (dotted path, whether it is required) of every field below a node of the JSON Schema."""
    for name, field in node.get("properties", {}).items():
        path = prefix + name
        yield path, name in node.get("required", [])
        for part in parts_of(field):
            if "$ref" in part:
                yield from fields_by_schema(schema, schema["$defs"][part["$ref"].split("/")[-1]], f"{path}.")
        for part in field.get("items", {}).get("oneOf", []):
            yield from fields_by_schema(schema, schema["$defs"][part["$ref"].split("/")[-1]], f"{path}.N.")


def test_every_field_of_every_model_appears_once_for_each_place_that_it_has():
    # Pydantic's own JSON Schema is the other way to walk the models.
    expected = sorted(fields_by_schema(json_schema(), json_schema(), ""))
    found = sorted(
        (field.strip("`"), default == "required") for field, _, default, _ in rows(field_reference())
    )
    assert found == expected
    assert ("cluster.node.gpu.peak_fp8", True) in found  # below two others
    assert ("workload.gate.kind", False) in found
    assert ("faults.N.between", True) in found  # of the items of a list


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_are_up_to_date(document: str):
    text = (ROOT / document).read_text("utf-8")
    assert set(re.findall(r"<!-- generated: (\w+) -->", text)) == DOCUMENTS[document]
    remedy = f"{document} is out of date: python -m simulator.reference {' '.join(DOCUMENTS)}"
    assert text == refreshed(text), remedy


def test_the_scenario_reference_is_what_the_command_prints(monkeypatch, capsys):
    text = (ROOT / "scenarios/README.md").read_text("utf-8")
    held = text.partition("<!-- generated: fields -->\n")[2].partition("<!-- end generated: fields -->")[0]
    monkeypatch.setattr(sys, "argv", ["railplane", "schema", "--markdown"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert held == f"\n{capsys.readouterr().out}\n"


class Zipf(Spec):
    """Loads that fall.

    Not in the reference.
    """

    skew: float = Field(default=0.5, ge=0, lt=8, description="how steeply a|b")
    kind: Literal["zipf"] = Field(description="the name (no default)")


class Flat(Spec):
    """Equal loads."""

    kind: Literal["flat"] = Field(default="flat", description="the name (default flat)")


class Inner(Spec):
    """Shown after its field."""

    on: bool = Field(default=False, description="a switch (default off)")
    flat: Flat = Field(default=Flat(), description="one kind (default flat)")


class Part(Spec):
    """A part of the file."""

    inner: Inner = Field(description="inline")
    gate: Zipf | Flat = Field(description="a choice", discriminator="kind")


class File(Spec):
    """A file."""

    size: Bytes = Field(default=3 * 2**30, gt=0, le=2**60, description="a size (default enough)")
    wait: Seconds = Field(le=90, description="a time (in the queue) (no default)")
    ranks: Literal["all"] | tuple[int, ...] = Field(default=(1, 2), description="ranks")
    count: int | None = Field(default=None, gt=2, description="a count (default the model's)")
    few: int = Field(gt=2, lt=8, description="a few")
    part: Part = Field(description="a part")


def test_each_form_of_a_field_is_said_in_words():
    text = field_reference(File)
    assert rows(text) == [
        # 3 GiB in the unit that needs the fewest digits; 2**60 B are 2**20 TiB; the default is not said twice
        [
            "`size`",
            "bytes, such as `80 GiB`, more than 0, at most 1,048,576 TiB",
            "`3 GiB`",
            "a size",
        ],
        ["`wait`", "time, such as `3.7 us`, at least 0, at most 90 s", "required", "a time (in the queue)"],
        ["`ranks`", "`all`, or a list, each item a whole number", "`[1, 2]`", "ranks"],
        # more than 2 is at least 3 for a whole number
        ["`count`", "a whole number, at least 3, or `null`", "the model's", "a count"],
        ["`few`", "a whole number from 3 to 7", "required", "a few"],
        ["`part`", "fields", "required", "a part"],
        ["`part.inner`", "fields", "required", "inline"],
        ["`part.inner.on`", "`true` or `false`", "`false`", "a switch"],
        ["`part.inner.flat`", "fields, `kind` being `flat`", "`{kind: flat}`", "one kind"],
        ["`part.inner.flat.kind`", "`flat`", "`flat`", "the name"],
        [
            "`part.gate`",
            "fields, `kind` being `zipf` or `flat`",
            "required",
            "a choice",
        ],
        ["`part.gate.kind`", "`zipf`", "required", "the name"],
        ["`part.gate.skew`", "a number, at least 0, less than 8", "`0.5`", r"how steeply a\|b"],
        ["`part.gate.kind`", "`flat`", "`flat`", "the name"],
    ]
    titles = re.findall(r"^### (.*)\n\n(.*)$", text, re.MULTILINE)
    assert titles == [
        ("File", "A file."),
        ("`part`", "A part of the file."),
        ("`part.gate` of kind `zipf`", "Loads that fall."),
        ("`part.gate` of kind `flat`", "Equal loads."),
    ]


def test_the_graph_reference_has_every_kind_and_attribute():
    found = [row[0].strip("`") for row in rows(graph_reference())]
    of_vertices = [name for name, kind in VERTEX_KINDS.items() for _ in kind.attributes]
    assert found == [
        *(attribute.name for attribute in GRAPH_ATTRIBUTES),
        *VERTEX_KINDS,
        *of_vertices,
        *EDGE_KINDS,
        *(attribute.name for attribute in EDGE_ATTRIBUTES),
    ]
    assert (
        "| `nic` | nic and leaf, or nic and router | no | a network cable of a NIC, one for each of its ports |"
        in graph_reference()
    )


def test_units_are_those_that_are_read():
    listed = {dimension: re.findall("`(.*?)`", units) for dimension, units in rows(units_reference())}
    assert listed.keys() == UNITS.keys()
    for dimension, units in listed.items():
        assert [parse_quantity(f"1 {unit}", dimension) for unit in units] == list(UNITS[dimension].values())


def test_refreshing_replaces_only_what_stands_between_the_comments():
    old = "a\n<!-- generated: units -->\nold\n<!-- end generated: units -->\nb\n"
    new = refreshed(old)
    assert new == f"a\n<!-- generated: units -->\n\n{units_reference()}\n<!-- end generated: units -->\nb\n"
    assert refreshed(new) == new


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no table\n", "NAME one of fields, graph, phase_order, schedules, training_memory, units"),
        (
            "<!-- generated: fields -->\nno end\n",
            "NAME one of fields, graph, phase_order, schedules, training_memory, units",
        ),
        ("<!-- generated: feilds -->\n<!-- end generated: feilds -->", "no table 'feilds'.*fields, graph"),
    ],
)
def test_a_document_without_a_known_table_is_an_error(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        refreshed(text)


def test_the_command_refreshes_files_whatever_the_hash_seed(tmp_path: Path):
    names = list(GENERATED)
    empty = "".join(f"<!-- generated: {name} -->\n<!-- end generated: {name} -->\n" for name in names)
    document = tmp_path / "document.md"
    document.write_text(empty, "utf-8")
    command = [sys.executable, "-m", "simulator.reference", str(document)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": "12345"})
    assert document.read_text("utf-8") == refreshed(empty)
