"""Mutation testing: change one operator or number of the code, and see whether a test notices.

    python tests/mutation/run.py [TARGET...]

targets.toml says what is mutated, survivors.toml which mutants may live, and why. Exits 1 if others do, or if one of
the list is killed. All happens in a copy of the working tree; README.md beside this file says how.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

# What all trials load, none of it ours: it is here when they fork. numba asks for its setting as it is loaded.
os.environ |= {"NUMBA_DISABLE_JIT": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
import filelock  # noqa: F401
import hypothesis.strategies  # noqa: F401
import numba  # noqa: F401
import pydantic.type_adapter  # noqa: F401
import trial
from in_place import is_in_functions
from mutants import Mutant, all_mutants
from survivors import Survivors

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def main() -> int:
    """Test what the command line names; return 0 if those mutants live that are listed, and no others."""
    targets = tomllib.loads((HERE / "targets.toml").read_text("utf-8"))
    used = targets.pop("operators")["used"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "target", nargs="*", choices=[[], *targets], help="what to mutate; all if none is named"
    )
    chosen = parser.parse_args().target or list(targets)
    with tempfile.TemporaryDirectory(prefix="railplane-mutation-") as folder:
        copy_tree(Path(folder))
        os.chdir(folder)
        sys.path[:0] = [folder, str(Path(folder) / "tests")]
        differences = [run(name, targets[name], used) for name in chosen]
    for difference in chain(*differences):
        print(difference)
    return int(any(differences))


def copy_tree(folder: Path) -> None:
    """Copy what git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def run(name: str, target: dict[str, Any], used: list[str]) -> list[str]:
    """Test all mutants of a target; return how those that live differ from the list."""
    modules = sorted(chain(*(sources(Path(path)) for path in target["mutated"])))
    sys.dont_write_bytecode = False
    if not trial.on_disk(target["tests"]):
        sys.exit(f"{name}: tests fail before anything is mutated:\n{trial.LOG.read_text('utf-8')}")
    # from now on no machine code of a mutant may be taken for that of another with the same length and second
    sys.dont_write_bytecode = True
    lived, count = [], 0
    for mutant, lives in outcomes(target, list(all_mutants(modules, used))):
        count += 1
        print(f"{name} {'LIVES' if lives else 'killed'}  {mutant}", flush=True)
        if lives:
            lived.append(mutant.key)
    print(f"{name}: {count} mutants, {count - len(lived)} killed, {len(lived)} live", flush=True)
    return Survivors.listed(HERE / "survivors.toml").differences(lived, modules)


def sources(path: Path) -> Iterator[Path]:
    """Yield a module, or those of a package."""
    yield from path.rglob("*.py") if path.is_dir() else [path]


def outcomes(target: dict[str, Any], mutants: list[Mutant]) -> Iterator[tuple[Mutant, bool]]:
    """Yield each mutant, and whether it lives."""
    inside = [mutant for mutant in mutants if target["in_place"] and is_in_functions(mutant)]
    if inside:
        answers = trial.in_place(target["tests"], inside)
        if not next(answers):
            sys.exit(f"tests fail in place, before anything is mutated:\n{trial.LOG.read_text('utf-8')}")
        yield from zip(inside, answers, strict=True)
    for mutant in mutants:
        if mutant not in inside:
            with mutant.applied():
                lives = trial.on_disk(target["tests"])
            yield mutant, lives


if __name__ == "__main__":
    sys.exit(main())
