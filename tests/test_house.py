"""House rules that no single module owns."""

import importlib
import importlib.metadata
import json
import pkgutil
import subprocess
import sys
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


def test_every_module_imports_in_a_fresh_interpreter():
    # Import order must not matter; one process forks for each module, so that none profits from another's imports.
    code = (
        "import os, importlib\n"
        # what takes long to import is not ours: bring it once
        "import matplotlib.figure, networkx, numba, numpy, pandas, pydantic, ruamel.yaml, simpy, typer\n"
        "running = []\n"
        "def wait():\n"
        "    child, name = running.pop(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0, name\n"
        f"for name in {modules()!r}:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        importlib.import_module(name)\n"
        "        os._exit(0)\n"
        "    running.append((child, name))\n"
        "    if len(running) == os.cpu_count():\n"
        "        wait()\n"
        "while running:\n"
        "    wait()\n"
        "print('all')\n"
    )
    assert run_python(code) == "all\n"


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
