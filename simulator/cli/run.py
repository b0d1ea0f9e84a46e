"""`railplane run`: one scenario, its report, and the files that `--out` holds."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.options import AsJson, Overrides, progress_bar
from simulator.input_error import InputError

if TYPE_CHECKING:
    from simulator.result import Result


def run(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file.")],
    *,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report, tables, trace and pictures there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a scenario: step time, where it went, and which links are busy."""
    from simulator.run import simulate
    from simulator.scenario import load_scenario

    loaded = load_scenario(scenario, overrides or [])
    if out is not None:
        _make_folder(out, scenario)
    with progress_bar() as progress:
        result = simulate(loaded, progress)
    if out is not None:
        _save(result, out)
    if as_json:
        typer.echo(result.to_json())
    else:
        from rich.console import Console

        from simulator.report.terminal import print_report

        print_report(result, Console())
    if out is not None:
        typer.echo(f"Wrote {out}", err=True)


def _make_folder(out: Path, scenario: Path) -> None:
    """Make the folder that `--out` names, before the run, which would be lost if it could not be written."""
    if (out / "scenario.yaml").resolve() == scenario.resolve():
        message = (
            "--out would write the scenario as resolved over the scenario's own file; give another folder"
        )
        raise InputError(str(out), None, None, message)
    if out.exists() and not out.is_dir():
        raise InputError(str(out), None, None, "--out names a file; give a folder, which is made if need be")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(str(out), None, None, f"--out cannot be made: {error.strerror}") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise InputError(str(out), None, None, "--out cannot be written; give a folder of your own")


def _save(result: "Result", out: Path) -> None:
    """Write everything that `--out` holds."""
    from simulator.plots import result_pictures, save_pictures
    from simulator.report.page import read_images, report_page
    from simulator.trace import chrome_trace

    try:
        result.save(out)
        (out / "trace.json").write_text(chrome_trace(result), "utf-8")
        pictures = result_pictures(result)
        save_pictures(pictures, out)
        (out / "report.html").write_text(report_page(result, read_images(pictures, out)), "utf-8")
    except OSError as error:
        place = str(error.filename or out)
        raise InputError(place, None, None, f"cannot write there: {error.strerror}") from error
