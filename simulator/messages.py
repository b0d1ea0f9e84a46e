"""What pydantic found wrong with a scenario, said so that a person can act on it.

Pydantic reports every fault, by a path that holds the names of union members, in words for programmers. Here
they become one InputError: the path as the file has it, the file and line, what is wrong, what would be right.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from simulator.document import Document
from simulator.input_error import FieldPath, InputError, clipped
from simulator.units import FieldError

_MOST_FAULTS: Final = 200  # looked at; all of a file's ordinary faults, and few of a file that is nothing but
_MOST_NAMED: Final = 5  # of the further fields
_MAX_SHOWN: Final = 60  # characters of a wrong value
_UNION_WITHIN: Final = "tagged-union["  # how pydantic calls a union by `kind` that is one member of another

# Pydantic's error type -> what it wanted.
_EXPECTED: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of fields",
    "model_type": "a mapping of fields",
    "model_attributes_type": "a mapping of fields",
    "none_required": "nothing",
}
# Pydantic's error type -> what the value must be, from the error's context.
_RULES: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "greater_than": lambda context: f"more than {_number(context, 'gt')}",
    "greater_than_equal": lambda context: f"at least {_number(context, 'ge')}",
    "less_than": lambda context: f"less than {_number(context, 'lt')}",
    "less_than_equal": lambda context: f"at most {_number(context, 'le')}",
    "multiple_of": lambda context: f"a multiple of {_number(context, 'multiple_of')}",
    "string_too_short": lambda context: f"text of at least {_items(context['min_length'], 'character')}",
    "string_too_long": lambda context: f"text of at most {_items(context['max_length'], 'character')}",
    "too_short": lambda context: f"a list of at least {_items(context['min_length'])}",
    "too_long": lambda context: f"a list of at most {_items(context['max_length'])}",
    "finite_number": lambda _: "finite",
}


@dataclass(frozen=True, slots=True)
class _Fault:
    """One thing wrong. Of an `expected` fault `text` is what would do: several may then hold for one field.

    A list's `length` may be wrong only since items that are wrong themselves were not counted.
    """

    path: FieldPath
    kind: Literal["unknown", "missing", "expected", "length", "rule"]
    text: str
    meant: FieldPath | None = None  # the field that an unknown one was probably meant to be


def explain(error: ValidationError, model: type[BaseModel], document: Document) -> InputError:
    """Return the most telling fault of `document`, which `model` refused, and the names of the other fields."""
    details = error.errors(include_url=False)
    faults = _merge([_fault(detail, model, document) for detail in details[:_MOST_FAULTS]], document)
    # a misspelt field explains why another is missing, so that it comes first; the rest are in the file's order
    faults.sort(key=lambda fault: (fault.kind != "unknown", document.line_of(fault.path) or 0))
    first, *others = faults
    message = first.text
    if others or len(details) > _MOST_FAULTS:
        fields = [".".join(map(str, fault.path)) for fault in others[:_MOST_NAMED]]
        fields += ["..."] if len(others) > _MOST_NAMED or len(details) > _MOST_FAULTS else []
        count = f"over {_MOST_FAULTS}" if len(details) > _MOST_FAULTS else str(len(others))
        message = f"{message} (and {count} more: {', '.join(fields)})"
    return document.error(first.path, message)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `did you mean ...?` if a known name is near, and what is known."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{hint}known are {', '.join(known)}"


def shown(value: Any) -> str:
    """Return a wrong value for a message."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"the text {clipped(value, _MAX_SHOWN)!r}"
        case dict() | BaseModel():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return clipped(str(value), _MAX_SHOWN)


def _items(count: int, what: str = "item") -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _number(context: Mapping[str, Any], key: str) -> str:
    """Return the limit that an error's context holds; that of a quantity is in SI units."""
    limit = context[key]
    if isinstance(limit, int) or not limit:
        return f"{int(limit):,}"
    return f"{limit:.6g} in SI units" if context["is_quantity"] else f"{limit:.6g}"


def _merge(faults: list[_Fault], document: Document) -> list[_Fault]:
    """Return one fault per field, without those that follow from another."""
    meant = {fault.meant for fault in faults}
    # a union refuses a value once per member: where one member looked inside, only what it found there matters
    looked_into = {fault.path[:length] for fault in faults for length in range(len(fault.path))}
    of_field: dict[FieldPath, list[_Fault]] = {}
    for fault in faults:
        follows = fault.kind == "missing" and fault.path in meant
        if not follows and not (fault.kind in {"expected", "length"} and fault.path in looked_into):
            of_field.setdefault(fault.path, []).append(fault)
    merged = []
    for path, found in of_field.items():
        telling = next((fault for fault in found if fault.kind != "expected"), None)
        if telling is None:
            wanted = " or ".join(dict.fromkeys(fault.text for fault in found))
            telling = _Fault(path, "rule", f"expected {wanted}, not {shown(_value_at(document, path))}")
        merged.append(telling)
    return merged


