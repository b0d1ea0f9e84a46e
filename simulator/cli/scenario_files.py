"""`railplane check` and `railplane schema`: is a scenario right, and what may stand in one?"""

from pathlib import Path
from typing import Annotated

import typer

from simulator.cli.options import AnyPath, AnySize, Overrides
from simulator.input_error import InputError


def check(
    scenarios: Annotated[list[Path], typer.Argument(metavar="SCENARIO...", help="Scenario files.")],
    *,
    overrides: Overrides = None,
    any_path: AnyPath = False,
    any_size: AnySize = False,
) -> None:
    """Say whether scenarios can run, without running them."""
    from simulator.scenario import load_scenario

    wrong = False
    for path in scenarios:
        try:
            loaded = load_scenario(path, overrides or [], any_path=any_path, any_size=any_size)
        except InputError as error:
            typer.echo(str(error), err=True)
            wrong = True
        else:
            gpus = loaded.num_nodes * loaded.node.gpus
            typer.echo(f"{path}: {loaded.scenario.name}: good; {loaded.num_nodes} nodes, {gpus} GPUs")
    if wrong:
        raise typer.Exit(2)


def schema(
    *,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print tables of the fields as Markdown instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of scenario files, for editors."""
    if markdown:
        from simulator.reference import field_reference

        typer.echo(field_reference(), nl=False)
        return
    import json

    from simulator.scenario import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
