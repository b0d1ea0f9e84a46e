"""`railplane export`: a scenario as text that another simulator reads."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from simulator.cli.options import (
    AnyPath,
    AnySize,
    Overrides,
    folder_option,
    kept_in,
    progress_bar,
    whole_output,
    writing,
)
from simulator.input_error import InputError


class Format(StrEnum):
    """What `--format` names."""

    GOAL = "goal"
    HPCC = "hpcc"


def export(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file.")],
    *,
    form: Annotated[
        Format,
        typer.Option(
            "--format", help="goal: for LogGOPSim and ATLAHS; hpcc: for the HPCC simulator on ns-3."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", parser=folder_option, help="Write the text, and what it lacks, there."),
    ],
    overrides: Overrides = None,
    any_path: AnyPath = False,
    any_size: AnySize = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Something that the format cannot say and may lose; may be repeated."
        ),
    ] = None,
) -> None:
    """Write a scenario as GOAL, or as the topology and flows of the HPCC simulator; refuse what they cannot say."""
    with whole_output(out, "export") as target:
        assert target is not None  # --out must be given
        from simulator.interchange import ACCEPTANCES, Case, NotSayableError, write_goal, write_hpcc
        from simulator.messages import did_you_mean
        from simulator.routing import NoPathError
        from simulator.scenario import load_scenario

        for name in accept or []:
            if name not in ACCEPTANCES:
                raise InputError(
                    "--accept", None, None, f"unknown name {name!r}; {did_you_mean(name, ACCEPTANCES)}"
                )
        loaded = load_scenario(scenario, overrides or [], any_path=any_path, any_size=any_size)
        case = Case.of(loaded)
        with writing(out, lambda: kept_in(target)):
            try:
                if form is Format.GOAL:
                    write_goal(case, target, accept or [])
                else:
                    with progress_bar() as progress:
                        write_hpcc(case, target, accept or [], progress)
            except NotSayableError as error:
                raise InputError(str(scenario), None, None, str(error)) from error
            except NoPathError as error:
                raise loaded.document.error(("cluster", "topology"), str(error)) from error
        typer.echo(f"Wrote {out}", err=True)
