"""What commands share: options, how they write files, and the bar that shows how far they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from simulator.input_error import InputError

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Set a field, such as cluster.nodes=16; may be repeated."
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]


def check_suffix(option: str, path: Path | None, suffixes: tuple[str, ...]) -> None:
    """Raise InputError unless the file that an option names has a suffix that tells the format."""
    if path is not None and path.suffix not in suffixes:
        message = f"{option} writes {' or '.join(suffixes)}; give the file such an ending"
        raise InputError(str(path), None, None, message)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong when a file is written into an InputError that names it."""
    try:
        yield
    except OSError as error:
        raise InputError(str(path), None, None, f"cannot write there: {error.strerror}") from error
    except ValueError as error:
        raise InputError(str(path), None, None, str(error)) from error


@contextmanager
def progress_bar() -> Iterator[Callable[[float], None]]:
    """Yield what to call with the share that is done; a bar on standard error shows it if someone watches."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Simulating", total=1.0)
        yield lambda share: bar.update(task, completed=share)
