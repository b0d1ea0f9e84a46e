"""What a network is, in numbers: counts, cost, diameter, bisection. Nothing is built but to read a graph file."""

from dataclasses import dataclass
from typing import Any

from simulator.crossings import num_edges
from simulator.extent import Figure, extent, half_bytes_per_s
from simulator.scenario import LoadedNetwork, blaming, too_large
from simulator.size import estimate_graph
from simulator.units import FieldError
from topologies import ClusterGraph, CustomNetwork, NetworkCounts, build_cluster
from topologies.cost import FITTED_PORTS, Prices, cost_usd
from topologies.graph_file import MAX_EDGES


@dataclass(frozen=True, slots=True)
class Survey:
    """The figures of a network.

    num_nodes: of the cluster; full_bytes_per_s: what the NICs of half of the nodes send; is_constructible: whether
    there is such a network; refusal: why it cannot be built here, empty if it can: there is none, or it is too large;
    switch_ports: of its switches, None where they differ
    """

    name: str
    family: str
    num_nodes: int
    counts: NetworkCounts
    prices: Prices
    diameter: Figure
    bisection: Figure
    full_bytes_per_s: float
    switch_ports: int | None
    is_constructible: bool
    refusal: str

    @property
    def cost_usd(self) -> float:
        """Return the cost of switches and cables in US dollars."""
        return cost_usd(self.counts, self.prices)

    @property
    def assumptions(self) -> list[str]:
        """Return what the figures take for granted, a sentence each."""
        lines = [
            "The cost is that of switches, cables and their transceivers: no NICs, no power, no labour.",
            f"The diameter is {_ARTICLE[self.diameter.how]}: {self.diameter.rule}.",
            f"The bisection is {_ARTICLE[self.bisection.how]}: {self.bisection.rule}.",
        ]
        if self.switch_ports not in {None, FITTED_PORTS}:
            lines.append(
                f"A switch of {self.switch_ports} ports has the price of the table; prices are fitted to switches of "
                f"{FITTED_PORTS}."
            )
        if not self.is_constructible:
            lines.append(f"There is no such network, its figures are those of formulas: {self.refusal}.")
        elif self.refusal:
            lines.append(f"This network is too large to simulate: {self.refusal}.")
        return lines

    def figures(self) -> dict[str, Any]:
        """Return what `--json` prints: one flat object."""
        counts, cost = self.counts, self.cost_usd
        return {
            "name": self.name,
            "family": self.family,
            "constructible": self.is_constructible,
            "nodes": self.num_nodes,
            "endpoints": counts.endpoints,
            "switches": counts.switches,
            "links": counts.links,
            "endpoint_links": counts.endpoint_links,
            "cost_usd": cost,
            "cost_per_endpoint_usd": cost / counts.endpoints if counts.endpoints else 0.0,
            "switch_usd": self.prices.switch,
            "link_usd": self.prices.link,
            "endpoint_link_usd": self.prices.endpoint_link,
            **{f"{name}_usd_source": source for name, source in self.prices.sources.items()},
            "diameter_hops": self.diameter.value,
            "diameter_is": self.diameter.how,
            "bisection_bytes_per_s": self.bisection.value,
            "bisection_is": self.bisection.how,
            "bisection_fraction": self.bisection.value / self.full_bytes_per_s
            if self.full_bytes_per_s
            else 0.0,
            "assumptions": self.assumptions,
        }


_ARTICLE = {
    "exact": "exact",
    "lower bound": "a lower bound",
    "upper bound": "an upper bound",
    "estimate": "an estimate",
}


def survey(network: LoadedNetwork) -> Survey:
    """Return the figures of a network; InputError if its nodes do not fit."""
    cluster, num_nodes = network.cluster, network.num_nodes
    node, topology = cluster.node_spec, cluster.topology
    with blaming(network.document, "cluster"):
        counts = topology.counts(node, num_nodes)
        diameter, bisection = extent(topology, node, num_nodes)
        cluster.check_routing()
    try:
        topology.check(node, num_nodes)
    except FieldError as error:
        # Its nodes fit, or there would be no counts: at fault is the size of the field, or that of the memory.
        refusal, is_constructible = str(error), error.field == "nodes"
    else:
        refusal, is_constructible = "", True
    return Survey(
        name=network.name,
        family=topology.family if isinstance(topology, CustomNetwork) else topology.kind,
        num_nodes=num_nodes,
        counts=counts,
        prices=cluster.prices,
        diameter=diameter,
        bisection=bisection,
        full_bytes_per_s=half_bytes_per_s(node, num_nodes) if counts.endpoints else 0.0,
        switch_ports=getattr(topology, "switch_ports", None),
        is_constructible=is_constructible,
        refusal=refusal,
    )


def graph_to_write(network: LoadedNetwork, counts: NetworkCounts, *, any_size: bool = False) -> ClusterGraph:
    """Return the cluster's graph, if a file can hold it; InputError if it cannot be built or has too many cables.

    any_size: whether it may take more memory than this process may have, by the estimate
    """
    cluster = network.cluster
    edges = num_edges(cluster.node_spec, network.num_nodes, counts)
    with blaming(network.document, "cluster"):
        if edges > MAX_EDGES:
            msg = (
                f"the graph would have {edges:,} edges (both directions of each cable), and a graph file holds at "
                f"most {MAX_EDGES:,}; leave out --graphml, or ask for fewer nodes"
            )
            raise FieldError("nodes", msg)
        size = estimate_graph(cluster.topology, cluster.node_spec, network.num_nodes)
        if error := too_large(size, network.document, any_size=any_size):
            raise error
        return build_cluster(cluster.node_spec, network.num_nodes, cluster.topology)
