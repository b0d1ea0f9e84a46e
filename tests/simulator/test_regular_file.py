import os
import socket

import pytest

from simulator.regular_file import NotTextError, decoded, open_regular, read_regular, why


def test_a_regular_file_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "f").write_bytes(b"12345")
    assert read_regular(tmp_path / "f", 5) == b"12345"
    with pytest.raises(ValueError, match="larger than 4 bytes"):
        read_regular(tmp_path / "f", 4)


def test_what_is_no_regular_file_is_never_read(tmp_path):
    # To read the pipe would wait for a writer, and to read the device would not end.
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path, "a directory"), (tmp_path / "pipe", "a pipe"), ("/dev/zero", "a device")):
        with (
            pytest.raises(ValueError, match=f"this is {words}; give the path of a regular file"),
            open_regular(path),
        ):
            pass


def test_what_cannot_be_opened_is_said_in_words(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name, words in (
            ("missing", "there is no such file; give the path of a thing"),
            ("loop", "this file cannot be read: Too many levels of symbolic links"),
            ("socket", "this file cannot be read: No such device or address"),
            ("x" * 300, "this file cannot be read: File name too long"),
            ("a\0b", "no file can have such a name; give another"),
        ):
            with pytest.raises((OSError, ValueError)) as caught:
                read_regular(tmp_path / name, 9)
            assert why(caught.value, "a thing") == words


def test_text_is_utf8_with_or_without_a_byte_order_mark():
    assert decoded("né".encode()) == decoded("né".encode("utf-8-sig")) == "né"


@pytest.mark.parametrize(
    ("raw", "line", "words"),
    [
        (b"a\nb\xe9", 2, "byte 0xe9"),
        (b"\xef\xbb\xbfa\nb\xe9", 2, "byte 0xe9"),
        (b"\xed\xa0\x80", 1, "byte 0xed"),
        ("a".encode("utf-16"), None, "UTF-16"),
        (b"a\0", None, "UTF-16 or not text"),
    ],
)
def test_what_is_no_text_is_named_with_its_line(raw, line, words):
    with pytest.raises(NotTextError, match=words) as caught:
        decoded(raw)
    assert caught.value.line == line
