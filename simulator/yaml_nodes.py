"""YAML text as nodes that know their lines, and nothing that a data file does not need.

YAML 1.2 with its core schema: `no` is text, `010` is ten, `50e9` is a number, a date is text. Refused are tags,
merge keys, directives, keys that are not text or stand twice, numbers that are not finite, and what would
take long to read: deep nesting, very many values. The text is read event by event, so that no depth of it can
exhaust Python's stack.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.reader import ReaderError

from simulator.input_error import FieldPath, InputError, clipped, dotted

Scalar = str | int | float | bool | None

# No scenario goes beyond these limits; within them any file of allowed size is read or refused in two seconds.
MAX_VALUES: Final = 50_000
MAX_DEPTH: Final = 64
MAX_NUMBER_CHARACTERS: Final = 40
MAX_TEXT_CHARACTERS: Final = 4096  # as long as a path may be

# The core schema, https://yaml.org/spec/1.2.2/#103-core-schema
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
_WHOLE: Final = re.compile(r"([-+]?)(?:0o([0-7]+)|0x([0-9a-fA-F]+)|([0-9]+))", re.ASCII)
_REAL: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

# What the YAML reader says of common slips -> what would be right.
_REMEDIES: Final = {
    "mapping values are not allowed here": "a ':' stands where no field can start; align the indentation with "
    "the fields around it, and quote text that holds ': '",
    "could not find expected ':'": "this line is neither 'field: value' nor '- item'",
    "expected <block end>": "this line belongs to none of those above it; align its indentation with theirs",
    "expected ',' or": "a bracket before this is not closed, or a comma is missing",
    "expected alphabetic or numeric character": "a name must follow '&' or '*'; put text that begins so in quotes",
    "found character": "a character with a meaning of its own in YAML starts this value; put the value in quotes",
    "found unexpected end of stream": "a quote that opens here is never closed",
    "expected the node content": "a value is missing, or a bracket is not closed",
    "expected '<document start>'": "this does not continue what stands above it; write one 'field: value' a line",
}
_SAID_OF_THE_START: Final = ("could not find expected ':'", "found unexpected end of stream")


@dataclass(slots=True)
class Node:
    """A value as written.

    value: a scalar, or a list or dict of nodes; line: where it starts, from 1, None where lines mean nothing;
    line_of: of each index or key of a list or dict, where it stands.
    """

    value: Any
    line: int | None
    line_of: dict[str | int, int | None] = field(default_factory=dict)
    is_open: bool = False


def compose(text: str, name: str, *, numbered: bool = True) -> Node | None:
    """Return the one value that `text` holds, None if it holds nothing. Aliases share their node.

    name: what messages call the text; numbered: whether its lines mean anything to the user. Raises InputError.
    """
    composer = _Composer(text, name, numbered=numbered)
    for event in composer.events():
        composer.take(event)
    return composer.top


class _Composer:
    """Builds nodes from the events of a YAML text."""

    def __init__(self, text: str, name: str, *, numbered: bool) -> None:
        self.top: Node | None = None
        self._text = text
        self._name = name
        self._numbered = numbered
        self._open: list[Node] = []  # the mappings and lists around the next event, outermost first
        # of each of them, the index or key at hand; None where a key comes next
        self._step: list[str | int | None] = []
        self._anchors: dict[str, Node] = {}
        self._num_documents = 0
        self._num_values = 0

    def events(self) -> Iterator[Any]:
        """Yield the events of the text; what the YAML reader refuses is an InputError."""
        line = 1
        events = YAML(typ="safe", pure=True).parse(self._text)
        while True:
            try:
                event = next(events, None)
            except MarkedYAMLError as error:
                raise self._syntax_error(error, line) from None
            except ReaderError as error:
                line = self._text.count("\n", 0, error.position) + 1
                message = f"this line holds the control character {chr(error.character)!a}; leave it out"
                raise self._error(line, message, ()) from None
            except Exception as error:  # the reader lets slip whatever its own code trips over
                what = f"from here on this cannot be read as YAML ({type(error).__name__})"
                raise self._error(line, f"{what}; look for a stray escape, quote or bracket", ()) from None
            if event is None:
                return
            line = _line(event)
            yield event

    def take(self, event: Any) -> None:
        """Add the event to the tree."""
        if isinstance(event, DocumentStartEvent):
            self._start_document(event)
        elif isinstance(event, CollectionEndEvent):
            self._step.pop()
            self._open.pop().is_open = False
            self._finish_value()
        elif isinstance(event, NodeEvent):
            self._refuse_tag(event)
            if self._step and self._step[-1] is None:
                self._take_key(event)
            else:
                self._take_value(event)

    def _refuse_tag(self, event: Any) -> None:
        if not isinstance(event, AliasEvent) and event.ctag is not None:
            tag = clipped(str(event.ctag).replace("tag:yaml.org,2002:", "!!"), 80)
            raise self._error(_line(event), f"the tag {tag!r} is refused; write the value without it")

    def _start_document(self, event: DocumentStartEvent) -> None:
        self._num_documents += 1
        if self._num_documents > 1:
            raise self._error(_line(event), "a second document starts here; keep one document a file", ())
        if event.version not in (None, (1, 2)) or event.tags:
            raise self._error(_line(event), "a % directive stands before this; leave it out", ())

    def _take_key(self, event: NodeEvent) -> None:
        line = _line(event)
        if not isinstance(event, ScalarEvent):
            message = "a list, a mapping or an alias stands where a field's name belongs; name the field"
            raise self._error(line, message)
        key = self._scalar(event)
        if key == "<<" and event.implicit[0]:
            raise self._error(line, "the merge key '<<' is not supported; write the fields out")
        if not isinstance(key, str):
            raise self._error(line, f"the field name {event.value!r} is not text; put it in quotes")
        mapping = self._open[-1]
        self._step[-1] = key
        if key in mapping.line_of:
            first = f", first on line {mapping.line_of[key]}" if self._numbered else ""
            raise self._error(line, f"this field is given twice{first}; keep one of them")
        mapping.line_of[key] = line if self._numbered else None

    def _take_value(self, event: NodeEvent) -> None:
        self._num_values += 1
        if self._num_values > MAX_VALUES:
            message = (
                f"more than {MAX_VALUES:,} values stand up to here; keep long lists in files of their own"
            )
            raise self._error(_line(event), message, self._path()[:3])
        node = self._node(event)
        line = _line(event) if self._numbered else None
        if not self._open:
            self.top = node
        elif isinstance(self._open[-1].value, list):
            holder = self._open[-1]
            holder.line_of[len(holder.value)] = line
            holder.value.append(node)
        else:
            self._open[-1].value[self._step[-1]] = node
        if node.is_open:
            self._open.append(node)
            self._step.append(0 if isinstance(node.value, list) else None)
        else:
            self._finish_value()

    def _finish_value(self) -> None:
        """Move on to what comes after a complete value."""
        if self._step:
            step = self._step[-1]
            self._step[-1] = step + 1 if isinstance(step, int) else None

    def _node(self, event: NodeEvent) -> Node:
        """Return the node that the event starts, or the node that an alias stands for."""
        line = _line(event)
        if isinstance(event, AliasEvent):
            known = self._anchors.get(event.anchor)
            if known is None:
                message = f"no anchor &{event.anchor} stands before the alias *{event.anchor}; add it"
                raise self._error(line, message)
            if known.is_open:
                message = f"the alias *{event.anchor} stands within what it names; write it out"
                raise self._error(line, message)
            return known
        if isinstance(event, CollectionStartEvent) and len(self._open) >= MAX_DEPTH:
            message = f"values are nested deeper than {MAX_DEPTH}; write fewer levels"
            raise self._error(line, message, self._path()[:3])
        value: Any
        if isinstance(event, ScalarEvent):
            value = self._scalar(event)
        else:
            value = {} if isinstance(event, MappingStartEvent) else []
        node = Node(value, line if self._numbered else None, is_open=not isinstance(event, ScalarEvent))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _scalar(self, event: ScalarEvent) -> Scalar:
        """Return the value by the core schema if it is not quoted, else its text."""
        text = str(event.value)
        if len(text) > MAX_TEXT_CHARACTERS:
            message = f"this text has {len(text):,} characters; write at most {MAX_TEXT_CHARACTERS:,}"
            raise self._error(_line(event), message)
        control = _CONTROL.search(text)
        if control is not None:
            message = f"this text holds the control character {control.group()!a}; leave it out"
            raise self._error(_line(event), message)
        if not event.implicit[0]:
            return text
        try:
            return parse_scalar(text)
        except ValueError as error:
            raise self._error(_line(event), str(error)) from None

    def _path(self) -> FieldPath:
        """Return the path of the value at hand."""
        return tuple(step for step in self._step if step is not None)

    def _error(self, line: int, message: str, path: FieldPath | None = None) -> InputError:
        where = self._path() if path is None else path
        return InputError(self._name, line if self._numbered else None, dotted(where), message)

    def _syntax_error(self, error: MarkedYAMLError, line: int) -> InputError:
        problem = str(error.problem or error.context)
        at_start = problem.startswith(_SAID_OF_THE_START) and error.context_mark is not None
        mark = error.context_mark if at_start else error.problem_mark
        line = line if mark is None else mark.line + 1
        if "'\\t'" in problem:
            return self._error(line, "a tab stands where YAML wants spaces; write spaces in its place", ())
        remedy = next((text for start, text in _REMEDIES.items() if problem.startswith(start)), problem)
        return self._error(line, f"this is not YAML: {remedy}", ())


def _line(event: Any) -> int:
    """Return the line on which the event starts, from 1."""
    return int(event.start_mark.line) + 1


def parse_scalar(text: str) -> Scalar:
    """Return the value of an unquoted scalar by the core schema; ValueError for a number beyond the limits."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _NOT_FINITE.fullmatch(text):
        msg = f"{text} is not a finite number; write a finite one"
        raise ValueError(msg)
    whole = _WHOLE.fullmatch(text)
    if whole is None and _REAL.fullmatch(text) is None:
        return text
    if len(text) > MAX_NUMBER_CHARACTERS:
        msg = f"this number has {len(text):,} characters; write at most {MAX_NUMBER_CHARACTERS}"
        raise ValueError(msg)
    if whole is None:
        value = float(text)
        if abs(value) == float("inf"):
            msg = f"{text} is too large for a number; write a smaller one"
            raise ValueError(msg)
        return value
    sign, octal, hexadecimal, decimal = whole.groups()
    size = int(octal, 8) if octal else int(hexadecimal, 16) if hexadecimal else int(decimal)
    if size >= 2**63:
        msg = f"{text} is too large for a whole number; the largest is {2**63 - 1}"
        raise ValueError(msg)
    return -size if sign == "-" else size
