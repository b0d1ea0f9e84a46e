"""A forward pass of inference, ready to run, and what it says of its run."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from workloads.inference.graph import OVERHEAD
from workloads.inference.plan import InferencePlan
from workloads.tasks import Collective, Stream, Summary, TaskGraph, TaskTimes

# Parts of the breakdown, and the tasks that they are the time of.
_PARTS: Final = {
    "attention": ("attention",),
    "experts": ("experts", "shared experts"),
    "dense": ("dense",),
    "ends": ("ends",),
    "framework_overhead": (OVERHEAD,),
}
_EXPOSED: Final = "exposed_communication"


@dataclass(frozen=True, slots=True)
class InferenceStep:
    """A pass, ready to run."""

    graph: TaskGraph
    plan: InferencePlan
    assumptions: tuple[str, ...]

    @property
    def before_balancing(self) -> tuple[Collective, ...]:
        """Return no collectives: what there would be without balancing is not simulated."""
        return ()

    def summarise(self, times: TaskTimes) -> Summary:
        """Return the breakdown of a pass, means over groups or, at their own pace, over ranks, and its throughput.

        The seconds of each kind of kernel; exposed_communication: those in which a GPU has no kernel to run; of the
        limit, which computes nothing, all are.
        """
        breakdown_s = self._breakdown(times)
        return Summary(
            breakdown_s, self.plan.metrics(times.step_time_s) | self._exchange_metrics(times), self._tables()
        )

    def _breakdown(self, times: TaskTimes) -> dict[str, float]:
        part_of = {name: part for part, names in _PARTS.items() for name in names}
        leaders = {task.rank for task in self.graph.tasks if task.stream is Stream.COMPUTE}
        seconds = dict.fromkeys(_PARTS, 0.0)
        took_s = (times.end_s - times.start_s).tolist()
        for task, task_s in zip(self.graph.tasks, took_s, strict=True):
            if task.stream is Stream.COMPUTE:
                seconds[part_of[task.name]] += task_s / len(leaders)
        # where kernels run all the time, what is left is a rounding error
        return {**seconds, _EXPOSED: max(0.0, times.step_time_s - sum(seconds.values()))}

    def _exchange_metrics(self, times: TaskTimes) -> dict[str, float]:
        """Return how long a dispatch and a combine take, means of all: from the first that joins to the end."""
        found = {}
        for name in ("dispatch", "combine"):
            took_s = [
                times.end_s[index] - times.start_s[index]
                for index, task in enumerate(self.graph.tasks)
                if task.name == name
            ]
            if took_s:
                found[f"{name}_s"] = float(np.mean(took_s))
        return found

    def _tables(self) -> dict[str, list[dict[str, Any]]]:
        return {"memory": self.plan.memory.rows()} if self.plan.memory is not None else {}
