"""How fast the event loop is, and SimPy's own ceiling: a bare loop of timeouts, which no SimPy program can pass."""

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import simpy
from timing import timed

from simulator.cables import LinkCosts
from simulator.engine import execute
from simulator.layout import RankLayout
from simulator.network import Network
from topologies import NODES, MultiPlaneFatTree, build_cluster
from workloads.tasks import Collective, Stream, Task, TaskGraph, Transfers

_NODES: Final = 4
_TASKS_PER_STREAM: Final = 200
# Of the order of a kernel; random, so that no two tasks end together.
_MEAN_TASK_S: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Rate:
    """How many things (timeouts, tasks, flows) end in a second of wall-clock time, and how often rates are solved."""

    what: str
    ends_per_s: float
    solves_per_s: float | None = None


def simpy_ceiling() -> Rate:
    """Return the rate of timeouts when processes, as many as the engine has streams, do nothing but wait for them."""
    durations_s = _durations_s()

    def wait(environment: simpy.Environment, waits_s: list[float]) -> Generator[simpy.Event, None, None]:
        for wait_s in waits_s:
            yield environment.timeout(wait_s)

    def loop() -> None:
        environment = simpy.Environment()
        for row in durations_s.tolist():
            environment.process(wait(environment, row))
        environment.run()

    return Rate("SimPy alone: timeouts in a bare loop", durations_s.size / timed(loop).best_s)


def event_loop_rates() -> list[Rate]:
    """Return the engine's rates: streams of kernels alone, and kernels with a small transfer after each.

    A kernel is two events of SimPy's, its timeout and the one that its dependents wait for; a bare timeout is one.
    """
    layout = RankLayout.in_order(_NODES, NODES["h800"].gpus)
    spec = MultiPlaneFatTree(kind="multi-plane-fat-tree")
    costs = {name: LinkCosts(1.0, 0.0, 0.0) for name in ("nvlink", "pcie", "infiniband")}
    network = Network(build_cluster(NODES["h800"], _NODES, spec), costs)
    rates = []
    for what, graph in (
        ("event loop: tasks, all kernels", _kernels()),
        ("event loop: tasks, kernels and sends in turn", _kernels_and_sends()),
    ):
        execute(graph, network, layout.endpoint_of_rank)  # untimed: compiles the solver
        timing = timed(partial(execute, graph, network, layout.endpoint_of_rank))
        rates.append(Rate(what, len(graph.tasks) / timing.best_s, timing.value.solves / timing.best_s))
    return rates


def _durations_s() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return how long the tasks of each stream take: [num_streams, _TASKS_PER_STREAM] seconds, two streams a rank."""
    num_streams = 2 * _NODES * NODES["h800"].gpus
    return np.random.default_rng(1).exponential(_MEAN_TASK_S, (num_streams, _TASKS_PER_STREAM))


def _kernels() -> TaskGraph:
    """Return two streams a rank that run kernels one after the other."""
    durations_s = _durations_s()
    tasks = [
        Task("kernel", row // 2, stream, duration_s=duration_s)
        for row, stream in enumerate(len(durations_s) // 2 * (Stream.COMPUTE, Stream.COMMUNICATION))
        for duration_s in durations_s[row].tolist()
    ]
    return TaskGraph(len(durations_s) // 2, tuple(tasks), ())


def _kernels_and_sends() -> TaskGraph:
    """Return a stream a rank that alternates kernels and collectives in which every rank sends to the next."""
    durations_s = _durations_s()[::2, : _TASKS_PER_STREAM // 4]
    num_ranks, rounds = durations_s.shape
    ranks = np.arange(num_ranks)
    ring = Transfers.point_to_point(ranks, np.roll(ranks, -1), np.full(num_ranks, 2.0**16))
    tasks = []
    for rank in ranks.tolist():
        for turn in range(rounds):
            tasks += [
                Task("kernel", rank, Stream.COMPUTE, duration_s=float(durations_s[rank, turn])),
                Task("send", rank, Stream.COMPUTE, collective=turn),
            ]
    return TaskGraph(num_ranks, tuple(tasks), tuple(Collective("send", ring) for _ in range(rounds)))
