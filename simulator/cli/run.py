"""`railplane run`: one scenario, its report, and the files that `--out` holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.options import (
    AnyPath,
    AnySize,
    AsJson,
    Overrides,
    folder_option,
    kept_in,
    progress_bar,
    whole_output,
    writing,
)
from simulator.durable import write_file
from simulator.input_error import InputError

if TYPE_CHECKING:
    from simulator.result import Result
    from simulator.whole_folder import WholeFolder


def run(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file.")],
    *,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=folder_option, help="Write report, tables, trace and pictures there."
        ),
    ] = None,
    any_path: AnyPath = False,
    any_size: AnySize = False,
    as_json: AsJson = False,
) -> None:
    """Simulate a scenario: step time, where it went, and which links are busy."""
    with whole_output(out, "run", _unlisted) as target:
        from simulator.run import simulate
        from simulator.scenario import load_scenario

        loaded = load_scenario(scenario, overrides or [], any_path=any_path, any_size=any_size)
        if out is not None:
            _check_apart(out, scenario)
        with progress_bar() as progress:
            result = simulate(loaded, progress)
        if target is not None:
            _save(result, target)
        if as_json:
            typer.echo(result.to_json())
        else:
            from rich.console import Console

            from simulator.report.terminal import print_report

            print_report(result, Console())
        if out is not None:
            typer.echo(f"Wrote {out}", err=True)


def _check_apart(out: Path, scenario: Path) -> None:
    """Raise InputError if what is written would replace the scenario."""
    if (out / "scenario.yaml").resolve() == scenario.resolve():
        message = (
            "--out would write the scenario as resolved over the scenario's own file; give another folder"
        )
        raise InputError(str(out), None, None, message)


def _unlisted() -> tuple[str, ...]:
    """Return the names of files that a folder may hold of a run by a version which did not list them."""
    from simulator.plots import PICTURE_NAMES
    from simulator.result import RESULT_FILES

    pictures = (f"{name}.{suffix}" for name in PICTURE_NAMES for suffix in ("png", "svg"))
    return (*RESULT_FILES, "trace.json", "report.html", *pictures)


def _save(result: "Result", target: "WholeFolder") -> None:
    """Write everything that `--out` holds."""
    from simulator.plots import result_pictures, save_pictures
    from simulator.report.page import read_images, report_page
    from simulator.trace import chrome_trace

    with writing(target.folder, lambda: kept_in(target)), target.replaced() as new:
        result.write(new)
        write_file(new / "trace.json", chrome_trace(result).encode())
        pictures = result_pictures(result)
        save_pictures(pictures, new)
        write_file(new / "report.html", report_page(result, read_images(pictures, new)).encode())
