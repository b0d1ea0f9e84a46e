"""Mutants: what cosmic-ray would change in a module, one at a time."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.ast.ast_query import ASTQuery
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

# What is known of a solve is an array of one element: its last is its first.
_IN_ARRAY_OF_ONE = re.compile(r"\bsolve\[-1\]")


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    where: the function or class that it is in; before, after: the lines that differ, blanks made single
    """

    path: Path
    where: str
    before: str
    after: str
    code: str

    def __str__(self) -> str:
        return f"{self.path}, {self.where}: {self.before}  ->  {self.after}"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from others, wherever the lines stand."""
        return str(self.path), self.where, self.before, self.after

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have it on disk for a while."""
        whole = self.path.read_text("utf-8")
        try:
            self.path.write_text(self.code, "utf-8")
            yield
        finally:
            self.path.write_text(whole, "utf-8")


def all_mutants(modules: list[Path], used: list[str]) -> Iterator[Mutant]:
    """Yield all mutants of modules; used: regular expressions of operators' names."""
    pattern = re.compile("|".join(f"core/(?:{name})" for name in used))
    operators = [get_operator(name)() for name in sorted(filter(pattern.fullmatch, operator_names()))]
    for path in modules:
        code = path.read_text("utf-8")
        statements = [statement.get_code() for statement in get_ast(code).children]
        for place, statement in enumerate(statements):
            before, after = "".join(statements[:place]), "".join(statements[place + 1 :])
            for where, changed in _changes(statement, operators):
                whole = before + changed + after
                mutant = Mutant(path, where, *_difference(code, whole), whole)
                if not _IN_ARRAY_OF_ONE.search(mutant.after):
                    yield mutant


def _changes(code: str, operators: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield (function or class, changed code) for each place where an operator changes something.

    One statement of a module at a time: cosmic-ray parses the code anew for each change.
    """
    # cosmic-ray takes the bare * of a signature for a product
    nodes = [
        node for node in ast_nodes(get_ast(code)) if node.parent is None or node.parent.type != "parameters"
    ]
    for operator in operators:
        places = [node for node in nodes for _ in operator.mutation_positions(node)]
        for occurrence, node in enumerate(places):
            changed = mutate_code(code, operator, occurrence)
            if changed is not None:
                yield ASTQuery(node).get_definition_name() or "module", changed


def _difference(code: str, changed: str) -> tuple[str, str]:
    """Return the lines that differ, in the code and in the changed code."""
    old, new = code.splitlines(), changed.splitlines()
    first = next(row for row, (one, other) in enumerate(zip(old, new, strict=False)) if one != other)
    last = next(
        row for row, (one, other) in enumerate(zip(old[::-1], new[::-1], strict=False)) if one != other
    )
    texts = (" ".join(" ".join(lines[first : len(lines) - last]).split()) for lines in (old, new))
    return tuple(re.sub(r"(?<=[\[(]) ", "", text) for text in texts)
