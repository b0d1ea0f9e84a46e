"""`railplane model`: what a model holds and costs, by part."""

from pathlib import Path
from typing import Annotated

import typer

from simulator.cli.options import AsJson
from simulator.input_error import InputError


def model(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="A catalogue name or a config.json.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Count a model's parameters, KV cache per token and training FLOPs per token, by part."""
    import json

    from workloads.flops import describe
    from workloads.models import load_model

    try:
        summary = describe(load_model(name, Path.cwd()))
    except ValueError as error:
        raise InputError(name, None, None, str(error)) from error
    if as_json:
        typer.echo(json.dumps(summary.metrics()))
    else:
        from rich.console import Console

        from simulator.report.terminal import print_model

        print_model(name, summary, Console())
