"""What a report says of a result, section by section; what the run has nothing of is left out."""

from collections.abc import Iterator
from typing import Any

from simulator.metric_texts import show_metric
from simulator.report.inference import limit_line, memory_by_part_table
from simulator.report.links import balance_table, busiest_table, kinds_table, wait_line
from simulator.report.nccl_tests import measured_table
from simulator.report.parts import Block, ReportList, ReportSentence, ReportTable, Section
from simulator.report.training import memory_table, pipeline_ranks_table
from simulator.result import Result
from simulator.units import show_quantity


def report_sections(result: Result) -> list[Section]:
    """Return the sections of a result's report in reading order, from breakdown to constants."""
    return [Section(key, title, tuple(blocks)) for key, title, *blocks in _sections(result)]


def _sections(result: Result) -> Iterator[tuple[Any, ...]]:
    """Yield the key, the title and the blocks of each section."""
    summary = result.summary
    yield "breakdown", "Where the step went", _breakdown_table(summary["breakdown_s"], result.step_time_s)
    yield "metrics", "Metrics", *_metrics(summary["metrics"])
    if summary.get("nccl_tests"):
        yield "nccl-tests", "Predicted and measured", measured_table(summary["nccl_tests"])
    if summary.get("pipeline_ranks"):
        yield "pipeline-ranks", "Pipeline ranks", pipeline_ranks_table(summary["pipeline_ranks"])
    if summary.get("memory"):
        by_rank = "pipeline_rank" in summary["memory"][0]
        table = memory_table if by_rank else memory_by_part_table
        yield "memory", "Memory", table(summary["memory"], summary["gpu_memory_bytes"])
    if summary.get("kernels"):
        basis = ReportList("What the step rests on", _basis_lines(summary["kernels"]))
        yield "kernels", "Kernels", _kernels_table(summary["kernels"]["by_kernel"]), basis
    if result.links["bytes"].any():
        yield "links", "Links", kinds_table(summary["links"]), busiest_table(result.links)
    if summary.get("waits"):
        title = "What the last rank waited for"
        yield "waits", title, ReportList(title, [wait_line(row) for row in summary["waits"]])
    if summary.get("balance"):
        yield "balance", "Balancing", balance_table(summary["balance"])
    if summary.get("faults"):
        yield "faults", "Faults", ReportList("Faults", [_fault_line(row) for row in summary["faults"]])
    provenance = summary["provenance"]
    yield "assumptions", "Assumptions", ReportList("Assumptions", provenance["assumptions"])
    if sources := provenance["cost_sources"]:
        lines = [f"{name}: {source}" for name, source in sources.items()]
        yield "constants", "Constants", ReportList("Constants", lines)


def _breakdown_table(breakdown_s: dict[str, float], step_time_s: float) -> ReportTable:
    shares = [seconds / step_time_s if step_time_s else 0.0 for seconds in breakdown_s.values()]
    rows = [
        (part, show_quantity(seconds, "time"), f"{share:.1%}")
        for (part, seconds), share in zip(breakdown_s.items(), shares, strict=True)
    ]
    return ReportTable("", ("Part", "time", "share"), rows, shares=tuple(shares))


def _metrics(metrics: dict[str, float]) -> Iterator[Block]:
    yield ReportTable(
        "", ("Metric", "value"), [(name, show_metric(name, value)) for name, value in metrics.items()]
    )
    if "limit_tpot_s" in metrics:
        yield ReportSentence(limit_line(metrics))


def _kernels_table(kernels: dict[str, dict[str, float]]) -> ReportTable:
    """Return what kernels took, by kind."""
    rows = [
        (
            name,
            f"{row['calls']:,}",
            show_quantity(row["seconds"], "time"),
            f"{row['step_share']:.1%}",
            show_quantity(row["flops_per_s"], "flop per second") if row["flops_per_s"] else "",
            show_quantity(row["bytes_per_s"], "bytes per second"),
        )
        for name, row in kernels.items()
    ]
    return ReportTable("Kernels", ("Kernel", "calls", "time", "of step", "arithmetic", "memory"), rows)


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


def _fault_line(row: dict[str, Any]) -> str:
    """Return a fault of the summary as text."""
    until = "on" if row["end_s"] is None else f"to {show_quantity(row['end_s'], 'time')}"
    unseen = "" if row["happened"] else "; the step did not see it"
    return f"From {show_quantity(row['begin_s'], 'time')} {until}: {row['fault']}{unseen}."
