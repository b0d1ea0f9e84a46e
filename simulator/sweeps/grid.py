"""The grid of a sweep: the swept fields, their values, and what can be wrong with them whatever the scenario."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Final

from simulator.document import parse_document
from simulator.input_error import InputError, clipped
from simulator.sweeps.values import flow_text, sameness

MOST_POINTS: Final = 100_000
_SHAPE: Final = "write PATH=V1,V2,..., such as --over workload.expert_parallel=16,32,64"


@dataclass(frozen=True, slots=True)
class Axis:
    """A swept field and its values, each as one line of YAML.

    path: dotted, as of `--set`; values: as given, of which `texts` are the YAML
    """

    path: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]

    @property
    def option(self) -> str:
        """Return what messages call it."""
        return f"--over {self.path}={','.join(self.texts)}"


@dataclass(frozen=True, slots=True)
class Grid:
    """The axes of a sweep; its points are their product, of which the first axis is the slowest."""

    axes: tuple[Axis, ...]

    @property
    def points(self) -> list[tuple[str, ...]]:
        """Return the values of each point as YAML, one an axis."""
        return list(product(*(axis.texts for axis in self.axes)))


def read_over(options: Sequence[str]) -> dict[str, list[Any]]:
    """Return the swept paths and their values from texts such as `cluster.nodes=8,16`.

    Values are YAML 1.2; commas within brackets, braces and quotes do not separate. InputError for what is none.
    """
    over: dict[str, list[Any]] = {}
    for text in options:
        option = f"--over {text}"
        path, equals, listed = text.partition("=")
        path = _tidy(path)
        if not equals or not path:
            raise InputError(option, None, None, _SHAPE)
        if path in over:
            message = "this field is swept twice; give all its values in one --over"
            raise InputError(option, None, path, message)
        over[path] = _listed(listed, option, path)
    return over


def _tidy(path: str) -> str:
    """Return a dotted path without the spaces around its keys, which `--set` ignores too."""
    return ".".join(key.strip() for key in path.split("."))


def _listed(text: str, option: str, path: str) -> list[Any]:
    """Return the values of a list without its brackets."""
    if not text.strip():
        raise InputError(option, None, path, f"no values are given; {_SHAPE}")
    if text.rstrip().endswith(","):  # which YAML lets pass
        raise InputError(
            option, None, path, "a value is missing behind the last comma; write it, or no comma"
        )
    try:
        # the closing bracket has a line of its own, so that no comment hides it
        data = parse_document(f"values: [{text}\n ]", option).data
    except InputError as error:
        raise InputError(option, None, path, error.message) from None
    if data.keys() != {"values"} or not isinstance(data["values"], list):
        raise InputError(option, None, path, f"this is more than one list of values; {_SHAPE}")
    return data["values"]


def make_grid(over: Mapping[str, Sequence[Any]], overrides: Sequence[str] = ()) -> Grid:
    """Return the grid over paths and their values, behind `overrides` as of `--set`.

    Raises InputError for what no scenario makes right: no axis or no values, a value given twice, a field that a
    later assignment replaces, so that sweeping or setting it would change nothing, too many points.
    """
    if not over:
        raise InputError("--over", None, None, f"nothing is swept; {_SHAPE}")
    axes = tuple(_axis(_tidy(path), values) for path, values in over.items())
    set_before = [(f"--set {text}", _tidy(text.partition("=")[0])) for text in overrides]
    for place, axis in enumerate(axes):
        before = [*set_before, *((other.option, other.path) for other in axes[:place])]
        for option, path in before:
            if f"{path}.".startswith(f"{axis.path}."):
                message = f"this replaces what {clipped(option, 100)} gives, which comes to nothing; "
                right = "leave one of them out" if path == axis.path else "give the whole before its parts"
                raise InputError(axis.option, None, axis.path, message + right)
    num_points = prod(len(axis.texts) for axis in axes)
    if num_points > MOST_POINTS:
        message = f"the grid has {num_points:,} points; sweep at most {MOST_POINTS:,}"
        raise InputError("--over", None, None, message)
    return Grid(axes)


def _axis(path: str, values: Sequence[Any]) -> Axis:
    """Return an axis whose values are good in themselves."""
    option = f"--over {path}"
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
        raise InputError(option, None, path, f"give a list of values, not {clipped(repr(values), 60)}")
    held = tuple(values)
    if not held:
        raise InputError(option, None, path, "no values are given; give at least one")
    try:
        axis = Axis(path, held, tuple(map(flow_text, held)))
    except ValueError as error:
        raise InputError(option, None, path, str(error)) from None
    first: dict[Any, str] = {}
    for value, text in zip(held, axis.texts, strict=True):
        meaning = sameness(value)
        if meaning in first:
            known = first[meaning]
            again = f"{text} is given twice" if known == text else f"{known} and {text} are the same"
            raise InputError(axis.option, None, path, f"{again}; give each value once")
        first[meaning] = text
    return axis
