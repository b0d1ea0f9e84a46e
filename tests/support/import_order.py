"""Which module asks for which while it is imported: python import_order.py PACKAGE... prints a JSON object of lists.

Imports every module of the packages in one process. What a module asks for is recorded although it may be there
already, so that the record is the same in whatever order they are imported.
"""

import builtins
import importlib.util
import json
import pkgutil
import sys
from collections import defaultdict
from types import ModuleType
from typing import Any

_import = builtins.__import__


class Recorder:
    """Stands in for `__import__` and notes each request that is made while a module of the packages runs."""

    def __init__(self, packages: list[str]) -> None:
        self.packages = packages
        self.asks: dict[str, set[str]] = defaultdict(set)

    def ours(self, name: str) -> bool:
        return name.partition(".")[0] in self.packages

    def running(self) -> str | None:
        """The module of ours whose top level is being run innermost, if any."""
        frame = sys._getframe(2)
        while frame is not None:
            name = frame.f_globals.get("__name__", "")
            if frame.f_code.co_name == "<module>" and self.ours(name):
                return name
            frame = frame.f_back
        return None

    def __call__(
        self, name: str, names: Any = None, local: Any = None, parts: Any = (), level: int = 0
    ) -> ModuleType:
        asking = self.running()
        found = _import(name, names, local, parts, level)
        whole = importlib.util.resolve_name("." * level + name, names["__package__"]) if level else name
        if asking is not None and self.ours(whole):
            submodules = (f"{whole}.{part}" for part in parts or ())
            self.note(asking, [whole, *(each for each in submodules if each in sys.modules)])
        return found

    def note(self, asking: str, wanted: list[str]) -> None:
        """Note the modules and their packages; the package of who asks has begun before and is not asked for."""
        for name in wanted:
            while name and not f"{asking}.".startswith(f"{name}."):
                self.asks[asking].add(name)
                name = name.rpartition(".")[0]  # noqa: PLW2901 - up to the outermost package


def main(packages: list[str]) -> None:
    recorder = Recorder(packages)
    builtins.__import__ = recorder  # type: ignore[assignment]
    for package in packages:
        found = importlib.import_module(package)
        recorder.asks[package] |= set()
        for info in pkgutil.walk_packages(found.__path__, f"{package}."):
            importlib.import_module(info.name)
            recorder.asks[info.name] |= set()
    print(json.dumps({name: sorted(wanted) for name, wanted in sorted(recorder.asks.items())}))


if __name__ == "__main__":
    main(sys.argv[1:])
