"""The command line. Commands import what they need when they run, so that `--help` is quick.

Exit status: 0 done, 2 the input is wrong (one message on standard error), 1 railplane is wrong.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator import __version__
from simulator.input_error import InputError

if TYPE_CHECKING:
    from simulator.result import Result

app = typer.Typer(
    name="railplane",
    help="How long does a step take on this cluster, and which links are busy?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Set a field, such as cluster.nodes=16; may be repeated."
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]


@app.callback(invoke_without_command=True)
def _root(*, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"railplane {__version__}")
        raise typer.Exit


@app.command()
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
    with _progress_bar() as progress:
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


@app.command()
def topology(
    scenario: Annotated[
        Path,
        typer.Argument(metavar="SCENARIO-OR-SPEC", help="A scenario, or a file of only name and cluster."),
    ],
    *,
    overrides: Overrides = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the network: .png or .svg.")] = None,
    graphml: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the cluster's graph: .graphml or .json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count a network's parts, what they cost, its diameter and its bisection; draw it, or write its graph."""
    import json

    from simulator.scenario import load_network
    from simulator.survey import survey

    _check_suffix("--plot", plot, (".png", ".svg"))
    _check_suffix("--graphml", graphml, (".graphml", ".json"))
    loaded = load_network(scenario, overrides or [])
    found = survey(loaded)
    if graphml is not None:
        from simulator.survey import graph_to_write
        from topologies.graph_file import write_graph

        graph = graph_to_write(loaded, found.counts)
        with _writing(graphml):
            write_graph(graph, graphml)
    if plot is not None:
        from simulator.drawing import draw_network
        from simulator.plots import save_figure

        figure = draw_network(loaded, found)
        with _writing(plot):
            save_figure(figure, plot)
    if as_json:
        typer.echo(json.dumps(found.figures()))
    else:
        from rich.console import Console

        from simulator.report_topology import print_survey

        print_survey(found, Console())
    for path in (plot, graphml):
        if path is not None:
            typer.echo(f"Wrote {path}", err=True)


@app.command()
def check(
    scenarios: Annotated[list[Path], typer.Argument(metavar="SCENARIO...", help="Scenario files.")],
    *,
    overrides: Overrides = None,
) -> None:
    """Say whether scenarios can run, without running them."""
    from simulator.scenario import load_scenario

    wrong = False
    for path in scenarios:
        try:
            loaded = load_scenario(path, overrides or [])
        except InputError as error:
            typer.echo(str(error), err=True)
            wrong = True
        else:
            gpus = loaded.num_nodes * loaded.node.gpus
            typer.echo(f"{path}: {loaded.scenario.name}: good; {loaded.num_nodes} nodes, {gpus} GPUs")
    if wrong:
        raise typer.Exit(2)


@app.command()
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


@app.command()
def model(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="A catalogue name or a config.json.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Count a model's parameters, KV cache per token and training FLOPs per token, by part."""
    import json

    from workloads.flops import describe
    from workloads.models import load_model

    try:
        summary = describe(load_model(name, Path.cwd()))
    except ValueError as error:
        raise InputError(name, None, None, str(error)) from error
    if as_json:
        typer.echo(json.dumps(summary.metrics()))
    else:
        from rich.console import Console

        from simulator.report import print_model

        print_model(name, summary, Console())


@app.command()
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


def _check_suffix(option: str, path: Path | None, suffixes: tuple[str, ...]) -> None:
    """Raise InputError unless the file that an option names has a suffix that tells the format."""
    if path is not None and path.suffix not in suffixes:
        message = f"{option} writes {' or '.join(suffixes)}; give the file such an ending"
        raise InputError(str(path), None, None, message)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong when a file is written into an InputError that names it."""
    try:
        yield
    except OSError as error:
        raise InputError(str(path), None, None, f"cannot write there: {error.strerror}") from error
    except ValueError as error:
        raise InputError(str(path), None, None, str(error)) from error


@contextmanager
def _progress_bar() -> Iterator[Callable[[float], None]]:
    """Yield what to call with the share that is done; a bar on standard error shows it if someone watches."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Simulating", total=1.0)
        yield lambda share: bar.update(task, completed=share)


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


def main() -> None:
    """Run the command line."""
    try:
        app()
    except InputError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    except BrokenPipeError:
        # Whoever read our output has stopped; keep the interpreter from failing again as it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
