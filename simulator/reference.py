"""The reference of fields, units and graphs as Markdown, written by the definitions themselves.

Documents hold these tables between two comments, `<!-- generated: NAME -->` and `<!-- end generated: NAME -->`;
`python -m simulator.reference FILE...` writes them anew.
"""

import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import WithJsonSchema
from pydantic.fields import FieldInfo

from simulator.durable import write_file
from simulator.scenario import Scenario
from simulator.units import UNITS, Spec, write_quantity
from topologies.schema import EDGE_ATTRIBUTES, EDGE_KINDS, GRAPH_ATTRIBUTES, VERTEX_KINDS, Attribute
from workloads.schedules.reference import schedules_reference
from workloads.training.reference import phase_order_reference, training_memory_reference

# What a description may end in: the default, which has a column of its own.
_STATED_DEFAULT: Final = re.compile(r"\s*\((?:no default|default (?P<default>[^()]*))\)$")
_TYPES: Final = {int: "a whole number", float: "a number", str: "text", bool: "`true` or `false`"}


class _Form(NamedTuple):
    """One form that a value may have: its bare type, and pydantic's annotations of it."""

    bare: Any
    metadata: tuple[Any, ...]


class _Row(NamedTuple):
    """A field as users write it, dotted; what it takes; its default; what it means."""

    field: str
    takes: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True)
class _Section:
    """A table of fields; `about` is what the model says of itself."""

    title: str
    about: str
    rows: list[_Row]


def field_reference(model: type[Spec] = Scenario) -> str:
    """Return every field of a file as Markdown: a table for each section and each `kind` that it may have.

    model: what the file fills. Columns: the field's dotted path, what it takes, its default, its meaning.
    """
    head = ("field", "takes", "default", "meaning")
    return "\n".join(
        f"### {section.title}\n\n{section.about}\n\n"
        + markdown_table(head, ((f"`{row.field}`", *row[1:]) for row in section.rows))
        for section in _sections(model, "", model.__name__)
    )


def _sections(model: type[Spec], prefix: str, title: str) -> list[_Section]:
    """Return the section of a model whose fields' paths start with `prefix`, then those of the models within.

    A model that a field may hold has a section of its own if it is one of several, or stands at the top of the
    file; otherwise its fields follow the field that holds it.
    """
    own = _Section(title, (inspect.getdoc(model) or "").partition("\n\n")[0], [])
    further: list[_Section] = []
    for name, field in sorted(model.model_fields.items(), key=lambda item: item[0] != "kind"):
        path = prefix + name
        forms = list(_forms(field.annotation, tuple(field.metadata)))
        own.rows.append(_row(path, field, forms))
        specs = [form.bare for form in forms if _is_spec(form.bare)]
        if prefix and len(forms) == 1 and specs:
            inline, *below = _sections(specs[0], f"{path}.", "")
            own.rows.extend(inline.rows)
            further.extend(below)
        else:
            for spec in specs:
                further.extend(_sections(spec, f"{path}.", _title(path, spec, alone=len(forms) == 1)))
        items = [item.bare for form in forms if _is_list(form) for item in _forms(get_args(form.bare)[0])]
        for spec in filter(_is_spec, items):
            title = _title(f"{path}.N", spec, alone=len(items) == 1)
            further.extend(_sections(spec, f"{path}.N.", title))
    return [own, *further]


def _title(path: str, spec: type[Spec], *, alone: bool) -> str:
    kind = _kind(spec)
    if kind:
        return f"`{path}` of kind `{kind}`"
    return f"`{path}`" if alone else f"`{path}`, written inline"


def _row(path: str, field: FieldInfo, forms: list[_Form]) -> _Row:
    description = field.description or ""
    stated = _STATED_DEFAULT.search(description)
    meaning = description[: stated.start()] if stated else description
    takes = ", or ".join(dict.fromkeys(_takes(forms)))
    if field.is_required():
        return _Row(path, takes, "required", meaning)
    default = field.get_default(call_default_factory=True)
    if default is None and stated and stated["default"]:
        return _Row(path, takes, stated["default"], meaning)
    return _Row(path, takes, f"`{_written(default, forms)}`", meaning)


