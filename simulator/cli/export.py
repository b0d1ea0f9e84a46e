"""`railplane export`: a scenario as text that another simulator reads."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from simulator.cli.options import Overrides, progress_bar
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
    out: Annotated[Path, typer.Option(metavar="DIR", help="Write the text, and what it lacks, there.")],
    overrides: Overrides = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Something that the format cannot say and may lose; may be repeated."
        ),
    ] = None,
) -> None:
    """Write a scenario as GOAL, or as the topology and flows of the HPCC simulator; refuse what they cannot say."""
    from simulator.interchange import ACCEPTANCES, Case, NotSayableError, write_goal, write_hpcc
    from simulator.messages import did_you_mean
    from simulator.routing import NoPathError
    from simulator.scenario import load_scenario

    for name in accept or []:
        if name not in ACCEPTANCES:
            raise InputError(
                "--accept", None, None, f"unknown name {name!r}; {did_you_mean(name, ACCEPTANCES)}"
            )
    if out.exists() and not out.is_dir():
        raise InputError(str(out), None, None, "--out names a file; give a folder, which is made if need be")
    case = Case.of(load_scenario(scenario, overrides or []))
    try:
        if form is Format.GOAL:
            write_goal(case, out, accept or [])
        else:
            with progress_bar() as progress:
                write_hpcc(case, out, accept or [], progress)
    except NotSayableError as error:
        raise InputError(str(scenario), None, None, str(error)) from error
    except NoPathError as error:
        raise InputError(str(scenario), None, "cluster.topology", str(error)) from error
    except OSError as error:
        raise InputError(str(out), None, None, f"cannot write there: {error.strerror}") from error
    typer.echo(f"Wrote {out}", err=True)
