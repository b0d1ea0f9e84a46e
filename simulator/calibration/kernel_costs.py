"""What the kernel costs of `h800-published` are fitted to, how far they miss it, and the fit itself.

`python -m simulator.calibration.kernel_costs` prints the published GEMM shapes, each beside what a table without it
predicts, the kernels and stages of the training trace beside what the table says of them, and its overlapped pair
beside one that is simulated: the tables of docs/kernels.md.
`--write FILE` writes them anew, `--fit FILE` fits the constants and writes them into a cost table.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from simulator.calibration import published_gemms as gemms
from simulator.calibration import training_stages as trained
from simulator.calibration import training_trace as trace
from simulator.calibration.fitting import rounded, stands_for
from simulator.calibration.table_file import write_table
from simulator.calibration.training_pair import pair_table
from simulator.costs import CostTable, load_cost_table
from simulator.kernel_times import KernelTimes, Listed, Shape
from simulator.reference import markdown_table, refresh

TABLE: Final = "h800-published"
_DIGITS: Final = 3  # of a fitted constant; the listed shapes hold to the published rates all the same


def gemm_table(shapes: Sequence[Shape]) -> str:
    """Return the published GEMM shapes, and by how much a table without each misses it, as Markdown."""
    missed = gemms.leave_one_out(shapes)
    table = load_cost_table(TABLE, Path())
    times = KernelTimes(table.kernels, {}, table.device, gemms.H800)
    head = ("groups", "rows of all", "columns", "depth", "published", "table", "time missed if left out")
    rows = []
    for shape, miss in zip(shapes, missed, strict=True):
        flops = shape.call.flops
        rates = (flops / shape.seconds_on(gemms.H800), flops / times.cost(shape.call).seconds)
        sizes = [f"{size:g}" for size in shape.call.sizes]
        rows.append((*sizes, *(f"{rate / 1e12:.0f} TFLOP/s" for rate in rates), f"{miss:+.1%}"))
    median, worst = np.median(np.abs(missed)), np.abs(missed).max()
    rows.append(("", "", "", "", "", "median, largest", f"{median:.1%}, {worst:.1%}"))
    return markdown_table(head, rows)


def trace_table(kernels: Sequence[trace.TraceKernel]) -> str:
    """Return the kernels of the training trace and by how much the table misses each, as Markdown."""
    table = load_cost_table(TABLE, Path())
    times = KernelTimes(table.kernels, table.beside_communication, table.device, gemms.H800)
    missed = trace.misses(times, kernels)
    head = ("layer", "stage", "kernel", "taken as", "published", "table", "missed by")
    rows = [
        (
            kernel.layer,
            kernel.stage,
            kernel.name,
            kernel.call.label,
            f"{kernel.seconds * 1e6:.0f} us",
            f"{kernel.seconds * (1 + miss) * 1e6:.0f} us",
            f"{miss:+.1%}",
        )
        for kernel, miss in zip(kernels, missed, strict=True)
    ]
    return markdown_table(head, rows)


def fitted(table: CostTable) -> CostTable:
    """Return the table with its fitted kernel costs and slowdowns anew, and the constants that stand for others."""
    shapes, kernels = gemms.published_shapes(), trace.trace_kernels()
    entry = rounded(gemms.fit(shapes))
    listed = Listed(how="published", source=gemms.SOURCE, shapes=tuple(map(_with_few_digits, shapes)))
    # Weight gradients add to an FP32 result, which no listed shape does.
    like = {name: stands_for(entry, f"as gemm-fp8: {gemms.SOURCE}") for name in _LIKE_FP8}
    entries = {"gemm-fp8": entry.model_copy(update={"listed": listed}), **like}
    entries |= {name: costs for name, costs in table.kernels.items() if name not in entries}
    table = table.model_copy(update={"kernels": entries})
    fits = trace.fit_slowdowns(table, kernels) | trained.fit_classes(table)
    values = {name: round(value, _DIGITS) for name, value in fits.items()}
    slowdowns = dict(table.beside_communication)
    for name, value in values.items():
        of_kind = [kernel for kernel in kernels if trace.slowdown_name(kernel.call) == name]
        times = trace.with_slowdowns(table, {name: value})
        worst = round(float(np.abs(trace.misses(times, of_kind)).max()), _DIGITS) if of_kind else None
        slowdowns[name] = trace.fitted_slowdown(value, worst)
    return table.model_copy(update={"beside_communication": slowdowns})


_LIKE_FP8: Final = ("weight-gradient-fp8", "gemm-bf16")


def _with_few_digits(shape: Shape) -> Shape:
    return shape.model_copy(update={"share": float(f"{shape.share:.6g}")})


def stage_table() -> str:
    """Return the trace's stages, and by how much a layer's list of kernels misses each, as Markdown."""
    table = load_cost_table(TABLE, Path())
    times = KernelTimes(table.kernels, table.beside_communication, table.device, gemms.H800)
    head = ("layer", "stage", "kernels", "published", "table", "missed by")
    rows = []
    for stage in trained.stages():
        seconds = sum(times.cost(call, trace.COMMUNICATION_SMS).seconds for call in stage.calls)
        rows.append(
            (
                stage.layer,
                stage.name,
                str(len(stage.calls)),
                f"{stage.busy_s * 1e6:.0f} us",
                f"{seconds * 1e6:.0f} us",
                f"{seconds / stage.busy_s - 1:+.1%}",
            )
        )
    return markdown_table(head, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m simulator.calibration.kernel_costs", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the tables into a document")
    parser.add_argument("--fit", type=Path, metavar="FILE", help="fit anew, into this file of the table")
    options = parser.parse_args(arguments)
    if options.fit:
        write_table(fitted(load_cost_table(TABLE, Path())), options.fit)
        return 0
    tables: dict[str, Callable[[], str]] = {
        "gemms": lambda: gemm_table(gemms.published_shapes()),
        "trace": lambda: trace_table(trace.trace_kernels()),
        "stages": stage_table,
        "pair": pair_table,
    }
    if options.write:
        refresh(options.write, tables)
    else:
        print("\n".join(table() for table in tables.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
