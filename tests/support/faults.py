"""A small network of planes, and faults that strike it while it carries traffic."""

from pydantic import TypeAdapter

from simulator.engine import execute
from simulator.faults import Fault, on_the_clock
from workloads.tasks import Collective, Stream, Task, TaskGraph

FAULTS = TypeAdapter(tuple[Fault, ...])


def parse(*lines: dict):
    return FAULTS.validate_python(lines, strict=False)


def start(compiled, layout, transfers, *lines: dict, wait_s: float = 0.0):
    """Run transfers as one collective, after all ranks have waited, while things go wrong."""
    ranks = range(layout.num_ranks)
    kernels = tuple(Task("wait", rank, Stream.COMMUNICATION, duration_s=wait_s) for rank in ranks)
    sends = tuple(Task("send", rank, Stream.COMMUNICATION, collective=0) for rank in ranks)
    graph = TaskGraph(layout.num_ranks, kernels + sends, (Collective("send", transfers),))
    faults = on_the_clock(
        parse(*lines), compiled.cables, layout.num_ranks // int(layout.node_of_rank[-1] + 1)
    )
    return execute(graph, compiled, layout.endpoint_of_rank, faults=faults)


def end_s(*arguments, **named) -> float:
    return start(*arguments, **named).times.step_time_s


UPLINK = {"kind": "link", "between": ["plane0/leaf0", "plane0/spine1"]}
