"""`railplane sweep`: a grid over fields of a scenario, in parallel, that can be stopped and gone on with."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from simulator.cli.options import AnyPath, AnySize, AsJson, Overrides, folder_option
from simulator.cli.stopping import raise_if_stopped, stoppable

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

_MOST_METRICS: Final = 2  # beside the step time; all are in the files and in --json
_MOST_CHARACTERS: Final = 300  # of an error
_LEAST_WIDTH: Final = 14  # of the columns that hold text, where the terminal is too narrow for all
_HEAD_CHARACTERS: Final = 12  # of a column's name on one line, if its parts let it


def sweep(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file.")],
    *,
    over: Annotated[
        list[str],
        typer.Option(
            "--over",
            metavar="PATH=V1,V2,...",
            help="Sweep a field, such as workload.expert_parallel=16,32; repeated, all combinations run.",
        ),
    ],
    overrides: Overrides = None,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Points at a time; by default as many as there are cores.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run the points on the Dask cluster of this scheduler."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=folder_option, help="Keep each point there as it is done, and the table."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in --out.")] = False,
    any_path: AnyPath = False,
    any_size: AnySize = False,
    as_json: AsJson = False,
) -> None:
    """Simulate every point of a grid over fields of a scenario; a point that fails is a row with its message."""
    with _resumable(out):
        from simulator.sweeps import sweep
        from simulator.sweeps.grid import read_over

        swept = read_over(over)
        with _points_bar() as progress:
            table = sweep(
                scenario,
                swept,
                overrides=overrides or [],
                jobs=jobs,
                cluster=cluster,
                out=out,
                resume=resume,
                any_path=any_path,
                any_size=any_size,
                say=lambda text: typer.echo(text, err=True),
                progress=progress,
            )
        if as_json:
            _print_json(scenario, table)
        else:
            from rich.console import Console

            _print_table(table, list(swept), Console())
        if out is not None:
            typer.echo(f"Wrote {out}", err=True)
        _say_what_failed(table, is_kept=out is not None)


@contextmanager
def _resumable(out: Path | None) -> Iterator[None]:
    """Make Ctrl-C, SIGTERM and the loss of a cluster end the command with a word on what is kept."""
    kept = "nothing was kept; with --out DIR it could be resumed"
    if out is not None:
        kept = f"what is done is in {out}; the same command with --resume goes on"
    with stoppable(lambda: kept):
        from simulator.sweeps.points import SweepStopped

        try:
            yield
        except SweepStopped as error:
            typer.echo(f"Stopped, since {error}: {kept}", err=True)
            raise typer.Exit(1) from None


@contextmanager
def _points_bar() -> Iterator[Callable[[int, int], None]]:
    """Yield what to call with the points that are done and all; a bar with the time left if someone watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("Points"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("points", total=None)

        def show(done: int, all_points: int) -> None:
            raise_if_stopped()
            bar.update(task, completed=done, total=all_points)

        yield show


def _print_json(scenario: Path, table: "pd.DataFrame") -> None:
    import json

    from simulator import __version__
    from simulator.sweeps.table import json_rows

    printed = {"scenario": str(scenario), "version": __version__, "rows": json_rows(table)}
    typer.echo(json.dumps(printed, allow_nan=False))


def _print_table(table: "pd.DataFrame", swept: Sequence[str], console: "Console") -> None:
    """Print the swept fields, the step time and the metrics that tell the points apart; below it, what went wrong."""
    from rich.markup import escape

    from simulator.input_error import clipped
    from simulator.report.tables import plain_table, print_list
    from simulator.sweeps.table import metric_names

    names = metric_names(table)
    step = table["step_time_s"]
    telling = [name for name in names if table[name].nunique() > 1 and not table[name].equals(step)] or names
    shown = ["step_time_s", *telling[:_MOST_METRICS]]
    printed = plain_table("point", *map(_broken, [*swept, *shown]))
    for name, column in zip(swept, printed.columns[1:], strict=False):
        column.justify, column.no_wrap, column.overflow = "left", False, "fold"
        column.min_width = min(_LEAST_WIDTH, max(map(len, map(_cell, table[name]))))
    for row in table.to_dict("records"):
        cells = [_cell(row[name]) for name in swept]
        printed.add_row(str(row["point"]), *cells, *(_figure(row, name) for name in shown))
    console.print(printed)
    wrong = table[table["error"] != ""]
    if len(wrong):
        points_of = wrong.groupby("error", sort=False)["point"]
        lines = [
            f"{', '.join(map(str, points))}: {clipped(str(error), _MOST_CHARACTERS)}"
            for error, points in points_of
        ]
        print_list("Points without a result", [escape(line) for line in lines], console)


def _figure(row: Mapping[str, Any], name: str) -> str:
    """Return a step time or a metric as text; of a point without one, what became of the point."""
    from simulator.metric_texts import show_metric

    if isnan(row[name]):
        return row["outcome"] if name == "step_time_s" and row["error"] else "-"
    return show_metric(name, row[name])


def _broken(name: str) -> str:
    """Return a long name on several lines, so that columns are as narrow as what stands in them."""
    lines = [""]
    for part in re.findall(r"[._]?[^._]+", name):
        if lines[-1] and len(lines[-1] + part) > _HEAD_CHARACTERS:
            lines.append(part)
        else:
            lines[-1] += part
    return "\n".join(lines)


def _cell(value: Any) -> str:
    from rich.markup import escape

    return escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


def _say_what_failed(table: "pd.DataFrame", *, is_kept: bool) -> None:
    """Say how many points have no result; exit status 1 if any failed for another reason than its scenario."""
    refused, large, failed = (
        int((table["outcome"] == outcome).sum()) for outcome in ("refused", "too-large", "failed")
    )
    if refused:
        typer.echo(f"{refused} of {len(table)} points cannot run: see the column `error`", err=True)
    if large:
        again = ", and --resume tries them again where there is more" if is_kept else ""
        typer.echo(
            f"{large} of {len(table)} points would take more memory than there is: see the column `error`; "
            f"--any-size runs them all the same{again}",
            err=True,
        )
    if failed:
        again = "; --resume tries them again" if is_kept else ""
        typer.echo(f"{failed} of {len(table)} points failed: see the column `error`{again}", err=True)
        raise typer.Exit(1)
