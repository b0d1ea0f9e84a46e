"""The head of the page: the answer in a few sentences and figures, all of them from the summary."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from simulator.metric_texts import show_metric
from simulator.report.inference import limit_line
from simulator.result import Result
from simulator.units import show_quantity

_MOST_HEADLINES: Final = 3
# Metrics that answer a question by themselves, the most telling first, and what they are called.
_HEADLINES: Final = {
    "tpot_s": "Time per output token",
    "tokens_per_s_per_node": "Tokens per second of a node",
    "tokens_per_s_per_gpu": "Tokens per second of a GPU",
    "tokens_per_day": "Tokens a day",
    "mfu_causal": "MFU, causal attention",
    "mfu_non_causal": "MFU, non-causal attention",
    "busbw_bytes_per_s": "Bus bandwidth",
    "algbw_bytes_per_s": "Algorithm bandwidth",
    "dispatch_wire_bytes_per_s": "Dispatch of a GPU, on the wire",
    "combine_wire_bytes_per_s": "Combine of a GPU, on the wire",
    "mean_bytes_per_s": "Mean rate of all flows together",
    "kernel_flops_per_s": "Arithmetic of the kernels",
}


class KeyFigure(NamedTuple):
    """A figure that stands out; is_bad: says that the cluster cannot do what is asked."""

    label: str
    value: str
    note: str
    is_bad: bool = False


def answer_sentences(result: Result) -> list[str]:
    """Return the answer, and the bounds that it is to be compared with."""
    summary, step_s = result.summary, result.step_time_s
    sentences = [f"A step takes {show_quantity(step_s, 'time')}."]
    if bound_s := summary["bounds_s"]["busiest_link"]:
        of_step = f", {bound_s / step_s:.0%} of the step" if step_s else ""
        sentences.append(
            f"The busiest link alone needs {show_quantity(bound_s, 'time')} for its bytes{of_step}: with these "
            "routes no schedule could be faster than that."
        )
    if "limit_tpot_s" in summary["metrics"]:
        sentences.append(limit_line(summary["metrics"]))
    return sentences


def key_figures(result: Result) -> list[KeyFigure]:
    """Return the figures that answer the question, those that the run has nothing of left out."""
    return list(_key_figures(result))


def _key_figures(result: Result) -> Iterator[KeyFigure]:
    summary = result.summary
    bound_s = summary["bounds_s"]["busiest_link"]
    note = f"lower bound, by the busiest link: {show_quantity(bound_s, 'time')}" if bound_s else ""
    yield KeyFigure("Step time", show_quantity(result.step_time_s, "time"), note)
    metrics = summary["metrics"]
    named = [(name, label) for name, label in _HEADLINES.items() if name in metrics]
    for name, label in named[:_MOST_HEADLINES]:
        yield KeyFigure(label, show_metric(name, metrics[name]), "")
    parts = summary["breakdown_s"]
    if len(parts) > 1 and result.step_time_s:
        largest = max(parts, key=lambda part: parts[part])
        share = f"{parts[largest] / result.step_time_s:.0%}"
        yield KeyFigure(
            f"Largest part: {largest}", share, f"of the step, {show_quantity(parts[largest], 'time')}"
        )
    if kinds := {kind: row for kind, row in summary["links"].items() if row["bytes"]}:
        busiest = max(kinds, key=lambda kind: kinds[kind]["peak_utilisation"])
        yield _busiest_kind(busiest, kinds[busiest])
    if summary.get("memory"):
        yield _memory(summary["memory"], summary["gpu_memory_bytes"])


def _busiest_kind(kind: str, row: dict[str, float]) -> KeyFigure:
    note = f"in use at the busiest; {row['mean_utilisation']:.0%} on average"
    return KeyFigure(f"Busiest links: {kind}", f"{row['peak_utilisation']:.0%}", note)


def _memory(rows: list[dict[str, Any]], gpu_memory_bytes: float) -> KeyFigure:
    """Return what the fullest GPU needs; rows: `memory` of the summary."""
    if "pipeline_rank" in rows[0]:
        fullest = max(rows, key=lambda row: row["total_bytes"])
        needs, where = fullest["total_bytes"], f", pipeline rank {fullest['pipeline_rank']}"
    else:
        needs, where = sum(row["size_bytes"] for row in rows), ""
    note = (
        f"{needs / gpu_memory_bytes:.0%} of the {show_quantity(gpu_memory_bytes, 'bytes')} that it has{where}"
    )
    is_bad = needs > gpu_memory_bytes
    label = "Memory of a GPU: too little" if is_bad else "Memory of a GPU"
    return KeyFigure(label, show_quantity(needs, "bytes"), note, is_bad)
