"""`railplane compare`: several results side by side, and where and why they differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.options import AsJson, Overrides, progress_bar, writing
from simulator.input_error import InputError

if TYPE_CHECKING:
    from simulator.comparison import Comparison


def compare(
    scenarios: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCENARIO-OR-DIR...", help="Scenario files, or folders that `railplane run --out` wrote."
        ),
    ],
    *,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write tables and plots there.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Scenarios at a time; by default as many as there are cores."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare scenarios or saved results: where they differ from the first, and why."""
    from simulator.comparison import compare as compare_results
    from simulator.comparison.sides import RunKilled

    if out is not None and out.exists() and not out.is_dir():
        raise InputError(str(out), None, None, "--out names a file; give a folder, which is made if need be")
    try:
        with progress_bar() as progress:
            comparison = compare_results(scenarios, overrides or [], jobs=jobs, progress=progress)
    except RunKilled as error:
        typer.echo(f"Stopped, since {error}", err=True)
        raise typer.Exit(1) from None
    if out is not None:
        _save(comparison, out)
    if as_json:
        typer.echo(comparison.to_json())
    else:
        from rich.console import Console

        from simulator.report.comparison import print_comparison

        print_comparison(comparison, Console())
    if out is not None:
        typer.echo(f"Wrote {out}", err=True)


def _save(comparison: "Comparison", out: Path) -> None:
    """Write everything that `--out` holds."""
    from simulator.plots import save_figure
    from simulator.plots.comparison import draw_comparison

    with writing(out):
        comparison.save(out)
        figure = draw_comparison(comparison)
        for suffix in (".png", ".svg"):
            save_figure(figure, out / f"comparison{suffix}")
