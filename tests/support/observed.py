"""A run with all that went into it: what `simulate` gave the engine, and what the engine recorded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from simulator import run as run_module
from simulator.engine import Recording, execute
from simulator.fault_clock import Faults
from simulator.network import Network
from simulator.pricing import Pricing
from simulator.result import Result
from simulator.scenario import LoadedScenario
from workloads.tasks import CommunicationKernel, TaskGraph


@dataclass(frozen=True)
class Observed:
    """A run of a scenario: its result, the arguments of `simulator.engine.execute`, and what that returned."""

    loaded: LoadedScenario
    result: Result
    graph: TaskGraph
    network: Network
    endpoint_of_rank: NDArray[np.int64]
    faults: Faults
    price: Callable[[CommunicationKernel], Pricing]
    recording: Recording

    @property
    def step_s(self) -> float:
        return self.recording.times.step_time_s

    @property
    def routes_known(self) -> bool:
        """Whether each transfer goes by the route that it has on a whole network without other traffic."""
        return not self.network.routes_by_load and not self.faults.changes()

    @property
    def leader_of_rank(self) -> NDArray[np.int64]:
        leaders = self.graph.leader_of_rank
        return np.arange(self.graph.num_ranks) if leaders is None else leaders

    def again(self, graph: TaskGraph | None = None, *, reuse: bool = True) -> Recording:
        """Return what happens if this graph, or another, runs on the same network under the same faults."""
        return execute(
            self.graph if graph is None else graph,
            self.network,
            self.endpoint_of_rank,
            reuse=reuse,
            faults=self.faults,
            price=self.price,
        )


def observe(loaded: LoadedScenario) -> Observed:
    """Run a scenario, and return what went into the engine and came out of it beside the result."""
    seen: list[dict[str, Any]] = []

    def recorded(
        graph: TaskGraph, network: Network, endpoint_of_rank: Any, *args: Any, **options: Any
    ) -> Recording:
        recording = execute(graph, network, endpoint_of_rank, *args, **options)
        seen.append(
            {
                "graph": graph,
                "network": network,
                "endpoint_of_rank": endpoint_of_rank,
                "faults": options["faults"],
                "price": options["price"],
                "recording": recording,
            }
        )
        return recording

    with patch.object(run_module, "execute", recorded):
        result = run_module.simulate(loaded)
    (only,) = seen
    return Observed(loaded=loaded, result=result, **only)
