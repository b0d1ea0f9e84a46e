"""The decorator of compiled functions: numba, with a cache that an edit of any compiled source makes stale.

Numba compiles a function together with those that it calls, but looks for its cached machine code by the date of
the calling file alone: after an edit of a function in another file, the old machine code would go on being used.
Here the cache lies in a folder named by a digest of all sources that hold compiled functions. Processes that run at
the same time share it: they read it freely, and write to it one at a time.
"""

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import IndexDataCacheFile

Function = TypeVar("Function", bound=Callable[..., object])

_CONFIG: Any = numba.config  # its fields are made as numba is imported
_PACKAGE = Path(__file__).parent
_MARK = b"simulator.compiled import"  # what a source says that has compiled functions


def digest_of_sources(folders: list[Path]) -> str:
    """Return a digest of the Python sources in these folders that hold compiled functions."""
    digest = blake2b(digest_size=10)
    for folder in folders:
        for source in sorted(folder.glob("*.py")):
            text = source.read_bytes()
            if _MARK in text:
                digest.update(source.name.encode() + text)
    return digest.hexdigest()


def _cache_folder() -> str:
    """Return where machine code is kept: NUMBA_CACHE_DIR, else the package's `__pycache__`, else the user's cache."""
    beside = _PACKAGE / "__pycache__"
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "railplane"
    if _CONFIG.CACHE_DIR:
        folder = Path(_CONFIG.CACHE_DIR)
    else:
        folder = beside if os.access(beside if beside.exists() else _PACKAGE, os.W_OK) else user
    digest = digest_of_sources([_PACKAGE, _PACKAGE.parent / "workloads"])
    return str(folder / f"compiled-{digest}-numba-{numba.__version__}")


_FOLDER = _cache_folder()


class _SharedCacheFile(IndexDataCacheFile):
    """A function's machine code on disk: a numbered file for each signature, and an index of them.

    Numba gives a new signature the first number that the index lacks. Two processes that do so at once take the same
    one, and whoever reads it later may run the code of another signature.
    """

    def save(self, key: Any, data: Any) -> None:
        """Keep the code of a signature, whatever other processes keep meanwhile."""
        from filelock import FileLock  # only those who compile wait for it

        with FileLock(Path(_FOLDER) / "lock"):
            super().save(key, data)


def compiled(function: Function) -> Function:
    """Return the function compiled on its first call, division by zero giving infinity as in NumPy.

    Compiled functions make no arrays: those are the caller's, so that machine code need not count references to
    them. Counting costs an atomic operation for each array at each call, several times what the functions do.
    """
    return _compiled(function, from_python=True, forceinline=True)


def inlined(function: Function) -> Function:
    """Return the function compiled as a part of each compiled function that calls it; Python cannot call it.

    Passing all that is known of dozens of arrays would take longer than most of these functions run; and to compile
    the way from Python into each would take longer than all the rest.
    """
    return _compiled(function, from_python=False, forceinline=True)


def called(function: Function) -> Function:
    """Return the function compiled once, for compiled functions to call: for what is long, or runs rarely."""
    return _compiled(function, from_python=False, forceinline=False)


def _compiled(function: Function, *, from_python: bool, forceinline: bool) -> Function:
    """Return the function compiled with its machine code kept in the folder of this version of the sources."""
    before = _CONFIG.CACHE_DIR
    _CONFIG.CACHE_DIR = _FOLDER  # read as the function is decorated; others' functions keep their folder
    try:
        njit: Any = numba.njit  # its published types lack the last three options
        made: Function = njit(
            cache=True,
            error_model="numpy",
            forceinline=forceinline,
            no_cpython_wrapper=not from_python,
            no_cfunc_wrapper=True,
            _nrt=False,
        )(function)
        if not _CONFIG.DISABLE_JIT:
            _share_cache(made)
        return made
    finally:
        _CONFIG.CACHE_DIR = before


def _share_cache(dispatcher: Any) -> None:
    """Let other processes keep machine code of the same function at the same time.

    The folder's name is the stamp too: what it holds is never out of date, so that no number is given away again.
    """
    cache = dispatcher._cache
    cache._cache_file = _SharedCacheFile(cache.cache_path, cache._impl.filename_base, Path(_FOLDER).name)
