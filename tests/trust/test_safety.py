"""Files are data: nothing in them is run, nothing but `--out` is written, and nobody is called."""

import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from support.tiny_scenarios import CASES

ROOT = Path(__file__).parents[2]
PACKAGES = ("simulator", "topologies", "workloads")
# what runs text, reads objects that run themselves, or reaches other machines
RUNNING = {"eval", "exec", "compile", "__import__", "globals", "breakpoint"}
REACHING = {
    "pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "socket", "ssl", "urllib", "http", "requests",
    "ftplib", "smtplib", "xmlrpc", "telnetlib", "webbrowser", "runpy", "code",
}  # fmt: skip
# of pandas, numpy and others: readers that unpickle, or that fetch an address
UNPICKLING = {"read_pickle", "to_pickle", "urlopen", "urlretrieve", "unsafe_load", "full_load"}


def names_called(tree: ast.AST) -> set[str]:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {part.id for part in calls if isinstance(part, ast.Name)}


def modules_imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_source_can_run_what_a_file_says(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names_called(tree) & RUNNING, path
        assert not modules_imported(tree) & REACHING, path
        assert not attributes & UNPICKLING, path
        if "subprocess" in modules_imported(tree):  # nvcc, by fixed arguments
            assert path.relative_to(ROOT).as_posix() == "simulator/calibration/gpu/build.py"
        if "importlib" in modules_imported(tree):
            assert_imports_by_fixed_names(tree)


def assert_imports_by_fixed_names(tree: ast.AST) -> None:
    """Every `import_module(X)` has a literal, or a value of a table of literals in the same file."""
    tables = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
        and all(isinstance(value, ast.Constant) for value in node.value.values)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module"
        ):
            [name] = node.args
            of_table = isinstance(name, ast.Subscript) and getattr(name.value, "id", None) in tables
            assert isinstance(name, ast.Constant) or of_table, ast.unparse(node)


def watched(log: Path, *arguments: object) -> tuple[list[list[str]], str]:
    """Return what a command did that could reach out of its process, and what it said on standard error."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, "-m", "support.watched_run", str(log), *map(str, arguments)],
        env=environment, cwd=log.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return events, f"exit {done.returncode}: {done.stderr}"


def unexpected(events: list[list[str]], out: Path) -> list[list[str]]:
    """Return the events that a run may not have: it writes `--out`, caches of compiled code and temporary files."""
    temporary = Path(tempfile.gettempdir())

    def is_ours(place: str) -> bool:
        path = Path(place)
        ours = path.is_relative_to(out) or path.is_relative_to(out.parent / f".{out.name}")
        return ours or "__pycache__" in path.parts or (path.parent == temporary and out.parent != temporary)

    def is_expected(event: str, parts: list[str]) -> bool:
        if event == "ctypes.dlopen":
            return parts[0] == "None" or parts[0].endswith((".so", ".so.1", ".so.6"))
        if event in {"os.remove", "os.rmdir"} and parts[1] != "-1":
            return True  # within a folder that is open: `shutil.rmtree` has been asked about that
        if event in {"open", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree"}:
            return is_ours(parts[0]) or parts[0] == os.devnull or parts[0].isdigit()
        return event == "os.rename" and is_ours(parts[0]) and is_ours(parts[1])

    return [event for event in events if not is_expected(event[0], event[1:])]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "flows" else pytest.mark.slow) for kind in CASES]
)
def test_a_run_writes_its_folder_and_calls_nobody(tmp_path, kind):
    case = CASES[kind]
    folder = tmp_path / "given"
    folder.mkdir()
    for name, content in case.files.items():
        (folder / name).write_text(content)
    (folder / "s.yaml").write_text(
        'name: "../../evil/$(touch x)"\ncluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree}}\n'
        f"model: {case.model}\ncosts: ideal\nworkload: {case.workload}\n"
    )
    before = sorted(folder.rglob("*"))
    out = tmp_path / "out"
    events, said = watched(tmp_path / "log", "run", folder / "s.yaml", "--out", out, "--json")
    assert said.startswith("exit 0"), said
    assert ["open", str(out)] != events
    assert any(event[0] == "open" and str(out) in event[1] for event in events)  # the hook does see writing
    assert unexpected(events, out) == []
    assert sorted(folder.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "log", "out"]


EVIL = {
    "a tag that would call": "seed: !!python/object/apply:os.system ['touch {mark}']\n",
    "a tag that would import": "seed: !!python/name:os.system\n",
    "a module for a workload": "workload: {{kind: os.system}}\n",
    "a template": "model: '{{{{ cycler.__init__.__globals__.os.system(\"touch {mark}\") }}}}'\n",
    "a shell word": "model: '$(touch {mark})'\n",
    "an address for a model": "model: http://127.0.0.1:9/config.json\n",
    "an address for costs": "costs: http://127.0.0.1:9/costs.json\n",
    "a file address": "model: file:///etc/passwd\n",
}


def test_what_looks_like_code_or_an_address_is_one_message(tmp_path):
    mark = tmp_path / "mark"
    places = []
    for number, case in enumerate(EVIL.values()):
        line = case.format(mark=mark)
        field = line.partition(":")[0]
        lines = {
            "seed": "seed: 1\n",
            "model": "model: null\n",
            "costs": "costs: ideal\n",
            "workload": "workload: {kind: collective, operation: all-to-all, size: 1 MB}\n",
        } | {field: line}
        text = "name: s\ncluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree}}\n"
        text += "".join(lines.values())
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        places.append(f"{path}:{text[: text.index(line)].count(chr(10)) + 1}: {field}")
    events, said = watched(tmp_path / "log", "check", *sorted(tmp_path.glob("*.yaml")))
    assert said.startswith("exit 2: "), said
    messages = said.removeprefix("exit 2: ").splitlines()
    assert len(messages) == len(EVIL)
    for place, message in zip(places, messages, strict=True):
        assert message.startswith(place)
    assert unexpected(events, tmp_path / "out") == []
    assert not mark.exists()


def test_the_hook_sees_what_it_must(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nimport support.watched_run as watched\nimport simulator.cli\n"
        "def evil():\n"
        "    import os, pickle, socket, subprocess\n"
        "    open('elsewhere', 'w').close()\n"
        "    subprocess.run(['true'])\n"
        "    with socket.socket() as s:\n"
        "        s.connect_ex(('127.0.0.1', 9))\n"
        "    os.rename('elsewhere', 'moved')\n"
        "    pickle.loads(pickle.dumps(os.getcwd))\n"
        "simulator.cli.main = evil\nsys.argv = ['x', 'log']\nwatched.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    subprocess.run([sys.executable, str(script)], env=environment, cwd=tmp_path, check=True)
    seen = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    events = {event[0] for event in unexpected(seen, tmp_path / "out")}
    assert {"open", "subprocess.Popen", "socket.connect", "os.rename", "pickle.find_class"} <= events
