import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from simulator import whole_folder
from simulator.whole_folder import LIST, FolderRefused, WholeFolder, finish, read_list, read_whole
from support.file_steps import ended, operations
from support.sweep_folders import contents

OLD = {"a.txt": b"old a", "b.txt": b"old b", "gone/deep/c.txt": b"old c"}
NEW = {"a.txt": b"new a", "d.txt": b"new d" * 1000, "deep/e.txt": b"new e"}
REASONS = {"full": {"No space left on device", "done"}, "interrupted": {"interrupted"}}
OTHERS = {"notes.md": b"mine", "gone/mine.txt": b"mine too"}


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no disk: no machine loses its power here."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def save(folder: Path, files: dict[str, bytes], kind: str = "run", unlisted: tuple[str, ...] = ()) -> None:
    with WholeFolder(folder, kind, unlisted).replaced() as new:
        put(new, files)


def held(folder: Path) -> dict[str, bytes]:
    """Return what a folder holds, as its readers see it, but for the list."""
    finish(folder)
    return visible(folder)


def visible(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder, but for the list and what is being written."""
    return {
        name: content
        for name, content in contents(folder).items()
        if name != LIST and not name.startswith(".railplane/")
    }


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with an earlier result, and files of others."""
    folder = tmp_path / "old"
    put(folder, OTHERS)
    save(folder, OLD)
    return folder


def test_a_new_result_replaces_an_earlier_one_and_no_file_of_others(old: Path):
    assert held(old) == OLD | OTHERS
    save(old, NEW)
    assert held(old) == NEW | OTHERS
    assert not (old / "gone/deep").exists()
    listed = read_list(old)
    assert listed is not None
    assert listed.kind == "run"
    assert {name: entry["size_bytes"] for name, entry in listed.files.items()} == {
        name: len(content) for name, content in NEW.items()
    }
    assert contents(old).keys() - held(old).keys() == {LIST, ".railplane/lock"}


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("ending", "every"),
    [
        ("killed", 2),
        ("full", 2),
        ("interrupted", 3),
        pytest.param("killed", 1, marks=pytest.mark.slow),
        pytest.param("full", 1, marks=pytest.mark.slow),
        pytest.param("interrupted", 1, marks=pytest.mark.slow),
    ],
)
def test_a_folder_is_old_or_new_whatever_ends_the_writing(old: Path, tmp_path: Path, ending, every):
    folder = tmp_path / "out"

    def write() -> str:
        target = WholeFolder(folder, "run")
        try:
            target.prepare()
            with target.replaced() as new:
                put(new, NEW)
        except OSError as error:
            return json.dumps([target.is_new, target.is_placed, error.strerror, error.filename])
        except KeyboardInterrupt:
            return json.dumps([target.is_new, target.is_placed, "interrupted", str(folder)])
        return json.dumps([target.is_new, target.is_placed, "done", str(folder)])

    shutil.copytree(old, folder)
    count = operations(folder, write)
    seen = set()
    for fatal in range(1, count + 1, every):
        shutil.rmtree(folder)
        shutil.copytree(old, folder)
        said = ended(folder, write, ending, fatal)
        if said is not None:
            is_new, is_placed, reason, name = json.loads(said)
            assert reason in REASONS[ending]
            assert Path(name).is_relative_to(folder)
            assert "/new/files/" not in name  # it is called as the user will find it
            if is_placed or not is_new:  # nobody has to complete anything: what was said is what lies there
                assert visible(folder) == (NEW if is_placed else OLD) | OTHERS, fatal
        found = read_whole(folder, [], lambda: held(folder))
        assert found in (OLD | OTHERS, NEW | OTHERS), fatal
        if said is not None:
            assert (found == NEW | OTHERS) == is_new, fatal
        seen.add(found == NEW | OTHERS)
        save(folder, NEW)  # and the next writer finds nothing in its way
        assert held(folder) == NEW | OTHERS
        assert [path.name for path in (folder / ".railplane").iterdir()] == ["lock"]
    assert seen == {True, False}


def test_what_a_killed_process_left_half_in_place_is_completed_whatever_kills_that(old: Path, tmp_path: Path):
    def write() -> str:
        save(old, NEW)
        return ""

    pristine, half = tmp_path / "pristine", tmp_path / "half"
    shutil.copytree(old, pristine)
    count = operations(old, write)
    for fatal in range(
        count, 0, -1
    ):  # the last operation before which the result is decided and not in place
        shutil.rmtree(old)
        shutil.copytree(pristine, old)
        ended(old, write, "killed", fatal)
        if (old / ".railplane/ready").exists() and contents(old)["a.txt"] == b"old a":
            break
    shutil.copytree(old, half)
    steps = operations(old, lambda: finish(old))
    assert steps > len(NEW)
    for fatal in range(1, steps + 1):
        shutil.rmtree(old)
        shutil.copytree(half, old)
        assert ended(old, lambda: str(finish(old)), "killed", fatal) is None
        assert held(old) == NEW | OTHERS, fatal


