"""The command line under Python's audit hooks: `python -m support.watched_run LOG ARGUMENT...`.

The log is a line of JSON for each event that could reach out of the process: a file opened to be written, removed,
moved or made, a socket, a program that is started, a pickle that names something (but those of numba's cache).
"""

import json
import os
import sys
from typing import TYPE_CHECKING

import numba

if TYPE_CHECKING:
    from types import FrameType

_NUMBA = os.path.dirname(numba.__file__) + os.sep  # noqa: PTH120
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_OTHERS = (
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "shutil.",
    "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib.", "http.", "ftplib.",
    "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "pty.", "pickle.find_class",
    "ctypes.dlopen",
)  # fmt: skip


def is_asked_by_numba() -> bool:
    """Return whether numba is under way, which keeps what it has compiled of the program as pickles."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(_NUMBA):
        frame = frame.f_back
    return frame is not None


def main() -> int:
    log, *arguments = sys.argv[1:]
    # what the program itself brings in comes first, so that what is left is done for the scenario's sake
    import simulator.cli
    import simulator.plots
    import simulator.report.page
    import simulator.report.terminal
    import simulator.run
    import simulator.trace

    with open(log, "w", encoding="utf-8") as stream:  # noqa: PTH123
        held = stream.fileno()

        def note(event: str, parts: tuple[object, ...]) -> None:
            if event == "open":
                flags = parts[2] if isinstance(parts[2], int) else 0
                if not flags & _WRITING or parts[0] == held:
                    return
            elif not event.startswith(_OTHERS) or (event == "pickle.find_class" and is_asked_by_numba()):
                return
            os.write(held, (json.dumps([event, *map(str, parts)]) + "\n").encode())

        sys.addaudithook(note)
        sys.argv = ["railplane", *arguments]
        try:
            simulator.cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


if __name__ == "__main__":
    code = main()
    os._exit(code)  # nothing that happens as the interpreter ends is the scenario's doing
