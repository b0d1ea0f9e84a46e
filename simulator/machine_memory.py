"""How much memory a process may have: the machine's, or less where its control group or its own limits say so."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import psutil

_CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_LIMIT_FILES: Final = ("memory.max", "memory.limit_in_bytes")  # of version 2 and version 1
_V1_CONTROLLER: Final = "memory"


class MemoryLimit(NamedTuple):
    """The most bytes that a process may have, and what says so."""

    size_bytes: int
    reason: str


def least_limit(
    physical_bytes: int, control_group_bytes: int | None, address_space_bytes: int | None
) -> MemoryLimit:
    """Return the least of the limits; None where there is no such limit.

    address_space_bytes: what is left of it to memory that is in use, without what is only mapped
    """
    limits = [MemoryLimit(physical_bytes, "this machine has")]
    if control_group_bytes is not None:
        limits.append(MemoryLimit(control_group_bytes, "the control group of this process allows"))
    if address_space_bytes is not None:
        limits.append(MemoryLimit(address_space_bytes, "the limit on address space (ulimit -v) leaves"))
    return min(limits, key=lambda limit: limit.size_bytes)


def this_process() -> MemoryLimit:
    """Return the limit of this process."""
    return least_limit(
        psutil.virtual_memory().total,
        control_group_bytes(_CONTROL_GROUPS, _MEMBERSHIP),
        _address_space_bytes(),
    )


def control_group_bytes(groups: Path, membership: Path) -> int | None:
    """Return the least limit of a process's control group and of those that hold it, None if there is none.

    groups: where control groups are mounted; membership: the file that names the process's, a line for each
    hierarchy: number, controllers and path (https://docs.kernel.org/admin-guide/cgroup-v2.html)
    """
    found = [
        int(text)
        for folder in _folders(groups, membership)
        for name in _LIMIT_FILES
        if (text := _text(folder / name).strip()).isdecimal()
    ]
    return min(found, default=None)


def _folders(groups: Path, membership: Path) -> Iterator[Path]:
    """Yield the folders of a process's memory controllers, and of those that hold them, up to the mounts."""
    for line in _text(membership).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and _V1_CONTROLLER not in controllers.split(","):
            continue
        mount = groups / _V1_CONTROLLER if controllers else groups
        parts = [part for part in path.split("/") if part not in {"", ".."}]  # seen from within a container
        yield from (mount.joinpath(*parts[:length]) for length in range(len(parts) + 1))


def _text(path: Path) -> str:
    """Return what a file of the kernel says, nothing if there is none."""
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""


def _address_space_bytes() -> int | None:
    """Return what the limit on address space leaves; libraries map much that they never use."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    now = psutil.Process().memory_info()
    return max(0, limit - (now.vms - now.rss))
