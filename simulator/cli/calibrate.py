"""`railplane calibrate`: measure a GPU, and write its cost table."""

from pathlib import Path
from typing import Annotated

import typer


def calibrate(
    *,
    out: Annotated[Path, typer.Option(metavar="TABLE.json", help="The cost table to write.")],
    device: Annotated[int, typer.Option(min=0, help="Number of the GPU to measure.")] = 0,
    samples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Measure nothing: take the samples.json of an earlier measurement."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Time but a few shapes of each kernel.")] = False,
    without_gemm: Annotated[
        bool, typer.Option("--without-gemm", help="Leave matrix products out, where cuBLASLt is not at hand.")
    ] = False,
) -> None:
    """Measure a GPU by verified reference kernels, and write the cost table that they make."""
    from simulator.calibration.calibrate import COMMAND, COMPARED_WITH, CalibrationFailed, calibrate

    def say(line: str) -> None:
        typer.echo(line, err=True)

    try:
        found = calibrate(
            out, device=device, samples=samples, quick=quick, with_gemm=not without_gemm, say=say
        )
    except CalibrationFailed as error:
        say(f"{COMMAND}: {error}")
        raise typer.Exit(1) from error
    typer.echo(f"Constants beside those of {COMPARED_WITH}:\n\n{found.compared}", nl=False)
    say(f"Wrote {out}")
    if found.wrong:
        say(f"Not timed, since their results were wrong: {', '.join(found.wrong)}")
        raise typer.Exit(1)
