"""`railplane topology`: what a network has, costs and looks like."""

from pathlib import Path
from typing import Annotated

import typer

from simulator.cli.options import AsJson, Overrides, check_suffix, writing


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

    check_suffix("--plot", plot, (".png", ".svg"))
    check_suffix("--graphml", graphml, (".graphml", ".json"))
    loaded = load_network(scenario, overrides or [])
    found = survey(loaded)
    if graphml is not None:
        from simulator.survey import graph_to_write
        from topologies.graph_file import write_graph

        graph = graph_to_write(loaded, found.counts)
        with writing(graphml):
            write_graph(graph, graphml)
    if plot is not None:
        from simulator.plots import save_figure
        from simulator.plots.topology import draw_network

        figure = draw_network(loaded, found)
        with writing(plot):
            save_figure(figure, plot)
    if as_json:
        typer.echo(json.dumps(found.figures()))
    else:
        from rich.console import Console

        from simulator.report.topology import print_survey

        print_survey(found, Console())
    for path in (plot, graphml):
        if path is not None:
            typer.echo(f"Wrote {path}", err=True)