def _written(value: Any, forms: list[_Form]) -> str:
    """Return a value as a scenario file has it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Spec():
            fields = value.model_dump(mode="json").items()
            return f"{{{', '.join(f'{name}: {_written(item, [])}' for name, item in fields)}}}"
        case tuple() | list():
            return f"[{', '.join(_written(item, []) for item in value)}]"
    schema = next(filter(None, (_own_schema(form) for form in forms)), {})
    return write_quantity(value, _dimension(schema)) if "examples" in schema else str(value)


def _forms(annotation: Any, metadata: tuple[Any, ...] = ()) -> Iterator[_Form]:
    """Yield the forms that a value of this type may have: the members of a union, each with its annotations."""
    if get_origin(annotation) is Annotated:
        bare, *more = get_args(annotation)
        yield from _forms(bare, (*metadata, *more))
    elif get_origin(annotation) in {Union, UnionType}:
        for member in get_args(annotation):
            yield from _forms(member, metadata)
    else:
        yield _Form(annotation, metadata)


def _takes(forms: Iterable[_Form]) -> Iterator[str]:
    """Yield in words what each form takes."""
    forms = list(forms)
    kinds = [_kind(form.bare) for form in forms if _is_spec(form.bare)]
    for form in forms:
        schema, origin = _own_schema(form), get_origin(form.bare)
        if "enum" in schema:
            yield _choices(schema["enum"])
        elif "examples" in schema:
            limits = _range(form, partial(_whole_quantity, dimension=_dimension(schema)))
            yield f"{_dimension(schema)}, such as `{schema['examples'][0]}`{limits}"
        elif origin is Literal:
            yield _choices(get_args(form.bare))
        elif _is_list(form):
            yield f"a list, each item {' or '.join(dict.fromkeys(_takes(_forms(get_args(form.bare)[0]))))}"
        elif _is_spec(form.bare):
            yield f"fields, `kind` being {_choices(kinds)}" if any(kinds) else "fields"
        elif form.bare is NoneType:
            yield "`null`"
        else:
            yield _TYPES[form.bare] + (_length(form) if form.bare is str else _range(form, "{:,}".format))


def _choices(values: Collection[Any]) -> str:
    """Return values as written, as alternatives; empty if there are none."""
    *others, last = (f"`{value}`" for value in values) if values else ("",)
    return f"{', '.join(others)} or {last}" if others else last


def _is_list(form: _Form) -> bool:
    return get_origin(form.bare) in {tuple, list}


def _is_spec(bare: Any) -> bool:
    return isinstance(bare, type) and issubclass(bare, Spec)


def _kind(spec: type[Spec]) -> str:
    """Return the `kind` by which a model is chosen, empty if it has none."""
    field = spec.model_fields.get("kind")
    return str(get_args(field.annotation)[0]) if field else ""


def _own_schema(form: _Form) -> dict[str, Any]:
    """Return the JSON Schema that a type states by itself, as quantities and catalogue names do."""
    stated = (note.json_schema or {} for note in form.metadata if isinstance(note, WithJsonSchema))
    return next(stated, {})


def _dimension(schema: dict[str, Any]) -> str:
    """Return the dimension of a quantity, with which `simulator.units` begins the description of its type."""
    return str(schema["description"]).partition(":")[0]


def _limits(form: _Form, name: str) -> list[Any]:
    """Return the limits of this name (`ge`, `max_length`, ...) among a form's annotations."""
    notes = [
        part
        for note in form.metadata
        for part in (note.metadata if isinstance(note, FieldInfo) else [note])
        if getattr(part, name, None) is not None
    ]
    return [getattr(note, name) for note in notes]


def _range(form: _Form, show: Callable[[Any], str]) -> str:
    """Return in words the limits of a number; a whole number's are shown with both ends included."""
    step = 1 if form.bare is int else 0
    above, below = ("at least", "at most") if step else ("more than", "less than")
    least = [(limit, 0, "at least") for limit in _limits(form, "ge")]
    least += [(limit + step, 1, above) for limit in _limits(form, "gt")]
    most = [(limit, 1, "at most") for limit in _limits(form, "le")]
    most += [(limit - step, 0, below) for limit in _limits(form, "lt")]
    if step and least and most:
        return f" from {show(max(least)[0])} to {show(min(most)[0])}"
    tightest = [max(least, default=None), min(most, default=None)]
    return "".join(f", {end[2]} {show(end[0])}" for end in tightest if end)


