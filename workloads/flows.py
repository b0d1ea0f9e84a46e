"""The workload `flows`: an explicit list of flows between GPUs, from a CSV or Parquet file."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from simulator.input_files import InputPath
from simulator.units import FieldError, Spec
from workloads.flow_file import FlowTable, count_flows, read_flow_file
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


class FlowsSpec(Spec):
    """Flows that a file lists, each starting at a time of its own."""

    needs_model: ClassVar[bool] = False

    kind: Literal["flows"] = Field(description="an explicit list of flows")
    path: InputPath = Field(
        description="CSV (.csv) or Parquet (.parquet, .pq) file, relative to the scenario's folder, with the columns "
        "source and destination (a rank number, or a GPU such as node3/gpu5), size_bytes (bytes) and, optionally, "
        "start_s (seconds, default 0); at most 1,000,000 rows (no default)",
    )

    def needed_ranks(self) -> int | None:
        """Return None: the file does not say how large the cluster is."""
        return None

    def check(self, setting: Setting) -> None:
        """Raise FieldError where the file is missing or malformed, or names a GPU that the cluster lacks."""
        self._read(setting, _rank_at(setting))

    def communication_kernels(self, setting: Setting) -> tuple[CommunicationKernel, ...]:  # noqa: ARG002
        """Return no kernels: transfers cost nothing beside their links' time."""
        return ()

    def compute_kernels(self, setting: Setting) -> tuple[ComputeKernel, ...]:  # noqa: ARG002
        """Return no kernels: nothing is computed."""
        return ()

    def build(self, setting: Setting, layout: Layout, rng: np.random.Generator) -> "Flows":  # noqa: ARG002
        """Return the step, reading the file again; nothing is drawn from `rng`."""
        flows = self._read(setting, layout.rank_at)
        transfers = Transfers.point_to_point(
            flows.source_rank, flows.destination_rank, flows.size_bytes, delay_s=flows.start_s
        )
        ranks = np.union1d(flows.source_rank, flows.destination_rank).tolist()
        return Flows(
            graph=run_in_turn((Collective("flows", transfers),), ranks, layout.num_ranks),
            assumptions=(
                "Each flow starts at its time in the list, whatever the others do, and costs nothing to start.",
            ),
        )

    def work_size(self, setting: Setting) -> WorkSize:
        """Return how much the step holds: transfers exactly, and as many tasks as ranks can be named."""
        try:
            num_flows = count_flows(setting.folder / self.path)
        except ValueError as error:
            raise FieldError("path", str(error)) from error
        transfers = TransferCount(num_flows, num_flows)
        tasks = min(2 * num_flows, setting.num_ranks)
        return WorkSize(tasks, 1, transfers, transfers, num_flows, 0, "path", "list fewer flows")

    def _read(self, setting: Setting, rank_at: IntArray) -> FlowTable:
        try:
            return read_flow_file(setting.folder / self.path, rank_at)
        except ValueError as error:
            raise FieldError("path", str(error)) from error


@dataclass(frozen=True, slots=True)
class Flows:
    """A list of flows, ready to run."""

    graph: TaskGraph
    assumptions: tuple[str, ...]

    @property
    def before_balancing(self) -> tuple[Collective, ...]:
        """Return no collectives: nothing is balanced."""
        return ()

    def summarise(self, times: TaskTimes) -> Summary:
        """Return the number of flows, their bytes, and these over the time until the last flow ends."""
        seconds = times.step_time_s
        size_bytes = self.graph.collectives[0].transfers.size_bytes
        total_bytes = float(size_bytes.sum())
        return Summary(
            breakdown_s={"flows": seconds},
            metrics={
                "flow_count": float(len(size_bytes)),
                "total_bytes": total_bytes,
                "mean_bytes_per_s": total_bytes / seconds if seconds else 0.0,
            },
        )


def _rank_at(setting: Setting) -> IntArray:
    """Return [num_nodes, gpus_per_node] the rank on each GPU: ranks fill the nodes in order."""
    num_nodes = -(-setting.num_ranks // setting.gpus_per_node)
    ranks = np.arange(num_nodes * setting.gpus_per_node)
    return np.where(ranks < setting.num_ranks, ranks, -1).reshape(num_nodes, -1)
