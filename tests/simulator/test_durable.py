import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from simulator.durable import (
    check_writable,
    naming,
    probe_folder,
    remove_unfinished,
    signals_held,
    write_file,
)
from support.file_steps import ended, operations

PATTERN = ".railplane-*.tmp"


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no disk: no machine loses its power here."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.mark.parametrize("before", [b"old", None])
def test_a_file_is_old_or_new_whatever_ends_the_writing(tmp_path: Path, before):
    path = tmp_path / "table.json"

    def fresh() -> None:
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)
        remove_unfinished(tmp_path)

    def write() -> str:
        try:
            write_file(path, b"new " * 10_000)
        except OSError as error:
            return "full" if (error.errno, error.filename) == (errno.ENOSPC, str(path)) else str(error)
        except KeyboardInterrupt:
            return "interrupted"
        return "done"

    fresh()
    count = operations(tmp_path, write)
    assert count >= 4  # it is opened, synced and renamed, and so is its folder synced
    found = set()
    for ending in ("killed", "full", "interrupted"):
        for fatal in range(1, count + 1):
            fresh()
            said = ended(tmp_path, write, ending, fatal)
            now = path.read_bytes() if path.exists() else None
            assert now in {before, b"new " * 10_000}, (ending, fatal)
            assert said == (None if ending == "killed" else ending)
            if ending != "killed":  # whoever is alive cleans up
                assert list(tmp_path.glob(PATTERN)) == []
            found.add((ending, now == before))
    # both outcomes occur: the endings lie before and after the rename
    assert {("killed", True), ("killed", False), ("full", True), ("interrupted", True)} <= found


def test_where_a_link_stands_what_it_leads_to_is_written(tmp_path: Path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there/x.json", tmp_path / "x.json"
    target.write_bytes(b"old")
    link.symlink_to("there/x.json")
    write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    target.unlink()
    write_file(link, b"again")  # the link led nowhere
    assert target.read_bytes() == b"again"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "Is a directory"),
        ("pipe", "what is there is no file"),
        ("no/x.json", "No such file or directory"),
        ("file/x.json", "Not a directory"),
        ("y" * 300, "File name too long"),
    ],
)
def test_what_cannot_be_written_is_named_before_and_as_it_is_written(tmp_path: Path, name, reason):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    held = sorted(tmp_path.iterdir())
    for act in (check_writable, lambda path: write_file(path, b"new")):
        with pytest.raises(OSError, match=reason) as caught:
            act(tmp_path / name)
        assert caught.value.filename == str(tmp_path / name)
    assert sorted(tmp_path.iterdir()) == held


def test_a_file_with_a_name_as_long_as_may_be_can_be_written(tmp_path: Path):
    path = tmp_path / ("x" * 255)
    check_writable(path)
    write_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_file_that_its_owner_protects_stays(tmp_path: Path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_bytes(b"old")
    path.chmod(0o444)
    if os.access(path, os.W_OK):  # root may write to anything
        monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="Permission denied"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"


def test_only_what_is_unfinished_is_removed(tmp_path: Path):
    others = [tmp_path / name for name in (".railplane", "railplane-1.tmp", ".notes.tmp")]
    for path in (*others, tmp_path / ".railplane-0badcafe.tmp"):
        path.touch()
    remove_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    probe_folder(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_an_error_without_a_number_says_what_it_said():
    odd = OSError("odd")
    with pytest.raises(OSError, match=r"^odd$"), naming(Path("x")):
        raise odd


@pytest.fixture
def own_handlers():
    """Let a test set handlers of signals, whatever the process had."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in before:
        signal.signal(each, signal.default_int_handler)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.usefixtures("own_handlers")
def test_signals_wait_for_the_end_of_a_block_and_come_once():
    steps = []
    with pytest.raises(KeyboardInterrupt), signals_held():  # noqa: PT012 - the block is what is tested
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            signal.raise_signal(number)
            steps.append(number)
    assert len(steps) == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with signals_held():
        pass
    with pytest.raises(ZeroDivisionError), signals_held():
        1 / 0  # noqa: B018
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


@pytest.mark.usefixtures("own_handlers")
def test_in_other_threads_nothing_is_held():
    found = []

    def hold() -> None:
        with signals_held():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
