"""A result as a person likes to read it in a terminal: what was asked, the answer, and which links are busy."""

import re
from typing import Any

from rich.console import Console
from rich.table import Table

from simulator.report_inference import memory_by_part_table
from simulator.report_tables import plain_table, print_list
from simulator.report_training import memory_table, pipeline_ranks_table
from simulator.result import Result
from simulator.units import show_count, show_quantity
from workloads.flops import CONVENTIONS, ModelSummary

_BUSIEST = 8
_BAR_CELLS = 24
_COUNTED_FROM = 1e4  # smaller ones keep four digits
# What metric names have in them, in this order, and the dimension in which their values are shown.
_DIMENSIONS = (
    (re.compile(r"bytes_per_s(_|$)"), "bytes per second"),
    (re.compile(r"flops_per_s(_|$)"), "flop per second"),
    (re.compile(r"_bytes(_per_gpu)?$"), "bytes"),
    (re.compile(r"_s$"), "time"),
)


def print_report(result: Result, console: Console) -> None:
    """Print the scenario, step time, breakdown, metrics, utilisation by link kind and the busiest links."""
    summary = result.summary
    console.print(f"\n[bold]{summary['scenario']}[/bold]  {summary['question']}")
    bound_s = summary["bounds_s"]["busiest_link"]
    of_bound = f"; the busiest link alone needs {show_quantity(bound_s, 'time')}" if bound_s else ""
    console.print(
        f"\nStep time [bold green]{show_quantity(result.step_time_s, 'time')}[/bold green]{of_bound}\n"
    )
    console.print(_breakdown_table(summary["breakdown_s"], result.step_time_s))
    console.print(_metrics_table(summary["metrics"]))
    if "limit_tpot_s" in summary["metrics"]:
        console.print(f"{_limit_line(summary['metrics'])}\n")
    if summary.get("pipeline_ranks"):
        console.print(pipeline_ranks_table(summary["pipeline_ranks"]))
    if summary.get("memory"):
        by_rank = "pipeline_rank" in summary["memory"][0]
        table = memory_table if by_rank else memory_by_part_table
        console.print(table(summary["memory"], summary["gpu_memory_bytes"]))
    if summary.get("kernels"):
        console.print(_kernels_table(summary["kernels"]["by_kernel"]))
        print_list("What the step rests on", _basis_lines(summary["kernels"]), console)
    if result.links["bytes"].any():
        console.print(_kinds_table(summary["links"]))
        console.print(_busiest_table(result))
    if summary.get("waits"):
        print_list("What the last rank waited for", [_wait_line(row) for row in summary["waits"]], console)
    if summary.get("balance"):
        console.print(_balance_table(summary["balance"]))
    if summary.get("faults"):
        print_list("Faults", [_fault_line(row) for row in summary["faults"]], console)
    print_list("Assumptions", summary["provenance"]["assumptions"], console)
    if sources := summary["provenance"]["cost_sources"]:
        print_list("Constants", [f"{name}: {source}" for name, source in sources.items()], console)


def _limit_line(metrics: dict[str, float]) -> str:
    """Return as text how far a decode step is from the idealised limit of its exchanges."""
    token, limit = metrics["tpot_s"], metrics["limit_tpot_s"]
    compared = f", {limit / token:.0%} of that" if token else ""
    return (
        f"A token takes {show_quantity(token, 'time')}; the idealised limit of its exchanges is "
        f"{show_quantity(limit, 'time')}{compared}."
    )


def _kernels_table(kernels: dict[str, dict[str, float]]) -> Table:
    """Return what kernels took, by kind."""
    table = plain_table("Kernel", "calls", "time", "of step", "arithmetic", "memory", title="Kernels")
    for name, row in kernels.items():
        table.add_row(
            name,
            f"{row['calls']:,}",
            show_quantity(row["seconds"], "time"),
            f"{row['step_share']:.1%}",
            show_quantity(row["flops_per_s"], "flop per second") if row["flops_per_s"] else "",
            show_quantity(row["bytes_per_s"], "bytes per second"),
        )
    return table


def _basis_lines(kernels: dict[str, dict[str, float]]) -> list[str]:
    """Return which shares of the step rest on which figures as text."""
    lines = []
    for key, text in (
        ("step_share_by_how", "by how figures were obtained"),
        ("step_share_by_basis", "by shape"),
    ):
        shares = ", ".join(f"{share:.1%} {name}" for name, share in kernels[key].items())
        lines.append(f"Kernels {text}: {shares}.")
    return lines


