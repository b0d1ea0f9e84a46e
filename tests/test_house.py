"""House rules that no single module owns."""

import importlib
import importlib.metadata
import json
import os
import pkgutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("simulator", "topologies", "workloads")


def modules() -> list[str]:
    names = list(PACKAGES)
    for package in PACKAGES:
        found = importlib.import_module(package)
        names += [info.name for info in pkgutil.walk_packages(found.__path__, f"{package}.")]
    return names


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_ours(package):
    # `simulator` and `topologies` exist on package indexes too: an environment that mixes them must not go unseen.
    origin = Path(str(importlib.import_module(package).__file__))
    distribution = importlib.metadata.distribution("railplane")
    files = {Path(str(distribution.locate_file(file))).resolve() for file in distribution.files or []}
    url = json.loads(distribution.read_text("direct_url.json") or "{}").get("url", "")
    assert origin.resolve() in files or url == origin.resolve().parents[1].as_uri()


# Imports each module in a process of its own, forked from one that has imported what takes long and is not ours. A
# file named after the module then holds the names of all that came with it.
IMPORT_EACH = """
import importlib, os, pathlib, sys
import matplotlib.figure, networkx, numba, numpy, pandas, pydantic, ruamel.yaml, simpy, typer

def import_each(names, folder):
    running = []
    def wait():
        child, name = running.pop(0)
        assert os.waitpid(child, 0)[1] == 0, name
    for name in names:
        child = os.fork()
        if child == 0:
            importlib.import_module(name)
            pathlib.Path(folder, name).write_text(" ".join(sys.modules))
            os._exit(0)
        running.append((child, name))
        if len(running) == os.cpu_count():
            wait()
    while running:
        wait()
"""


def asks_for(*packages: str, **environment: str) -> dict[str, list[str]]:
    command = [sys.executable, "-P", str(ROOT / "tests" / "support" / "import_order.py"), *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    return json.loads(done.stdout)


def test_no_module_waits_for_itself_to_be_imported():
    # Import order matters only where a module asks, on its way, for one that waits for it: there the first to be
    # imported decides who finds the other half done. Without such a circle every module can be imported first.
    asked = asks_for(*PACKAGES)
    assert set(asked) >= set(modules())
    assert "workloads.tasks" in asked["simulator.engine"]
    list(TopologicalSorter(asked).static_order())


def test_a_circle_of_imports_is_seen(tmp_path):
    # first works if it is imported before second, and breaks if after; `planted` begins with the order that works.
    package = tmp_path / "planted"
    package.mkdir()
    (package / "__init__.py").write_text("from planted import first")
    (package / "first.py").write_text("from planted.second import name\nother = 1")
    (package / "second.py").write_text("name = 1\nfrom . import first")
    found = asks_for("planted", PYTHONPATH=str(tmp_path))
    assert found == {
        "planted": ["planted.first"], "planted.first": ["planted.second"], "planted.second": ["planted.first"]
    }  # fmt: skip
    with pytest.raises(CycleError):
        list(TopologicalSorter(found).static_order())


@pytest.mark.slow
def test_every_module_imports_in_a_fresh_interpreter(tmp_path):
    # Import order must not matter: each module is imported before any other of ours. To import one begins with its
    # package, so that what the package imports is imported in one and the same order whichever is asked for.
    names = modules()
    packages = sorted({name.rpartition(".")[0] for name in names} - {""})
    run_python(f"{IMPORT_EACH}import_each({packages!r}, {str(tmp_path)!r})")
    brought = {package: (tmp_path / package).read_text().split() for package in packages}
    alone = [name for name in names if name not in brought.get(name.rpartition(".")[0], ())]
    assert set(PACKAGES) < set(alone)
    run_python(f"{IMPORT_EACH}import_each({alone!r}, {str(tmp_path)!r})")
    assert {path.name for path in tmp_path.iterdir()} == {*packages, *alone}


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['railplane', '--help']\n"
        "from simulator.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'pandas', 'numba', 'networkx', 'matplotlib', 'pydantic', 'simpy', 'ruamel'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    assert run_python(code).splitlines()[-1] == "heavy: []"


def test_the_package_itself_imports_nothing_of_ours():
    code = "import sys, simulator; print([name for name in sys.modules if name.startswith('simulator.')])"
    assert run_python(code) == "[]\n"


def test_public_names_are_there():
    import simulator

    for name in simulator.__all__:
        assert getattr(simulator, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        _ = simulator.simulat


def test_the_version_is_that_of_the_distribution():
    import simulator

    assert importlib.metadata.version("railplane") == simulator.__version__


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_kept_without_output(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
