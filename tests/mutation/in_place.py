"""Put a mutant in the place of code that is already loaded, so that it is tested without loading everything anew.

Where a mutant differs inside of functions only, each function object gets the mutant's code, wherever the object has
been imported to. It must not have run yet: what it has returned stays as it was.
"""

import gc
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

from mutants import Mutant

Place = tuple[str, int]


def is_in_functions(mutant: Mutant) -> bool:
    """Return whether the module's own code, with that of its classes and of defaults, is the same."""
    whole = compile(mutant.path.read_text("utf-8"), mutant.path, "exec")
    return _outside(whole) == _outside(compile(mutant.code, mutant.path, "exec"))


def loaded_functions(paths: set[Path]) -> list[FunctionType]:
    """Return the function objects that have been made by modules."""
    gc.unfreeze()  # what is frozen is not listed
    functions = [each for each in gc.get_objects() if isinstance(each, FunctionType)]
    gc.freeze()
    return [each for each in functions if Path(each.__code__.co_filename) in paths]


def put(mutant: Mutant, functions: list[FunctionType]) -> None:
    """Give function objects the code of the mutant; raise LookupError if none is changed."""
    path = mutant.path.resolve()
    codes = dict(_functions(compile(mutant.code, path, "exec")))
    changed = 0
    for function in functions:
        if Path(function.__code__.co_filename) == path:
            code = codes[_place(function.__code__)]
            changed += code != function.__code__
            function.__code__ = code
    if not changed:
        msg = f"no loaded function differs: {mutant}"
        raise LookupError(msg)


def _place(code: CodeType) -> Place:
    return code.co_qualname, code.co_firstlineno


def _functions(code: CodeType) -> Iterator[tuple[Place, CodeType]]:
    """Yield the code of all functions, those of classes too."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield _place(inner), inner
            yield from _functions(inner)


def _is_class(code: CodeType) -> bool:
    return "__module__" in code.co_names and "__qualname__" in code.co_names


def _outside(code: CodeType) -> list[object]:
    """Return what a module or class does besides defining functions."""
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    constants = [repr(each) for each in code.co_consts if not isinstance(each, CodeType)]
    return [code.co_code, code.co_names, constants, [_outside(each) for each in inner if _is_class(each)]]
