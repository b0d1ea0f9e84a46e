"""The workload `nccl-tests`: the collectives of a measured table, played one size after the other beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar, Final, Literal, NamedTuple

import numpy as np
from pydantic import Field

from simulator.input_files import InputPath
from simulator.units import FieldError, Spec
from workloads.collectives import all_to_all_count, all_to_all_transfers, ring_count, ring_transfers
from workloads.nccl_table import NcclTable, Row, check_bus_factor, read_nccl_table
from workloads.size import TransferCount, WorkSize
from workloads.tasks import (
    Collective,
    CommunicationKernel,
    ComputeKernel,
    IntArray,
    Layout,
    Setting,
    Summary,
    TaskGraph,
    TaskTimes,
    Transfers,
    run_in_turn,
)

Operation = Literal["all-to-all", "all-gather", "reduce-scatter", "all-reduce", "send-receive"]


class _Kind(NamedTuple):
    """program: of nccl-tests; passes: times that a ring passes the buffer round, 0 where it runs in none."""

    program: str
    passes: int
    bus_factor: Callable[[int], float]  # of the number of ranks: busbw over algbw


# https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md; sendrecv.cu has a factor of 1
_KINDS: Final[dict[Operation, _Kind]] = {
    "all-to-all": _Kind("alltoall_perf", 0, lambda n: (n - 1) / n),
    "all-gather": _Kind("all_gather_perf", 1, lambda n: (n - 1) / n),
    "reduce-scatter": _Kind("reduce_scatter_perf", 1, lambda n: (n - 1) / n),
    "all-reduce": _Kind("all_reduce_perf", 2, lambda n: 2 * (n - 1) / n),
    "send-receive": _Kind("sendrecv_perf", 0, lambda _: 1.0),
}
_OPERATION_OF: Final = {kind.program: operation for operation, kind in _KINDS.items()}


class NcclTestsSpec(Spec):
    """The sizes of a table of nccl-tests, each as one collective over the first ranks."""

    needs_model: ClassVar[bool] = False

    kind: Literal["nccl-tests"] = Field(
        description="a table that nccl-tests printed, beside what is predicted"
    )
    path: InputPath = Field(
        description="the text that nccl-tests printed, relative to the scenario's folder: the line of `#` that names "
        "the columns and a row for each size, at most 1,000 (no default)",
    )
    operation: Operation | None = Field(
        default=None,
        description="what was measured: all-to-all, all-gather, reduce-scatter, all-reduce, or send-receive, in "
        "which each rank sends to the next; `null`: what the text says (`Collective test starting: ...`) "
        "(default null)",
    )
    ranks: int | None = Field(
        default=None,
        ge=2,
        le=2**20,
        description="how many GPUs took part, the first ones; `null`: as many as the text lists (`Rank 0 ...`) "
        "(default null)",
    )
    measured: Literal["out-of-place", "in-place"] = Field(
        default="out-of-place",
        description="which half of the table is compared: out-of-place or in-place (default out-of-place)",
    )

    def needed_ranks(self) -> int | None:
        """Return how many ranks there must be, None where only the file says."""
        return self.ranks

    def check(self, setting: Setting) -> None:
        """Raise FieldError where the file is missing or malformed, or does not fit the cluster."""
        self._read(setting)

    def communication_kernels(self, setting: Setting) -> tuple[CommunicationKernel, ...]:  # noqa: ARG002
        """Return no kernels: transfers cost nothing beside their links' time."""
        return ()

    def compute_kernels(self, setting: Setting) -> tuple[ComputeKernel, ...]:  # noqa: ARG002
        """Return no kernels: nothing is computed."""
        return ()

    def build(self, setting: Setting, layout: Layout, rng: np.random.Generator) -> "NcclTests":  # noqa: ARG002
        """Return the step, reading the file again; nothing is drawn from `rng`."""
        table, operation, num_ranks = self._read(setting)
        ranks = np.arange(num_ranks)
        collectives = tuple(
            Collective(operation, _transfers(operation, ranks, layout, row.size_bytes)) for row in table.rows
        )
        return NcclTests(
            graph=run_in_turn(collectives, ranks.tolist(), layout.num_ranks),
            assumptions=(
                "Each size is one operation by itself, begun by all ranks at once when the one before has ended; "
                "starting it, copying and summing cost nothing, so that small sizes take less than measured.",
                "All-to-all sends between all pairs at once, over NVLink to the GPU of the destination's index first "
                "(NCCL's PXN); other operations of several ranks are pipelined rings, one for each rank of a node.",
            ),
            rows=table.rows,
            bus_factor=_KINDS[operation].bus_factor(num_ranks),
        )

    def work_size(self, setting: Setting) -> WorkSize:
        """Return how much the step holds, reading the file."""
        table, operation, num_ranks = self._read(setting)
        if operation == "send-receive":
            transfers = TransferCount(num_ranks, num_ranks)
        elif operation == "all-to-all":
            transfers = all_to_all_count(num_ranks)
        else:
            transfers = ring_count(num_ranks, setting.gpus_per_node)
        sizes = len(table.rows)
        held = transfers.times(sizes)
        tasks = sizes * num_ranks + sizes - 1
        return WorkSize(tasks, sizes, held, transfers, held.transfers, 0, "path", "keep fewer sizes")

    def _read(self, setting: Setting) -> tuple[NcclTable, Operation, int]:
        """Return the table, what it measured, and over how many ranks."""
        path = setting.folder / self.path
        try:
            table = read_nccl_table(path, self.measured)
        except ValueError as error:
            raise FieldError("path", str(error)) from error
        operation = self._operation(table)
        num_ranks = self.ranks or table.num_ranks
        if num_ranks is None:
            msg = "the file lists no ranks; write how many GPUs took part"
            raise FieldError("ranks", msg)
        if self.ranks and table.num_ranks and self.ranks != table.num_ranks:
            msg = f"the file lists {table.num_ranks} ranks, not {self.ranks}; leave this out"
            raise FieldError("ranks", msg)
        if not 2 <= num_ranks <= setting.num_ranks:
            msg = (
                f"{num_ranks} ranks took part; it must be at least 2, and the cluster has {setting.num_ranks}"
            )
            raise FieldError("ranks", msg)
        try:
            check_bus_factor(path, table, _KINDS[operation].bus_factor(num_ranks), num_ranks)
        except ValueError as error:
            raise FieldError("path", str(error)) from error
        return table, operation, num_ranks

    def _operation(self, table: NcclTable) -> Operation:
        said = _OPERATION_OF.get(table.program or "")
        if table.program and said is None:
            msg = f"{table.program} is not among those that can be played: {', '.join(_OPERATION_OF)}"
            raise FieldError("path", msg)
        if said is None and self.operation is None:
            msg = f"the file does not say which program printed it; write one of {', '.join(_KINDS)}"
            raise FieldError("operation", msg)
        if said and self.operation and said != self.operation:
            msg = f"the file is of {table.program}, which is {said}, not {self.operation}; leave this out"
            raise FieldError("operation", msg)
        operation = self.operation or said
        assert operation is not None, "one of the two is there"
        return operation


