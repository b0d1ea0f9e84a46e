"""The command line: a file for each command. They import what they need when they run, so that `--help` is quick.

Exit status: 0 done, 2 the input is wrong (one message on standard error), 1 railplane is wrong.
"""

import os
import sys
from typing import Annotated

import typer

from simulator import __version__
from simulator.cli.calibrate import calibrate
from simulator.cli.compare import compare
from simulator.cli.export import export
from simulator.cli.model import model
from simulator.cli.run import run
from simulator.cli.scenario_files import check, schema
from simulator.cli.sweep import sweep
from simulator.cli.topology import topology
from simulator.input_error import InputError

__all__ = ["app", "main"]

app = typer.Typer(
    name="railplane",
    help="How long does a step take on this cluster, and which links are busy?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# in the order of `--help`
_COMMANDS = (run, compare, sweep, export, topology, model, check, schema, calibrate)
for _command in _COMMANDS:
    app.command()(_command)


@app.callback(invoke_without_command=True)
def _root(*, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"railplane {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    try:
        app()
    except InputError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    except BrokenPipeError:
        # Whoever read our output has stopped; keep the interpreter from failing again as it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