def _length(form: _Form) -> str:
    """Return in words the limits of a text."""
    least, most = _limits(form, "min_length"), _limits(form, "max_length")
    words = ", not empty" if least == [1] else f", at least {max(least):,} characters" if least else ""
    return f"{words}, at most {min(most):,} characters" if most else words


def _whole_quantity(value: float, dimension: str) -> str:
    """Return a limit in the largest unit of which it is a whole number."""
    if value == 0:
        return "0"
    units = sorted(UNITS[dimension].items(), key=lambda unit: -unit[1])
    whole = (f"{value / factor:,.0f} {unit}" for unit, factor in units if value % factor == 0)
    return next(whole, None) or write_quantity(value, dimension)


def units_reference() -> str:
    """Return the units of each dimension as Markdown."""
    return markdown_table(
        ("a quantity of", "has one of the units"), ((name, _listed(UNITS[name])) for name in UNITS)
    )


def _listed(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def graph_reference() -> str:
    """Return the vocabulary of cluster graphs as Markdown: attributes of the graph, kinds of vertices and edges."""
    vertices = (
        (f"`{name}`", f"`{kind.name}`" if kind.name else "any", kind.meaning)
        for name, kind in VERTEX_KINDS.items()
    )
    of_vertices = [
        (f"`{name}`", *_attribute_row(attribute))
        for name, kind in VERTEX_KINDS.items()
        for attribute in kind.attributes
    ]
    edges = (
        (
            f"`{name}`",
            ", or ".join(" and ".join(pair) for pair in kind.joins),
            "yes" if kind.within_node else "no",
            kind.meaning,
        )
        for name, kind in EDGE_KINDS.items()
    )
    attribute = ("attribute", "takes", "meaning")
    return "\n".join(
        (
            "### The graph\n",
            markdown_table(attribute, map(_attribute_row, GRAPH_ATTRIBUTES)),
            "### Vertices\n",
            markdown_table(("kind", "id", "meaning"), vertices),
            "Besides `kind`, a vertex has these attributes:\n",
            markdown_table(("kind", *attribute), of_vertices),
            "### Edges\n",
            markdown_table(("kind", "joins", "within a node", "meaning"), edges),
            "Every edge has these attributes:\n",
            markdown_table(attribute, map(_attribute_row, EDGE_ATTRIBUTES)),
        )
    )


def _attribute_row(attribute: Attribute) -> tuple[str, str, str]:
    takes = _choices(attribute.choices) or _TYPES[attribute.type]
    least = "" if attribute.least is None else f", at least {attribute.least}"
    return f"`{attribute.name}`", takes + least, attribute.meaning


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table, with the line break that ends it."""
    head = tuple(head)
    lines = ((cell.replace("|", r"\|") for cell in line) for line in (head, ["---"] * len(head), *rows))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


GENERATED: Final[dict[str, Callable[[], str]]] = {
    "fields": field_reference,
    "graph": graph_reference,
    "phase_order": phase_order_reference,
    "schedules": schedules_reference,
    "training_memory": training_memory_reference,
    "units": units_reference,
}
_BLOCK: Final = re.compile(
    r"(?P<begin><!-- generated: (?P<name>\w+) -->\n).*?(?P<end><!-- end generated: (?P=name) -->)", re.DOTALL
)


def refreshed(text: str, tables: Mapping[str, Callable[[], str]] = GENERATED) -> str:
    """Return a document with its generated tables written anew; ValueError if it has none, or one not known.

    tables: what writes each, by name
    """
    if not _BLOCK.search(text):
        msg = "there is no '<!-- generated: NAME -->' and '<!-- end generated: NAME -->' with NAME one of "
        raise ValueError(msg + ", ".join(tables))

    def refreshed_block(block: re.Match[str]) -> str:
        if block["name"] not in tables:
            msg = f"there is no table {block['name']!r} to generate; known are {', '.join(tables)}"
            raise ValueError(msg)
        return f"{block['begin']}\n{tables[block['name']]()}\n{block['end']}"

    return _BLOCK.sub(refreshed_block, text)


def refresh(document: Path, tables: Mapping[str, Callable[[], str]] = GENERATED) -> None:
    """Write a document's generated tables anew in its file: see `refreshed`; OSError if that cannot be written."""
    write_file(document, refreshed(document.read_text("utf-8"), tables).encode())


if __name__ == "__main__":
    for document in map(Path, sys.argv[1:]):
        refresh(document)
