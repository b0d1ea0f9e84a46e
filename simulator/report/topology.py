"""A network as a person likes to read it in a terminal: its counts, what it costs and what that rests on."""

from rich.console import Console

from simulator.report.tables import plain_table, print_list
from simulator.survey import Survey
from simulator.units import show_quantity


def print_survey(survey: Survey, console: Console) -> None:
    """Print the counts of a network, its cost by part, its diameter and bisection, and the assumptions."""
    counts, prices = survey.counts, survey.prices
    console.print(f"\n[bold]{survey.name}[/bold]  {survey.family}; {survey.num_nodes:,} nodes\n")
    if not survey.is_constructible:
        console.print("[bold red]Not constructible[/bold red]: figures are those of formulas\n")
    parts = plain_table("Part", "count", "each", "cost")
    for part, count, price_usd in (
        ("switches", counts.switches, prices.switch),
        ("links between switches", counts.links, prices.link),
        ("links to endpoints", counts.endpoint_links, prices.endpoint_link),
    ):
        parts.add_row(part, f"{count:,}", show_usd(price_usd), show_usd(count * price_usd))
    parts.add_section()
    per_endpoint = survey.figures()["cost_per_endpoint_usd"]
    parts.add_row(
        "endpoints", f"{counts.endpoints:,}", show_usd(per_endpoint), show_usd(survey.cost_usd), style="bold"
    )
    console.print(parts)
    figures = plain_table("Figure", "value", "")
    figures.columns[-1].justify = "left"
    figures.add_row("diameter", f"{survey.diameter.value:.0f} cables", survey.diameter.how)
    bisection = show_quantity(survey.bisection.value, "bytes per second")
    share = survey.figures()["bisection_fraction"]
    figures.add_row("bisection, one way", bisection, f"{survey.bisection.how}; {share:.1%} of full")
    console.print(figures)
    print_list("Assumptions", survey.assumptions, console)
    named: dict[str, list[str]] = {}
    for name, source in prices.sources.items():
        named.setdefault(source, []).append(name)
    print_list("Prices", [f"{', '.join(names)}: {source}" for source, names in named.items()], console)


def show_usd(value: float) -> str:
    """Return a rounded sum of money for people."""
    return show_quantity(value, "dollars")
