"""What a point rests on, as one digest: the scenario, the files that it names, and the version of railplane."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simulator import __version__
from simulator.scenario import LoadedScenario, scenario_sha256


class Digests:
    """Digests of scenarios; a file that several scenarios name is read once."""

    def __init__(self) -> None:
        self._of_file: dict[Path, str] = {}

    def of(self, loaded: LoadedScenario) -> str:
        """Return the digest of everything that the result of a scenario rests on, wherever its files lie."""
        names = sorted(set(_texts(loaded.scenario.model_dump(mode="json"))))
        files = {name: self._file(loaded.folder / name) for name in names if _is_file(loaded.folder, name)}
        rests_on = [__version__, scenario_sha256(loaded), files]
        return hashlib.sha256(json.dumps(rests_on, sort_keys=True).encode()).hexdigest()

    def _file(self, path: Path) -> str:
        if path not in self._of_file:
            with path.open("rb") as stream:
                self._of_file[path] = hashlib.file_digest(stream, "sha256").hexdigest()
        return self._of_file[path]


def _texts(value: Any) -> Iterator[str]:
    """Yield every text of a scenario's data: tables, graphs and models are named by their paths."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for held in value.values() if isinstance(value, dict) else value:
            yield from _texts(held)


def _is_file(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):  # longer than a path may be, or with a character that none has
        return False
