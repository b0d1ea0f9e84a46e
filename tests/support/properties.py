"""How many cases hypothesis draws for a property."""

from typing import Any

from hypothesis import settings


def tried_on(number: int, **others: Any) -> settings:
    """Settings of a property that is tried on so many cases in the long mode, and on a share of them elsewhere.

    The share is the profile's (tests/conftest.py); properties that name no number are tried on 100 in the long mode.
    """
    return settings(max_examples=max(1, round(number * settings().max_examples / 100)), **others)
