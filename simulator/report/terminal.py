"""A result as a person likes to read it in a terminal: what was asked, the answer, and which links are busy."""

from rich.console import Console
from rich.markup import escape

from simulator.report.sections import report_sections
from simulator.report.tables import plain_table, print_block, print_list
from simulator.result import Result
from simulator.units import show_count, show_quantity
from workloads.flops import CONVENTIONS, ModelSummary


def print_report(result: Result, console: Console) -> None:
    """Print the scenario, step time, breakdown, metrics, utilisation by link kind and the busiest links."""
    summary = result.summary
    console.print(f"\n[bold]{escape(summary['scenario'])}[/bold]  {escape(summary['question'])}")
    bound_s = summary["bounds_s"]["busiest_link"]
    of_bound = f"; the busiest link alone needs {show_quantity(bound_s, 'time')}" if bound_s else ""
    console.print(
        f"\nStep time [bold green]{show_quantity(result.step_time_s, 'time')}[/bold green]{of_bound}\n"
    )
    for section in report_sections(result):
        for block in section.blocks:
            print_block(block, console)


def print_model(name: str, summary: ModelSummary, console: Console) -> None:
    """Print what a model holds and costs, by part."""
    console.print(
        f"\n[bold]{escape(name)}[/bold]  FLOPs to train a token in a sequence of {summary.sequence_length:,}\n"
    )
    table = plain_table("Part", "parameters", "activated", "KV per token", "FLOPs")
    for row in summary.rows():
        part, *counts = row.values()
        table.add_row(str(part), *_model_row(*map(int, counts)))
    table.add_section()
    table.add_row("total", *_model_row(*list(summary.metrics().values())[:4]), style="bold")
    console.print(table)
    if summary.mtp_parameters:
        console.print(
            f"Multi-token prediction adds {show_count(summary.mtp_parameters)} parameters, in no total.\n"
        )
    print_list("Conventions", CONVENTIONS, console)


def _model_row(parameters: int, activated: int, kv_cache_bytes: int, flops: int) -> tuple[str, ...]:
    """Return a part's counts as text."""
    cache = show_quantity(kv_cache_bytes, "bytes") if kv_cache_bytes else "0"
    return show_count(parameters), show_count(activated), cache, show_count(flops)
