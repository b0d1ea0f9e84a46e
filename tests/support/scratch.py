"""A folder for what a run of the tests makes once: all its processes see the same one, and it goes with the run."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

_NAME = "RAILPLANE_TEST_SCRATCH"


def open_scratch() -> tempfile.TemporaryDirectory[str] | None:
    """Make the run's folder; None in a worker, which has that of the process that started it."""
    if _NAME in os.environ:
        return None
    folder = tempfile.TemporaryDirectory(prefix="railplane-tests-")
    os.environ[_NAME] = folder.name
    return folder


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a file of the run's folder, which the first process that asks has made; others wait for it."""
    target = Path(os.environ[_NAME]) / name
    with FileLock(f"{target}.lock"):
        if not target.exists():
            half = target.with_name(f"half-made-{name}")
            make(half)
            half.rename(target)
    return target
