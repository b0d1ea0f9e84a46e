"""What commands share: options, how they write files, and the bar that shows how far they are."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.stopping import raise_if_stopped, stoppable
from simulator.input_error import InputError

if TYPE_CHECKING:
    from simulator.whole_folder import WholeFolder

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Set a field, such as cluster.nodes=16; may be repeated."
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]
AnyPath = Annotated[
    bool, typer.Option("--any-path", help="Let a scenario name files outside its own folder.")
]
AnySize = Annotated[
    bool,
    typer.Option("--any-size", help="Run what by its estimate takes more memory than there is all the same."),
]


def check_suffix(option: str, path: Path | None, suffixes: tuple[str, ...]) -> None:
    """Raise InputError unless the file that an option names has a suffix that tells the format."""
    if path is not None and path.suffix not in suffixes:
        message = f"{option} writes {' or '.join(suffixes)}; give the file such an ending"
        raise InputError(str(path), None, None, message)


def folder_option(text: str) -> Path:
    """Return the folder that `--out` names; an empty name, as of a variable that is not set, is none."""
    if not text.strip():
        message = "it is empty; give a folder, or . for the one that you are in"
        raise typer.BadParameter(message)
    return Path(text)


@contextmanager
def writing(path: Path, kept: Callable[[], str] = str) -> Iterator[None]:
    """Turn what goes wrong when a file is written into an InputError that names it, and says what is kept."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        said = "; ".join(part for part in (f"cannot write there: {error.strerror}", kept()) if part)
        raise InputError(str(error.filename or path), None, None, said) from error
    except ValueError as error:
        raise InputError(str(path), None, None, str(error)) from error


@contextmanager
def whole_output(
    out: Path | None, kind: str, unlisted: Callable[[], Collection[str]] = tuple
) -> Iterator["WholeFolder | None"]:
    """Yield the folder that `--out` names, ready to take a result, or None; say what it holds if stopped.

    kind, unlisted: as of `WholeFolder`. Raises InputError, before anything is run, if it cannot be written.
    """
    from simulator.whole_folder import WholeFolder

    if out is None:
        with stoppable(str):
            yield None
        return
    if out.exists() and not out.is_dir():
        raise InputError(str(out), None, None, "--out names a file; give a folder, which is made if need be")
    target = WholeFolder(out, kind, unlisted())
    with stoppable(lambda: kept_in(target)):
        try:
            with writing(out):
                target.prepare()
            yield target
        finally:
            if not target.is_new:
                target.discard()


def kept_in(target: "WholeFolder") -> str:
    """Say what a folder holds that was to take a new result."""
    if target.is_placed:
        return f"{target.folder} holds the new result"
    if target.is_new:
        return f"{target.folder} is half way to the new result; whoever reads or writes it next completes it"
    if target.held_one:
        return f"{target.folder} holds the earlier result, unchanged"
    return "nothing was written"


@contextmanager
def progress_bar() -> Iterator[Callable[[float], None]]:
    """Yield what to call with the share that is done; a bar on standard error shows it if someone watches."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Simulating", total=1.0)

        def show(share: float) -> None:
            raise_if_stopped()
            bar.update(task, completed=share)

        raise_if_stopped()
        yield show
