import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simulator import compiled
from simulator.compiled import digest_of_sources

CALLEE = """
from simulator.compiled import {decorator}

@{decorator}
def step(number):
    return number + {step}
"""
CALLER = """
from simulator.{callee} import step
from simulator.compiled import compiled

@compiled
def two_steps(number):
    return step(step(number))
"""
DECORATORS = ("compiled", "inlined", "called")
# Compiles two_steps for a number, and does not write the index of what is kept until another process is about to.
SAVER = """
import sys, time
from pathlib import Path
from numba.core.caching import IndexDataCacheFile
from simulator.caller import two_steps

mine, other, number = sys.argv[1:]

def meet(at, most_s):
    Path(mine + at).touch()
    end_s = time.monotonic() + most_s
    while not Path(other + at).exists() and time.monotonic() < end_s:
        time.sleep(0.01)

save_index = IndexDataCacheFile._save_index

def save_together(file, overloads):
    if "two_steps" in file._index_name:
        meet("-saves", 3)
    save_index(file, overloads)

IndexDataCacheFile._save_index = save_together
meet("-begins", 60)
two_steps(float(number) if "." in number else int(number))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package of the same name, with compiled.py, and a compiled function that calls another file's."""
    folder = tmp_path / "simulator"
    folder.mkdir()
    shutil.copy(compiled.__file__, folder / "compiled.py")
    (folder / "__init__.py").touch()
    write_callee(folder / "callee.py", step=1)
    (folder / "caller.py").write_text(CALLER.format(callee="callee"))
    return folder


def write_callee(path: Path, step: int, decorator: str = "compiled") -> None:
    """Write the function that is called."""
    path.write_text(CALLEE.format(decorator=decorator, step=step))


def started(package: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a new process that has the package."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    # Python's own cache goes by second and size: it would miss an edit of the same length within a second.
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(package.parent)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=package.parent, env=environment, stdout=subprocess.PIPE, text=True)


def printed(process: subprocess.Popen[str]) -> str:
    """Return what a process prints until its end."""
    text, _ = process.communicate()
    assert process.returncode == 0
    return text


def two_steps_from_ten(package: Path) -> list[int]:
    """Return what a new process computes with a callee of each decorator."""
    callers = ", ".join(f"of_{decorator}" for decorator in DECORATORS)
    code = f"from simulator import {callers}\nfor each in ({callers}):\n    print(each.two_steps(10))"
    return [int(line) for line in printed(started(package, code)).splitlines()]


def kept(package: Path) -> list[Path]:
    """Return the files of machine code that are kept for the callers."""
    return sorted((package / "__pycache__").glob("compiled-*/**/*.two_steps*.nbc"))


def test_an_edit_of_a_callee_is_seen_by_a_new_process(package: Path):
    for decorator in DECORATORS:
        write_callee(package / f"{decorator}_callee.py", 1, decorator)
        (package / f"of_{decorator}.py").write_text(CALLER.format(callee=f"{decorator}_callee"))
    # numba alone would look at the dates of the callers only, which stay what they are: 12 would come out again.
    assert two_steps_from_ten(package) == [12, 12, 12]
    before = kept(package)
    assert len(before) == 3
    for decorator, step in zip(DECORATORS, (5, 6, 7), strict=True):
        write_callee(package / f"{decorator}_callee.py", step, decorator)
    assert two_steps_from_ten(package) == [20, 22, 24]
    assert len(kept(package)) == 6
    # Back to the old sources, the old machine code serves: it is not compiled again, or its files would be newer.
    written_ns = [path.stat().st_mtime_ns for path in before]
    for decorator in DECORATORS:
        write_callee(package / f"{decorator}_callee.py", 1, decorator)
    assert two_steps_from_ten(package) == [12, 12, 12]
    assert len(kept(package)) == 6
    assert [path.stat().st_mtime_ns for path in before] == written_ns


def test_processes_that_save_at_once_keep_the_code_of_each(package: Path):
    # Each compiles another signature, and numba alone would give both the same file: one of them would be lost, or
    # worse, found in the place of the other.
    savers = [
        started(package, SAVER, str(package / mine), str(package / other), number)
        for mine, other, number in (("a", "b", "10"), ("b", "a", "10.5"))
    ]
    for saver in savers:
        printed(saver)
    assert len(kept(package)) == 2
    code = (
        "from simulator.caller import two_steps as f; print(f(10), f(10.5), sum(f.stats.cache_hits.values()))"
    )
    assert printed(started(package, code)) == "12 12.5 2\n"


def test_the_digest_is_that_of_all_sources_with_compiled_functions(package: Path, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "plain.py").write_text("number = 1\n")
    folders = [package, other]
    first = digest_of_sources(folders)
    assert digest_of_sources(folders) == first

    # What has no compiled functions is no part of it.
    (other / "plain.py").write_text("number = 2\n")
    (package / "__init__.py").write_text("number = 1\n")
    assert digest_of_sources(folders) == first

    # What has is, in every folder, by its text and by its name; and so is that there is one more.
    write_callee(package / "callee.py", 2)
    edited = digest_of_sources(folders)
    (package / "callee.py").rename(package / "renamed.py")
    renamed = digest_of_sources(folders)
    write_callee(other / "plain.py", 3)
    added = digest_of_sources(folders)
    assert len({first, edited, renamed, added}) == 4


def test_a_folder_that_is_missing_holds_no_sources(package: Path, tmp_path: Path):
    # `workloads` does not lie beside the copy of a package.
    assert digest_of_sources([package, tmp_path / "missing"]) == digest_of_sources([package])


@pytest.mark.parametrize("decorator", DECORATORS)
def test_every_decorator_marks_its_source(tmp_path: Path, decorator: str):
    none = digest_of_sources([tmp_path])
    write_callee(tmp_path / "callee.py", 1, decorator)
    assert digest_of_sources([tmp_path]) != none


def test_every_source_with_compiled_functions_is_part_of_the_digest():
    # A source says so by the import that the digest looks for, and lies in a folder where the digest looks: any other
    # would be left out, and an edit of it would not be seen.
    root = Path(compiled.__file__).parents[1]
    decorated = re.compile(rf"^\s*@({'|'.join(DECORATORS)})\b", re.MULTILINE)
    imported = re.compile(r"^from simulator\.compiled import \w", re.MULTILINE)
    marked = 0
    for folder in ("simulator", "workloads", "topologies"):
        for source in sorted((root / folder).rglob("*.py")):
            if source == Path(compiled.__file__):
                continue
            text = source.read_text()
            uses = decorated.search(text) is not None
            assert uses == (imported.search(text) is not None), source
            assert not uses or source.parent in {root / "simulator", root / "workloads"}, source
            marked += uses
    assert marked > 0
