"""Files that users name, opened and decoded so that none of them can hold up or fill the reader.

What is no regular file is never read: a pipe would be waited for, a device would not end.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_OTHER_KINDS = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a pipe"))


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file to read its bytes.

    Raises ValueError for what is none, or a name that no file can have, and OSError for what cannot be opened; both
    say it in words that may follow the file's name.
    """
    # without O_NONBLOCK to open a pipe would wait for a writer; of regular files it changes nothing
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = next((name for is_kind, name in _OTHER_KINDS if is_kind(mode)), "a device")
            msg = f"this is {kind}; give the path of a regular file"
            raise ValueError(msg)
        file = os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
    with file:
        yield file


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return what a regular file holds; raise FileTooLargeError for more, and else as `open_regular` does."""
    with open_regular(path) as file:
        # its size is looked at first, so that no large file is read in vain; it may grow meanwhile
        is_larger = os.fstat(file.fileno()).st_size > most_bytes
        raw = b"" if is_larger else file.read(most_bytes + 1)
    if is_larger or len(raw) > most_bytes:
        msg = f"this file is larger than {most_bytes:,} bytes"
        raise FileTooLargeError(msg)
    return raw


def why(error: OSError | ValueError, what: str) -> str:
    """Return what kept a file from being read, in words that may follow its name; what: such as `a YAML file`."""
    if isinstance(error, FileNotFoundError):
        return f"there is no such file; give the path of {what}"
    if isinstance(error, OSError):
        return f"this file cannot be read: {error.strerror or type(error).__name__}"
    # a character that no file's name can hold
    return "no file can have such a name; give another" if "embedded null" in str(error) else str(error)


class FileTooLargeError(ValueError):
    """A file holds more than its reader takes."""


class NotTextError(ValueError):
    """Bytes are no text in UTF-8; line: the first that is wrong, None where the whole is."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line


def decoded(raw: bytes) -> str:
    """Return text in UTF-8, with or without a byte order mark; raise NotTextError for anything else."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw:
        msg = "this is UTF-16 or not text at all; save it as text in UTF-8"
        raise NotTextError(None, msg)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # of a file with a byte order mark, places are counted behind it
        start = error.start + (3 if raw.startswith(b"\xef\xbb\xbf") else 0)
        msg = f"byte 0x{raw[start]:02x} is not UTF-8; save the file as UTF-8"
        raise NotTextError(raw.count(b"\n", 0, start) + 1, msg) from None