def _wait_line(row: dict[str, Any]) -> str:
    """Return what the last rank of a collective waited for as text."""
    line = f"{row['collective']}: {row['slowest_sender']} to {row['slowest_receiver']}"
    if row["slowest_link"] is not None:
        line += (
            f", held up most by {row['slowest_link']} ({row['slowest_link_kind']}), which is busy "
            f"{row['slowest_link_busy_fraction']:.0%} of the time"
        )
    return f"{line}; a rank waits {show_quantity(row['mean_wait_s'], 'time')} for the last on average."


def _balance_table(kinds: dict[str, dict[str, float]]) -> Table:
    """Return the loads of links before and after balancing."""
    table = plain_table(
        "Links", "fullest before", "after", "mean before", "after", title="Loads of links by balancing"
    )
    for kind, row in kinds.items():
        loads = ("max_bytes_before", "max_bytes_after", "mean_bytes_before", "mean_bytes_after")
        table.add_row(kind, *(show_quantity(row[load], "bytes") for load in loads))
    return table


def _fault_line(row: dict[str, Any]) -> str:
    """Return a fault of the summary as text."""
    until = "on" if row["end_s"] is None else f"to {show_quantity(row['end_s'], 'time')}"
    unseen = "" if row["happened"] else "; the step did not see it"
    return f"From {show_quantity(row['begin_s'], 'time')} {until}: {row['fault']}{unseen}."


def print_model(name: str, summary: ModelSummary, console: Console) -> None:
    """Print what a model holds and costs, by part."""
    console.print(
        f"\n[bold]{name}[/bold]  FLOPs to train a token in a sequence of {summary.sequence_length:,}\n"
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


def show_metric(name: str, value: float) -> str:
    """Return a metric's value as text, in the unit that its name says; shares of the peak in percent."""
    for pattern, dimension in _DIMENSIONS:
        if pattern.search(name):
            return show_quantity(value, dimension)
    if name.startswith("mfu_"):
        return f"{value:.1%}"
    if isinstance(value, int):
        return f"{value:,}"
    return show_count(value) if value >= _COUNTED_FROM else f"{value:.4g}"


def _breakdown_table(breakdown_s: dict[str, float], step_time_s: float) -> Table:
    table = plain_table("Part", "time", "share", "")
    table.columns[-1].justify = "left"
    for part, seconds in breakdown_s.items():
        share = seconds / step_time_s if step_time_s else 0.0
        table.add_row(part, show_quantity(seconds, "time"), f"{share:.1%}", "█" * round(share * _BAR_CELLS))
    return table


def _metrics_table(metrics: dict[str, float]) -> Table:
    table = plain_table("Metric", "value")
    for name, value in metrics.items():
        table.add_row(name, show_metric(name, value))
    return table


def _kinds_table(kinds: dict[str, dict[str, float]]) -> Table:
    table = plain_table(
        "Links", "count", "bytes", "mean use", "busiest", "of it saturated", title="Utilisation by link kind"
    )
    for kind, row in kinds.items():
        table.add_row(
            kind,
            f"{row['count']:,}",
            show_quantity(row["bytes"], "bytes"),
            f"{row['mean_utilisation']:.1%}",
            f"{row['peak_utilisation']:.1%}",
            f"{row['saturated_fraction']:.1%}",
        )
    return table


def _busiest_table(result: Result) -> Table:
    """Return the links that had the most to do, by the time that they need at their effective capacity."""
    table = plain_table("From", "to", "kind", "bytes", "use", "saturated", title="Busiest links")
    used = result.links[result.links["bytes"] > 0.0]
    busy_s = (used["bytes"] / used["effective_bytes_per_s"]).sort_values(ascending=False, kind="stable")
    for row in used.loc[busy_s.index[:_BUSIEST]].itertuples():
        table.add_row(
            row.source,
            row.target,
            row.kind,
            show_quantity(row.bytes, "bytes"),
            f"{row.utilisation:.1%}",
            f"{row.saturated_fraction:.1%}",
        )
    table.columns[1].justify = table.columns[2].justify = "left"
    return table
