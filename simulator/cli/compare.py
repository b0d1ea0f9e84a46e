"""`railplane compare`: several results side by side, and where and why they differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

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

if TYPE_CHECKING:
    from simulator.comparison import Comparison
    from simulator.whole_folder import WholeFolder

_SUFFIXES: Final = (".png", ".svg")  # of the picture


def compare(
    scenarios: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCENARIO-OR-DIR...", help="Scenario files, or folders that `railplane run --out` wrote."
        ),
    ],
    *,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=folder_option, help="Write tables and plots there."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Scenarios at a time; by default as many as there are cores."),
    ] = None,
    any_path: AnyPath = False,
    any_size: AnySize = False,
    as_json: AsJson = False,
) -> None:
    """Compare scenarios or saved results: where they differ from the first, and why."""
    with whole_output(out, "compare", _unlisted) as target:
        from simulator.comparison import compare as compare_results
        from simulator.comparison.sides import RunKilled

        try:
            with progress_bar() as progress:
                comparison = compare_results(
                    scenarios,
                    overrides or [],
                    jobs=jobs,
                    any_path=any_path,
                    any_size=any_size,
                    say=lambda text: typer.echo(text, err=True),
                    progress=progress,
                )
        except RunKilled as error:
            typer.echo(f"Stopped, since {error}", err=True)
            raise typer.Exit(1) from None
        if target is not None:
            _save(comparison, target)
        if as_json:
            typer.echo(comparison.to_json())
        else:
            from rich.console import Console

            from simulator.report.comparison import print_comparison

            print_comparison(comparison, Console())
        if out is not None:
            typer.echo(f"Wrote {out}", err=True)


def _unlisted() -> tuple[str, ...]:
    """Return the names of files that a folder may hold of a comparison by a version which did not list them."""
    from simulator.comparison import COMPARISON_FILES

    return (*COMPARISON_FILES, *(f"comparison{suffix}" for suffix in _SUFFIXES))


def _save(comparison: "Comparison", target: "WholeFolder") -> None:
    """Write everything that `--out` holds."""
    from simulator.plots import save_figure
    from simulator.plots.comparison import draw_comparison

    with writing(target.folder, lambda: kept_in(target)), target.replaced() as new:
        comparison.write(new)
        figure = draw_comparison(comparison)
        for suffix in _SUFFIXES:
            save_figure(figure, new / f"comparison{suffix}")
