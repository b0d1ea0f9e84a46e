"""What is exported: a scenario's cluster, network and priced tasks, before anything runs."""

from dataclasses import dataclass
from typing import Self

from simulator.cables import LinkCosts
from simulator.layout import RankLayout
from simulator.network import Network
from simulator.run import build_workload, link_costs, once_each
from simulator.scenario import LoadedScenario
from topologies import build_cluster
from topologies.schema import ClusterGraph
from workloads.tasks import TaskGraph


@dataclass(frozen=True)
class Case:
    """A scenario with what it is made of.

    cluster: the graph of devices and cables; costs: by cable profile; network: compiled, a link for each cable
    graph: with the durations of its kernels
    """

    loaded: LoadedScenario
    cluster: ClusterGraph
    costs: dict[str, LinkCosts]
    network: Network
    layout: RankLayout
    graph: TaskGraph

    @classmethod
    def of(cls, loaded: LoadedScenario) -> Self:
        """Return the case of a scenario."""
        scenario = loaded.scenario
        cluster = build_cluster(loaded.node, loaded.num_nodes, scenario.cluster.topology)
        costs = link_costs(loaded.costs, scenario.cluster.link_profiles)
        network = Network(cluster, costs, scenario.cluster.routing, scenario.seed, bundle=False)
        layout = RankLayout.in_order(loaded.num_nodes, loaded.node.gpus)
        times = loaded.costs.kernel_times(loaded.node.gpu)
        cost_of = once_each(lambda kernel: times.cost(*kernel))
        graph = build_workload(loaded, layout).graph.priced(lambda kernel: cost_of(kernel).seconds)
        return cls(loaded, cluster, costs, network, layout, graph)
