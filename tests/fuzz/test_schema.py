"""The strategies of valid scenarios draw every field of the schema, and every value of those that choose."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import pytest
from hypothesis import Phase, given, settings
from pydantic import BaseModel

from fuzz.strategies import WORKLOADS, scenarios
from fuzz.strategies_text import Drawn
from fuzz.test_valid import LEAST_VALID
from simulator import load_scenario
from simulator.costs import catalogue
from simulator.input_error import InputError
from simulator.scenario import Scenario
from topologies import NODES

_DRAWS: Final = 200  # of each kind of workload, to see every field
_LOADED: Final = 10  # of each kind, to see whether they can run
# What is not drawn: training steps refuse `dispatched`, and a field that can have one value is left to its default.
LEFT_OUT: Final = {
    "TrainingStepSpec.shared_experts",
    "TrainingStepSpec.shared_experts=dispatched",
    "TrainingStepSpec.shared_experts=local",
}


def branches(annotation: Any) -> Iterator[Any]:
    """Yield the types that a value of an annotated type may have, and the values of literals."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from branches(get_args(annotation)[0])
    elif origin in {Union, UnionType, tuple, list}:
        for part in get_args(annotation):
            yield from branches(part)
    elif annotation is bool:
        yield from (True, False)
    elif origin is Literal:
        yield from get_args(annotation)
    elif annotation is not NoneType and annotation is not Ellipsis:
        yield annotation


def choices(model: type[BaseModel], known: set[str]) -> set[str]:
    """Add the fields of a model and of those below, and the values that they choose between: `Model.field=value`."""
    if model.__name__ in known:
        return known
    known.add(model.__name__)
    for name, info in model.model_fields.items():
        field = f"{model.__name__}.{name}"
        known.add(field)
        for branch in branches(info.annotation):
            if isinstance(branch, type) and issubclass(branch, BaseModel):
                choices(branch, known)
            elif not isinstance(branch, type):
                known.add(f"{field}={branch}")
    return known


def taken(value: Any) -> Iterator[str]:
    """Yield the fields that were written in a spec and those below, with their values, as `choices` names them."""
    if isinstance(value, tuple):
        for item in value:
            yield from taken(item)
    if not isinstance(value, BaseModel):
        return
    yield type(value).__name__
    for name in value.model_fields_set:
        field, below = f"{type(value).__name__}.{name}", getattr(value, name)
        yield field
        yield f"{field}={below}"
        yield from taken(below)


def some(kind: str, draws: int) -> list[Drawn]:
    """Return scenarios of a kind of workload, the same ones each time."""
    found: list[Drawn] = []

    @settings(max_examples=draws, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
    @given(scenarios(kind))
    def draw(scenario: Drawn) -> None:
        found.append(scenario)

    draw()
    return found


@pytest.mark.slow
def test_every_field_and_every_choice_is_drawn():
    seen: set[str] = set()
    for kind in WORKLOADS:
        for drawn in some(kind, _DRAWS):
            scenario = Scenario.model_validate(drawn.data)
            seen |= {*taken(scenario), f"costs={scenario.costs}"}
    every = choices(Scenario, set())
    every |= {f"Cluster.node={name}" for name in NODES} | {f"costs={name}" for name in catalogue()}
    assert sorted(every - seen - LEFT_OUT) == []
    assert sorted(LEFT_OUT & seen) == []


def test_most_draws_are_valid(tmp_path: Path):
    counts: Counter[str] = Counter()
    for kind in WORKLOADS:
        for number, drawn in enumerate(some(kind, _LOADED)):
            try:
                load_scenario(drawn.write(tmp_path / f"{kind}-{number}"))
            except InputError as refused:
                if not refused.field:
                    raise
                counts["refused"] += 1
            else:
                counts["valid"] += 1
    assert counts["valid"] >= LEAST_VALID * counts.total(), counts
