"""The command line: a file for each command. They import what they need when they run, so that `--help` is quick.

Exit status: 0 done; 2 the input is wrong, or a file cannot be written; 1 railplane is wrong, or memory does not
suffice; 130 Ctrl-C; 143 SIGTERM. Whatever is not 0 comes with one message on standard error.
"""

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
from simulator.cli.stopping import stoppable, stopped_by_signals, tell_of_signal
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
    app.command()(stoppable(str)(_command))  # str: nothing is kept, but by those that say so themselves


@app.callback(invoke_without_command=True)
def _root(*, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"railplane {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    try:
        with stopped_by_signals():
            app()
    except InputError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit):
        tell_of_signal()
        raise
