"""GraphML read element by element before anything is built of it: is it safe, bounded and plain, and on which lines?

networkx, which builds the graph, takes what is given twice without a word, and cannot say where something is wrong.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from xml.parsers import expat

_MAX_DEPTH: Final = 32
_WHOLE: Final = re.compile(r"\s*[+-]?[0-9]{1,40}\s*")
_REAL: Final = re.compile(
    r"\s*[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,9})?\s*"
)
_ANY: Final = re.compile(r".*", re.DOTALL)
_BOOLEAN: Final = re.compile(r"true|false|0|1", re.IGNORECASE)


class _Type(NamedTuple):
    pattern: re.Pattern[str]
    meaning: str


# attr.type -> what a value must look like; those that networkx knows
_TYPES: Final = {
    **dict.fromkeys(("int", "long", "integer"), _Type(_WHOLE, "a whole number")),
    **dict.fromkeys(("float", "double"), _Type(_REAL, "a number")),
    "boolean": _Type(_BOOLEAN, "true or false"),
    "string": _Type(_ANY, "text"),
}


class GraphmlError(ValueError):
    """A file is no plain GraphML; line: from 1, None where there is none."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line


def check_graphml(raw: bytes, most_elements: int) -> None:
    """Raise GraphmlError unless `raw` is XML without a document type, of bounded size and depth, with one graph.

    Every node has an id of its own, every edge its ends, every value a declared key and the key's type.
    """
    checker = _Checker(most_elements)
    _parse(raw, checker)
    if not checker.num_graphs:
        msg = "this is not GraphML: it holds no <graph>"
        raise GraphmlError(None, msg)
    checker.check_ends()


def line_of(raw: bytes, at: tuple[str, ...]) -> int | None:
    """Return the line of a vertex, or of an edge by its ends in either order; None if there is none."""
    finder = _Finder(at)
    _parse(raw, finder)
    return finder.line


def _parse(raw: bytes, reader: "_Checker | _Finder") -> None:
    """Have a reader see every element of XML; raise GraphmlError if it is none."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    reader.parser = parser

    def refuse(*_: object) -> None:
        msg = "a document type is declared here (<!DOCTYPE ...>), which a graph file may not have; remove it"
        raise GraphmlError(parser.CurrentLineNumber, msg)

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(raw, True)
    except (expat.ExpatError, LookupError) as error:  # LookupError: an encoding that there is none of
        line = error.lineno if isinstance(error, expat.ExpatError) else 1
        reason = expat.ErrorString(error.code) if isinstance(error, expat.ExpatError) else error
        msg = f"this is not XML: {reason}"
        raise GraphmlError(line, msg) from error


@dataclass
class _Checker:
    """Sees every element once, and raises GraphmlError for the first that is wrong."""

    most_elements: int
    parser: Any = None
    num_graphs: int = 0
    _count: int = 0
    _depth: int = 0
    _types: dict[str, _Type] = field(default_factory=dict)  # by key
    _nodes: set[str] = field(default_factory=set)
    _ends: dict[str, int] = field(default_factory=dict)  # of edges, not listed before: where they first stand
    _given: set[str] = field(default_factory=set)  # keys of the values of the element at hand
    _value: _Type | None = None  # of the value at hand
    _text: list[str] = field(default_factory=list)

    def start(self, qualified: str, attributes: dict[str, str]) -> None:
        """Take an element's start."""
        self._count += 1
        self._depth += 1
        if self._count > self.most_elements or self._depth > _MAX_DEPTH:
            self._refuse(
                f"more than {self.most_elements:,} elements, or {_MAX_DEPTH} within each other, stand here"
            )
        match qualified.rpartition(" ")[2]:
            case "data":
                self._start_value(attributes)
            case "node":
                self._start_node(attributes)
            case "edge":
                self._start_edge(attributes)
            case "key":
                self._start_key(attributes)
            case "graph":
                self._given.clear()
                self.num_graphs += 1
                if self.num_graphs > 1:
                    self._refuse("a second <graph> starts here; keep one graph a file")
            case "hyperedge" | "port" as name:
                self._refuse(f"a <{name}> stands here; a cluster has only nodes and edges")

    def _start_value(self, attributes: dict[str, str]) -> None:
        key = attributes.get("key", "")
        if key not in self._types:
            self._refuse(
                f"this value has the key {key!r}, which no <key> above declares; declare it, or correct it"
            )
        if key in self._given:
            self._refuse(f"the value of the key {key!r} is given twice; keep one")
        self._given.add(key)
        self._value = self._types[key]

    def _start_node(self, attributes: dict[str, str]) -> None:
        self._given.clear()
        name = attributes.get("id")
        if not name:
            self._refuse("this node has no 'id'; give it one")
        elif name in self._nodes:
            self._refuse(f"the node {name!r} is listed more than once; keep one")
        else:
            self._nodes.add(name)

    def _start_edge(self, attributes: dict[str, str]) -> None:
        self._given.clear()
        for end in ("source", "target"):
            name = attributes.get(end)
            if not name:
                self._refuse(f"this edge has no {end!r}; give it the id of a node")
            elif name not in self._nodes:
                self._ends.setdefault(name, self.parser.CurrentLineNumber)

    def check_ends(self) -> None:
        """Raise GraphmlError for the first edge whose end is listed nowhere; once all elements are seen."""
        for name, line in self._ends.items():
            if name not in self._nodes:
                msg = f"this edge joins {name!r}, which is no node; add the node, or correct the edge"
                raise GraphmlError(line, msg)

    def _start_key(self, attributes: dict[str, str]) -> None:
        key, type_name = attributes.get("id"), attributes.get("attr.type", "string")
        if not key or "attr.name" not in attributes:
            self._refuse("this <key> needs an 'id' and an 'attr.name'; add them")
        elif key in self._types:
            self._refuse(f"the key {key!r} is declared twice; keep one")
        elif type_name not in _TYPES:
            self._refuse(f"unknown attr.type {type_name!r}; known are {', '.join(_TYPES)}")
        else:
            self._types[key] = self._value = _TYPES[type_name]  # a <default> may follow

    def text(self, text: str) -> None:
        """Take text within an element."""
        if self._value is not None:
            self._text.append(text)

    def end(self, qualified: str) -> None:
        """Take an element's end."""
        self._depth -= 1
        name = qualified.rpartition(" ")[2]
        if name in {"data", "default"} and self._value is not None:
            text = "".join(self._text)
            if text and not self._value.pattern.fullmatch(text):
                self._refuse(f"the value {_cut(text)!r} is not {self._value.meaning}")
        if name in {"data", "key"}:
            self._value = None
        self._text.clear()

    def _refuse(self, message: str) -> None:
        raise GraphmlError(self.parser.CurrentLineNumber, message)


@dataclass
class _Finder:
    """Sees every element until it comes to the vertex or edge."""

    at: tuple[str, ...]
    parser: Any = None
    line: int | None = None

    def start(self, qualified: str, attributes: dict[str, str]) -> None:
        """Take an element's start."""
        if self.line is not None:
            return
        name = qualified.rpartition(" ")[2]
        if name == "node":
            found: tuple[str | None, ...] = (attributes.get("id"),)
        elif name == "edge":
            found = (attributes.get("source"), attributes.get("target"))
        else:
            return
        if found == self.at or found[::-1] == self.at:
            self.line = self.parser.CurrentLineNumber

    def text(self, text: str) -> None:
        """Pass over text."""

    def end(self, qualified: str) -> None:
        """Pass over an element's end."""


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:50]}..."
