"""`railplane topology`: what a network has, costs and looks like."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.options import AnyPath, AnySize, AsJson, Overrides, check_suffix, writing
from simulator.cli.stopping import stoppable
from simulator.durable import check_writable

if TYPE_CHECKING:
    from simulator.scenario import LoadedNetwork
    from simulator.survey import Survey


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
    any_path: AnyPath = False,
    any_size: AnySize = False,
    as_json: AsJson = False,
) -> None:
    """Count a network's parts, what they cost, its diameter and its bisection; draw it, or write its graph."""
    wrote: list[str] = []
    with stoppable(lambda: f"wrote {' and '.join(wrote)}" if wrote else "nothing was written"):
        check_suffix("--plot", plot, (".png", ".svg"))
        check_suffix("--graphml", graphml, (".graphml", ".json"))
        for path in (plot, graphml):
            if path is not None:
                with writing(path):
                    check_writable(path)
        from simulator.scenario import load_network
        from simulator.survey import survey

        loaded = load_network(scenario, overrides or [], any_path=any_path)
        found = survey(loaded)
        _write(loaded, found, graphml, plot, wrote, any_size=any_size)
        _print(found, as_json=as_json)
        for name in wrote:
            typer.echo(f"Wrote {name}", err=True)


def _write(
    loaded: "LoadedNetwork",
    found: "Survey",
    graphml: Path | None,
    plot: Path | None,
    wrote: list[str],
    *,
    any_size: bool,
) -> None:
    """Write the graph and the picture; wrote: the names of those that are done, to be filled."""
    if graphml is not None:
        from simulator.survey import graph_to_write
        from topologies.graph_file import write_graph

        graph = graph_to_write(loaded, found.counts, any_size=any_size)
        with writing(graphml):
            write_graph(graph, graphml)
        wrote.append(str(graphml))
    if plot is not None:
        from simulator.plots import save_figure
        from simulator.plots.topology import draw_network

        figure = draw_network(loaded, found)
        with writing(plot):
            save_figure(figure, plot)
        wrote.append(str(plot))


def _print(found: "Survey", *, as_json: bool) -> None:
    if as_json:
        import json

        typer.echo(json.dumps(found.figures()))
    else:
        from rich.console import Console

        from simulator.report.topology import print_survey

        print_survey(found, Console())
