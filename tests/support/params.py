"""Cases of a test of which a few run every day, and the rest with what is slow."""

from collections.abc import Collection, Mapping
from typing import Any

import pytest


def mostly_slow(cases: Mapping[str, Any] | Collection[str], *quick: str) -> list[Any]:
    """Return cases as parameters, slow but for those that are named.

    cases: values by name, a tuple for several arguments; or names that are the values
    """
    values = cases if isinstance(cases, Mapping) else {name: name for name in cases}
    assert values.keys() >= set(quick), quick
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            id=name,
            marks=() if name in quick else pytest.mark.slow,
        )
        for name, value in values.items()
    ]