def _fault(detail: ErrorDetails, model: type[BaseModel], document: Document) -> _Fault:
    """Return pydantic's error in the words of this module."""
    path, owner = locate(model, detail["loc"])
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden" and owner is not None:
        return _unknown_field(path, owner, document)
    if kind == "missing":
        field = owner.model_fields.get(str(path[-1])) if owner else None
        meaning = f": {field.description}" if field and field.description else ""
        return _Fault(path, "missing", f"this field is missing; add it{meaning}")
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return _unknown_member(path, _members_at(model, detail["loc"]), context, document)
    if kind == "value_error":
        rule = context["error"]
        below = as_path(rule.field) if isinstance(rule, FieldError) else ()
        return _Fault((*path, *below), "rule", str(rule))
    expected = context["expected"] if kind == "literal_error" else _EXPECTED.get(kind)
    if expected is not None:
        return _Fault(path, "expected", expected)
    message = detail["msg"]
    if kind in _RULES:
        value = _value_at(document, path)
        is_quantity = isinstance(value, str) and isinstance(detail["input"], float)
        rule = _RULES[kind]({**context, "is_quantity": is_quantity})
        found = value if is_quantity else shown(value)
        if isinstance(value, list) and "actual_length" in context:
            found = f"of {len(value):,}"
        message = f"must be {rule}, not {found}"
    return _Fault(path, "length" if kind in {"too_short", "too_long"} else "rule", message)


def _members_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[Any]:
    """Return the types that the value at a location may have; it is a field, or an item of a field's list."""
    field = location[:-1] if isinstance(location[-1], int) else location
    path, owner = locate(model, field)
    union = owner.model_fields.get(str(path[-1])) if owner else None
    annotation = union.annotation if union else None
    if len(field) < len(location):
        annotation = next(iter(get_args(_bare(annotation))), None)
    return _members(annotation) if annotation else []


def _unknown_member(
    path: FieldPath, members: list[Any], context: Mapping[str, Any], document: Document
) -> _Fault:
    """Return the fault of a mapping whose telling field (`kind`) is missing or has a value that is not known."""
    field = context["discriminator"].strip("'")
    known = [name for member in members for name in _names(_bare(member), field)]
    if "tag" not in context:
        message = f"this field is missing; add it: one of {', '.join(known)}"
        return _Fault((*path, field), "missing", message)
    value = _value_at(document, (*path, field))
    if not isinstance(value, str):
        return _Fault((*path, field), "rule", f"expected one of {', '.join(known)}, not {shown(value)}")
    name = clipped(value, _MAX_SHOWN)
    return _Fault((*path, field), "rule", f"unknown {field} {name!r}; {did_you_mean(name, known)}")


def _unknown_field(path: FieldPath, owner: type[BaseModel], document: Document) -> _Fault:
    name = str(path[-1])
    given = _value_at(document, path[:-1]) or ()
    absent = [field for field in owner.model_fields if field not in given]
    # a field that is there already is not the one that was meant, unless no other comes near
    nearest = difflib.get_close_matches(name, absent, n=1) or difflib.get_close_matches(
        name, owner.model_fields, n=1
    )
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    text = f"unknown field {clipped(name, _MAX_SHOWN)!r}; {hint}known are {', '.join(owner.model_fields)}"
    return _Fault(path, "unknown", text, (*path[:-1], nearest[0]) if nearest else None)


def as_path(dotted_path: str) -> FieldPath:
    """Return the path of a dotted text; digits are the index of a list's item."""
    parts = dotted_path.split(".") if dotted_path else []
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _value_at(document: Document, path: FieldPath) -> Any:
    """Return the value as written, None where there is none."""
    value: Any = document.data
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def locate(
    model: type[BaseModel], location: tuple[str | int, ...]
) -> tuple[FieldPath, type[BaseModel] | None]:
    """Return the path, as a file has it, of pydantic's location, and the model that has its last field."""
    path: list[str | int] = []
    owner: type[BaseModel] | None = None
    types: list[Any] = [model]
    for step in location:
        if len(types) > 1:  # pydantic puts in the name of the member that it tried
            if str(step).startswith(_UNION_WITHIN):
                continue  # its own member comes next
            types = [member for member in types if _is_called(member, step)][:1]
            continue
        bare = _bare(types[0]) if types else None
        path.append(step)
        owner = bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None
        if owner is not None:
            field = owner.model_fields.get(str(step))
            types = _members(field.annotation) if field else []
        else:
            item = [part for part in get_args(bare) if part is not ...]
            types = _members(item[-1]) if item else []
    return tuple(path), owner


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _members(annotation: Any) -> list[Any]:
    """Return the types that a value may have: those of a union, or the one; None does not count."""
    if get_origin(_bare(annotation)) not in (Union, UnionType):
        return [annotation]
    parts = (part for part in get_args(_bare(annotation)) if part is not NoneType)
    return [member for part in parts for member in _members(part)]


def _names(bare: Any, field_name: str = "kind") -> tuple[str, ...]:
    """Return the values that a model's telling field may have."""
    field = (
        bare.model_fields.get(field_name) if isinstance(bare, type) and issubclass(bare, BaseModel) else None
    )
    return get_args(field.annotation) if field else ()


def _is_called(member: Any, step: str | int) -> bool:
    """Return whether `step` of a location stands for this member of a union."""
    bare = _bare(member)
    tags = [part.tag for part in get_args(member) if isinstance(part, Tag)]
    container = getattr(get_origin(bare), "__name__", None)
    return step in tags or step in _names(bare) or bool(container and str(step).startswith(container))