def _transfers(operation: Operation, ranks: IntArray, layout: Layout, size_bytes: float) -> Transfers:
    """Return the transfers of one operation over ranks, of a size as nccl-tests counts it."""
    if operation == "send-receive":
        return Transfers.point_to_point(ranks, np.roll(ranks, -1), np.full(len(ranks), size_bytes))
    if operation == "all-to-all":
        return all_to_all_transfers(ranks[np.newaxis], layout, size_bytes)
    return ring_transfers(ranks[np.newaxis], layout, size_bytes, _KINDS[operation].passes)


@dataclass(frozen=True, slots=True)
class NcclTests:
    """The sizes of a table, ready to run.

    rows: what was measured, one for each collective of the graph; bus_factor: busbw over algbw
    """

    graph: TaskGraph
    assumptions: tuple[str, ...]
    rows: tuple[Row, ...]
    bus_factor: float

    @property
    def before_balancing(self) -> tuple[Collective, ...]:
        """Return no collectives: nothing is balanced."""
        return ()

    def summarise(self, times: TaskTimes) -> Summary:
        """Return how far predicted times are from measured ones, and a row for each size.

        An error is predicted over measured time, less 1.
        """
        compared = [
            self._compared(row, seconds) for row, seconds in zip(self.rows, self._seconds(times), strict=True)
        ]
        errors = [row["time_error"] for row in compared]
        return Summary(
            breakdown_s={"collectives": times.step_time_s},
            metrics={
                "median_absolute_time_error": median(map(abs, errors)),
                "largest_absolute_time_error": max(map(abs, errors)),
                "predicted_peak_busbw_bytes_per_s": max(
                    row["predicted_busbw_bytes_per_s"] for row in compared
                ),
                "measured_peak_busbw_bytes_per_s": max(row["measured_busbw_bytes_per_s"] for row in compared),
            },
            tables={"nccl_tests": compared},
        )

    def _seconds(self, times: TaskTimes) -> list[float]:
        """Return what each collective took, from the first that began to the last that ended."""
        starts_s, ends_s = [np.inf] * len(self.rows), [0.0] * len(self.rows)
        for task, start_s, end_s in zip(
            self.graph.tasks, times.start_s.tolist(), times.end_s.tolist(), strict=True
        ):
            if task.collective is not None:
                starts_s[task.collective] = min(starts_s[task.collective], start_s)
                ends_s[task.collective] = max(ends_s[task.collective], end_s)
        return [end_s - start_s for start_s, end_s in zip(starts_s, ends_s, strict=True)]

    def _compared(self, row: Row, seconds: float) -> dict[str, Any]:
        algbw_bytes_per_s = row.size_bytes / seconds if seconds else 0.0
        return {
            "size_bytes": row.size_bytes,
            "predicted_s": seconds,
            "measured_s": row.seconds,
            "predicted_algbw_bytes_per_s": algbw_bytes_per_s,
            "measured_algbw_bytes_per_s": row.algbw_bytes_per_s,
            "predicted_busbw_bytes_per_s": algbw_bytes_per_s * self.bus_factor,
            "measured_busbw_bytes_per_s": row.busbw_bytes_per_s,
            "time_error": seconds / row.seconds - 1.0,
        }
