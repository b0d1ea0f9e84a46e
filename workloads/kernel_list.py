"""The workload `kernels`: kernel calls on one GPU, one after the other, to see what a cost table says of them."""

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from simulator.units import FieldError, Spec
from workloads.kernel_calls import AnyKernelCall
from workloads.size import TransferCount, WorkSize
from workloads.tasks import (
    Collective,
    CommunicationKernel,
    ComputeKernel,
    Layout,
    Setting,
    Stream,
    Summary,
    Task,
    TaskGraph,
    TaskTimes,
)

MOST_CALLS: Final = 10_000


class KernelsSpec(Spec):
    """Kernel calls on one GPU, in turn."""

    needs_model: ClassVar[bool] = False

    kind: Literal["kernels"] = Field(description="kernel calls on one GPU, one after the other")
    calls: tuple[AnyKernelCall, ...] = Field(
        json_schema_extra={"minItems": 1},  # checked below: pydantic counts only the calls that are right
        max_length=MOST_CALLS,
        strict=False,  # a list is how YAML writes a tuple
        description="the calls in their order, each by its `kind` and its sizes (no default)",
    )
    communication_sms: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="streaming multiprocessors that communication kernels hold beside them all the while: 20 in "
        "DeepSeek-V3's training, 24 in prefill, 0 for none (default 0)",
    )

    def needed_ranks(self) -> int | None:
        """Return 1: all calls run on one GPU."""
        return 1

    def check(self, setting: Setting) -> None:  # noqa: ARG002
        """Raise FieldError if there are no calls."""
        if not self.calls:
            raise FieldError("calls", "there are no kernel calls; write at least one")

    def communication_kernels(self, setting: Setting) -> tuple[CommunicationKernel, ...]:  # noqa: ARG002
        """Return no kernels: nothing is sent."""
        return ()

    def compute_kernels(self, setting: Setting) -> tuple[ComputeKernel, ...]:  # noqa: ARG002
        """Return the calls."""
        return tuple(ComputeKernel(call, self.communication_sms) for call in self.calls)

    def work_size(self, setting: Setting) -> WorkSize:  # noqa: ARG002
        """Return how much the step holds: a task for each call."""
        return WorkSize(
            len(self.calls), 0, TransferCount(), TransferCount(), 0, 0, "calls", "list fewer calls"
        )

    def build(self, setting: Setting, layout: Layout, rng: np.random.Generator) -> "Kernels":  # noqa: ARG002
        """Return the step; nothing is drawn from `rng`."""
        kernels = self.compute_kernels(setting)
        tasks = tuple(Task(kernel.call.label, 0, Stream.COMPUTE, kernel=kernel) for kernel in kernels)
        return Kernels(TaskGraph(layout.num_ranks, tasks, ()))


@dataclass(frozen=True, slots=True)
class Kernels:
    """Kernel calls, ready to run."""

    graph: TaskGraph

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Return how calls follow one another."""
        return (
            "Each kernel starts when the one before it has ended; its inputs come from the GPU's memory.",
        )

    @property
    def before_balancing(self) -> tuple[Collective, ...]:
        """Return no collectives: nothing is balanced."""
        return ()

    def summarise(self, times: TaskTimes) -> Summary:
        """Return the seconds of each kind of kernel, and the FLOPs and bytes of all over their time."""
        breakdown_s: dict[str, float] = {}
        calls = [task.kernel.call for task in self.graph.tasks if task.kernel is not None]
        ended_s = 0.0
        for call, end_s in zip(calls, times.end_s.tolist(), strict=True):
            name = call.cost_names[0]
            breakdown_s[name] = breakdown_s.get(name, 0.0) + max(0.0, end_s - ended_s)
            ended_s = max(ended_s, end_s)
        seconds = times.step_time_s
        totals = {
            "kernel_flops_per_s": sum(call.flops for call in calls),
            "kernel_bytes_per_s": sum(call.moved_bytes for call in calls),
        }
        return Summary(
            breakdown_s, {name: total / seconds if seconds else 0.0 for name, total in totals.items()}
        )
