"""`railplane run`: one scenario, its report, and the files that `--out` holds."""

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
        Path | None, typer.Option(metavar="DIR", help="Write tables, trace and plots there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a scenario: step time, where it went, and which links are busy."""
    from simulator.run import simulate
    from simulator.scenario import load_scenario

    loaded = load_scenario(scenario, overrides or [])
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(str(out), None, None, "--out names a file; give a folder, which is made if need be")
    with progress_bar() as progress:
        result = simulate(loaded, progress)
    if out is not None:
        _save(result, out)
    if as_json:
        typer.echo(result.to_json())
    else:
        from rich.console import Console

        from simulator.report import print_report

        print_report(result, Console())
    if out is not None:
        typer.echo(f"Wrote {out}", err=True)


def _save(result: "Result", out: Path) -> None:
    """Write everything that `--out` holds."""
    from simulator.drawing_schedule import draw_schedule
    from simulator.plots import draw_overview, save_figure
    from simulator.trace import chrome_trace

    try:
        result.save(out)
        (out / "trace.json").write_text(chrome_trace(result.tasks, result.phases), "utf-8")
        save_figure(draw_overview(result), out / "overview.png")
        if len(result.phases):
            summary = result.summary
            save_figure(
                draw_schedule(result.phases, summary["scenario"], summary["question"]), out / "schedule.png"
            )
    except OSError as error:
        raise InputError(str(out), None, None, f"cannot write there: {error.strerror}") from error