def test_what_is_taken_by_something_else_is_refused_before_anything_changes(old: Path, tmp_path: Path):
    before = held(old)
    (old / "d.txt").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        save(old, NEW)
    assert caught.value.filename == str(old / "d.txt")
    (old / "d.txt").rmdir()
    with pytest.raises(NotADirectoryError) as caught:
        save(old, {"notes.md/x": b""})
    assert caught.value.filename == str(old / "notes.md/x")
    with pytest.raises(FolderRefused, match=r"notes\.md is there, and no file of an earlier result; move it"):
        save(old, {"notes.md": b""})
    with pytest.raises(FolderRefused, match="holds what `railplane run` wrote; give another folder"):
        save(old, NEW, kind="compare")
    outside = tmp_path / "outside"
    outside.mkdir()
    (old / "deep").symlink_to(outside)
    with pytest.raises(FolderRefused, match=r"'deep/e\.txt' does not lie within the folder"):
        save(old, NEW)
    (old / "deep").unlink()
    assert list(outside.iterdir()) == []
    assert held(old) == before


@pytest.mark.parametrize("name", ["../victim", "/etc/hostname", "x/../../victim", ""])
def test_a_list_that_names_files_elsewhere_is_refused(old: Path, name):
    victim = old.parent / "victim"
    victim.write_text("mine")
    listed = json.loads((old / LIST).read_text())
    listed["files"][name] = {"size_bytes": 4, "sha256": ""}
    (old / LIST).write_text(json.dumps(listed))
    for act in (lambda: save(old, NEW), lambda: read_whole(old, [], dict)):
        with pytest.raises(FolderRefused):
            act()
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"written_by": "run", "files": {"a.txt": 3}}', "\xff"])
def test_a_damaged_list_is_told(old: Path, text):
    (old / LIST).write_text(text, "latin-1")
    with pytest.raises(FolderRefused, match=r"files\.json is not as it was written"):
        read_whole(old, [], dict)


def test_folders_without_a_list_are_an_earlier_results_if_its_first_file_is_there(tmp_path: Path):
    unlisted = ("a.txt", "b.txt", "gone/deep/c.txt", "never.txt")
    put(tmp_path, OLD | OTHERS)
    with pytest.raises(FolderRefused, match=r"a\.txt is there"):
        save(tmp_path, NEW)
    save(tmp_path, NEW, unlisted=unlisted)
    assert held(tmp_path) == NEW | OTHERS
    save(tmp_path, OLD, unlisted=unlisted)  # from now on the list decides
    assert held(tmp_path) == OLD | OTHERS
    mine = tmp_path / "mine"
    put(mine, {"b.txt": b"of others"})
    save(mine, {"x.txt": b""}, unlisted=unlisted)
    assert held(mine) == {"b.txt": b"of others", "x.txt": b""}


def test_damage_is_told_by_the_name_of_the_file(old: Path):
    def read() -> bytes:
        return read_whole(old, OLD.keys(), (old / "a.txt").read_bytes)

    assert read() == b"old a"
    (old / "b.txt").write_bytes(b"OLD b")
    with pytest.raises(FolderRefused, match=r"b\.txt is not as it was written"):
        read()
    (old / "b.txt").unlink()
    with pytest.raises(FolderRefused, match=r"b\.txt is missing, which files\.json lists"):
        read()
    with pytest.raises(FolderRefused, match=r"does not list other\.txt"):
        read_whole(old, ["other.txt"], dict)


def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(old: Path):
    rounds = []

    def read() -> list[bytes]:
        first = (old / "a.txt").read_bytes()
        if not rounds:
            save(old, NEW)
        rounds.append(first)
        return [first, (old / "a.txt").read_bytes()]

    assert read_whole(old, ["a.txt"], read) == [b"new a", b"new a"]
    assert rounds == [b"old a", b"new a"]


def test_one_process_at_a_time_writes(old: Path, monkeypatch):
    monkeypatch.setattr(whole_folder, "_PATIENCE_S", 0.01)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with whole_folder._locked(old):
            os.write(writing, b"locked")
            signal.pause()  # until it is killed
        os._exit(0)
    assert os.read(reading, 6) == b"locked"
    with pytest.raises(FolderRefused, match="another process is writing to this folder"):
        save(old, NEW)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    save(old, NEW)  # what held the lock is gone, and so is the lock
    assert held(old) == NEW | OTHERS


def test_prepare_finds_what_cannot_be_written_and_leaves_nothing(tmp_path: Path, monkeypatch):
    target = WholeFolder(tmp_path / "a/b/c", "run")
    target.prepare()
    assert (tmp_path / "a/b/c").is_dir()
    assert not target.held_one
    target.discard()
    assert list(tmp_path.iterdir()) == []

    def full(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", full)
    target = WholeFolder(tmp_path / "a", "run")
    with pytest.raises(OSError, match="Read-only file system") as caught:
        target.prepare()
    assert caught.value.filename == str(tmp_path / "a")
    target.discard()
    assert list(tmp_path.iterdir()) == []
